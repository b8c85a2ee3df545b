//! What a failed call says about the dependency's health.

use ::http::StatusCode;

use super::error::{ErrorKind, Refusal, ran_out_of_time};
use crate::classify::{Classify, Verdict};
use crate::pipeline::NoAnswer;

/// Tells failures of the hop that was called from those of others, as the table in
/// [`http`](super) has it. What a [`Client`](super::Client) does unless it is told otherwise.
///
/// A classification of your own can add to it:
///
/// ```
/// use resilience::http::{ByKind, ErrorKind};
/// use resilience::{Classify, Verdict};
///
/// /// Here a 404 is a sign of a deployment that went wrong.
/// fn classify(error: &ErrorKind) -> Verdict {
///     match error {
///         ErrorKind::Refused(refusal) if refusal.status == 404 => {
///             Verdict::Failure("knows nothing".into())
///         }
///         other => ByKind.classify(other),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ByKind;

impl Classify<ErrorKind> for ByKind {
    fn classify(&self, error: &ErrorKind) -> Verdict {
        match error {
            ErrorKind::Connect(reason)
            | ErrorKind::Lost(reason)
            | ErrorKind::Unreadable(reason) => Verdict::Failure(reason.clone().into()),
            ErrorKind::TimedOut { limit, inherited: false } => {
                Verdict::Failure(NoAnswer(*limit).to_string().into())
            }
            ErrorKind::Busy(refusal) if refusal.status == StatusCode::TOO_MANY_REQUESTS => {
                answered(refusal)
            }
            ErrorKind::Downstream(refusal) | ErrorKind::Unavailable(refusal)
                if ran_out_of_time(refusal) =>
            {
                Verdict::Ignored
            }
            ErrorKind::Unavailable(refusal) => answered(refusal),
            ErrorKind::Refused(_) | ErrorKind::Busy(_) | ErrorKind::Downstream(_) => {
                Verdict::Success
            }
            // Nothing was sent, or too little time was given.
            ErrorKind::TimedOut { inherited: true, .. }
            | ErrorKind::Invalid(_)
            | ErrorKind::Rejected(_)
            | ErrorKind::BulkheadFull(_)
            | ErrorKind::DeadlineExceeded => Verdict::Ignored,
        }
    }
}

fn answered(refusal: &Refusal) -> Verdict {
    Verdict::Failure(format!("answered {}", refusal.status.as_u16()).into())
}
