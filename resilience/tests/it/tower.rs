//! The layer in real stacks of `tower`.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use resilience::pipeline::{AnyError, Error, ErrorKind, PipelineBuilder};
use resilience::retry::Advice;
use resilience::tower::{Policy, ResilienceLayer};
use resilience::{
    Attempt, Backoff, Breaker, Bulkhead, Call, Deadline, Pipeline, Retry, RetryBudget, State,
    Verdict,
};
use tokio::time::{self, Instant};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};

/// A request says for itself what is known of it.
#[derive(Clone, Debug)]
struct Request {
    idempotent: bool,
    repeatable: bool,
    deadline: Option<Deadline>,
    /// What the last attempt was told.
    limit: Option<Duration>,
}

fn request() -> Request {
    Request { idempotent: true, repeatable: true, deadline: None, limit: None }
}

/// Statuses, as in HTTP.
#[derive(Debug, Clone, Copy)]
struct Statuses;

impl<E> Policy<Request, u16, E> for Statuses {
    fn call(&self, request: &Request) -> Call {
        let call = if request.idempotent { Call::idempotent() } else { Call::not_idempotent() };
        call.deadline(request.deadline)
    }

    fn again(&self, request: &Request) -> Option<Request> {
        request.repeatable.then(|| request.clone())
    }

    fn prepare(&self, request: &mut Request, attempt: Attempt) {
        assert_eq!(request.limit, None, "the request as it came");
        request.limit = attempt.limit;
    }

    fn classify(&self, result: &Result<u16, E>) -> Verdict {
        match result {
            Ok(status) if *status < 500 => Verdict::Success,
            Ok(status) => Verdict::Failure(format!("answered {status}").into()),
            Err(_) => Verdict::Failure("no answer".into()),
        }
    }

    fn advise(&self, result: &Result<u16, E>) -> Advice {
        match result {
            Ok(503) => Advice::retry(),
            Ok(_) => Advice::never(),
            Err(_) => Advice::retry().without_effect(),
        }
    }
}

fn pipeline() -> PipelineBuilder {
    let backoff = Backoff::new().initial(Duration::from_millis(10));
    Pipeline::builder("billing")
        .retry(Retry::new(RetryBudget::unlimited("billing")).backoff(backoff))
        .breaker(Breaker::builder("billing").consecutive_failures(10).build())
        .timeout(Duration::from_millis(500))
}

/// Answers with this after so many times 503.
fn busy_for(
    times: u32,
    status: u16,
    calls: &Arc<AtomicU32>,
) -> impl Service<Request, Response = u16, Error = BoxError, Future: Send> + Clone + Send + use<> {
    let calls = Arc::clone(calls);
    service_fn(move |_| {
        let number = calls.fetch_add(1, Ordering::Relaxed);
        async move { Ok(if number < times { 503 } else { status }) }
    })
}

