//! Whether what `explain` says of an order is what stands in the journals, the ledgers and the rows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use service::testing::until;
use uuid::Uuid;

use super::ledger::rows;
use super::{Part, RECOVERY, World};

type Row = [String; 3];

/// A story in rows, in an order of their own: as it stands in the databases, or as it is told.
#[derive(Debug, PartialEq, Eq)]
struct Story {
    /// Id, kind, and where it is.
    sagas: BTreeSet<Row>,
    /// Saga, step, and where that is.
    steps: BTreeSet<Row>,
    /// Saga, step, and what was answered: `done`, `refused`, `unknown`, or nothing.
    answers: BTreeSet<Row>,
    /// Id, kind, and where it is: of Order and of Store.
    calls: BTreeSet<Row>,
    /// Of those that are open, and of sagas that somebody runs: id, until when in microseconds, and
    /// nothing.
    due: BTreeSet<Row>,
    /// `order`, `item` or `warranty`, its state, and nothing.
    facts: BTreeSet<Row>,
}

impl Story {
    /// As it stands in the databases.
    fn written(world: &World, order: Uuid) -> Self {
        let item = Uuid::new_v5(&order, b"item");
        let of = |part: Part, select: &str| rows(world.database(part), select).into_iter();
        let steps = |what: &str| {
            of(
                Part::Order,
                &format!(
                    "SELECT s.id::text AS a, t.name AS b, {what} AS c FROM saga s, saga_step t
                     WHERE t.saga = s.id AND s.key = '{order}'"
                ),
            )
        };
        let mine = format!(
            "FROM deferred d, saga s WHERE s.key = '{order}'
             AND d.kind IN ('saga.undo', 'saga.resume') AND d.payload->>'saga' = s.id::text"
        );
        let stores = format!(
            "FROM deferred d WHERE d.id = '{order}'
             OR d.id IN (SELECT claim_uid FROM claims WHERE order_uid = '{order}')"
        );
        let calls = |what: &str| {
            let select = |from| format!("SELECT d.id::text AS a, {what} {from}");
            of(Part::Order, &select(&mine)).chain(of(Part::Store, &select(&stores)))
        };
        // What somebody has waits for his lease, and all else for its time.
        let due = "(extract(epoch FROM CASE WHEN d.state = 'running' THEN d.lease_until
                                            ELSE d.not_before END) * 1000000)::bigint::text AS b,
                   CASE WHEN d.ended_at IS NULL THEN '' ELSE 'over' END AS c";
        let leases = format!(
            "SELECT id::text AS a, (extract(epoch FROM lease_until) * 1000000)::bigint::text AS b,
                    '' AS c
             FROM saga WHERE key = '{order}' AND ended_at IS NULL AND lease_until IS NOT NULL"
        );
        let fact = |part: Part, name: &str, state: &str, from: &str| {
            let none = format!(
                "SELECT '{name}' AS a, coalesce((SELECT {state} FROM {from}), 'none') AS b, '' AS c"
            );
            of(part, &none).next().unwrap()
        };
        Self {
            sagas: of(
                Part::Order,
                &format!(
                    "SELECT id::text AS a, kind AS b, state AS c FROM saga WHERE key = '{order}'"
                ),
            )
            .collect(),
            steps: steps("t.state").collect(),
            answers: steps(
                "CASE WHEN t.state IN ('done', 'refused', 'unknown') THEN t.state
                      WHEN t.output IS NOT NULL THEN 'done'
                      WHEN t.ended_at IS NOT NULL OR t.state <> 'intent' THEN 'unknown'
                      ELSE '' END",
            )
            .collect(),
            calls: calls("d.kind AS b, d.state AS c").collect(),
            due: calls(due)
                .filter(|[_, _, over]| over.is_empty())
                .chain(of(Part::Order, &leases))
                .collect(),
            facts: [
                fact(
                    Part::Order,
                    "order",
                    "status",
                    &format!("orders WHERE order_uid = '{order}'"),
                ),
                fact(
                    Part::Warehouse,
                    "item",
                    "CASE WHEN canceled THEN 'canceled' ELSE 'held' END",
                    &format!("order_item WHERE order_item_uid = '{item}'"),
                ),
                fact(
                    Part::Warranty,
                    "warranty",
                    "status",
                    &format!("warranty WHERE item_uid = '{item}'"),
                ),
            ]
            .into(),
        }
    }

    /// As it is told.
    fn told(answer: &Value) -> Self {
        let list = |field: &str| answer[field].as_array().unwrap().iter();
        let text = |of: &Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
        let events =
            |source: &'static str| list("events").filter(move |event| event["source"] == source);
        // Whatever comes last of something is where it is.
        let mut last: BTreeMap<(String, String), String> = BTreeMap::new();
        let mut answers = BTreeMap::new();
        let mut times: Vec<String> = Vec::new();
        for event in list("events") {
            times.push(text(event, "at"));
        }
        assert!(times.is_sorted(), "{times:?}");
        // A step is undone when all of its saga is asked, and not before.
        let mut back: BTreeSet<String> = BTreeSet::new();
        for event in events("journal") {
            let (saga, state) = (text(event, "of"), text(event, "state"));
            if ["undo_intent", "undo_deferred", "undone"].contains(&&*state) {
                back.insert(saga);
            } else if !["compensated", "committed"].contains(&&*state) {
                assert!(!back.contains(&saga), "{event} after an undo: {answer:#}");
            }
        }
        for event in events("journal").chain(events("ledger")) {
            let (key, state) = ((text(event, "of"), text(event, "name")), text(event, "state"));
            if state == "intent" {
                answers.insert(key.clone(), String::new());
            } else if ["done", "refused", "unknown"].contains(&&*state)
                && answers.contains_key(&key)
            {
                answers.insert(key.clone(), state.clone());
            }
            last.insert(key, state);
        }
        let mut due = BTreeSet::new();
        for wait in list("waits") {
            last.insert((text(wait, "of"), text(wait, "name")), text(wait, "state"));
            if let Some(until) = wait["until"].as_str() {
                let until = chrono::DateTime::parse_from_rfc3339(until).unwrap();
                due.insert([text(wait, "of"), until.timestamp_micros().to_string(), String::new()]);
            }
        }
        let row = |((of, name), state): ((String, String), String)| [of, name, state];
        let begun = |source, state| -> BTreeSet<(String, String)> {
            let begun = events(source).filter(|event| event["state"] == state);
            begun.map(|event| (text(event, "of"), text(event, "name"))).collect()
        };
        let pick = |keys: BTreeSet<(String, String)>| -> BTreeSet<Row> {
            keys.into_iter().map(|key| (key.clone(), last[&key].clone())).map(row).collect()
        };
        let facts = list("facts")
            .filter(|fact| ["order", "item", "warranty"].contains(&fact["name"].as_str().unwrap()));
        Self {
            sagas: pick(begun("journal", "begun")),
            steps: pick(begun("journal", "intent")),
            answers: answers.into_iter().map(row).collect(),
            calls: pick(begun("ledger", "accepted")),
            due,
            facts: facts
                .map(|fact| [text(fact, "name"), text(fact, "state"), String::new()])
                .collect(),
        }
    }
}

