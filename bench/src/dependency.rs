//! What is called: the cheapest thing that the optimiser can't remove.

use std::fmt;
use std::future::ready;
use std::hint::black_box;

use resilience::Retryable;
use resilience::retry::Advice;

#[derive(Debug)]
pub(crate) struct Unavailable;

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unavailable")
    }
}

impl std::error::Error for Unavailable {}

impl Retryable for Unavailable {
    fn advice(&self) -> Advice {
        Advice::retry()
    }
}

#[inline(never)]
pub(crate) fn succeed(n: u32) -> Result<u32, Unavailable> {
    black_box(Ok(n))
}

#[inline(never)]
pub(crate) fn fail(_: u32) -> Result<u32, Unavailable> {
    black_box(Err(Unavailable))
}

/// Ready at once.
pub(crate) fn answer(n: u32) -> impl Future<Output = Result<u32, Unavailable>> {
    ready(succeed(n))
}
