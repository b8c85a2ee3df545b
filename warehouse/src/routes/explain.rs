//! `/manage/explain/{itemUid}`: what Warehouse knows of an item, as it happened.

use axum::Json;
use axum::extract::State;
use service::Result;
use service::input::Ids;
use service::manage::Trusted;
use service::manage::explain::Story;
use service::tombstone;

use crate::App;
use crate::models::OrderItem;

/// What became of an item. By management token, or where there is none, from this machine only.
#[utoipa::path(get, path = "/manage/explain/{itemUid}", tag = "manage",
    params(("itemUid" = Uuid, Path, description = "The item")),
    responses((status = 200, description = "All that is known: nothing, of one never seen", body = Story)))]
pub(super) async fn item(
    _: Trusted,
    State(app): State<App>,
    Ids([item]): Ids<1>,
) -> Result<Json<Story>> {
    let mut story = Story::new(warehouse_api::NAME);
    let rows =
        app.db.run(move |conn| Ok((OrderItem::find(conn, item)?, tombstone::since(conn, item)?)));
    let (found, undone) = rows.await?;
    if let Some(at) = undone {
        story.row(at, "item", "tombstone", "the taking is undone for good: a late one is refused");
    }
    match found {
        Some((row, kind)) if row.canceled => {
            story.fact(
                "item",
                "canceled",
                format!("{} {} is back in stock", kind.model, kind.size),
            );
        }
        Some((_, kind)) => {
            story.fact(
                "item",
                "held",
                format!("{} {} is held for the order", kind.model, kind.size),
            );
        }
        None => story.fact("item", "none", "no item is held for the order"),
    }
    Ok(Json(story))
}
