//! Sagas and steps without their types, as whoever takes over finds them by their names.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::de::Error as _;
use serde_json::value::RawValue;

use super::run::{Ended, Run, Saga};
use super::step::Step;
use crate::deferred::{Attempt, HandlerError};

/// The steps of a saga that can be undone, for whoever has to undo them without having run it.
#[derive(Default)]
#[must_use]
pub struct Steps {
    pub(super) undos: BTreeMap<&'static str, Arc<dyn Undoes>>,
    pub(super) twice: Option<&'static str>,
}

impl Steps {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// And this one.
    pub fn and<S: Step>(mut self, step: S) -> Self {
        if self.undos.insert(S::NAME, Arc::new(Typed(Arc::new(step)))).is_some() {
            self.twice.get_or_insert(S::NAME);
        }
        self
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.undos.keys()).finish()
    }
}

/// A [`Step`] that is undone.
pub(super) trait Undoes: Send + Sync {
    /// Not yet begun; an error when the input can't be read.
    fn undo(
        &self,
        attempt: Attempt<Box<RawValue>>,
    ) -> Result<BoxFuture<'static, Result<(), HandlerError>>, serde_json::Error>;
}

struct Typed<S>(Arc<S>);

impl<S: Step> Undoes for Typed<S> {
    fn undo(
        &self,
        attempt: Attempt<Box<RawValue>>,
    ) -> Result<BoxFuture<'static, Result<(), HandlerError>>, serde_json::Error> {
        let payload = serde_json::from_str(attempt.payload.get())?;
        let step = Arc::clone(&self.0);
        let attempt = attempt.with_payload(payload);
        Ok(async move { step.undo(attempt).await }.boxed())
    }
}

/// A [`Saga`] that somebody else began.
pub(super) trait Resumes: Send + Sync {
    /// Not yet begun; an error when the input can't be read.
    fn resume(
        &self,
        run: Run,
        input: &RawValue,
    ) -> Result<BoxFuture<'static, Result<(), HandlerError>>, serde_json::Error>;
}

pub(super) struct Definition<S> {
    pub(super) saga: Arc<S>,
}

impl<S: Saga> Resumes for Definition<S> {
    fn resume(
        &self,
        run: Run,
        input: &RawValue,
    ) -> Result<BoxFuture<'static, Result<(), HandlerError>>, serde_json::Error> {
        let input: S::Input =
            serde_json::from_str(input.get()).map_err(serde_json::Error::custom)?;
        let saga = Arc::clone(&self.saga);
        let resumed = async move {
            match run.carry(&*saga, &input).await {
                Ended::Committed(_) | Ended::Compensated(_) | Ended::Compensating(..) => Ok(()),
                Ended::Beyond(failure) => Err(failure.error),
                Ended::Lost => Err(HandlerError::not_yet("somebody else has taken over")),
                Ended::Unwritten(error) => Err(HandlerError::not_yet(error.to_string())),
            }
        };
        Ok(resumed.boxed())
    }
}
