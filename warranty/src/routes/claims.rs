//! `/warranty/{itemUid}/warranty`: claims.

use axum::extract::State;
use service::idempotency::{Key, once};
use service::input::{Fields, Ids, Pattern};
use service::{Answer, Result};
use warranty_api::{Decided, REASON, StockedClaim};

use crate::{App, ops};

static REASONS: Pattern = Pattern::new(REASON);

/// Decides a claim.
#[utoipa::path(post, path = "/api/v1/warranty/{itemUid}/warranty", tag = "claims",
    params(("itemUid" = Uuid, Path, description = "The item")),
    request_body = StockedClaim,
    responses((status = 200, description = "What was decided", body = Decided)))]
pub(super) async fn claim(
    State(app): State<App>,
    key: Key,
    Ids([item]): Ids<1>,
    body: Fields,
) -> Result<Answer> {
    let claim = read(body)?;
    app.db
        .run(move |conn| {
            // What is in stock is no part of what the client asks: it changes between retries.
            once(conn, &key, &claim.reason, |conn| {
                Answer::ok(&ops::claim(conn, item, app.period, &claim)?)
            })
        })
        .await
}

fn read(mut body: Fields) -> Result<StockedClaim> {
    let reason = body.text("reason", &REASONS);
    let available = body.integer("availableCount", 0..=i64::from(i32::MAX));
    let available_count = available.and_then(|count| i32::try_from(count).ok());
    body.finish(
        reason
            .zip(available_count)
            .map(|(reason, available_count)| StockedClaim { reason, available_count }),
    )
}
