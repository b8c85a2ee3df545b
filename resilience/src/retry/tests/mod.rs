//! The loop, under paused time: waits pass at once, and are measured.

mod budget;

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::task::noop_waker_ref;
use tokio::time;

use super::*;
use crate::random::Random;
use crate::testkit::ManualClock;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An error that advises what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failure(Advice);

impl Retryable for Failure {
    fn advice(&self) -> Advice {
        self.0
    }
}

const UNKNOWN: Failure = Failure(Advice::retry());
const NOT_SENT: Failure = Failure(Advice::retry().without_effect());
const NO: Failure = Failure(Advice::never());

/// A lot of attempts, time and budget, and waits of at most 100 ms.
fn retry() -> Retry {
    let backoff = Backoff::new().multiplier(1.0).random(Random::seeded(1));
    Retry::new(RetryBudget::unlimited("billing"))
        .attempts(100)
        .longest(Duration::from_hours(1))
        .backoff(backoff)
}

/// A dependency that ends each call as it is told, and notes when it was called.
#[derive(Default)]
struct Dependency {
    calls: RefCell<Vec<time::Instant>>,
}

impl Dependency {
    fn count(&self) -> usize {
        self.calls.borrow().len()
    }

    /// The waits between the calls.
    fn waits(&self) -> Vec<Duration> {
        self.calls.borrow().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// Fails like this for so many times, and succeeds from then on.
    async fn run(
        &self,
        retry: &Retry,
        call: Call,
        failure: Failure,
        times: u32,
    ) -> Result<u32, Failure> {
        let op = |attempt: Attempt| {
            // In the synchronous part, so that the waits are seen to come before it.
            self.calls.borrow_mut().push(time::Instant::now());
            async move { if attempt.number <= times { Err(failure) } else { Ok(attempt.number) } }
        };
        retry.run(call, op).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_made_again_until_it_succeeds() {
    let dependency = Dependency::default();
    let result = dependency.run(&retry(), Call::idempotent(), UNKNOWN, 4).await;
    assert_eq!(result, Ok(5));
    assert_eq!(dependency.count(), 5);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded() {
    for (attempts, expected) in [(0, 1), (1, 1), (2, 2), (7, 7)] {
        let dependency = Dependency::default();
        let retry = retry().attempts(attempts);
        let result = dependency.run(&retry, Call::idempotent(), UNKNOWN, 1000).await;
        assert_eq!((result, dependency.count()), (Err(UNKNOWN), expected));
    }
}

#[tokio::test(start_paused = true)]
async fn elapsed_time_is_bounded_and_not_waited_for() {
    let (dependency, started) = (Dependency::default(), time::Instant::now());
    let result = dependency.run(&retry().longest(ms(500)), Call::idempotent(), UNKNOWN, 1000).await;
    assert_eq!(result, Err(UNKNOWN));
    assert!((3..50).contains(&dependency.count()), "{}", dependency.count());
    let last = *dependency.calls.borrow().last().expect("calls");
    assert!(last - started <= ms(500));
    assert_eq!(time::Instant::now(), last, "gives up at once");
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_counts_towards_the_elapsed_time() {
    let dependency = Dependency::default();
    let failure = Failure(Advice::retry().after(ms(900)));
    let retry = retry().longest(ms(2600));
    assert!(dependency.run(&retry, Call::idempotent(), failure, 1000).await.is_err());
    assert_eq!(dependency.count(), 3, "at 0, 0.9 and 1.8 s, and a bit");
}

#[tokio::test(start_paused = true)]
async fn the_wait_comes_before_the_operation_is_even_called() {
    let dependency = Dependency::default();
    let failure = Failure(Advice::retry().after(ms(900)));
    assert!(dependency.run(&retry(), Call::idempotent(), failure, 3).await.is_ok());
    assert!(dependency.waits().iter().all(|wait| *wait >= ms(900)), "{:?}", dependency.waits());
}

#[tokio::test(start_paused = true)]
async fn waits_are_those_of_the_backoff() {
    let backoff = Backoff::new().initial(ms(64)).multiplier(2.0);
    let dependency = Dependency::default();
    let expected = backoff.clone().random(Random::seeded(9)).delays().take(6);
    let retry = retry().backoff(backoff.random(Random::seeded(9)));
    assert!(dependency.run(&retry, Call::idempotent(), UNKNOWN, 6).await.is_ok());
    for (wait, expected) in dependency.waits().into_iter().zip(expected) {
        // A timer's resolution is a millisecond.
        assert!(wait >= expected && wait <= expected + ms(2), "{wait:?} for {expected:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_asks_for_a_pause_gets_it_in_full_up_to_a_cap() {
    let retry = retry().longest_retry_after(ms(3000));
    let dependency = Dependency::default();
    let asks = Failure(Advice::retry().after(ms(3000)));
    assert_eq!(dependency.run(&retry, Call::idempotent(), asks, 5).await, Ok(6));
    for wait in dependency.waits() {
        assert!(wait >= ms(3000) && wait <= ms(3102), "with some jitter: {wait:?}");
    }

    let (dependency, started) = (Dependency::default(), time::Instant::now());
    let asks = Failure(Advice::retry().after(ms(3001)));
    assert_eq!(dependency.run(&retry, Call::idempotent(), asks, 5).await, Err(asks));
    assert_eq!(dependency.count(), 1, "coming earlier than asked would be no use");
    assert_eq!(time::Instant::now(), started);
}

#[tokio::test(start_paused = true)]
async fn an_endless_pause_is_never_made_and_does_not_overflow() {
    let retry = retry().longest(Duration::MAX).longest_retry_after(Duration::MAX);
    for pause in [Duration::MAX, Duration::from_secs(u64::MAX / 2)] {
        let (dependency, asks) = (Dependency::default(), Failure(Advice::retry().after(pause)));
        assert_eq!(dependency.run(&retry, Call::idempotent(), asks, 9).await, Err(asks));
        assert_eq!(dependency.count(), 1);
    }
    assert_eq!(Dependency::default().run(&retry, Call::idempotent(), UNKNOWN, 2).await, Ok(3));
}

#[tokio::test(start_paused = true)]
async fn it_never_sleeps_past_the_deadline() {
    let dependency = Dependency::default();
    let started = time::Instant::now();
    let deadline = Deadline::after(ms(2500));
    let failure = Failure(Advice::retry().after(ms(1000)));
    let call = Call::idempotent().deadline(deadline);
    let result = dependency.run(&retry(), call, failure, 1000).await;
    assert_eq!(result, Err(failure), "the real error, not one of the deadline");
    assert_eq!(dependency.count(), 3);
    assert!(time::Instant::now() - started < ms(2300), "gives up at once");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_idempotent_is_repeated_only_without_effect() {
    for (call, failure, expected) in [
        (Call::idempotent(), UNKNOWN, 3),
        (Call::idempotent(), NOT_SENT, 3),
        (Call::not_idempotent(), UNKNOWN, 1),
        (Call::not_idempotent(), NOT_SENT, 3),
    ] {
        let dependency = Dependency::default();
        let result = dependency.run(&retry().attempts(3), call, failure, 1000).await;
        assert_eq!((result, dependency.count()), (Err(failure), expected), "{call:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_is_repeated_only_where_it_says_so() {
    /// As `?` makes one from another.
    struct Converted(
        #[expect(dead_code, reason = "as errors have sources")] std::num::ParseIntError,
    );

    impl From<std::num::ParseIntError> for Converted {
        fn from(error: std::num::ParseIntError) -> Self {
            Self(error)
        }
    }

    impl Retryable for Converted {
        fn advice(&self) -> Advice {
            Advice::never()
        }
    }

    let calls = Cell::new(0);
    let parse = |_| async {
        calls.set(calls.get() + 1);
        Ok::<i32, Converted>("x".parse::<i32>()?)
    };
    assert!(retry().run(Call::idempotent(), parse).await.is_err());
    assert_eq!(calls.get(), 1);

    let dependency = Dependency::default();
    assert_eq!(dependency.run(&retry(), Call::idempotent(), NO, 9).await, Err(NO));
    assert_eq!(dependency.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_names_a_system_further_down_is_never_repeated() {
    let dependency = Dependency::default();
    let downstream = Failure(Advice::downstream().after(ms(1)).without_effect());
    let result = dependency.run(&retry(), Call::idempotent(), downstream, 9).await;
    assert_eq!((result, dependency.count()), (Err(downstream), 1));
}

#[tokio::test(start_paused = true)]
async fn retries_are_paid_for_by_successes_of_all_who_share_the_budget() {
    let budget = RetryBudget::builder("billing").ratio(0.5).floor(0.0).build();
    let (one, other) = (Retry { budget: budget.clone(), ..retry() }, Retry { budget, ..retry() });
    let dependency = Dependency::default();

    let result = dependency.run(&one, Call::idempotent(), UNKNOWN, 1).await;
    assert_eq!(result, Err(UNKNOWN), "nothing has paid yet: the real error, at once");
    assert_eq!(one.budget().snapshot().denied, 1);

    for _ in 0..4 {
        assert!(dependency.run(&other, Call::idempotent(), UNKNOWN, 0).await.is_ok());
    }
    let calls = dependency.count();
    assert!(dependency.run(&one.clone(), Call::idempotent(), UNKNOWN, 1000).await.is_err());
    assert_eq!(dependency.count() - calls, 3, "four successes pay for two retries");
    let snapshot = other.budget().snapshot();
    assert_eq!((snapshot.retries, snapshot.denied, snapshot.recent_successes), (2, 2, 4));
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_repeated_anyway_spends_nothing() {
    let budget = RetryBudget::builder("billing").ratio(1.0).floor(0.0).build();
    budget.deposit();
    let retry = Retry { budget, ..retry() };
    let soon = Deadline::after(ms(10));
    let asks = Failure(Advice::retry().after(ms(100)));
    for (retry, call, failure) in [
        (retry.clone(), Call::idempotent(), NO),
        (retry.clone(), Call::not_idempotent(), UNKNOWN),
        (retry.clone().attempts(1), Call::idempotent(), UNKNOWN),
        (retry.clone().longest(ms(10)), Call::idempotent(), asks),
        (retry.clone().longest_retry_after(ms(10)), Call::idempotent(), asks),
        (retry.clone(), Call::idempotent().deadline(soon), asks),
    ] {
        assert!(Dependency::default().run(&retry, call, failure, 1).await.is_err());
    }
    let snapshot = retry.budget().snapshot();
    assert_eq!((snapshot.available, snapshot.retries, snapshot.denied), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn results_that_are_ok_can_be_repeated_as_well() {
    let busy = |status: &Result<u16, Failure>| {
        if *status == Ok(503) { Advice::retry() } else { Advice::never() }
    };
    let answers = |attempt: Attempt| async move {
        Ok::<_, Failure>(if attempt.number < 3 { 503 } else { 200 })
    };
    let retry = retry();
    assert_eq!(retry.run_with(&busy, Call::idempotent(), answers).await, Ok(200));
    assert_eq!(retry.budget().snapshot().recent_successes, 1, "a 503 pays for nothing");
    let result = retry.attempts(2).run_with(&busy, Call::idempotent(), answers).await;
    assert_eq!(result, Ok(503), "the last result is the result");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_knows_its_number_and_what_is_left() {
    let seen = RefCell::new(Vec::new());
    let deadline = Deadline::after(ms(2000));
    let op = |attempt: Attempt| {
        seen.borrow_mut().push((attempt.number, attempt.limit.expect("a deadline")));
        assert_eq!(attempt.deadline, Some(deadline));
        async { Err::<(), _>(Failure(Advice::retry().after(ms(1000)))) }
    };
    assert!(retry().run(Call::idempotent().deadline(deadline), op).await.is_err());
    let [(1, first), (2, second)] = seen.into_inner()[..] else { panic!("two attempts") };
    assert_eq!(first, ms(2000));
    assert!(second <= ms(1000) && second > ms(890), "{second:?}");
}

#[test]
fn it_goes_by_the_clock_that_it_is_given() {
    let clock = ManualClock::new();
    let retry = retry().clock(clock.clone());
    let failure = Failure(Advice::retry().after(ms(1000)));
    let op = |attempt: Attempt| async move {
        if attempt.number == 1 { Err(failure) } else { Ok(attempt.number) }
    };
    let mut running = Box::pin(retry.run(Call::idempotent(), op));
    let mut cx = Context::from_waker(noop_waker_ref());
    assert_eq!(running.poll_unpin(&mut cx), Poll::Pending);
    clock.advance(ms(999));
    assert_eq!(running.poll_unpin(&mut cx), Poll::Pending);
    clock.advance(ms(101));
    assert_eq!(running.poll_unpin(&mut cx), Poll::Ready(Ok(2)));
}
