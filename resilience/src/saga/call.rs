//! How a saga is begun, and what becomes of it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::run::Saga;
use super::step::Failure;
use crate::deferred::DatabaseError;

/// A saga to be begun.
#[derive(Clone, Debug)]
pub struct Start<S: Saga> {
    pub(super) id: Uuid,
    pub(super) key: Option<String>,
    pub(super) input: Box<RawValue>,
    pub(super) context: BTreeMap<String, String>,
    saga: PhantomData<fn() -> S>,
}

impl<S: Saga> Start<S> {
    /// With an id that is minted by you: under it the saga is begun once, however often it is asked
    /// for.
    ///
    /// # Errors
    ///
    /// When the input can't be serialized.
    pub fn new(id: Uuid, input: &S::Input) -> Result<Self, serde_json::Error> {
        let input = serde_json::value::to_raw_value(input)?;
        Ok(Self { id, key: None, input, context: BTreeMap::new(), saga: PhantomData })
    }

    /// Of all sagas of the kind that have this key, one at a time is open.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// What travels with the saga and isn't its input: trace headers, a request's id.
    #[must_use]
    pub fn with_context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.insert(name.into(), value.into());
        self
    }
}

/// Where a saga is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It is under way: before its pivot, or behind it and on its way to its end.
    Running,
    /// It is being taken back.
    Compensating,
    /// It can neither be taken back nor be completed, until an operator
    /// [retries](super::Sagas::retry).
    Stuck,
    /// It had all its effects.
    Committed,
    /// All of it is taken back.
    Compensated,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Running, Self::Compensating, Self::Stuck, Self::Committed, Self::Compensated];

    /// `running`, `compensating`, `stuck`, `committed` or `compensated`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Stuck => "stuck",
            Self::Committed => "committed",
            Self::Compensated => "compensated",
        }
    }

    /// Committed or compensated: it never changes again.
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Committed | Self::Compensated)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Stage {
    type Err = UnknownStage;

    fn from_str(text: &str) -> Result<Self, UnknownStage> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == text).ok_or(UnknownStage)
    }
}

/// A text that names no [`Stage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownStage;

impl fmt::Display for UnknownStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("running, compensating, stuck, committed or compensated")
    }
}

impl Error for UnknownStage {}

/// What came of asking for a saga.
#[derive(Clone, Debug)]
pub enum Started<T> {
    /// It was begun.
    Begun(Outcome<T>),
    /// One of this id, or an open one with this key, was begun before: nothing was done.
    Known(Known),
}

/// What has become of a saga in the time that there was.
#[derive(Clone, Debug)]
pub enum Outcome<T> {
    /// It had all its effects, and this is what it came to.
    Committed(T),
    /// It failed, and had no effect: everything is taken back.
    Compensated(Failure),
    /// It failed, and is being taken back, for as long as that takes.
    Compensating {
        /// Why it failed.
        cause: Failure,
        /// The step that could not be taken back at once, where it was one.
        step: Option<String>,
    },
    /// There is no way back: it will have all its effects, for as long as that takes; unless its pivot
    /// is refused [for good](crate::deferred::HandlerError::Permanent) after all. The failure is why it
    /// could not be completed at once.
    Completing(Option<Failure>),
    /// The database doesn't say, or somebody runs it still. It is committed, or will be, or will be
    /// taken back.
    Unknown,
}

/// What the journal knows of a saga.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Known {
    /// Its id.
    pub id: Uuid,
    /// Where it is.
    pub stage: Stage,
    /// Whether it is behind its pivot.
    pub forward: bool,
    /// Its input, as it was given.
    pub input: Box<RawValue>,
    /// What it came to, of one that is committed.
    pub output: Option<Box<RawValue>>,
    /// Why it is or was taken back, or is stuck.
    pub reason: Option<String>,
    /// The system at fault, where it is known.
    pub dependency: Option<String>,
}

impl Known {
    /// As whoever began it is told.
    pub fn outcome<T: serde::de::DeserializeOwned>(&self) -> Outcome<T> {
        let failure = || {
            let reason = self.reason.clone().unwrap_or_else(|| "it was interrupted".to_owned());
            let failure = Failure::none(crate::deferred::HandlerError::failed(reason));
            match &self.dependency {
                Some(dependency) => failure.with_dependency(dependency.clone()),
                None => failure,
            }
        };
        match self.stage {
            Stage::Committed => {
                let output = self.output.as_ref().map(|output| output.get());
                let read = serde_json::from_str(output.unwrap_or("null"));
                read.map_or(Outcome::Unknown, Outcome::Committed)
            }
            Stage::Compensated => Outcome::Compensated(failure()),
            Stage::Running | Stage::Stuck if self.forward => Outcome::Completing(Some(failure())),
            // Whoever runs it may commit it at this moment.
            Stage::Running => Outcome::Unknown,
            Stage::Compensating | Stage::Stuck => {
                Outcome::Compensating { cause: failure(), step: None }
            }
        }
    }

    /// Whether it was begun with the same input, as JSON.
    pub fn has_input<T: serde::Serialize>(&self, input: &T) -> bool {
        // Both by way of their text: a number that went by another way may differ in its last digit.
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        let given = serde_json::to_string(input).ok().and_then(|given| read(&given));
        given.is_some() && read(self.input.get()) == given
    }
}

/// Why a saga could not be begun: it has no effect.
#[derive(Clone, Debug)]
pub enum StartError<E> {
    /// The database can't be reached, or didn't say what became of it: should the saga be written
    /// down all the same, it will be taken back.
    Database(DatabaseError),
    /// The caller's own part of the transaction failed; all of it is taken back.
    Prepare(E),
    /// It can never be begun so, for this reason: its id is that of a saga of another kind, its key is
    /// longer than 1000 bytes or has a NUL in it, or its input can't be read back.
    Invalid(String),
}

impl<E> fmt::Display for StartError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => error.fmt(f),
            Self::Prepare(_) => f.write_str("the saga could not be prepared"),
            Self::Invalid(reason) => write!(f, "the saga can't be begun: {reason}"),
        }
    }
}

impl<E: Error + 'static> Error for StartError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Database(error) => error.source(),
            Self::Prepare(error) => Some(error),
            Self::Invalid(_) => None,
        }
    }
}