impl World {
    /// What is explained of this order is what is written down, all of it, and nothing else. It may be
    /// going on meanwhile.
    pub(crate) async fn explains(&self, order: Uuid, what: &str) {
        let what = format!("{order} is explained: {what}");
        let (answer, written) = until(RECOVERY * 2, &what, async || {
            let before = Story::written(self, order);
            let answer =
                self.store().get(format!("/manage/explain/{order}")).try_send().await.ok()?;
            let answer = (answer.status == 200).then(|| answer.json())?;
            let whole = answer["gaps"].as_array()?.is_empty();
            (whole && before == Story::written(self, order)).then_some((answer, before))
        })
        .await;
        let told = Story::told(&answer);
        assert_eq!(told, written, "{what}: {answer:#}");
        let state = written.facts.iter().find(|[name, ..]| name == "order").unwrap()[1].clone();
        let open =
            written.sagas.iter().any(|[_, kind, state]| kind == "place" && state == "running");
        let outcome = match state.as_str() {
            "PAID" => "paid",
            "CANCELED" => "refunded",
            _ if open => "being placed",
            _ if written.sagas.is_empty() && written.calls.is_empty() => "never seen",
            _ if answer["waits"].as_array().unwrap().is_empty() => "taken back",
            _ => "being taken back",
        };
        let said = answer["outcome"].as_str().unwrap();
        // Of one that Order has never seen there may be a tombstone alone.
        assert!(
            said.starts_with(outcome)
                || (outcome == "never seen" && said.starts_with("taken back")),
            "{what}: {said}"
        );
        let waits = answer["waits"].as_array().unwrap().len();
        assert_eq!(said.contains("still to happen"), waits > 0, "{what}: {said}");
    }

    /// The orders of which something was begun since this moment of Order's and Store's clocks, in
    /// microseconds.
    pub(crate) fn orders_since(&self, moment: i64) -> BTreeSet<Uuid> {
        let since = format!("'epoch'::timestamptz + {moment} * interval '1 microsecond'");
        let sagas = format!(
            "SELECT DISTINCT key AS a, '' AS b, '' AS c FROM saga WHERE begun_at >= {since} AND key IS NOT NULL"
        );
        let undos = format!(
            "SELECT id::text AS a, '' AS b, '' AS c FROM deferred
             WHERE kind = 'undo-purchase' AND created_at >= {since}"
        );
        let of = |part: Part, select: &str| rows(self.database(part), select);
        let all = of(Part::Order, &sagas).into_iter().chain(of(Part::Store, &undos));
        all.map(|[order, ..]| order.parse().unwrap()).collect()
    }

    /// This moment, by the databases' clock, in microseconds.
    pub(crate) fn moment(&self) -> i64 {
        self.number(Part::Order, "(SELECT extract(epoch FROM clock_timestamp()) * 1000000)")
    }
}
