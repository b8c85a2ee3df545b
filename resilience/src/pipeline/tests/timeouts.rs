//! What takes too long, and who hears of it.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::task::noop_waker_ref;
use tokio::sync::mpsc;
use tokio::time::{self, Instant};

use super::*;
use crate::clock::SystemClock;
use crate::testkit::ManualClock;

#[tokio::test(start_paused = true)]
async fn a_timeout_of_its_own_is_a_failure_of_the_dependency() {
    let pipeline = pipeline().breaker(breaker().build()).timeout(ms(500)).build();
    let started = Instant::now();
    let error = take(&pipeline, Call::idempotent(), ms(501)).await.expect_err("too long");
    assert_eq!(started.elapsed(), ms(500));
    let expected = ErrorKind::TimedOut::<Failure> { limit: ms(500), inherited: false };
    assert_eq!(format!("{:?}", error.kind()), format!("{expected:?}"));
    assert!(error.may_have_had_effect());
    assert_eq!(error.to_string(), "no answer within 500 ms");

    let rejection = pipeline.breaker().expect("it has one").acquire().expect_err("open");
    assert_eq!(rejection.reason(), Some("no answer within 500 ms"));
    assert_eq!((pipeline.snapshot().timed_out, pipeline.snapshot().inherited_timeouts), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_under_an_inherited_shorter_deadline_is_not() {
    let pipeline = pipeline().breaker(breaker().build()).timeout(ms(500)).build();
    let call = Call::idempotent().deadline(Deadline::after(ms(499)));
    let error = take(&pipeline, call, ms(501)).await.expect_err("too long");
    let expected = ErrorKind::TimedOut::<Failure> { limit: ms(499), inherited: true };
    assert_eq!(format!("{:?}", error.kind()), format!("{expected:?}"));
    assert!(error.may_have_had_effect());
    let breaker = pipeline.breaker().expect("it has one").snapshot();
    assert_eq!((breaker.state, breaker.ignored, breaker.failures), (State::Closed, 1, 0));
    assert_eq!((pipeline.snapshot().timed_out, pipeline.snapshot().inherited_timeouts), (0, 1));

    // One that leaves the call all its time is none.
    let call = Call::idempotent().deadline(Deadline::after(ms(500)));
    assert!(take(&pipeline, call, ms(501)).await.is_err());
    assert_eq!(pipeline.breaker().expect("it has one").state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_call_can_have_a_timeout_of_its_own() {
    let pipeline = pipeline().breaker(breaker().build()).timeout(ms(500)).build();
    assert!(take(&pipeline, Call::idempotent().timeout(ms(800)), ms(700)).await.is_ok());
    let error = take(&pipeline, Call::idempotent().timeout(ms(20)), ms(700)).await;
    assert!(matches!(
        error.expect_err("too long").kind(),
        ErrorKind::TimedOut { inherited: false, .. }
    ));
    assert_eq!(pipeline.breaker().expect("it has one").state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn the_longest_time_is_a_deadline_for_calls_that_have_none_or_a_later_one() {
    let pipeline = pipeline().longest(ms(100)).build();
    let started = Instant::now();
    let late = Deadline::after(ms(5000));
    for call in [Call::idempotent(), Call::idempotent().deadline(late)] {
        let error = take(&pipeline, call, ms(101)).await.expect_err("too long");
        // It was given all the time that there ever is: its own fault.
        assert!(matches!(error.kind(), ErrorKind::TimedOut { inherited: false, .. }));
    }
    assert_eq!(started.elapsed(), ms(200));
    let early = Call::idempotent().deadline(Deadline::after(ms(30)));
    let error = take(&pipeline, early, ms(101)).await.expect_err("too long");
    assert!(matches!(error.kind(), ErrorKind::TimedOut { inherited: true, .. }));
    assert_eq!(started.elapsed(), ms(230));
}

#[tokio::test(start_paused = true)]
async fn calls_cut_by_an_outer_timeout_are_recorded() {
    let clock = SystemClock;
    let breaker = Breaker::builder("billing").consecutive_failures(50).slow_call(ms(100));
    let pipeline = pipeline().breaker(breaker.clock(clock).build()).build();
    for _ in 0..50 {
        assert_eq!(pipeline.breaker().expect("it has one").state(), State::Closed);
        let call = take(&pipeline, Call::idempotent(), Duration::from_hours(1));
        assert!(time::timeout(ms(101), call).await.is_err());
    }
    let breaker = pipeline.breaker().expect("it has one").snapshot();
    assert_eq!((breaker.abandoned, breaker.in_flight, breaker.successes), (50, 0, 0));
    assert_eq!(breaker.state, State::Open, "somebody waited, and gave up: fifty times");
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_timeout_the_slow_threshold_judges_what_a_deadline_cuts() {
    let pipeline = pipeline().breaker(breaker().slow_call(ms(100)).build()).build();
    for (time, state) in [(ms(100), State::Closed), (ms(101), State::Open)] {
        let call = Call::idempotent().deadline(Deadline::after(time));
        let error = take(&pipeline, call, Duration::from_hours(1)).await.expect_err("too long");
        assert!(matches!(error.kind(), ErrorKind::TimedOut { inherited: true, .. }));
        assert_eq!(pipeline.breaker().expect("it has one").state(), state, "{time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_the_queue_does_not_excuse_who_takes_all_the_rest_of_the_longest_time() {
    let bulkhead = Bulkhead::builder("billing", 1).queue(1, ms(50)).build();
    let pipeline = pipeline().longest(ms(200)).bulkhead(bulkhead.clone());
    let pipeline = pipeline.breaker(breaker().slow_call(ms(100)).build()).build();
    let place = bulkhead.try_acquire().expect("a place");
    let leaves = async {
        time::sleep(ms(50)).await;
        drop(place);
    };
    let call = take(&pipeline, Call::idempotent(), Duration::from_hours(1));
    let (ended, ()) = tokio::join!(call, leaves);
    assert!(matches!(ended.expect_err("too long").kind(), ErrorKind::TimedOut { .. }));
    assert_eq!(pipeline.breaker().expect("it has one").state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn what_is_ready_when_the_time_is_up_counts() {
    let pipeline = pipeline().timeout(ms(500)).build();
    assert!(take(&pipeline, Call::idempotent(), ms(500)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_has_timed_out_is_gone_before_anything_else_happens() {
    struct Connection<'a>(&'a AtomicUsize);

    impl Drop for Connection<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    let (open, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let pipeline = pipeline().retry(retry()).timeout(ms(50)).build();
    let op = |_| {
        most.fetch_max(open.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let connection = Connection(&open);
        async move {
            std::future::pending::<()>().await;
            drop(connection);
            Ok::<_, Failure>(())
        }
    };
    let error = pipeline.call(Call::idempotent(), op).await.expect_err("too long");
    assert_eq!((error.attempts(), most.into_inner(), open.into_inner()), (3, 1, 0));
}

/// Counts the timers that are made.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Clock for Counting {
    fn now(&self) -> std::time::Instant {
        SystemClock.now()
    }

    fn wall(&self) -> SystemTime {
        SystemClock.wall()
    }

    fn sleep_until(&self, moment: std::time::Instant) -> BoxFuture<'static, ()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        SystemClock.sleep_until(moment)
    }
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_ready_at_once_makes_no_timer() {
    let clock = Arc::new(Counting::default());
    let pipeline = pipeline()
        .bulkhead(Bulkhead::builder("billing", 1).queue(1, ms(50)).build())
        .retry(retry())
        .breaker(breaker().build())
        .timeout(ms(500))
        .clock(clock.clone())
        .build();
    let call = Call::idempotent().deadline(Deadline::after(ms(900)));
    assert!(pipeline.call(call, |_| async { Ok::<_, Failure>(()) }).await.is_ok());
    assert_eq!(clock.0.load(Ordering::Relaxed), 0);
    assert!(take(&pipeline, call, ms(10)).await.is_ok());
    assert_eq!(clock.0.load(Ordering::Relaxed), 1);
}

#[test]
fn it_goes_by_the_clock_that_it_is_given() {
    let clock = ManualClock::new();
    let pipeline = pipeline().timeout(ms(500)).clock(clock.clone()).build();
    let deadline = Deadline::after_on(&clock, ms(300));
    let op = |_| std::future::pending::<Result<(), Failure>>();
    let mut own = Box::pin(pipeline.call(Call::idempotent(), op));
    let mut inherited = Box::pin(pipeline.call(Call::idempotent().deadline(deadline), op));
    let mut cx = Context::from_waker(noop_waker_ref());
    for (step, expected) in [(0, (false, false)), (299, (false, false)), (1, (false, true))] {
        clock.advance(ms(step));
        let ended = (own.poll_unpin(&mut cx).is_ready(), inherited.poll_unpin(&mut cx).is_ready());
        assert_eq!(ended, expected);
    }
    clock.advance(ms(200));
    assert!(matches!(own.poll_unpin(&mut cx), Poll::Ready(Err(_))));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_fires_beside_work_that_uses_up_the_budget_of_tokio() {
    let pipeline = pipeline().timeout(ms(50)).build();
    // Never idle: receives what it sends, until Tokio makes it yield, and again.
    let busy = |_| {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        poll_fn(move |cx| {
            loop {
                sender.send(()).expect("it is open");
                if receiver.poll_recv(cx).is_pending() {
                    return Poll::<Result<(), Failure>>::Pending;
                }
            }
        })
    };
    let passing = tokio::spawn(async {
        loop {
            time::advance(ms(1)).await;
        }
    });
    let call = pipeline.call(Call::idempotent(), busy);
    let ended = time::timeout(ms(1000), call).await.expect("its own timeout is earlier");
    assert!(matches!(ended.expect_err("too long").kind(), ErrorKind::TimedOut { .. }));
    passing.abort();
}
