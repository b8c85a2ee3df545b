//! What a saga does, step by step.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::deferred::{Attempt, HandlerError};

/// Something that a saga does in another system.
///
/// It may be done more than once: nobody knows what became of a call whose answer was lost. It must
/// have its effect once per [`Attempt::id`], or per whatever id it finds in its input: pass that on
/// as the idempotency key.
pub trait Action: Send + Sync + 'static {
    /// Names it in the journal, for good: sagas outlive releases. Unique within its saga.
    const NAME: &'static str;
    /// What it needs to know. Written down before it is done.
    type Input: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What it comes to. Written down when it is done.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// Does it. Never holds a connection to the journal's database meanwhile.
    fn act(
        &self,
        attempt: Attempt<Self::Input>,
    ) -> impl Future<Output = Result<Self::Output, Failure>> + Send;
}

/// An [`Action`] that can be taken back.
pub trait Step: Action {
    /// Takes back what [`act`](Action::act) did with this input, or may have done, or may still do:
    /// the system that is asked must remember the undo of something that it has never seen, and
    /// refuse it when it arrives. Taking back twice is taking back once.
    ///
    /// What fails is repeated for as long as it takes; what is
    /// [permanent](HandlerError::Permanent), or failed too often, leaves the saga stuck, for an
    /// operator.
    fn undo(
        &self,
        attempt: Attempt<Self::Input>,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// Whether an action that failed has changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Certainly not: it was never sent, or refused.
    None,
    /// It may have, or may still.
    Unknown,
}

/// Why an [`Action`] failed, and whether it may have changed something all the same.
#[derive(Clone, Debug)]
pub struct Failure {
    pub(super) effect: Effect,
    pub(super) error: HandlerError,
    pub(super) dependency: Option<String>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Failure {
    /// It certainly had no effect, and has none later. The error tells what follows where there is no
    /// way back, and it has to be repeated.
    pub fn none(error: HandlerError) -> Self {
        Self { effect: Effect::None, error, dependency: None, source: None }
    }

    /// It may have had an effect, or may still have it: the answer was lost, or came too late.
    pub fn unknown(error: HandlerError) -> Self {
        Self { effect: Effect::Unknown, ..Self::none(error) }
    }

    /// The system at fault.
    #[must_use]
    pub fn with_dependency(mut self, dependency: impl Into<String>) -> Self {
        self.dependency = Some(dependency.into());
        self
    }

    /// With its cause, for whoever began the saga in this process:
    /// [`cause`](Self::cause) gives it back.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(cause));
        self
    }

    /// Whether it may have changed something.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// What follows where it has to be repeated.
    pub fn error(&self) -> &HandlerError {
        &self.error
    }

    /// The system at fault, where it was named.
    pub fn dependency(&self) -> Option<&str> {
        self.dependency.as_deref()
    }

    /// The cause, where it is of this type. Nothing of it outlives the process.
    pub fn cause<E: Error + 'static>(&self) -> Option<&E> {
        self.source.as_ref()?.downcast_ref()
    }

    /// Whether it certainly had no effect: of a repetition alone that says nothing, as the first one
    /// may be on its way still, unless the system has answered, and refuses it for good.
    pub(super) fn is_no(&self, repeated: bool) -> bool {
        let for_good = matches!(self.error, HandlerError::Permanent { .. });
        self.effect == Effect::None && (!repeated || for_good)
    }

    pub(super) fn reason(&self) -> &str {
        self.error.reason()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

#[cfg(feature = "http")]
impl Failure {
    /// Of a call that failed, which means this for one that is repeated: its
    /// [effect](crate::http::CallError::effect) and its dependency; the call's error is the
    /// [cause](Self::cause).
    pub fn of_call(call: crate::http::CallError, error: HandlerError) -> Self {
        let none = call.effect() == crate::http::Effect::None;
        let failure = if none { Self::none(error) } else { Self::unknown(error) };
        let dependency = call.dependency().to_owned();
        failure.with_dependency(dependency).with_cause(call)
    }
}
