//! `/warranty`: starting, closing and re-opening.

use axum::extract::State as Extract;
use chrono::{DateTime, Datelike, SubsecRound, Utc};
use service::idempotency::{Key, once};
use service::input::{Compensate, Fields, Ids, ItemUids, OptionalFields, Pattern};
use service::{Answer, Result};
use warranty_api::{REASON, Restore, Warranty};

use crate::models::State;
use crate::{App, ops};

static COMMENTS: Pattern = Pattern::new(REASON);

/// The fields by which a restore is told from a start.
const RESTORE: &[&str] = &["status", "warrantyDate", "comment", "closedBy"];

/// The warranty of an item.
#[utoipa::path(get, path = "/api/v1/warranty/{itemUid}", tag = "warranties",
    params(("itemUid" = Uuid, Path, description = "The item")),
    responses((status = 200, description = "The warranty", body = Warranty)))]
pub(super) async fn get(Extract(app): Extract<App>, Ids([item]): Ids<1>) -> Result<Answer> {
    let warranty = app.db.run(move |conn| ops::get(conn, item)).await?;
    Answer::ok(&warranty)
}

/// Those of up to 100 items at once. Items without one are left out.
#[utoipa::path(get, path = "/api/v1/warranty", tag = "warranties",
    params(("itemUid" = String, Query,
        pattern = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(,[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}){0,99}$",
        description = "Ids, separated by commas; may be repeated")),
    responses((status = 200, description = "Those that are known", body = [Warranty])))]
pub(super) async fn list(Extract(app): Extract<App>, ItemUids(items): ItemUids) -> Result<Answer> {
    let warranties = app.db.run(move |conn| ops::list(conn, &items)).await?;
    Answer::ok(&warranties)
}

/// Starts the period of an item; repeating it changes nothing. With a body it re-opens a closed
/// warranty exactly as it was, and the close that it names does nothing from now on.
#[utoipa::path(post, path = "/api/v1/warranty/{itemUid}", tag = "warranties",
    params(("itemUid" = Uuid, Path, description = "The item")),
    request_body = Option<Restore>,
    responses((status = 204, description = "It runs, or is what it was")))]
pub(super) async fn start_or_restore(
    Extract(app): Extract<App>,
    key: Key,
    Ids([item]): Ids<1>,
    OptionalFields(body): OptionalFields,
) -> Result<Answer> {
    let before = body.filter(|body| body.has_any(RESTORE)).map(read).transpose()?;
    app.db
        .run(move |conn| {
            once(conn, &key, &before, |conn| {
                match &before {
                    None => ops::start(conn, item)?,
                    Some(before) => ops::restore(conn, item, before)?,
                }
                Ok(Answer::no_content())
            })
        })
        .await
}

fn read(mut body: Fields) -> Result<Restore> {
    let status =
        body.parsed("status", "ON_WARRANTY, USE_WARRANTY or REMOVED_FROM_WARRANTY", |text| {
            State::of(text).map(|State(status)| status)
        });
    let date = body.parsed("warrantyDate", "a time such as 2020-10-29T01:00:52.658050Z", time);
    let comment = body.optional_text("comment", &COMMENTS);
    let closed_by = body.optional_parsed("closedBy", "1 to 255 visible ASCII characters", name);
    body.finish(status.zip(date).map(|(status, warranty_date)| Restore {
        status,
        warranty_date,
        comment,
        closed_by,
    }))
}

/// RFC 3339. The database keeps microseconds, and RFC 3339 has no year of five digits.
fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.to_utc().trunc_subsecs(6);
    (1..=9999).contains(&time.year()).then_some(time)
}

/// What an `Idempotency-Key` looks like.
fn name(text: &str) -> Option<String> {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    (visible && (1..=255).contains(&text.len())).then(|| text.to_owned())
}

/// Closes the warranty of an item; repeating it changes nothing. Its `Idempotency-Key` is the name
/// by which this close can be undone.
#[utoipa::path(delete, path = "/api/v1/warranty/{itemUid}", tag = "warranties",
    params(
        ("itemUid" = Uuid, Path, description = "The item"),
        ("X-Compensate" = Option<bool>, Header, description =
            "Undoes a start whose outcome is unknown: an unknown id is no error, and stays refused")),
    responses((status = 204, description = "It is closed")))]
pub(super) async fn close(
    Extract(app): Extract<App>,
    key: Key,
    Ids([item]): Ids<1>,
    Compensate(compensate): Compensate,
) -> Result<Answer> {
    app.db
        .run(move |conn| {
            once(conn, &key, &compensate, |conn| {
                ops::close(conn, item, key.as_str(), compensate)?;
                Ok(Answer::no_content())
            })
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_keeps_its_microseconds_and_fits_into_rfc_3339_again() {
        let kept = time("2020-10-29T03:00:52.658050+02:00").unwrap();
        assert_eq!(serde_json::to_value(kept).unwrap(), "2020-10-29T01:00:52.658050Z");
        let cut = time("2020-10-29T01:00:52.6580501239Z").unwrap();
        assert_eq!(cut, kept);
        for wrong in [
            "",
            "2020-10-29",
            "2020-10-29T01:00:52",
            "2020-13-29T01:00:52Z",
            "0000-06-01T00:00:00Z",
            "9999-12-31T23:59:59-14:00",
            "+12020-10-29T01:00:52Z",
        ] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_name_is_what_a_key_may_be() {
        assert!(name("x").is_some() && name(&"x".repeat(255)).is_some());
        for wrong in ["", "a b", "ä", "a\n", &"x".repeat(256)] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
    }
}
