//! The [pipeline](crate::pipeline) as a layer of `tower`.
#![doc = include_str!("../docs/tower.md")]

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tower_layer::Layer;
use tower_service::Service;

use crate::call::{Attempt, Call};
use crate::classify::Verdict;
use crate::pipeline::{Error, Pipeline};
use crate::retry::{Advice, Advise};

/// What a service's requests and results mean to the [pipeline](crate::pipeline).
pub trait Policy<Req, Res, E> {
    /// What is known of the call before it is made: whether it is idempotent, and its deadline. The
    /// default is a call that isn't idempotent, and has no deadline.
    fn call(&self, request: &Req) -> Call {
        let _ = request;
        Call::not_idempotent()
    }

    /// The same request once more, to be kept for another attempt. The default is none: then there
    /// is only one attempt. Asked only if the pipeline repeats anything.
    fn again(&self, request: &Req) -> Option<Req> {
        let _ = request;
        None
    }

    /// Changes a request just before it goes out: the next hop can be told how long it may take. The
    /// default changes nothing.
    fn prepare(&self, request: &mut Req, attempt: Attempt) {
        let _ = (request, attempt);
    }

    /// What a result says about the service.
    fn classify(&self, result: &Result<Res, E>) -> Verdict;

    /// Whether another attempt may end better. The default is never.
    fn advise(&self, result: &Result<Res, E>) -> Advice {
        let _ = result;
        Advice::never()
    }
}

/// The plain [`Policy`]: a response is a success, an error a failure, and nothing is repeated.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByResult;

impl<Req, Res, E: fmt::Display> Policy<Req, Res, E> for ByResult {
    fn classify(&self, result: &Result<Res, E>) -> Verdict {
        match result {
            Ok(_) => Verdict::Success,
            Err(error) => Verdict::Failure(error.to_string().into()),
        }
    }
}

/// Puts a [`Pipeline`] in front of a service. All services made by it share the pipeline.
#[derive(Debug)]
pub struct ResilienceLayer<P = ByResult> {
    pipeline: Pipeline,
    policy: Arc<P>,
}

impl ResilienceLayer {
    /// With the plain policy: a response is a success, an error a failure, and nothing is repeated.
    pub fn new(pipeline: Pipeline) -> Self {
        Self::with_policy(pipeline, ByResult)
    }
}

impl<P> ResilienceLayer<P> {
    /// With your own view of what requests and results mean.
    pub fn with_policy(pipeline: Pipeline, policy: P) -> Self {
        Self { pipeline, policy: Arc::new(policy) }
    }
}

impl<P> Clone for ResilienceLayer<P> {
    fn clone(&self) -> Self {
        Self { pipeline: self.pipeline.clone(), policy: Arc::clone(&self.policy) }
    }
}

impl<S, P> Layer<S> for ResilienceLayer<P> {
    type Service = ResilienceService<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        let Self { pipeline, policy } = self.clone();
        ResilienceService { inner, pipeline, policy }
    }
}

/// A service behind a [`Pipeline`]; made by a [`ResilienceLayer`].
///
/// It is ready when the service is. The breaker and the bulkhead are asked per call: a caller who
/// waited for them to be ready would not hear why they aren't.
#[derive(Debug)]
pub struct ResilienceService<S, P = ByResult> {
    inner: S,
    pipeline: Pipeline,
    policy: Arc<P>,
}

impl<S, P> ResilienceService<S, P> {
    /// The pipeline.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// The service behind it.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: Clone, P> Clone for ResilienceService<S, P> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            pipeline: self.pipeline.clone(),
            policy: Arc::clone(&self.policy),
        }
    }
}

/// Repeats only what can be sent again, whether it had a result or not.
struct IfAnother<'a, P, Req> {
    policy: &'a P,
    has_another: &'a AtomicBool,
    of: PhantomData<fn(Req)>,
}

impl<P, Req> IfAnother<'_, P, Req> {
    fn limit(&self, advice: Advice) -> Advice {
        if self.has_another.load(Ordering::Relaxed) { advice } else { advice.for_the_last() }
    }
}

impl<P, Req, T, E> Advise<Result<T, E>> for IfAnother<'_, P, Req>
where
    P: Policy<Req, T, E>,
{
    fn advise(&self, result: &Result<T, E>) -> Advice {
        self.limit(self.policy.advise(result))
    }

    fn advise_on_timeout(&self) -> Advice {
        self.limit(Advice::retry())
    }
}

impl<S, P, Req> Service<Req> for ResilienceService<S, P>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: Send,
    P: Policy<Req, S::Response, S::Error> + Send + Sync + 'static,
    Req: Send + 'static,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = BoxFuture<'static, Result<S::Response, Error<S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::unready)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        // The one that was found ready is the one that is called; its clone isn't ready yet.
        let spare = self.inner.clone();
        let mut ready = Some(mem::replace(&mut self.inner, spare.clone()));
        let (pipeline, policy) = (self.pipeline.clone(), Arc::clone(&self.policy));
        Box::pin(async move {
            let call = policy.call(&request);
            let repeats = pipeline.retry().is_some();
            let mut request = Some(request);
            let has_another = AtomicBool::new(false);
            let classify = |result: &_| policy.classify(result);
            let advise = IfAnother { policy: &*policy, has_another: &has_another, of: PhantomData };
            let (policy, has_another) = (&*policy, &has_another);
            let op = move |attempt| {
                let mut outgoing = request.take().expect("without another, nothing is repeated");
                // What is kept is the request as it came, not as it goes out this time.
                request = repeats.then(|| policy.again(&outgoing)).flatten();
                has_another.store(request.is_some(), Ordering::Relaxed);
                policy.prepare(&mut outgoing, attempt);
                let (mut service, is_ready) = match ready.take() {
                    Some(service) => (service, true),
                    None => (spare.clone(), false),
                };
                async move {
                    if !is_ready {
                        poll_fn(|cx| service.poll_ready(cx)).await?;
                    }
                    service.call(outgoing).await
                }
            };
            pipeline.call_with(&classify, &advise, call, op).await
        })
    }
}
