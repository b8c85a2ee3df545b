//! What a run and whoever waits for it tell each other.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::saga::step::Failure;

/// Who has decided what.
#[derive(Debug, Default)]
pub(in crate::saga) struct Watch {
    begun: AtomicBool,
    decision: AtomicU8,
    cause: Mutex<Option<Failure>>,
}

/// Nobody has decided yet.
pub(super) const OPEN: u8 = 0;
/// Nobody waits any more: it is taken back.
pub(super) const ABANDONED: u8 = 1;
/// It is being committed, and nobody knows.
pub(super) const DECIDED: u8 = 2;
/// It is behind its pivot.
pub(super) const FORWARD: u8 = 3;

impl Watch {
    /// Of a saga that is taken over.
    pub(super) fn decided(decision: u8) -> Self {
        Self { begun: true.into(), decision: AtomicU8::new(decision), cause: Mutex::default() }
    }

    /// It is in the journal.
    pub(super) fn begun(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// Whether it is known to be in the journal.
    pub(in crate::saga) fn is_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Whether it is past the point at which it could be abandoned.
    pub(super) fn is_decided(&self) -> bool {
        self.decision.load(Ordering::Acquire) >= DECIDED
    }

    pub(super) fn set(&self, from: u8, to: u8) -> bool {
        self.decision.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// It must not be any more, unless it is decided already.
    pub(in crate::saga) fn abandon(&self) -> bool {
        self.set(OPEN, ABANDONED) || self.decision.load(Ordering::Acquire) == ABANDONED
    }

    pub(in crate::saga) fn is_forward(&self) -> bool {
        self.decision.load(Ordering::Acquire) == FORWARD
    }

    pub(in crate::saga) fn cause(&self) -> Option<Failure> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It is being taken back, and nobody can decide otherwise.
    pub(in crate::saga) fn goes_back(&self) {
        self.decision.store(ABANDONED, Ordering::Release);
    }

    pub(super) fn failed(&self, cause: &Failure) {
        let mut known = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert_with(|| cause.clone());
    }
}
