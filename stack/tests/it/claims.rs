//! Claims from the user's view: what was accepted is decided once, whatever dies meanwhile.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use service::testing::network::Act;
use service::testing::{Response, assert_envelope, until};

use crate::world::shop::{Promise as _, path, prompt};
use crate::world::{Part, RECOVERY, World, met, served};

/// What a crash of Store leaves to its ledger: a lease of 3 s, and the wait of a breaker.
const AFTER_A_CRASH: Duration = RECOVERY;

/// How long nobody else may touch a claim that a dead Store had begun with.
const LEASE: Duration = Duration::from_secs(3);
/// Leases that are over are looked for every second, and what is due every half.
const NOTICED: Duration = Duration::from_millis(1500);

/// What 3b says of the only claim on an order.
fn only(list: Response) -> Value {
    let list = list.ok();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    list[0].clone()
}

#[tokio::test]
async fn claim_is_queued_while_warranty_is_dead_and_decided_when_it_is_back() {
    let world = World::start().await;
    let orders = world.bought_many(12).await;
    world.kill(Part::Warranty).await;
    let mut claims = Vec::new();
    for order in &orders {
        let key = order.to_string();
        let claim = prompt(world.claim(*order).key(&key)).await.queued(*order);
        let state = only(world.claims(*order).send().await);
        assert_eq!((&state["status"], &state["claimUid"]), (&json!("QUEUED"), &json!(claim)));
        assert_eq!(prompt(world.claim(*order).key(&key)).await.queued(*order), claim);
        claims.push(claim);
    }
    world.restart(Part::Warranty).await;
    let healed = Instant::now();
    for (order, claim) in orders.iter().zip(&claims) {
        let left = RECOVERY.saturating_sub(healed.elapsed()).max(Duration::from_millis(1));
        let decided = world.settled_claim(left, *order, *claim).await;
        assert_eq!(
            (&decided["status"], &decided["decision"]),
            (&json!("DECIDED"), &json!("RETURN"))
        );
        let answer = world.claim(*order).key(&order.to_string()).send().await.ok();
        assert_eq!(answer["claimUid"], json!(claim));
    }
    world.owes_nothing().await;
    world.settles_with(&orders).await;
}

#[tokio::test]
async fn claim_that_store_dies_with_is_decided_once_without_its_user() {
    // Before Order has it, and after Order has answered: to Store that is the same.
    for (act, carried_out) in [(Act::Hold, false), (Act::HoldAnswer, true)] {
        let world = World::plan().proxied(Part::Order).impatient().start().await;
        let order = world.bought().await;
        let held = world.proxy(Part::Order).once("POST /api/v1/orders/", act);
        let crash = async {
            met(&held).await;
            if carried_out {
                served(&held, 1).await;
            }
            let state = only(world.claims(order).send().await);
            assert_eq!(state["status"], "QUEUED", "it is in the ledger");
            world.kill(Part::Store).await;
        };
        let (lost, ()) = tokio::join!(world.claim(order).try_send(), crash);
        assert!(lost.is_err());
        world.proxy(Part::Order).heal();
        world.restart(Part::Store).await;
        let claim = only(world.claims(order).send().await)["claimUid"].clone();
        let claim = claim.as_str().unwrap().parse().unwrap();
        let decided = world.settled_claim(AFTER_A_CRASH, order, claim).await;
        assert_eq!(decided["decision"], "RETURN");
        assert_eq!(only(world.claims(order).send().await), decided);
        world.owes_nothing().await;
    }
}

#[tokio::test]
async fn claim_whose_end_store_dies_before_or_after_writing_is_decided_once_under_its_key() {
    // Its end can't be written; or it is, and the answer isn't remembered.
    for table in ["deferred", "idempotency"] {
        let world = World::plan().proxied(Part::Order).impatient().start().await;
        let order = world.bought().await;
        let held = world.proxy(Part::Order).once("POST /api/v1/orders/", Act::HoldAnswer);
        let crash = async {
            served(&held, 1).await;
            let mut holder = lock(&world, table);
            held.release();
            // Someone waits for the table.
            let waiting = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'";
            until(RECOVERY, "Store waits", async || {
                (world.number(Part::Store, waiting) > 0).then_some(())
            })
            .await;
            world.kill(Part::Store).await;
            diesel::connection::SimpleConnection::batch_execute(&mut holder, "ROLLBACK").unwrap();
        };
        let (lost, ()) = tokio::join!(world.claim(order).key("k").try_send(), crash);
        assert!(lost.is_err());
        world.restart(Part::Store).await;
        let found = until(AFTER_A_CRASH, "the claim is found by its key", async || {
            let answer = world.claim(order).key("k").send().await;
            if !matches!(answer.status, 200 | 202) {
                assert_envelope(&answer, 409, "idempotency_in_progress");
            }
            (answer.status == 200).then(|| answer.ok())
        })
        .await;
        assert_eq!(found["decision"], "RETURN", "{table}");
        assert_eq!(only(world.claims(order).send().await)["claimUid"], found["claimUid"]);
        world.owes_nothing().await;
    }
}

