//! Refunds: Order closes the warranty and returns the item, or leaves both as they were.

use order_api::{REFUND_PENDING, Status};
use resilience::http::{CallError, Effect, ErrorKind};
use service::Result;
use service::failure::code;
use service::observe::Caller;
use uuid::Uuid;

use crate::models::Refund;
use crate::{App, Failure, nothing_done, with_cause};

/// Refunds a user's order. One that is refunded calls nobody.
///
/// # Errors
/// 404 `order_not_found`; 503 `rolled_back`, `rollback_pending`, `refund_pending`, or
/// `outcome_unknown` where Order's answer was lost: repeating is safe.
pub async fn run(app: &App, caller: &Caller, user: Uuid, uid: Uuid) -> Result<()> {
    if app.db.run(move |conn| Ok(Refund::exists(conn, user, uid)?)).await? {
        return Ok(());
    }
    let cx = caller.context();
    caller.check_time()?;
    // Order returns anybody's order: whose it is, is for us to see.
    let order = app.order.get(&cx, user, uid).await.map_err(nothing_done)?;
    if order.status == Status::Paid {
        app.order.give_back(&cx, uid).await.map_err(failed)?;
    }
    app.known.warranty_is(order.item_uid, warranty_api::Status::RemovedFromWarranty);
    if let Err(error) = app.db.run(move |conn| Ok(Refund::note(conn, user, uid)?)).await {
        // Repeating it then asks Order once more, which calls nobody.
        tracing::warn!(order = %uid, %error, "a refund is complete but not noted");
    }
    Ok(())
}

fn failed(error: CallError) -> Failure {
    if error.effect() == Effect::None {
        return nothing_done(error);
    }
    let told = match error.kind() {
        ErrorKind::Downstream(_) => error.code(),
        _ => None,
    };
    match told {
        Some(REFUND_PENDING) => with_cause(REFUND_PENDING, error.to_string(), &error),
        Some(code::ROLLBACK_PENDING) => {
            with_cause(code::ROLLBACK_PENDING, error.to_string(), &error)
        }
        _ => with_cause(
            code::OUTCOME_UNKNOWN,
            format!("nobody knows whether the order is refunded: {error}; repeating is safe"),
            &error,
        ),
    }
}
