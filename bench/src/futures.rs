//! What a future costs that is ready at once, and what is put round it.

use std::future::ready;
use std::hint::black_box;

use resilience::Breaker;

use crate::dependency::{Unavailable, succeed};
use crate::harness::Case;
use crate::peers::RUNTIME;

/// Awaits one future after the other, in the runtime.
fn case<R, F: Future<Output = R>>(
    name: &'static str,
    call: impl Fn(u32) -> F + Sync + 'static,
) -> Case {
    Case::looped(name, move |calls| {
        RUNTIME.block_on(async {
            for n in 0..calls {
                black_box(call(black_box(n)).await);
            }
        });
    })
}

fn answer(n: u32) -> impl Future<Output = Result<u32, Unavailable>> {
    ready(succeed(n))
}

pub(crate) fn bare() -> Case {
    case("a bare future", |n| async move { answer(n).await.ok() })
}

pub(crate) fn breaker() -> Case {
    let breaker = Breaker::builder("billing").build();
    case("resilience, breaker as it comes", move |n| {
        let breaker = breaker.clone();
        async move { breaker.call_async(answer(n)).await.ok() }
    })
}