fn lock(world: &World, table: &str) -> diesel::PgConnection {
    use diesel::Connection as _;
    use diesel::connection::SimpleConnection as _;

    let mut holder = diesel::PgConnection::establish(world.database(Part::Store)).unwrap();
    let lock = format!("BEGIN; LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE");
    holder.batch_execute(&lock).unwrap();
    holder
}

#[tokio::test]
async fn claims_pass_on_to_the_other_store_when_one_is_killed() {
    let world = World::plan().replicas(2).start().await;
    let orders = world.bought_many(6).await;
    world.kill(Part::Warranty).await;
    let answers = join_all(orders.iter().map(|order| prompt(world.claim(*order)))).await;
    let claims: Vec<_> =
        orders.iter().zip(answers).map(|(order, answer)| (*order, answer.queued(*order))).collect();
    world.replica(Part::Store, 0).kill().await;
    world.restart(Part::Warranty).await;
    let survivor = world.replica(Part::Store, 1).client();
    for (order, claim) in claims {
        let list = format!("{}/warranty", path(order));
        let decided = until(AFTER_A_CRASH * 2, "decided by the other", async || {
            let state = only(survivor.get(&list).send().await);
            (state["status"] == "DECIDED").then_some(state)
        })
        .await;
        assert_eq!((&decided["claimUid"], &decided["decision"]), (&json!(claim), &json!("RETURN")));
    }
    world.restart(Part::Store).await;
    world.owes_nothing().await;
}

#[tokio::test]
async fn claims_that_one_of_three_stores_dies_with_pass_on_within_their_lease() {
    let world = World::plan().replicas(3).proxied(Part::Order).impatient().start().await;
    let orders = world.bought_many(6).await;
    let held = world.proxy(Part::Order).on("POST /api/v1/orders/", Act::Hold);
    let killed = world.replica(Part::Store, 0);
    let first = orders.iter().map(|order| {
        let claims = format!("{}/warranty", path(*order));
        killed.client().post(claims).json(&json!({"reason": "a brick is missing"})).try_send()
    });
    let crash = async {
        held.until_hits(orders.len()).await;
        killed.kill().await;
        let dead = Instant::now();
        world.proxy(Part::Order).heal();
        let passed = "(SELECT count(*) FROM deferred WHERE attempts > 1)";
        until(LEASE + NOTICED, "others have begun with all of them", async || {
            let begun = world.number(Part::Store, passed);
            (usize::try_from(begun).unwrap() == orders.len()).then_some(())
        })
        .await;
        eprintln!("passed on within {:?}", dead.elapsed());
    };
    let (lost, ()) = tokio::join!(join_all(first), crash);
    assert!(lost.iter().all(Result::is_err), "nobody was told anything");
    for order in &orders {
        let list = format!("{}/warranty", path(*order));
        let survivor = world.replica(Part::Store, 1).client();
        let decided = until(RECOVERY, "decided by another", async || {
            let state = only(survivor.get(&list).send().await);
            (state["status"] == "DECIDED").then_some(state)
        })
        .await;
        assert_eq!(decided["decision"], "RETURN");
    }
    world.restart(Part::Store).await;
    world.owes_nothing().await;
    world.settles_with(&orders).await;
}

#[tokio::test]
async fn purchase_that_store_dies_with_is_undone_without_its_user_when_its_lease_is_over() {
    for (act, carried_out) in [(Act::Hold, false), (Act::HoldAnswer, true)] {
        let world = World::plan().proxied(Part::Order).impatient().start().await;
        let held = world.proxy(Part::Order).once("POST /api/v1/orders/", act);
        let crash = async {
            met(&held).await;
            if carried_out {
                served(&held, 1).await;
            }
            world.kill(Part::Store).await;
        };
        let (lost, ()) = tokio::join!(world.buy().try_send(), crash);
        assert!(lost.is_err());
        world.proxy(Part::Order).heal();
        if !carried_out {
            served(&held, 1).await;
        }
        world.restart(Part::Store).await;
        // A lease of 4 s, and the books balance.
        world.settles_with(&[]).await;
        world.owes_nothing().await;
        assert_eq!(world.left(crate::world::shop::MODEL), 10_000);
    }
}

#[tokio::test]
async fn accepted_claims_survive_a_crash_of_postgres_and_without_it_nothing_is_accepted() {
    let world = World::plan().own_postgres().start().await;
    let orders = world.bought_many(3).await;
    world.kill(Part::Warranty).await;
    let mut claims = Vec::new();
    for order in &orders {
        claims.push(prompt(world.claim(*order)).await.queued(*order));
    }
    world.postgres().kill();
    for order in &orders {
        assert_envelope(&prompt(world.claim(*order)).await, 503, "database_unavailable");
    }
    world.postgres().start();
    world.restart(Part::Warranty).await;
    for (order, claim) in orders.iter().zip(claims) {
        let decided = world.settled_claim(RECOVERY * 2, *order, claim).await;
        assert_eq!(decided["decision"], "RETURN");
        only(world.claims(*order).send().await);
    }
    world.owes_nothing().await;
}
