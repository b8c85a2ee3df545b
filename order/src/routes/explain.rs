//! `/manage/explain/{orderUid}`: what Order knows of an order, as it happened.

use axum::Json;
use axum::extract::State;
use resilience::saga::Saga as _;
use service::Result;
use service::input::Ids;
use service::manage::Trusted;
use service::manage::explain::Story;
use service::tombstone;

use crate::App;
use crate::models::OrderRow;
use crate::sagas::place::Place;

/// What became of an order: its sagas, what of them is made later, and its row. By management token, or
/// where there is none, from this machine only.
#[utoipa::path(get, path = "/manage/explain/{orderUid}", tag = "manage",
    params(("orderUid" = Uuid, Path, description = "The order")),
    responses((status = 200, description = "All that is known: nothing, of one never seen", body = Story)))]
pub(super) async fn order(
    _: Trusted,
    State(app): State<App>,
    Ids([order]): Ids<1>,
) -> Result<Json<Story>> {
    let mut story = Story::new(order_api::NAME);
    let sagas = app.sagas.of_key(order.to_string()).await?;
    for (saga, calls) in &sagas {
        story.saga(saga, calls, whom);
    }
    let rows =
        app.db.run(move |conn| Ok((OrderRow::find(conn, order)?, tombstone::since(conn, order)?)));
    let (row, undone) = rows.await?;
    if let Some(at) = undone {
        story.row(
            at,
            "order",
            "tombstone",
            "the order is taken back for good: it can't be placed any more",
        );
    }
    if let Some(row) = row {
        let text = if row.is_canceled() { "refunded" } else { "paid" };
        if !sagas.iter().any(|(saga, _)| saga.kind == Place::KIND) {
            // Its journal is over and forgotten.
            story.row(row.placed_at(), "order", "PAID", "the order is placed");
        }
        story.fact("order", row.status(), format!("the order is {text}"));
    } else {
        story.fact("order", "none", "there is no such order");
    }
    Ok(Json(story))
}

/// Whom a step asks.
fn whom(kind: &str, step: &str) -> Option<&'static str> {
    match (kind, step) {
        ("place", "take") | ("return" | "take-back", "give-back") => Some(warehouse_api::NAME),
        ("place", "start") | ("return", "look" | "close") | ("take-back", "forget") => {
            Some(warranty_api::NAME)
        }
        _ => None,
    }
}
