//! `/manage/explain/{itemUid}`: what Warranty knows of an item, as it happened.

use axum::Json;
use axum::extract::State;
use service::Result;
use service::input::Ids;
use service::manage::Trusted;
use service::manage::explain::Story;
use service::tombstone;

use crate::App;
use crate::models::{Close, Row};

/// What became of an item. By management token, or where there is none, from this machine only.
#[utoipa::path(get, path = "/manage/explain/{itemUid}", tag = "manage",
    params(("itemUid" = Uuid, Path, description = "The item")),
    responses((status = 200, description = "All that is known: nothing, of one never seen", body = Story)))]
pub(super) async fn item(
    _: Trusted,
    State(app): State<App>,
    Ids([item]): Ids<1>,
) -> Result<Json<Story>> {
    let mut story = Story::new(warranty_api::NAME);
    let rows = app.db.run(move |conn| {
        Ok((Row::find(conn, item)?, Close::all(conn, item)?, tombstone::since(conn, item)?))
    });
    let (row, closes, undone) = rows.await?;
    if let Some(at) = undone {
        story.row(
            at,
            "warranty",
            "tombstone",
            "the start is undone for good: a late one is refused",
        );
    }
    if let Some(row) = row {
        let status = row.status.name();
        story.row(row.warranty_date, "warranty", "started", "the warranty begins");
        story.fact("warranty", status, format!("the warranty is {status}"));
    } else {
        story.fact("warranty", "none", "there is no warranty");
    }
    for (name, close) in closes {
        let state = match (close.effective, close.reopened) {
            (_, true) => "reopened",
            (true, false) => "in force",
            (false, false) => "without effect",
        };
        story.fact("close", state, format!("the close by {name} is {state}"));
    }
    Ok(Json(story))
}
