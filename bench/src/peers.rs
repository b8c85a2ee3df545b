//! The other breakers, each called as its documentation shows it.

use std::future::{Ready, ready};
use std::hint::black_box;
use std::time::Duration;

use failsafe::{CircuitBreaker as _, Config, FailurePolicy, backoff, failure_policy};
use recloser::Recloser;
use tower::{Service, ServiceExt, service_fn};
use tower_resilience_circuitbreaker::CircuitBreakerLayer;

use crate::dependency::{Unavailable, fail, succeed};
use crate::harness::Case;
use crate::runtime::RUNTIME;

/// As many failures in a row as open each of them, where it can be had.
pub(crate) const FAILURES: u32 = 3;
/// Longer than any run: what is open stays open.
pub(crate) const OPEN_FOR: Duration = Duration::from_hours(1);

pub(crate) fn failsafe_consecutive() -> Case {
    failsafe_closed("failsafe, consecutive failures", consecutive_failures())
}

pub(crate) fn failsafe_default() -> Case {
    let breaker = Config::new().build();
    Case::new("failsafe, its default policy", move |n| breaker.call(|| succeed(n)).ok())
}

pub(crate) fn failsafe_open() -> Case {
    let breaker = Config::new().failure_policy(consecutive_failures()).build();
    for n in 0..FAILURES {
        let _ = breaker.call(|| fail(n));
    }
    assert!(!breaker.is_call_permitted());
    Case::new("failsafe", move |n| breaker.call(|| succeed(n)).ok())
}

fn failsafe_closed(name: &'static str, policy: impl FailurePolicy + Send + 'static) -> Case {
    let breaker = Config::new().failure_policy(policy).build();
    Case::new(name, move |n| breaker.call(|| succeed(n)).ok())
}

fn consecutive_failures() -> impl FailurePolicy + Send {
    failure_policy::consecutive_failures(FAILURES, backoff::constant(OPEN_FOR))
}

/// It knows no failures in a row: this is its default, half of the last hundred calls.
pub(crate) fn recloser_closed() -> Case {
    let breaker = Recloser::custom().build();
    Case::new("recloser, its default (rate over 100 calls)", move |n| {
        breaker.call(|| succeed(n)).ok()
    })
}

pub(crate) fn recloser_open() -> Case {
    let breaker = Recloser::custom().closed_len(1).open_wait(OPEN_FOR).build();
    while !matches!(breaker.call(|| fail(0)), Err(recloser::Error::Rejected)) {}
    Case::new("recloser", move |n| breaker.call(|| succeed(n)).ok())
}

pub(crate) fn tower_resilience_closed() -> Case {
    tower_resilience("tower-resilience, consecutive failures", succeed)
}

/// Two callers that meet at the open circuit can hang for good: the readiness poll of 0.14 makes a
/// timer of 1 ms when it finds the state locked, and forgets it when the timer is due by then.
pub(crate) fn tower_resilience_open() -> Case {
    tower_resilience("tower-resilience", fail).on_one_thread()
}

/// Comes as a service of `tower` only: a call is a future, and so is the wait for readiness.
fn tower_resilience(name: &'static str, call: fn(u32) -> Result<u32, Unavailable>) -> Case {
    let layer = CircuitBreakerLayer::builder()
        .consecutive_failures(FAILURES as usize)
        .wait_duration_in_open(OPEN_FOR)
        .build()
        .expect("the settings are valid");
    let answer: fn(u32) -> Ready<Result<u32, Unavailable>> = match call(0) {
        Ok(_) => |n| ready(succeed(n)),
        Err(_) => |n| ready(fail(n)),
    };
    let service = layer.layer_fn(service_fn(answer));
    Case::looped(name, move |calls| {
        let mut service = service.clone();
        RUNTIME.block_on(async {
            for n in 0..calls {
                let service = service.ready().await.expect("ready, open or not");
                black_box(service.call(black_box(n)).await.ok());
            }
        });
    })
}
