//! When it is calm, and what has become of everything then: by the services' answers, their ledgers,
//! their books, RabbitMQ's tools. Of purchases and refunds that is in [`purchases`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use order::ops::item_of;
use serde_json::Value;
use service::testing::until;
use uuid::Uuid;

use super::effects::Effects;
use super::purchases::{self, Facts};
use super::users::{Crowd, Told, Users};
use crate::world::bulk::{item, order};
use crate::world::ledger::rows;
use crate::world::{Part, RECOVERY, World};

/// Those who have deferred calls.
pub(super) const LEDGERS: [Part; 2] = [Part::Store, Part::Order];

/// Keys that somebody is at.
const LEASED: &str = "FROM idempotency WHERE state <> 'done' AND lease_until > clock_timestamp()";

/// Since when what was so.
pub(super) type Since = Vec<(&'static str, Instant)>;

/// Waits until everybody was told something and nothing is under way any more.
pub(super) async fn calm(world: &World, users: &mut Users, since: &mut Since) {
    for process in Part::ALL.iter().flat_map(|part| world.processes(*part)) {
        process.ready().await;
    }
    since.push(("all are ready", Instant::now()));
    users.leave().await;
    since.push(("nobody waits", Instant::now()));
    until(Duration::MAX, "every call and every saga has ended", async || {
        let calls = "SELECT count(*) FROM deferred WHERE ended_at IS NULL";
        let sagas = "SELECT count(*) FROM saga WHERE ended_at IS NULL";
        let open = LEDGERS.map(|part| world.number(part, calls)).iter().sum::<i64>();
        (open + world.number(Part::Order, sagas) == 0).then_some(())
    })
    .await;
    since.push(("every call and every saga has ended", Instant::now()));
    until(Duration::MAX, "every lease is over", async || {
        let leased = |part: &Part| world.number(*part, &format!("SELECT count(*) {LEASED}"));
        Part::ALL.iter().all(|part| leased(part) == 0).then_some(())
    })
    .await;
    since.push(("every lease is over", Instant::now()));
    if world.has_broker() {
        // Whoever was cut off often waits for longer until it comes again.
        until(Duration::MAX, "all have RabbitMQ again", async || {
            for process in LEDGERS.iter().flat_map(|part| world.processes(*part)) {
                let health = process.client().get("/manage/health").send().await.json();
                if health["components"]["broker"]["status"] != "Work" {
                    return None;
                }
            }
            Some(())
        })
        .await;
        since.push(("all have RabbitMQ again", Instant::now()));
        until(Duration::MAX, "RabbitMQ is empty", async || {
            let queues = tokio::task::block_in_place(|| world.queues());
            let empty = queues.iter().all(|queue| queue.ready + queue.unacked == 0);
            (empty && !queues.is_empty()).then_some(())
        })
        .await;
        since.push(("RabbitMQ is empty", Instant::now()));
    }
}

/// For whoever wants to know why it isn't calm.
pub(super) fn explain(world: &World) {
    let calls =
        "SELECT kind || ' ' || id AS a, state || CASE WHEN held THEN ' held' ELSE '' END AS b,
                format('attempts %s strikes %s not before %s lease until %s sent %s now %s: %s',
                attempts, strikes, not_before, lease_until, sent_at, clock_timestamp(), last_error)
                AS c
         FROM deferred WHERE ended_at IS NULL ORDER BY created_at LIMIT 20";
    let sagas = "SELECT kind || ' ' || id AS a, state AS b,
                format('forward %s fence %s lease until %s now %s: %s',
                forward, fence, lease_until, clock_timestamp(), reason) AS c
         FROM saga WHERE ended_at IS NULL ORDER BY begun_at LIMIT 20";
    for (part, open) in [(Part::Store, calls), (Part::Order, calls), (Part::Order, sagas)] {
        for [id, state, rest] in rows(world.database(part), open) {
            eprintln!("{}: {id} {state} {rest}", part.name());
        }
    }
    if world.has_broker() {
        eprintln!("{:?}", world.queues());
    }
}

/// How all of it has ended.
pub(super) struct Ends {
    /// Of purchases and refunds.
    facts: Facts,
    /// Of claims.
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
    pub(super) fn print(&self, users: &Users) {
        for (fact, count) in &self.facts {
            eprintln!("| {fact} | {count} |");
        }
        eprintln!("| claims accepted | {} |", self.accepted);
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
    }
}

/// A claim that was accepted.
struct Claim {
    order: Uuid,
    user: Uuid,
    /// `DECIDED` and how, or `FAILED`.
    end: String,
}

impl Claim {
    fn is_decided(&self) -> bool {
        self.end.starts_with("DECIDED")
    }
}

/// Everybody has what they were told, and every accepted claim is decided exactly once, or parked with
/// its reason.
pub(super) async fn check(world: &World, users: &Users, crowd: Crowd) -> Ends {
    let mut facts = Facts::new();
    let bought = purchases::check(world, users.shopped(), &mut facts).await;
    let claims = rows(
        world.database(Part::Store),
        "SELECT claim_uid::text AS a, order_uid || ' ' || user_uid AS b,
                concat_ws(' ', status, decision) AS c
         FROM claims",
    );
    let claims: BTreeMap<Uuid, Claim> = claims
        .into_iter()
        .map(|[claim, of, end]| {
            let (order, user) = of.split_once(' ').unwrap();
            let (order, user) = (order.parse().unwrap(), user.parse().unwrap());
            (claim.parse().unwrap(), Claim { order, user, end })
        })
        .collect();
    let told = users.told();
    for Told { order, claim, decided } in told {
        let found = claims.get(claim).unwrap_or_else(|| panic!("{claim} is lost"));
        assert_eq!(found.order, *order);
        assert!(!decided || found.is_decided(), "{claim} was decided, and is {}", found.end);
    }
    let claimed: BTreeSet<_> = claims.values().map(|claim| claim.order).collect();
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
        let claim = &claims[&id.parse().unwrap()];
        match state.as_str() {
            "done" => {
                assert!(claim.is_decided(), "{id} is {}", claim.end);
                done += 1;
            }
            "parked" => {
                assert_eq!(claim.end, "FAILED", "{id}");
                assert!(!error.is_empty(), "{id} is parked without a reason");
                *parked.entry(error).or_default() += 1;
            }
            other => panic!("{id} is {other}"),
        }
    }
    users_see_it(world, users, &claims).await;
    warranty_has_done_it_once(world, &claims, crowd.claimants);

    // Nothing else was touched; and everything works.
    let mut paid: Vec<_> = (0..crowd.claimants).map(order).chain(bought).collect();
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
    Ends { facts, told: told.len(), accepted: claims.len(), done, parked, waits, slowest }
}

