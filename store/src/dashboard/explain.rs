//! `/manage/explain/{orderUid}`: one story of an order, across the four services.
//!
//! Each service tells what stands in its own journal, ledger and rows; what its breakers did meanwhile
//! comes with it. A service that gives no answer is a gap in the story, and named as one.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use chrono::DateTime;
use futures_util::future::{join, join_all};
use order_api::item_of;
use resilience::http::Context;
use serde::Serialize;
use serde_json::{Value, json};
use service::input::Ids;
use service::manage::explain::Story;
use service::manage::{Trusted, rfc3339};
use service::{Failure, Result};
use utoipa::ToSchema;
use uuid::Uuid;

use super::watch::{PATIENCE, why};
use super::{Dashboard, Source};
use crate::config::NAME;
use crate::models::{ClaimRow, Refund};

/// What became of an order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explained {
    order_uid: Uuid,
    item_uid: Uuid,
    at: String,
    /// What it came to, in a few words.
    outcome: String,
    /// What happened, the oldest first.
    #[schema(value_type = Vec<Object>)]
    events: Vec<Value>,
    /// What is so now, as each service has it.
    #[schema(value_type = Vec<Object>)]
    facts: Vec<Value>,
    /// What is still to happen.
    #[schema(value_type = Vec<Object>)]
    waits: Vec<Value>,
    /// Who gave no answer.
    #[schema(value_type = Vec<Object>)]
    gaps: Vec<Value>,
}

/// What became of an order, or of the order of a claim. By management token, or where there is none, from
/// this machine only.
#[utoipa::path(get, path = "/manage/explain/{orderUid}", tag = "manage",
    params(("orderUid" = Uuid, Path, description = "The order, or a claim on it")),
    responses((status = 200, description = "All that is known, and by whom nothing is told",
        body = Explained)))]
pub(super) async fn explain(
    _: Trusted,
    State(dashboard): State<Dashboard>,
    Ids([uid]): Ids<1>,
) -> Result<Json<Explained>> {
    let Dashboard { source, watch, .. } = &dashboard;
    let mut gaps = Vec::new();
    let mut gap = |service: &str, reason: String| {
        gaps.push(json!({"service": service, "reason": reason}));
    };
    let (order, own) = match source.own(uid).await {
        Ok((order, story)) => (order, Some(story)),
        Err(failure) => {
            gap(NAME, failure.message().to_owned());
            (uid, None)
        }
    };
    let item = item_of(order);
    let asked = watch.others().iter().map(async |other| {
        let id = if other.name == order_api::NAME { order } else { item };
        let path = format!("/manage/explain/{id}");
        let (story, overview) = join(other.ask(&path), other.ask("/manage/overview")).await;
        (other.name, story, overview.ok())
    });
    let mut stories: Vec<Value> = own.into_iter().collect();
    let mut breakers = vec![(NAME, Some(watch.own().now().await?))];
    for (name, story, overview) in join_all(asked).await {
        match story {
            Ok(story) => stories.push(story),
            Err(reason) => gap(name, reason),
        }
        breakers.push((name, overview));
    }
    let all = |field: &str| -> Vec<Value> {
        let lists = stories.iter().filter_map(|story| story[field].as_array());
        lists.flatten().cloned().collect()
    };
    let (mut events, facts, waits) = (all("events"), all("facts"), all("waits"));
    let at = rfc3339(SystemTime::now());
    // In one form, and of one zone: in the order of their texts they are in the order of time.
    let when = |event: &Value| event["at"].as_str().unwrap_or_default().to_owned();
    let times = || events.iter().map(when);
    if let (Some(first), Some(last)) = (times().min(), times().max()) {
        let last = if waits.is_empty() { last } else { at.clone() };
        events.extend(meanwhile(&breakers, &shortly_before(first), &last));
    }
    events.sort_by_cached_key(when);
    let outcome = outcome(&facts, &waits, &events, &gaps);
    let explained =
        Explained { order_uid: order, item_uid: item, at, outcome, events, facts, waits, gaps };
    Ok(Json(explained))
}

/// What a breaker did then may be why.
const SHORTLY: Duration = Duration::from_secs(10);

fn shortly_before(at: String) -> String {
    let time = DateTime::parse_from_rfc3339(&at).map(SystemTime::from);
    time.map_or(at, |time| rfc3339(time - SHORTLY))
}

