//! What has become of every claim: by Store's answers, its ledger, Warranty's books, RabbitMQ's tools.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use service::testing::until;
use uuid::Uuid;

use super::users::{Told, Users};
use crate::world::bulk::{item, order};
use crate::world::ledger::rows;
use crate::world::{Part, RECOVERY, World};

/// Warranty's effects are counted where they happen, whatever anybody remembers of them.
pub(super) fn watch_warranty(world: &World) {
    world.execute(
        Part::Warranty,
        "CREATE TABLE effects (item_uid uuid NOT NULL);
         CREATE FUNCTION note_effect() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN INSERT INTO effects VALUES (NEW.item_uid); RETURN NULL; END';
         CREATE TRIGGER effects AFTER UPDATE ON warranty
         FOR EACH ROW EXECUTE FUNCTION note_effect()",
    );
}

/// Waits until everybody was told something and nothing is under way any more.
pub(super) async fn calm(world: &World, users: &mut Users) {
    for process in Part::ALL.iter().flat_map(|part| world.processes(*part)) {
        process.ready().await;
    }
    users.leave().await;
    until(Duration::MAX, "every call has ended", async || {
        let open = "SELECT count(*) FROM deferred WHERE state NOT IN ('done', 'parked')";
        (world.number(Part::Store, open) == 0).then_some(())
    })
    .await;
    if world.has_broker() {
        // Whoever was cut off often waits for longer until it comes again.
        until(Duration::MAX, "all have RabbitMQ again", async || {
            for store in world.processes(Part::Store) {
                let health = store.client().get("/manage/health").send().await.json();
                if health["components"]["broker"]["status"] != "Work" {
                    return None;
                }
            }
            Some(())
        })
        .await;
        until(Duration::MAX, "RabbitMQ is empty", async || {
            let queues = tokio::task::block_in_place(|| world.queues());
            let empty = queues.iter().all(|queue| queue.ready + queue.unacked == 0);
            (empty && !queues.is_empty()).then_some(())
        })
        .await;
    }
}

/// For whoever wants to know why it isn't calm.
pub(super) fn explain(world: &World) {
    let open = rows(
        world.database(Part::Store),
        "SELECT id::text AS a, state || CASE WHEN held THEN ' held' ELSE '' END AS b,
                format('attempts %s strikes %s not before %s lease until %s sent %s now %s: %s',
                attempts, strikes, not_before, lease_until, sent_at, clock_timestamp(), last_error)
                AS c
         FROM deferred WHERE state NOT IN ('done', 'parked') ORDER BY created_at LIMIT 20",
    );
    for [id, state, rest] in open {
        eprintln!("{id} {state} {rest}");
    }
    if world.has_broker() {
        eprintln!("{:?}", world.queues());
    }
}

/// How the claims have ended.
pub(super) struct Ends {
    told: usize,
    accepted: usize,
    done: usize,
    parked: BTreeMap<String, usize>,
    /// From claim to decision: p50, p99, and the longest.
    waits: Vec<[String; 3]>,
    /// How often the slowest were begun, how often that counted, and what failed last.
    slowest: Vec<[String; 3]>,
}

impl Ends {
    pub(super) fn print(&self, took: Duration, users: &Users) {
        eprintln!("| accepted | {} |", self.accepted);
        eprintln!("| … and told so | {} |", self.told);
        eprintln!("| done | {} |", self.done);
        eprintln!("| parked | {} |", self.parked.values().sum::<usize>());
        for (reason, count) in &self.parked {
            eprintln!("| … {reason} | {count} |");
        }
        for (word, count) in users.words() {
            eprintln!("| users heard {word} | {count} |");
        }
        for [half, most, longest] in &self.waits {
            eprintln!("| from claim to decision: p50, p99 | {half}, {most} |");
            eprintln!("| … longest | {longest} |");
        }
        for [attempts, strikes, error] in &self.slowest {
            eprintln!("| … of the slowest: attempts, strikes | {attempts}, {strikes}: {error} |");
        }
        eprintln!("| calm after the last repair | {took:.1?} |");
    }
}

