//! What comes before what.

use std::cell::Cell;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::*;
use crate::retry::Never;

/// A pipeline with everything, and what each stage has seen.
fn everything() -> Pipeline {
    pipeline()
        .longest(Duration::from_mins(1))
        .bulkhead(Bulkhead::builder("billing", 1).queue(1, ms(100)).build())
        .retry(retry())
        .breaker(breaker().build())
        .timeout(ms(500))
        .build()
}

fn admitted(pipeline: &Pipeline) -> (u64, u64) {
    let bulkhead = pipeline.bulkhead().map_or(0, |bulkhead| bulkhead.snapshot().admitted);
    (bulkhead, pipeline.breaker().map_or(0, |breaker| breaker.snapshot().calls))
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_through_every_stage() {
    let pipeline = everything();
    let deadline = Deadline::after(ms(2000));
    let call = Call::idempotent().deadline(deadline);
    let answer = pipeline.call(call, |attempt| async move { Ok::<_, Failure>(attempt) }).await;
    let attempt = answer.expect("an answer");
    assert_eq!((attempt.number, attempt.limit), (1, Some(ms(500))));
    assert_eq!(attempt.deadline, Some(Deadline::after(ms(500))));
    assert_eq!(admitted(&pipeline), (1, 1));
    let retry = pipeline.retry().expect("it has one");
    assert_eq!(retry.budget().snapshot().recent_successes, 1);
    let breaker = pipeline.breaker().expect("it has one").snapshot();
    assert_eq!((breaker.successes, breaker.in_flight), (1, 0));
    assert_eq!(pipeline.bulkhead().expect("it has one").snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn without_stages_the_operation_is_just_called() {
    let pipeline = pipeline().build();
    let op = |attempt: Attempt| async move {
        assert_eq!((attempt.number, attempt.deadline, attempt.limit), (1, None, None));
        Err::<(), _>(UNKNOWN)
    };
    let error = pipeline.call(Call::idempotent(), op).await.expect_err("it fails");
    assert!(matches!(error.kind(), ErrorKind::Failed(failure) if *failure == UNKNOWN));
    assert_eq!((error.attempts(), error.to_string().as_str()), (1, "out of order"));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_comes_before_the_bulkhead() {
    let pipeline = everything();
    for left in [Duration::ZERO, Duration::from_micros(999)] {
        let call = Call::idempotent().deadline(Deadline::after(left));
        let error = take(&pipeline, call, ms(0)).await.expect_err("no time");
        assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded));
        assert!(!error.may_have_had_effect());
        assert_eq!(error.attempts(), 0);
    }
    assert_eq!(admitted(&pipeline), (0, 0));
    assert_eq!(pipeline.snapshot().deadline_exceeded, 2);
    let call = Call::idempotent().deadline(Deadline::after(ms(1)));
    assert!(take(&pipeline, call, ms(0)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_bulkhead_comes_before_the_breaker_and_its_wait_is_bounded() {
    let pipeline = everything();
    let bulkhead = pipeline.bulkhead().expect("it has one").clone();
    let _place = bulkhead.try_acquire().expect("a place");
    let started = Instant::now();
    let error = take(&pipeline, Call::idempotent(), ms(0)).await.expect_err("full");
    assert!(matches!(error.kind(), ErrorKind::BulkheadFull(full) if full.waited() == ms(100)));
    assert!(!error.may_have_had_effect());
    assert_eq!((started.elapsed(), admitted(&pipeline).1), (ms(100), 0));

    let call = Call::idempotent().deadline(Deadline::after(ms(30)));
    assert!(take(&pipeline, call, ms(0)).await.is_err());
    assert_eq!(started.elapsed(), ms(130), "and never exceeds the deadline");
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_place_leaves_less_time_for_the_call() {
    let bulkhead = Bulkhead::builder("billing", 1).queue(1, ms(400)).build();
    let pipeline = pipeline().bulkhead(bulkhead.clone()).timeout(ms(500)).build();
    let place = bulkhead.try_acquire().expect("a place");
    let call = Call::idempotent().deadline(Deadline::after(ms(600)));
    let (limit, ()) = tokio::join!(
        pipeline.call(call, |attempt| async move { Ok::<_, Failure>(attempt.limit) }),
        async {
            tokio::time::sleep(ms(300)).await;
            drop(place);
        }
    );
    assert_eq!(limit.expect("an answer"), Some(ms(300)));
}

#[tokio::test(start_paused = true)]
async fn a_call_holds_one_place_until_its_last_attempt_has_ended() {
    let pipeline =
        pipeline().bulkhead(Bulkhead::builder("billing", 1).build()).retry(retry()).build();
    let op = |_| async {
        tokio::time::sleep(ms(50)).await;
        Err::<(), _>(UNKNOWN)
    };
    let mut calling = Box::pin(pipeline.call(Call::idempotent(), op));
    for _ in 0..3 {
        assert!((&mut calling).now_or_never().is_none());
        assert_eq!(pipeline.bulkhead().expect("it has one").snapshot().in_flight, 1);
        tokio::time::sleep(ms(45)).await;
    }
    assert!(calling.await.is_err());
    let bulkhead = pipeline.bulkhead().expect("it has one").snapshot();
    assert_eq!((bulkhead.admitted, bulkhead.in_flight), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_lets_nothing_through_and_says_why() {
    let pipeline = everything();
    assert!(matches!(fail(&pipeline, Call::idempotent(), NO).await.kind(), ErrorKind::Failed(_)));
    let called = Cell::new(false);
    let op = |_| {
        called.set(true);
        async { Ok::<_, Failure>(()) }
    };
    let error = pipeline.call(Call::idempotent(), op).await.expect_err("open");
    assert!(!called.get(), "not even its synchronous part");
    assert!(matches!(error.kind(), ErrorKind::Rejected(_)));
    assert!(!error.may_have_had_effect());
    assert_eq!(
        (error.attempts(), error.to_string().as_str()),
        (0, "billing is unavailable: out of order (circuit breaker open, next attempt in 6 s)")
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_names_a_system_further_down_is_no_failure_of_this_hop() {
    let pipeline = everything();
    let downstream = Failure(Advice::downstream());
    let error = fail(&pipeline, Call::idempotent(), downstream).await;
    assert_eq!(error.attempts(), 1, "and it isn't repeated");
    assert!(error.may_have_had_effect());
    let breaker = pipeline.breaker().expect("it has one").snapshot();
    assert_eq!((breaker.state, breaker.successes), (State::Closed, 1));
    let budget = pipeline.retry().expect("it has one").budget().snapshot();
    assert_eq!(budget.recent_successes, 0, "nor does it pay for retries");
}

#[tokio::test(start_paused = true)]
async fn what_a_result_means_is_the_callers_to_say() {
    let pipeline = everything();
    let ignore = |_: &Result<u8, &str>| Verdict::Ignored;
    let op = |_| async { Err("nobody's fault") };
    let result = pipeline.call_with(&ignore, &Never, Call::idempotent(), op).await;
    assert!(matches!(result, Err(error) if error.attempts() == 1));
    let breaker = pipeline.breaker().expect("it has one").snapshot();
    assert_eq!((breaker.state, breaker.ignored), (State::Closed, 1));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_operation_gives_everything_back() {
    for in_synchronous_part in [true, false] {
        let pipeline = everything();
        let inside = pipeline.clone();
        let task = tokio::spawn(async move {
            let op = |_| {
                assert!(!in_synchronous_part, "a defect");
                async { panic!("a defect") }
            };
            inside.call::<(), Failure, _>(Call::idempotent(), op).await
        });
        assert!(task.await.is_err());
        let breaker = pipeline.breaker().expect("it has one").snapshot();
        assert_eq!((breaker.in_flight, breaker.abandoned, breaker.successes), (0, 1, 0));
        assert_eq!(pipeline.bulkhead().expect("it has one").snapshot().in_flight, 0);
    }
}

#[test]
fn a_call_can_be_spawned() {
    fn assert_send(_: &impl Send) {}
    let pipeline = everything();
    assert_send(&pipeline.call(Call::idempotent(), |_| async { Ok::<_, Failure>(()) }));
}
