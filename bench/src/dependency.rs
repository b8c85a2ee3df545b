//! What is called: the cheapest thing that the optimiser can't remove.

use std::fmt;
use std::hint::black_box;

#[derive(Debug)]
pub(crate) struct Unavailable;

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unavailable")
    }
}

impl std::error::Error for Unavailable {}

#[inline(never)]
pub(crate) fn succeed(n: u32) -> Result<u32, Unavailable> {
    black_box(Ok(n))
}

#[inline(never)]
pub(crate) fn fail(_: u32) -> Result<u32, Unavailable> {
    black_box(Err(Unavailable))
}
