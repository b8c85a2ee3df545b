//! The primitives under the breaker: the standard library's, or `loom`'s, which tries every order
//! in which threads can see them.

use std::sync::Arc;

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicI64, AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicI64, AtomicU64, Ordering, fence},
};

#[cfg(not(loom))]
pub(crate) use arc_swap::ArcSwap;

/// What an [`ArcSwap`] holds at a moment: without counting a reference, which all threads share.
#[cfg(not(loom))]
pub(crate) type Present<T> = arc_swap::Guard<Arc<T>>;

/// For keeping.
#[cfg(not(loom))]
pub(crate) fn keep<T>(present: &Present<T>) -> Present<T> {
    arc_swap::Guard::from_inner(Arc::clone(present))
}

/// `arc-swap` knows nothing of loom: its part is played by a lock.
#[cfg(loom)]
pub(crate) struct ArcSwap<T>(Mutex<Arc<T>>);

#[cfg(loom)]
pub(crate) type Present<T> = Arc<T>;

#[cfg(loom)]
pub(crate) fn keep<T>(present: &Present<T>) -> Present<T> {
    Arc::clone(present)
}

#[cfg(loom)]
impl<T> ArcSwap<T> {
    pub(crate) fn from_pointee(value: T) -> Self {
        Self(Mutex::new(Arc::new(value)))
    }

    pub(crate) fn load(&self) -> Present<T> {
        Arc::clone(&self.0.lock().expect("loom's locks are not poisoned"))
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        *self.0.lock().expect("loom's locks are not poisoned") = value;
    }
}

/// What a counter's only writer does to it: cheaper than an addition that others could come into.
///
/// Under loom it is such an addition: loom takes only the last access to a value for one that
/// could have been in another order, and that would be the writer's own.
macro_rules! only_writer {
    ($atomic:ty, $number:ty, $add:ident) => {
        #[inline]
        pub(crate) fn $add(counter: &$atomic, n: $number, order: Ordering) {
            if cfg!(loom) {
                counter.fetch_add(n, order);
            } else {
                counter.store(counter.load(Ordering::Relaxed) + n, order);
            }
        }
    };
}

only_writer!(AtomicU64, u64, add);
only_writer!(AtomicI64, i64, add_signed);