/// What the breakers did from the first moment to the last.
fn meanwhile(breakers: &[(&str, Option<Value>)], first: &str, last: &str) -> Vec<Value> {
    let mut found = Vec::new();
    for (service, overview) in breakers {
        let events = overview.as_ref().and_then(|overview| overview["events"].as_array());
        for event in events.into_iter().flatten() {
            let at = event["at"].as_str().unwrap_or_default();
            if at < first || at > last {
                continue;
            }
            let (name, what) = (text(event, "breaker"), text(event, "what"));
            let words = what.replace('_', " ");
            found.push(json!({"at": at, "service": service, "source": "breaker", "name": name,
                "state": what, "text": format!("the breaker of {service} for {name}: {words}"),
                "reason": event["reason"]}));
        }
    }
    found
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// What it came to: by Order's word, as nobody else knows.
fn outcome(facts: &[Value], waits: &[Value], events: &[Value], gaps: &[Value]) -> String {
    let order = facts.iter().find(|fact| fact["name"] == "order").map(|fact| text(fact, "state"));
    let placing = waits.iter().any(|wait| wait["name"] == "place" && wait["state"] == "running");
    let was = events.iter().any(|event| event["source"] != "breaker");
    let alone = gaps.iter().any(|gap| gap["service"] == NAME);
    let outcome = match order {
        None => "not known: Order gives no answer",
        Some("PAID") => "paid",
        Some("CANCELED") => "refunded",
        _ if placing => "being placed",
        _ if was && waits.is_empty() => "taken back: it never was",
        _ if was => "being taken back",
        // Whose claim it is Store alone knows.
        _ if alone => "not known: Order has no such order, and it may be a claim",
        _ => "never seen",
    };
    let more = match waits.len() {
        0 => String::new(),
        1 => "; one thing is still to happen".to_owned(),
        count => format!("; {count} things are still to happen"),
    };
    let stuck = |wait: &&Value| ["stuck", "parked"].contains(&text(wait, "state"));
    let more = match waits.iter().filter(stuck).count() {
        0 => more,
        _ => format!("{more}; an operator is needed"),
    };
    let without = if gaps.is_empty() { "" } else { "; with gaps" };
    format!("{outcome}{more}{without}")
}

impl Source {
    /// What Store itself knows, and of which order: of a claim's id, that of its order.
    async fn own(&self, uid: Uuid) -> Result<(Uuid, Value)> {
        let rows = self.db.run(move |conn| {
            let order = ClaimRow::order_of(conn, uid)?.unwrap_or(uid);
            let claims = ClaimRow::of_order(conn, order)?;
            let refund = (Refund::when(conn, order)?, Refund::attempts(conn, order)?);
            Ok((order, claims, refund))
        });
        let (order, claims, (refunded, attempts)) = rows.await?;
        let mut story = Story::new(NAME);
        if let Some(undo) = self.deferred.get(order).await? {
            story.call(&undo, Some(order_api::NAME));
        }
        for claim in claims {
            let id = claim.claim_uid;
            story.row(
                claim.requested_at,
                "claim",
                "accepted",
                format!("the claim {id} is accepted"),
            );
            if let Some(at) = claim.decided_at {
                let decision = claim.decision.as_deref().unwrap_or("nothing");
                let text = format!("the claim {id} is decided: {decision}");
                story.row(at, "claim", "DECIDED", text);
            }
            if let Some(call) = self.deferred.get(id).await? {
                story.call(&call, None);
            }
            let why = claim.failure.map(|failure| format!(": {failure}")).unwrap_or_default();
            let text = format!("the claim {id} is {}{why}", claim.status);
            story.fact("claim", claim.status, text);
        }
        for at in attempts {
            let text = "Order is asked for the refund: its answer isn't there yet, or was lost";
            story.row(at, "refund", "asked", text);
        }
        if let Some(at) = refunded {
            story.row(at, "refund", "complete", "the refund is complete, and known to Store");
        }
        Ok((order, serde_json::to_value(story).map_err(Failure::internal)?))
    }
}

impl super::watch::Other {
    /// What it answers to an operator's question, or why it doesn't.
    async fn ask(&self, path: &str) -> std::result::Result<Value, String> {
        let reply = self.client.get(path).timeout(PATIENCE).fetch(&Context::new()).await;
        reply.map(|reply| reply.body).map_err(|error| why(&error).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(order: Option<&str>, waits: &[(&str, &str)], events: usize, gaps: &[&str]) -> String {
        let facts: Vec<_> =
            order.map(|state| json!({"name": "order", "state": state})).into_iter().collect();
        let waits: Vec<_> =
            waits.iter().map(|(name, state)| json!({"name": name, "state": state})).collect();
        let events = vec![json!({"source": "journal"}); events];
        let gaps: Vec<_> = gaps.iter().map(|service| json!({"service": service})).collect();
        outcome(&facts, &waits, &events, &gaps)
    }

    #[test]
    fn what_is_not_over_is_not_told_as_over() {
        assert_eq!(said(Some("none"), &[], 2, &[]), "taken back: it never was");
        let undo = ("undo-purchase", "pending");
        assert_eq!(
            said(Some("none"), &[undo], 2, &[]),
            "being taken back; one thing is still to happen"
        );
        assert_eq!(
            said(Some("none"), &[("place", "stuck"), ("saga.undo", "parked")], 2, &[]),
            "being taken back; 2 things are still to happen; an operator is needed"
        );
        assert_eq!(
            said(Some("none"), &[("place", "running")], 2, &[]),
            "being placed; one thing is still to happen"
        );
    }

    #[test]
    fn what_nobody_could_say_is_not_told_as_never_seen() {
        assert_eq!(said(Some("none"), &[], 0, &[]), "never seen");
        assert_eq!(said(Some("none"), &[], 0, &["warranty"]), "never seen; with gaps");
        let unknown = said(Some("none"), &[], 0, &[NAME]);
        assert!(unknown.starts_with("not known"), "{unknown}");
        let unknown = said(None, &[], 3, &["order"]);
        assert!(unknown.starts_with("not known: Order gives no answer"), "{unknown}");
    }
}
