//! A service is away: stopped, crashed, or frozen, which leaves its connections open and delivers
//! late, after their undo, what was asked of it meanwhile.

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::{Value, json};
use service::testing::{Call, Response, assert_envelope, until};
use uuid::Uuid;

use crate::world::shop::{Promise as _, element, prompt};
use crate::world::{Part, RECOVERY, World};

/// Failures that open a breaker.
pub(crate) const ENOUGH: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Away {
    Stopped,
    Killed,
    Frozen,
}

impl Away {
    pub(crate) async fn begin(self, world: &World, part: Part) {
        match self {
            Self::Stopped => world.terminate(part).await,
            Self::Killed => world.kill(part).await,
            Self::Frozen => world.freeze(part),
        }
    }

    /// Returns when it was back.
    pub(crate) async fn end(self, world: &World, part: Part) -> Instant {
        match self {
            Self::Stopped | Self::Killed => world.restart(part).await,
            Self::Frozen => world.thaw(part),
        }
        Instant::now()
    }
}

#[tokio::test]
async fn warehouse_stopped_costs_what_the_contract_says_and_no_more() {
    outage(&World::start().await, Part::Warehouse, Away::Stopped).await;
}

#[tokio::test]
async fn warehouse_killed_costs_what_the_contract_says_and_no_more() {
    outage(&World::start().await, Part::Warehouse, Away::Killed).await;
}

#[tokio::test]
async fn warehouse_frozen_costs_what_the_contract_says_and_no_more() {
    outage(&World::start().await, Part::Warehouse, Away::Frozen).await;
}

#[tokio::test]
async fn warranty_stopped_costs_what_the_contract_says_and_no_more() {
    outage(&World::start().await, Part::Warranty, Away::Stopped).await;
}

#[tokio::test]
async fn warranty_killed_costs_what_the_contract_says_and_no_more() {
    outage(&World::start().await, Part::Warranty, Away::Killed).await;
}

#[tokio::test]
async fn warranty_frozen_costs_what_the_contract_says_and_no_more() {
    outage(&World::start().await, Part::Warranty, Away::Frozen).await;
}

#[tokio::test]
async fn order_stopped_costs_what_the_contract_says_and_no_more() {
    outage(&World::start().await, Part::Order, Away::Stopped).await;
}

#[tokio::test]
async fn order_killed_costs_what_the_contract_says_and_no_more() {
    outage(&World::start().await, Part::Order, Away::Killed).await;
}

#[tokio::test]
async fn order_frozen_costs_what_the_contract_says_and_no_more() {
    outage(&World::start().await, Part::Order, Away::Frozen).await;
}

/// Orders that an outage is watched with.
pub(crate) struct Orders {
    /// Read before, by every Store.
    pub(crate) seen: Uuid,
    /// Never read before.
    unseen: Uuid,
    pub(crate) claimed: Uuid,
    /// Claimed on before; refunded while breakers are closed, and while they are open.
    pub(crate) refunded: [Uuid; 2],
    seen_before: Value,
    refunded_before: [Value; 2],
}

impl Orders {
    pub(crate) async fn place(world: &World) -> Self {
        let [seen, unseen, claimed, first, second] =
            <[Uuid; 5]>::try_from(world.bought_many(5).await).unwrap();
        let refunded = [first, second];
        for order in refunded {
            world.claim(order).send().await.ok();
        }
        let mut before = Vec::new();
        for order in [seen, first, second] {
            let mut found = Value::Null;
            for _ in world.processes(Part::Store) {
                found = world.get(order).send().await.ok();
            }
            before.push(found);
        }
        let [seen_before, first, second] = <[Value; 3]>::try_from(before).unwrap();
        Self { seen, unseen, claimed, refunded, seen_before, refunded_before: [first, second] }
    }
}

pub(crate) async fn outage(world: &World, part: Part, away: Away) {
    let orders = Orders::place(world).await;
    let [closed, open] = orders.refunded;
    away.begin(world, part).await;

    // All at once, so that none of a frozen part's callers knows yet.
    let stores = world.processes(Part::Store).len();
    let calls = || [world.get(orders.seen), world.buy(), world.claim(orders.claimed)];
    let several = (0..ENOUGH * stores).flat_map(|_| calls()).map(prompt);
    let (answers, refund) = tokio::join!(join_all(several), prompt(world.refund(closed)));
    let frozen = away == Away::Frozen;
    for answer in answers.chunks(3) {
        read_is_right(&answer[0], part, &orders.seen_before);
        answer[1].blames(if frozen { "rollback_pending" } else { "rolled_back" }, part);
        claim_is_right(&answer[2], part, orders.claimed);
    }
    let returned = frozen && part == Part::Warehouse;
    refund.blames(if returned { "refund_pending" } else { "rolled_back" }, part);

    for dependent in Part::ALL {
        for process in world.processes(dependent) {
            if process.is_running() && dependent.calls(part) {
                assert_eq!(process.breaker(part).await, "open", "{dependent:?} on {part:?}");
            }
        }
    }
    for _ in 0..stores {
        open_breakers_answer_at_once(world, part, &orders, open).await;
    }

    let healed = away.end(world, part).await;
    let bought = world.works_again(healed).await;
    let mut paid = vec![orders.seen, orders.unseen, orders.claimed, open];
    paid.extend((!returned).then_some(closed));
    paid.extend(bought);
    world.settles_with(&paid).await;
    world.owes_nothing().await;
    every_claim_is_decided_once(world, orders.claimed).await;
    assert_eq!(world.get(orders.seen).send().await.ok(), orders.seen_before);
    // Re-opened exactly as it was.
    assert_eq!(world.get(open).send().await.ok(), orders.refunded_before[1]);
    let closed = world.get(closed).send().await.ok();
    if returned {
        assert_eq!(closed["status"], "CANCELED");
    } else {
        assert_eq!(closed, orders.refunded_before[0]);
    }
}