#[tokio::test(start_paused = true)]
async fn only_what_is_idempotent_and_can_be_cloned_is_repeated() {
    for (request, attempts) in [
        (request(), 3),
        (Request { idempotent: false, ..request() }, 1),
        (Request { repeatable: false, ..request() }, 1),
    ] {
        let calls = Arc::default();
        let layer = ResilienceLayer::with_policy(pipeline().build(), Statuses);
        let service = layer.layer(busy_for(2, 200, &calls));
        let status = service.oneshot(request.clone()).await.expect("an answer");
        assert_eq!(status, if attempts == 3 { 200 } else { 503 }, "{request:?}");
        assert_eq!(calls.load(Ordering::Relaxed), attempts, "{request:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_plain_policy_repeats_nothing_and_opens_at_errors() {
    let breaker = Breaker::builder("billing").consecutive_failures(2).build();
    let layer = ResilienceLayer::new(pipeline().breaker(breaker.clone()).build());
    let mut service = layer.layer(service_fn(|()| async { Err::<(), _>("connection refused") }));
    for attempts in [1, 1, 0] {
        let error = service.ready().await.expect("ready").call(()).await.expect_err("it fails");
        assert_eq!(error.attempts(), attempts);
        assert_eq!(matches!(error.kind(), ErrorKind::Failed("connection refused")), attempts == 1);
        assert_eq!(matches!(error.kind(), ErrorKind::Rejected(_)), attempts == 0);
    }
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_told_how_long_it_may_take_and_is_held_to_it() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let hangs = service_fn(move |request: Request| {
        seen.lock().unwrap().push(request.limit.expect("a limit").as_millis());
        std::future::pending::<Result<u16, BoxError>>()
    });
    let service = ResilienceLayer::with_policy(pipeline().build(), Statuses).layer(hangs);
    let started = Instant::now();
    let deadline = Deadline::after(Duration::from_millis(800));
    let request = Request { deadline: Some(deadline), ..request() };
    let error = service.oneshot(request).await.expect_err("too long");
    assert!(matches!(error.kind(), ErrorKind::TimedOut { inherited: true, .. }));
    assert_eq!(started.elapsed(), Duration::from_millis(800));
    let told = told.lock().unwrap();
    assert!(matches!(told[..], [500, 289..=300]), "{told:?}");
}

/// Ready when it is polled to be, and then for one call only: what `tower` allows.
#[derive(Debug)]
struct Strict {
    ready: bool,
    calls: Arc<AtomicU32>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { ready: false, calls: Arc::clone(&self.calls) }
    }
}

impl Service<Request> for Strict {
    type Response = u16;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<u16, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        assert!(self.ready, "it was not polled ready");
        self.ready = false;
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { Ok(if number % 3 < 2 { 503 } else { 200 }) })
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_that_was_polled_ready_is_the_one_that_is_called() {
    let calls = Arc::default();
    let strict = Strict { ready: false, calls: Arc::clone(&calls) };
    let mut service = ResilienceLayer::with_policy(pipeline().build(), Statuses).layer(strict);
    for _ in 0..3 {
        let ready = service.ready().await.expect("ready");
        assert_eq!(ready.call(request()).await.expect("an answer"), 200);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 9);
}

#[tokio::test(start_paused = true)]
async fn in_a_stack_with_a_limit_and_a_buffer_every_place_comes_back() {
    let inside = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&inside);
    let slow = service_fn(move |_: Request| {
        let inside = Arc::clone(&counted);
        async move {
            assert!(inside.fetch_add(1, Ordering::SeqCst) < 2, "the limit holds");
            time::sleep(Duration::from_millis(10)).await;
            let number = inside.fetch_sub(1, Ordering::SeqCst);
            Ok::<u16, BoxError>(if number == 2 { 503 } else { 200 })
        }
    });
    let bulkhead = Bulkhead::builder("billing", 20).queue(100, Duration::from_mins(1)).build();
    let breaker = Breaker::builder("billing").consecutive_failures(1_000_000).build();
    let pipeline = pipeline().bulkhead(bulkhead.clone()).breaker(breaker.clone()).build();
    let service = ServiceBuilder::new()
        .buffer(64)
        .map_err(Error::<BoxError>::boxed)
        .layer(ResilienceLayer::with_policy(pipeline.clone(), Statuses))
        .concurrency_limit(2)
        .service(slow);
    let answers = join_all((0..60).map(|_| service.clone().oneshot(request()))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(bulkhead.snapshot().admitted, 60);
    assert!(breaker.snapshot().calls > 60, "some were repeated");
    assert_eq!((bulkhead.snapshot().in_flight, breaker.snapshot().in_flight), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_boxed_error_still_says_what_happened() {
    let broken = service_fn(|_: Request| async { Err::<u16, BoxError>("broken".into()) });
    let service = ServiceBuilder::new()
        .map_err(Error::<BoxError>::boxed)
        .layer(ResilienceLayer::with_policy(pipeline().build(), Statuses))
        .service(broken);
    let error = service.oneshot(request()).await.expect_err("it fails");
    assert_eq!(error.to_string(), "broken");
    let error = error.downcast::<Error<AnyError>>().expect("the pipeline's");
    assert!(error.attempts() == 3 && !error.may_have_had_effect());
    let ErrorKind::Failed(error) = error.into_kind() else { panic!("the service failed") };
    assert_eq!(error.into_inner().to_string(), "broken");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_is_waited_for_and_its_error_is_told() {
    #[derive(Clone, Debug)]
    struct Broken;

    impl Service<Request> for Broken {
        type Response = u16;
        type Error = &'static str;
        type Future = std::future::Ready<Result<u16, &'static str>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
            Poll::Ready(Err("broken"))
        }

        fn call(&mut self, _: Request) -> Self::Future {
            unreachable!("it is never ready")
        }
    }

    let mut service = ResilienceLayer::with_policy(pipeline().build(), Statuses).layer(Broken);
    let error = service.ready().await.expect_err("never ready");
    assert!(matches!(error.kind(), ErrorKind::Failed("broken")));
    assert!(!error.may_have_had_effect() && error.attempts() == 0);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_what_cannot_be_sent_again_is_the_last_attempt() {
    let hangs = service_fn(|_: Request| std::future::pending::<Result<u16, BoxError>>());
    let service = ResilienceLayer::with_policy(pipeline().build(), Statuses).layer(hangs);
    let error = service.oneshot(Request { repeatable: false, ..request() }).await;
    let error = error.expect_err("too long");
    assert!(matches!(error.kind(), ErrorKind::TimedOut { inherited: false, .. }), "{error}");
    assert_eq!(error.attempts(), 1);
}
