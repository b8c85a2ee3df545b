//! What [`deferred`](super::deferred) and [`sagas`](super::sagas) have in common: both show rows of the
//! service's database, and have something done with one of them.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use chrono::{DateTime, Utc};
use http::request::Parts;
use resilience::deferred::OperatorError;
use serde_json::Value;
use serde_json::value::RawValue;

use super::view::rfc3339;
use crate::failure::{Detail, Failure, Result, code};
use crate::input::{Pattern, pairs, refuse};

/// Rows that are shown, unless the operator asks for more or fewer, and at the most.
const SHOWN: u32 = 100;
const MOST: u32 = 1000;

/// What can be the name of a kind.
static KIND: Pattern = Pattern::new(("^[a-z0-9._-]+$", 100, "a kind's name"));

/// Which rows are asked for.
pub(super) struct Which<S> {
    pub(super) stage: Option<S>,
    pub(super) kind: Option<String>,
    pub(super) limit: u32,
}

impl<S, T> FromRequestParts<T> for Which<S>
where
    S: FromStr<Err: Display>,
    T: Send + Sync,
{
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &T) -> Result<Self> {
        let mut which = Self { stage: None, kind: None, limit: SHOWN };
        let mut wrong = Vec::new();
        for (field, value) in pairs(parts) {
            let read = match field.as_str() {
                "state" => value
                    .parse()
                    .map(|stage| which.stage = Some(stage))
                    .map_err(|stages| format!("must be {stages}")),
                "kind" => KIND.check(value).map(|kind| which.kind = Some(kind)),
                "limit" => value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=MOST).contains(limit))
                    .map(|limit| which.limit = limit)
                    .ok_or_else(|| format!("must be a whole number from 1 to {MOST}")),
                _ => Ok(()),
            };
            wrong.extend(read.err().map(|message| Detail { field, message }));
        }
        refuse(wrong)?;
        Ok(which)
    }
}

/// A number that fits in no type of ours is shown as the text that it is.
pub(super) fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| Value::String(raw.get().to_owned()))
}

pub(super) fn text(time: DateTime<Utc>) -> String {
    rfc3339(time.into())
}

/// Why what an operator asked for wasn't done.
pub(super) fn refused(error: OperatorError) -> Failure {
    match error {
        OperatorError::Database(error) => error.into(),
        OperatorError::Unknown => Failure::not_found(code::NOT_FOUND, error.to_string()),
        _ => Failure::conflict(code::WRONG_STATE, error.to_string()),
    }
}