/// With every breaker open, nobody waits for anything, so the answers are exact again.
async fn open_breakers_answer_at_once(world: &World, part: Part, orders: &Orders, refunded: Uuid) {
    let answers = [
        prompt(world.list()).await,
        prompt(world.get(orders.seen)).await,
        prompt(world.buy()).await,
        prompt(world.refund(refunded)).await,
        prompt(world.claim(orders.claimed)).await,
    ];
    let [list, get, buy, refund, claim] = &answers;
    read_is_right(get, part, &orders.seen_before);
    if part == Part::Order {
        list.blames("dependency_unavailable", part);
    } else {
        let list = list.clone().ok();
        assert_eq!(element(&list, orders.seen)["stale"], json!([part.name()]));
        let unseen = element(&list, orders.unseen);
        assert_eq!(unseen["degraded"], json!([part.name()]));
        assert_eq!(unseen.get("stale"), None);
        for (field, owner) in FIELDS {
            assert_eq!(unseen[field].is_null(), owner == part, "{field} in {unseen}");
        }
    }
    buy.blames("rolled_back", part);
    refund.blames("rolled_back", part);
    claim_is_right(claim, part, orders.claimed);
    for answer in answers.iter().filter(|answer| answer.status == 503) {
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=7).contains(&wait), "{answer:?}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(part.name()), "{answer:?}");
    }
}

/// Accepted, unless nobody can tell whose order it is.
pub(crate) fn claim_is_right(answer: &Response, part: Part, order: Uuid) {
    if part == Part::Order {
        return answer.blames("dependency_unavailable", part);
    }
    answer.queued(order);
}

/// Of all claims on an order one is honoured, and each other is refused.
async fn every_claim_is_decided_once(world: &World, order: Uuid) {
    let claims = world.claims(order).send().await.ok();
    let claims = claims.as_array().unwrap();
    assert!(claims.iter().all(|claim| claim["status"] == "DECIDED"), "{claims:?}");
    let honoured = claims.iter().filter(|claim| claim["decision"] != "REFUSED").count();
    assert_eq!(honoured, usize::from(!claims.is_empty()), "{claims:?}");
}

const FIELDS: [(&str, Part); 4] = [
    ("model", Part::Warehouse),
    ("size", Part::Warehouse),
    ("warrantyDate", Part::Warranty),
    ("warrantyStatus", Part::Warranty),
];

/// Without Order there is nothing to show; what Warehouse and Warranty own is shown as it was.
pub(crate) fn read_is_right(answer: &Response, part: Part, before: &Value) {
    if part == Part::Order {
        return answer.blames("dependency_unavailable", part);
    }
    let mut expected = before.clone();
    expected["degraded"] = json!([part.name()]);
    expected["stale"] = json!([part.name()]);
    assert_eq!(answer.clone().ok(), expected);
}

#[tokio::test]
async fn claim_chain_broken_at_its_end_opens_the_last_breaker_alone() {
    let world = World::start().await;
    let order = world.bought().await;
    for away in [Away::Killed, Away::Frozen] {
        away.begin(&world, Part::Warranty).await;
        for _ in 0..10 {
            prompt(world.claim(order)).await.queued(order);
        }
        until(RECOVERY, "the breaker before it opens", async || {
            let state = world.breaker(Part::Warehouse, Part::Warranty).await;
            (state == "open").then_some(())
        })
        .await;
        for (dependent, dependency) in [(Part::Store, Part::Order), (Part::Order, Part::Warehouse)]
        {
            let state = world.breaker(dependent, dependency).await;
            assert_eq!(state, "closed", "{dependent:?} on {dependency:?}, {away:?}");
        }
        let healed = away.end(&world, Part::Warranty).await;
        world.works_again(healed).await;
    }
    world.settles().await;
}

#[tokio::test]
async fn requests_in_a_hurry_open_no_breaker_and_leave_nothing_behind() {
    let world = World::start().await;
    let order = world.bought().await;
    for time in ["5", "70"] {
        let kinds: [fn(&World, Uuid) -> Call; 5] = [
            |world, _| world.list(),
            World::get,
            |world, _| world.buy(),
            World::claim,
            World::refund,
        ];
        for kind in kinds {
            let hurried = |_| kind(&world, order).header("X-Request-Timeout", time).send();
            for answer in join_all((0..50).map(hurried)).await {
                if !(200..300).contains(&answer.status) {
                    assert_eq!(answer.status, 503, "{answer:?}");
                    let code = answer.json()["code"].as_str().unwrap().to_owned();
                    assert_envelope(&answer, 503, &code);
                }
            }
            world.assert_all_closed().await;
        }
    }
    world.settles().await;
}