/// 3b says how each has ended.
async fn users_see_it(world: &World, users: &Users, claims: &BTreeMap<Uuid, Claim>) {
    let returning = users.shopped().iter().filter(|record| record.returns);
    let returning: BTreeSet<_> = returning.map(|record| record.user).collect();
    stream::iter(claims)
        .for_each_concurrent(8, async |(uid, claim)| {
            let list = world.claims_of(claim.user, claim.order).send().await.ok();
            let list = list.as_array().unwrap();
            assert_eq!(list.len(), 1, "{list:?}");
            assert_eq!(list[0]["claimUid"], uid.to_string());
            let decision = list[0]["decision"].as_str();
            let end = [list[0]["status"].as_str().unwrap(), decision.unwrap_or_default()].join(" ");
            assert_eq!(end.trim_end(), claim.end);
            // Who gives it back before the decision may be refused.
            let refused = claim.end == "DECIDED REFUSED" && returning.contains(&claim.user);
            let fine = !claim.is_decided() || claim.end == "DECIDED RETURN" || refused;
            assert!(fine, "decided twice: {list:?}");
            assert!(claim.is_decided() || list[0]["failure"].is_string(), "{list:?}");
        })
        .await;
}

/// Each that is decided had its effect once, and nothing else had any.
fn warranty_has_done_it_once(world: &World, claims: &BTreeMap<Uuid, Claim>, claimants: u64) {
    const USED: &str = "UPDATE ON_WARRANTY USE_WARRANTY";
    let effects = Effects::of(world, Part::Warranty);
    let sold: BTreeMap<_, _> = (0..claimants).map(|number| (order(number), item(number))).collect();
    let mut all = 0;
    for (uid, claim) in claims {
        let item = sold.get(&claim.order).copied().unwrap_or_else(|| item_of(claim.order));
        let times = effects.count(item, USED);
        match claim.end.as_str() {
            "DECIDED RETURN" => assert_eq!(times, 1, "{uid}"),
            "DECIDED REFUSED" => assert_eq!(times, 0, "{uid}"),
            // Nobody may know whether the last attempt had its effect.
            _ => assert!(times <= 1, "{uid}: {times}"),
        }
        all += times;
    }
    assert_eq!(effects.count_all(USED), all, "somebody's warranty is used who didn't claim");
    let touched = sold.values().map(|item| effects.len(*item)).sum::<usize>();
    let used = sold.values().map(|item| effects.count(*item, USED)).sum::<usize>();
    assert_eq!(touched, used, "nothing else becomes of what was sold before");
    // Under its own name, however often it came.
    let names = rows(
        world.database(Part::Warranty),
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
        let carried = process.part().defers() && world.has_broker();
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
