//! What drives futures.

use std::hint::black_box;
use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

use crate::harness::Case;

/// Each measured thread drives its own future on it.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime")
});

/// Awaits one call after the other.
pub(crate) fn futures<R>(
    name: &'static str,
    call: impl AsyncFn(u32) -> R + Sync + 'static,
) -> Case {
    Case::looped(name, move |calls| {
        RUNTIME.block_on(async {
            for n in 0..calls {
                black_box(call(black_box(n)).await);
            }
        });
    })
}
