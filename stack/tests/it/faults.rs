//! A service that is there and can't be used is handled as one that is away.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use service::testing::network::{Act, DEFECT, HALF, NOT_FOUND, RUBBISH};
use service::testing::{Response, assert_envelope};

use crate::outage::{claim_is_right, read_is_right};
use crate::world::shop::{Promise as _, prompt, within};
use crate::world::{Part, World};

/// What is wrong with a dependency that is broken without being away.
static BROKEN: [(&str, Act); 6] = [
    ("silent", Act::Late),
    ("resetting", Act::Reset),
    ("answering 500", DEFECT),
    ("answering HTML 200", RUBBISH),
    ("answering half a JSON", HALF),
    ("answering HTML 404", NOT_FOUND),
];

/// Enough calls at once to open every breaker.
const SEVERAL: usize = 4;

#[tokio::test]
async fn warehouse_that_resets_or_answers_500_is_handled_as_one_that_is_down() {
    faulty(Part::Warehouse, &BROKEN[1..3]).await;
}

#[tokio::test]
async fn warranty_that_hangs_or_answers_html_is_handled_as_one_that_is_down() {
    faulty(Part::Warranty, [&BROKEN[0], &BROKEN[3]]).await;
}

#[tokio::test]
async fn order_that_answers_half_or_another_s_404_is_handled_as_one_that_is_down() {
    faulty(Part::Order, &BROKEN[4..]).await;
}

#[tokio::test]
#[ignore = "nightly: every fault of every service takes minutes"]
async fn every_fault_of_every_service_is_handled_as_one_that_is_down() {
    join_all([Part::Warehouse, Part::Warranty, Part::Order].map(|part| faulty(part, &BROKEN)))
        .await;
}

async fn faulty(part: Part, faults: impl IntoIterator<Item = &'static (&'static str, Act)>) {
    let world = World::plan().proxied(part).impatient().start().await;
    for (name, fault) in faults {
        eprintln!("{part:?} is {name}");
        let [seen, refunded] = <[_; 2]>::try_from(world.bought_many(2).await).unwrap();
        let before = world.get(seen).send().await.ok();
        let paid = world.paid().await;
        let met = world.proxy(part).on("*", fault.clone());

        // First, so that no breaker is open: what it does can't be taken back before it heals.
        is_one_of(&prompt(world.buy()).await, &["rollback_pending"], part);
        let refund = prompt(world.refund(refunded)).await;
        is_one_of(&refund, &["rolled_back", "rollback_pending", "refund_pending"], part);
        let calls = || [world.get(seen), world.buy(), world.claim(seen)];
        let several = (0..SEVERAL).flat_map(|_| calls()).map(prompt);
        for answer in join_all(several).await.chunks(3) {
            read_is_right(&answer[0], part, &before);
            is_one_of(&answer[1], &["rolled_back", "rollback_pending"], part);
            claim_is_right(&answer[2], part, seen);
        }
        assert!(met.hits() > 0);

        world.proxy(part).heal();
        let bought = world.works_again(Instant::now()).await;
        // Forward only, once its item's return may have happened.
        let pending = refund.json()["code"] == "refund_pending";
        let mut paid: Vec<_> =
            paid.into_iter().filter(|order| !(pending && *order == refunded)).collect();
        paid.extend(bought);
        world.settles_with(&paid).await;
    }
}

#[track_caller]
fn is_one_of(answer: &Response, codes: &[&str], part: Part) {
    let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
    assert!(codes.contains(&code.as_str()), "{codes:?} expected: {answer:?}");
    assert_envelope(answer, 503, &code);
    answer.blames(&code, part);
}

#[tokio::test]
async fn hung_warranty_costs_a_list_one_timeout_and_not_one_per_order() {
    let world = World::plan().proxied(Part::Warranty).start().await;
    world.bought_many(20).await;
    let met = world.proxy(Part::Warranty).on("*", Act::Late);
    // The timeout is 400 ms.
    let list = within(Duration::from_millis(800), world.list()).await;
    assert_eq!(met.hits(), 1);
    let list = list.ok();
    assert_eq!(list.as_array().unwrap().len(), 20);
    for element in list.as_array().unwrap() {
        assert_eq!(element["degraded"], serde_json::json!(["warranty"]));
        assert!(element["warrantyDate"].is_null() && !element["model"].is_null());
    }
}
