//! What reaches into several systems: [`place`] and [`give_back`], one file each.
//!
//! Both run in this process's memory: steps from top to bottom, undos beside them, in reverse order
//! when one fails, those that fail retried in the background. What makes that right is in the other
//! systems: ids minted here make each effect happen once, and a tombstone refuses a call that
//! arrives after its undo.

pub mod give_back;
pub mod place;

use std::time::Duration;

use resilience::http::{CallError, Context};
use resilience::rollback::{Rollback, RolledBack};
use service::Failure;
use service::failure::code;

use crate::App;

/// What an answer takes to get back to a caller that stops waiting.
const MARGIN: Duration = Duration::from_millis(250);

/// How long a handler may still wait.
fn time_left(cx: &Context) -> Duration {
    cx.deadline().map_or(MARGIN, |deadline| deadline.remaining().saturating_sub(MARGIN))
}

/// Undoes in a task of its own, and says what has become of it within the caller's time.
async fn roll_back(app: &App, cx: &Context, rollback: Rollback, cause: CallError) -> Failure {
    let backlog = app.backlog.clone();
    let undone = app
        .lifecycle
        .detach_within(time_left(cx), async move { rollback.run(&backlog).await })
        .await;
    match undone {
        Some(RolledBack::Complete) => rolled_back(cause),
        Some(RolledBack::Pending { dependency }) => pending(&cause, dependency),
        None => {
            let dependency = cause.dependency().to_owned();
            pending(&cause, dependency)
        }
    }
}

/// Everything is as it was. A business answer stays what it is; a system that failed is named.
fn rolled_back(cause: CallError) -> Failure {
    if cause.is_refused() {
        return cause.into();
    }
    let dependency = cause.dependency().to_owned();
    let message = format!("nothing was done: {cause}");
    Failure::from(cause).recoded(code::ROLLED_BACK, message).with_dependency(dependency)
}

fn pending(cause: &CallError, dependency: String) -> Failure {
    let message = format!("{cause}; what was done is being undone");
    Failure::unavailable(code::ROLLBACK_PENDING, message)
        .with_dependency(dependency)
        .with_retry_after(cause.retry_after())
}
