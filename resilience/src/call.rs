//! What is known of a call before it is made, and of each attempt at it.

use std::time::Duration;

use crate::deadline::Deadline;

/// Whether doing something twice comes to the same as doing it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Idempotency {
    /// Twice is as good as once: a read, a deletion, a request under an id or a key by which the
    /// other side knows it again.
    Idempotent,
    /// Twice may be once too often.
    NotIdempotent,
}

/// One call to be made, whatever number of attempts it takes.
///
/// There is no default: whether it may be repeated is for its author to say.
///
/// ```
/// use resilience::{Call, Deadline};
/// use std::time::Duration;
///
/// let call = Call::idempotent().deadline(Deadline::after(Duration::from_secs(2)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub(crate) idempotency: Idempotency,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) timeout: Option<Duration>,
}

impl Call {
    /// A call of this kind, without a deadline.
    pub const fn new(idempotency: Idempotency) -> Self {
        Self { idempotency, deadline: None, timeout: None }
    }

    /// A call that may be repeated, also where it isn't known what became of it.
    pub const fn idempotent() -> Self {
        Self::new(Idempotency::Idempotent)
    }

    /// A call that is repeated only where it is certain that it has had no effect.
    pub const fn not_idempotent() -> Self {
        Self::new(Idempotency::NotIdempotent)
    }

    /// Ends, waits and repetitions included, at this moment at the latest.
    #[must_use]
    pub fn deadline(mut self, deadline: impl Into<Option<Deadline>>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// How long each attempt may take, in place of the
    /// [pipeline's](crate::pipeline::PipelineBuilder::timeout) timeout.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// One attempt at a [`Call`], as its operation sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The number of this attempt, from 1 on.
    pub number: u32,
    /// The moment at which it ends at the latest.
    pub deadline: Option<Deadline>,
    /// The time from its beginning to its deadline: what the next hop may be told.
    pub limit: Option<Duration>,
}
