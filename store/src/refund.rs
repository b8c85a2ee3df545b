//! Refunds: Order closes the warranty and returns the item, or leaves both as they were.

use order_api::{REFUND_PENDING, Status};
use resilience::http::{CallError, Effect, ErrorKind};
use service::Result;
use service::failure::code;
use service::observe::Caller;
use uuid::Uuid;

use crate::models::Refund;
use crate::{App, Failure, nothing_done, with_cause};

/// One request to Order that is under way.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    id: Uuid,
    user: Uuid,
    order: Uuid,
}

/// Refunds a user's order. One that is refunded calls nobody.
///
/// # Errors
/// 404 `order_not_found`; 503 `rolled_back`, `rollback_pending`, `refund_pending`, or
/// `outcome_unknown` where Order's answer was lost, now or the last time: repeating is safe.
pub async fn run(app: &App, caller: &Caller, user: Uuid, uid: Uuid) -> Result<()> {
    if app.db.run(move |conn| Ok(Refund::exists(conn, user, uid)?)).await? {
        return Ok(());
    }
    let cx = caller.context();
    caller.check_time()?;
    let id = app.db.run(move |conn| Ok(Refund::begin(conn, user, uid)?)).await?;
    let attempt = Attempt { id, user, order: uid };
    // Order returns anybody's order: whose it is, is for us to see.
    let order = match app.order.get(&cx, user, uid).await {
        Ok(order) => order,
        Err(error) => return Err(nothing(app, attempt, error).await),
    };
    if order.status == Status::Paid
        && let Err(error) = app.order.give_back(&cx, uid).await
    {
        return Err(failed(app, attempt, error).await);
    }
    app.known.warranty_is(order.item_uid, warranty_api::Status::RemovedFromWarranty);
    if let Err(error) = app.db.run(move |conn| Ok(Refund::note(conn, user, uid)?)).await {
        // Repeating it then asks Order once more, which calls nobody.
        tracing::warn!(order = %uid, %error, "a refund is complete but not noted");
    }
    Ok(())
}

async fn failed(app: &App, attempt: Attempt, error: CallError) -> Failure {
    if error.effect() == Effect::None {
        return nothing(app, attempt, error).await;
    }
    let told = match error.kind() {
        ErrorKind::Downstream(_) => error.code(),
        _ => None,
    };
    match told {
        Some(REFUND_PENDING) => with_cause(REFUND_PENDING, error.to_string(), &error),
        Some(code::ROLLBACK_PENDING) if withdraw(app, attempt).await => {
            with_cause(code::ROLLBACK_PENDING, error.to_string(), &error)
        }
        _ => unknown(&error),
    }
}

/// This attempt has done nothing. What an earlier one has done, or may do still, nobody knows.
async fn nothing(app: &App, attempt: Attempt, error: CallError) -> Failure {
    if withdraw(app, attempt).await || error.is_refused() {
        nothing_done(error)
    } else {
        unknown(&error)
    }
}

/// Whether no other attempt may come. Without the database that isn't known.
async fn withdraw(app: &App, attempt: Attempt) -> bool {
    let Attempt { id, user, order } = attempt;
    let others = app.db.run(move |conn| Ok(Refund::withdraw(conn, id, user, order)?)).await;
    matches!(others, Ok(false))
}

fn unknown(error: &CallError) -> Failure {
    let message = format!("nobody knows whether the order is refunded: {error}; repeating is safe");
    with_cause(code::OUTCOME_UNKNOWN, message, error)
}
