//! This library's breaker, in the settings that are measured.

use resilience::Breaker;

use crate::dependency::succeed;
use crate::harness::Case;
use crate::peers::{FAILURES, OPEN_FOR};

pub fn closed() -> Case {
    let breaker = Breaker::builder("billing").consecutive_failures(FAILURES, OPEN_FOR).build();
    Case::new("resilience, consecutive failures", move |n| call(&breaker, n))
}

pub fn open() -> Case {
    let breaker = Breaker::builder("billing").consecutive_failures(FAILURES, OPEN_FOR).build();
    for _ in 0..FAILURES {
        if let Ok(permit) = breaker.acquire() {
            permit.failure("unavailable");
        }
    }
    assert!(breaker.check().is_err());
    Case::new("resilience", move |n| call(&breaker, n))
}

fn call(breaker: &Breaker, n: u32) -> Option<u32> {
    let permit = breaker.acquire().ok()?;
    let result = succeed(n);
    match &result {
        Ok(_) => permit.success(),
        Err(error) => permit.failure(error.to_string()),
    }
    result.ok()
}