/// Every accepted claim is decided exactly once, or parked with its reason.
pub(super) async fn check(world: &World, told: &[Told], count: u64) -> Ends {
    let claims = rows(
        world.database(Part::Store),
        "SELECT claim_uid::text AS a, order_uid::text AS b, status AS c FROM claims",
    );
    let claims: BTreeMap<Uuid, (Uuid, String)> = claims
        .into_iter()
        .map(|[claim, order, status]| (claim.parse().unwrap(), (order.parse().unwrap(), status)))
        .collect();
    for Told { order, claim, decided } in told {
        let (of, status) = claims.get(claim).unwrap_or_else(|| panic!("{claim} is lost"));
        assert_eq!(of, order);
        assert!(!decided || status == "DECIDED", "{claim} was decided, and is {status}");
    }
    let claimed: BTreeSet<_> = claims.values().map(|(order, _)| *order).collect();
    assert_eq!(claimed.len(), claims.len(), "one key is one claim");

    // The ledger tells the same.
    let ledger = rows(
        world.database(Part::Store),
        "SELECT id::text AS a, state AS b, coalesce(last_error, '') AS c FROM deferred
         WHERE kind = 'claim'",
    );
    assert_eq!(ledger.len(), claims.len(), "accepted = done + parked");
    let (mut done, mut parked) = (0, BTreeMap::<String, usize>::new());
    for [id, state, error] in ledger {
        let (_, status) = &claims[&id.parse().unwrap()];
        match state.as_str() {
            "done" => {
                assert_eq!(status, "DECIDED", "{id}");
                done += 1;
            }
            "parked" => {
                assert_eq!(status, "FAILED", "{id}");
                assert!(!error.is_empty(), "{id} is parked without a reason");
                *parked.entry(error).or_default() += 1;
            }
            other => panic!("{id} is {other}"),
        }
    }
    users_see_it(world, &claims).await;
    warranty_has_done_it_once(world, &claims, count);

    // Nothing else was touched; and everything works.
    let mut paid: Vec<_> = (0..count).map(order).collect();
    world.settles_with(&paid).await;
    let begin = Instant::now();
    loop {
        // A breaker that nobody asks stays open.
        paid.extend(world.works_again(Instant::now()).await);
        let sick = sick(world).await;
        if sick.is_empty() {
            break;
        }
        assert!(begin.elapsed() < RECOVERY, "not healthy: {sick:?}");
    }
    world.settles_with(&paid).await;
    let waits = rows(
        world.database(Part::Store),
        "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY decided_at - requested_at)::text AS a,
                percentile_disc(0.99) WITHIN GROUP (ORDER BY decided_at - requested_at)::text AS b,
                max(decided_at - requested_at)::text AS c
         FROM claims",
    );
    let slowest = rows(
        world.database(Part::Store),
        "SELECT attempts::text AS a, strikes::text AS b, coalesce(last_error, '') AS c
         FROM deferred JOIN claims ON claim_uid = deferred.id
         ORDER BY decided_at - requested_at DESC LIMIT 3",
    );
    Ends { told: told.len(), accepted: claims.len(), done, parked, waits, slowest }
}

/// 3b says how each has ended.
async fn users_see_it(world: &World, claims: &BTreeMap<Uuid, (Uuid, String)>) {
    stream::iter(claims)
        .for_each_concurrent(8, async |(claim, (order, status))| {
            let list = world.claims(*order).send().await.ok();
            let list = list.as_array().unwrap();
            assert_eq!(list.len(), 1, "{list:?}");
            assert_eq!(list[0]["claimUid"], claim.to_string());
            assert_eq!(&list[0]["status"], status);
            if status == "DECIDED" {
                assert_eq!(list[0]["decision"], "RETURN", "decided twice: {list:?}");
            } else {
                assert!(list[0]["failure"].is_string(), "{list:?}");
            }
        })
        .await;
}

/// Each that is decided had its effect once, and nothing else had any.
fn warranty_has_done_it_once(world: &World, claims: &BTreeMap<Uuid, (Uuid, String)>, count: u64) {
    let url = world.database(Part::Warranty);
    let effects = rows(
        url,
        "SELECT item_uid::text AS a, count(*)::text AS b, '' AS c FROM effects GROUP BY item_uid",
    );
    let effects: BTreeMap<Uuid, String> =
        effects.into_iter().map(|[item, times, _]| (item.parse().unwrap(), times)).collect();
    let by_order: BTreeMap<_, _> =
        claims.iter().map(|(claim, (order, status))| (*order, (*claim, status.as_str()))).collect();
    for number in 0..count {
        let times = effects.get(&item(number)).map(String::as_str);
        match by_order.get(&order(number)) {
            None => assert_eq!(times, None, "nobody claims on {}", order(number)),
            Some((claim, "DECIDED")) => assert_eq!(times, Some("1"), "{claim}"),
            // Nobody may know whether the last attempt had its effect.
            Some((claim, _)) => assert!(matches!(times, None | Some("1")), "{claim}: {times:?}"),
        }
    }
    // Under its own name, however often it came.
    let names = rows(
        url,
        "SELECT key AS a, count(*)::text AS b, '' AS c FROM idempotency
         WHERE path LIKE '%/warranty' GROUP BY key",
    );
    for [key, times, _] in names {
        assert_eq!(times, "1", "{key}");
        assert!(claims.contains_key(&key.parse().unwrap()), "{key} is nobody's claim");
    }
}

/// Whose health isn't what it should be, and what it says.
async fn sick(world: &World) -> Vec<Value> {
    let mut sick = Vec::new();
    for process in Part::ALL.iter().flat_map(|part| world.processes(*part)) {
        let health = process.client().get("/manage/health").send().await.json();
        let components = &health["components"];
        let broker = &components["broker"]["status"];
        // The world's broker is Store's.
        let carried = process.part() == Part::Store && world.has_broker();
        let dependencies = components["dependencies"].as_array().unwrap();
        let healthy = health["status"] == "Work"
            && (broker.is_null() || broker == if carried { "Work" } else { "Absent" })
            && dependencies.iter().all(|dependency| dependency["state"] == "closed");
        if !healthy {
            sick.push(health);
        }
    }
    sick
}
