//! What is repeated, and what is known of it afterwards.

use std::cell::{Cell, RefCell};

use tokio::time::Instant;

use super::*;

/// Fails with these, one after the other, and succeeds from then on.
async fn run(pipeline: &Pipeline, call: Call, failures: &[Failure]) -> Result<u32, Error<Failure>> {
    let op = |attempt: Attempt| {
        let failure = failures.get(attempt.number as usize - 1);
        async move { failure.map_or(Ok(attempt.number), |failure| Err(*failure)) }
    };
    pipeline.call(call, op).await
}

#[tokio::test(start_paused = true)]
async fn each_attempt_asks_the_breaker_and_counts_there() {
    let breaker = Breaker::builder("billing").consecutive_failures(10).build();
    let pipeline = pipeline().retry(retry()).breaker(breaker.clone()).build();
    let result = run(&pipeline, Call::idempotent(), &[UNKNOWN, UNKNOWN]).await;
    assert_eq!(result.expect("the third one"), 3);
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.calls, snapshot.failures, snapshot.successes), (3, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_to_a_dependency_whose_breaker_opens_meanwhile() {
    let breaker = Breaker::builder("billing").consecutive_failures(2).build();
    let pipeline = pipeline().retry(retry().attempts(9)).breaker(breaker).build();
    let error = run(&pipeline, Call::idempotent(), &[UNKNOWN; 9]).await.expect_err("open");
    assert!(matches!(error.kind(), ErrorKind::Rejected(_)));
    assert_eq!(error.attempts(), 2);
    assert!(error.may_have_had_effect(), "the rejection is not all that there was");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_worth_another_attempt_of_what_is_idempotent() {
    let pipeline = pipeline().retry(retry()).timeout(ms(50)).build();
    let op = |attempt: Attempt| async move {
        let time = if attempt.number < 3 { ms(60) } else { ms(10) };
        tokio::time::sleep(time).await;
        Ok::<_, Failure>(attempt.number)
    };
    assert_eq!(pipeline.call(Call::idempotent(), op).await.expect("the third"), 3);
    let error = pipeline.call(Call::not_idempotent(), op).await.expect_err("too long");
    assert_eq!(error.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_under_an_inherited_deadline_is_the_end() {
    let pipeline = pipeline().retry(retry()).timeout(ms(50)).build();
    let started = Instant::now();
    let call = Call::idempotent().deadline(Deadline::after(ms(40)));
    let error = take(&pipeline, call, ms(60)).await.expect_err("too long");
    assert_eq!((error.attempts(), started.elapsed()), (1, ms(40)));
}

#[tokio::test(start_paused = true)]
async fn whether_anything_may_have_happened_is_told_over_all_attempts() {
    for (failures, attempts, acted) in [
        (&[NOT_SENT; 3], 3, false),
        (&[NOT_SENT, NOT_SENT, UNKNOWN], 3, true),
        (&[UNKNOWN, NOT_SENT, NOT_SENT], 3, true),
        (&[NOT_SENT, NO, NO], 2, true),
        (&[NOT_SENT, Failure(Advice::never().without_effect()), NO], 2, false),
    ] {
        let pipeline = pipeline().retry(retry()).build();
        let error = run(&pipeline, Call::idempotent(), failures).await.expect_err("fails");
        let told = (error.attempts(), error.may_have_had_effect());
        assert_eq!(told, (attempts, acted), "{failures:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_time_for_another_attempt_the_real_error_comes_at_once() {
    let pipeline = pipeline().retry(retry().attempts(9)).timeout(ms(500)).build();
    let asks = Failure(Advice::retry().after(ms(400)));
    let started = Instant::now();
    let call = Call::idempotent().deadline(Deadline::after(ms(1000)));
    let error = run(&pipeline, call, &[asks; 9]).await.expect_err("fails");
    assert!(matches!(error.kind(), ErrorKind::Failed(failure) if *failure == asks));
    assert_eq!(error.attempts(), 3);
    assert!(started.elapsed() < ms(830), "no wait for nothing: {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_given_what_is_left() {
    let pipeline = pipeline().retry(retry().attempts(9)).timeout(ms(500)).build();
    let limits = RefCell::new(Vec::new());
    let op = |attempt: Attempt| {
        limits.borrow_mut().push(attempt.limit.expect("a limit"));
        async { Err::<(), _>(Failure(Advice::retry().after(ms(400)))) }
    };
    let call = Call::idempotent().deadline(Deadline::after(ms(1000)));
    assert!(pipeline.call(call, op).await.is_err());
    let [first, second, third] = limits.into_inner()[..] else { panic!("three attempts") };
    assert_eq!((first, second), (ms(500), ms(500)));
    assert!(third <= ms(200) && third > ms(170), "{third:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_takes_too_long_ends_with_the_real_error() {
    let pipeline = pipeline().retry(retry()).build();
    let asks = Failure(Advice::retry().after(ms(100)));
    let call = Call::idempotent().deadline(Deadline::after(ms(200)));
    let attempts = Cell::new(0);
    let op = |_| {
        attempts.set(attempts.get() + 1);
        async { Err::<(), _>(asks) }
    };
    let mut calling = std::pin::pin!(pipeline.call(call, op));
    assert!(futures_util::poll!(&mut calling).is_pending());
    // The process was stopped for a while.
    tokio::time::advance(ms(300)).await;
    let error = calling.await.expect_err("too late");
    assert!(matches!(error.kind(), ErrorKind::Failed(failure) if *failure == asks));
    assert_eq!((attempts.get(), error.attempts()), (1, 1));
    assert_eq!(pipeline.snapshot().deadline_exceeded, 1);
}

#[tokio::test(start_paused = true)]
async fn retries_are_paid_for_by_successes() {
    let budget = RetryBudget::builder("billing").ratio(0.5).floor(0.0).build();
    let pipeline = pipeline().retry(Retry::new(budget.clone()).attempts(9)).build();
    let error = run(&pipeline, Call::idempotent(), &[UNKNOWN; 9]).await.expect_err("fails");
    assert_eq!(error.attempts(), 1);
    for _ in 0..4 {
        assert!(run(&pipeline, Call::idempotent(), &[]).await.is_ok());
    }
    let error = run(&pipeline, Call::idempotent(), &[UNKNOWN; 9]).await.expect_err("fails");
    assert_eq!(error.attempts(), 3);
    assert_eq!((budget.snapshot().retries, budget.snapshot().denied), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn the_longest_time_is_one_for_all_attempts_together() {
    let pipeline = pipeline().longest(ms(1000)).retry(retry().attempts(9)).build();
    let asks = Failure(Advice::retry().after(ms(400)));
    let late = Deadline::after(Duration::from_mins(1));
    for call in [Call::idempotent(), Call::idempotent().deadline(late)] {
        let started = Instant::now();
        let error = run(&pipeline, call, &[asks; 9]).await.expect_err("fails");
        assert_eq!(error.attempts(), 3);
        assert!(started.elapsed() < ms(1000));
    }
}
