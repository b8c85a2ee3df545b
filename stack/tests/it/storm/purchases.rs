//! What has become of every purchase and every refund, and whether each shopper was told the truth.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, stream};
use order::ops::item_of;
use service::testing::until;
use uuid::Uuid;

use super::effects::{self, Effects};
use super::shoppers::{Purchase, Record, Refund};
use super::verdict::LEDGERS;
use crate::world::ledger::rows;
use crate::world::shop::Promise as _;
use crate::world::{Part, RECOVERY, World};

/// What is said of them, each with its count.
pub(super) type Facts = Vec<(String, usize)>;

/// What may become of a purchase, and of what was bought.
const FATES: [&str; 14] = [
    "purchases",
    "… and told so",
    "… and left without knowing",
    "… kept",
    "… not refunded, and left without knowing",
    "… refunded",
    "… refunded, and left while that was pending",
    "… refunded, and left without knowing",
    "… refunded, and told once that it wasn't",
    "not bought: refused",
    "not bought: rolled back, and left",
    "not bought: rollback pending, and left",
    "not bought: left without knowing",
    "shoppers",
];

/// What Order has of a shopper.
struct Had {
    order: Uuid,
    refunded: bool,
}

/// Each has what they were told, all of it once. The orders that are paid for.
pub(super) async fn check(world: &World, shopped: &[Record], facts: &mut Facts) -> Vec<Uuid> {
    let orders = rows(
        world.database(Part::Order),
        "SELECT order_uid::text AS a, user_uid::text AS b, status AS c FROM orders",
    );
    let users: BTreeSet<_> = shopped.iter().map(|record| record.user).collect();
    let mut had = BTreeMap::new();
    for [order, user, status] in orders {
        let user = user.parse().unwrap();
        if users.contains(&user) {
            let order = Had { order: order.parse().unwrap(), refunded: status == "CANCELED" };
            assert!(had.insert(user, order).is_none(), "{user} has two orders under one key");
        }
    }
    told_the_truth_of_the_end(shopped, &had, facts);
    told_the_truth_at_once(world, shopped, facts);
    sagas_have_ended(world, facts);
    leases_are_over(world, facts);
    users_see_it(world, shopped, &had).await;
    had.values().filter(|had| !had.refunded).map(|had| had.order).collect()
}

fn told_the_truth_of_the_end(shopped: &[Record], had: &BTreeMap<Uuid, Had>, facts: &mut Facts) {
    let mut count = BTreeMap::from([("shoppers", shopped.len())]);
    for record in shopped {
        let had = had.get(&record.user);
        let fact = match (record.purchase, had) {
            (Purchase::Bought(order), Some(had)) => {
                assert_eq!(order, had.order, "{record:?}");
                "… and told so"
            }
            (Purchase::Bought(_), None) => panic!("what was bought is gone: {record:?}"),
            (Purchase::Unknown, Some(_)) => "… and left without knowing",
            (Purchase::Unknown, None) => "not bought: left without knowing",
            (Purchase::Refused, None) => "not bought: refused",
            (Purchase::RolledBack, None) => "not bought: rolled back, and left",
            (Purchase::Pending, None) => "not bought: rollback pending, and left",
            (_, Some(had)) => panic!("{} was bought all the same: {record:?}", had.order),
        };
        *count.entry(fact).or_default() += 1;
        let Some(Had { refunded, .. }) = had else {
            continue;
        };
        *count.entry("purchases").or_default() += 1;
        let fact = match (record.refund, refunded) {
            (Refund::Done, true) => "… refunded",
            (Refund::Pending, true) => "… refunded, and left while that was pending",
            (Refund::Unknown, true) if record.in_doubt => {
                "… refunded, and told once that it wasn't"
            }
            (Refund::Unknown, true) => "… refunded, and left without knowing",
            (Refund::Unknown, false) => "… not refunded, and left without knowing",
            (Refund::No, false) => "… kept",
            _ => panic!("refunded or not: {refunded}, {record:?}"),
        };
        *count.entry(fact).or_default() += 1;
    }
    for fate in FATES {
        facts.push((fate.to_owned(), count.remove(fate).unwrap_or_default()));
    }
    assert!(count.is_empty(), "{count:?}");
}

/// Whoever was told that nothing had happened was told so when it was true.
fn told_the_truth_at_once(world: &World, shopped: &[Record], facts: &mut Facts) {
    let [orders, items, warranties] =
        [Part::Order, Part::Warehouse, Part::Warranty].map(|part| Effects::of(world, part));
    for (effects, end, what) in [
        (&orders, "DELETE PAID", "orders committed"),
        (&items, "UPDATE false true", "items taken"),
        (&warranties, " REMOVED_FROM_WARRANTY", "warranties started"),
    ] {
        let (all, tombstones) = effects.happened_once(end);
        facts.push((format!("{what}, each once"), all));
        facts.push(("… tombstones, and nothing behind them".to_owned(), tombstones));
    }
    let tried = rows(
        world.database(Part::Order),
        "SELECT DISTINCT input ->> 'user' AS a, input ->> 'uid' AS b, '' AS c FROM saga
         WHERE kind = 'place'",
    );
    let mut by_user = BTreeMap::<Uuid, Vec<Uuid>>::new();
    for [user, order, _] in tried {
        by_user.entry(user.parse().unwrap()).or_default().push(order.parse().unwrap());
    }
    let removed = |status: Option<&str>| matches!(status, None | Some("REMOVED_FROM_WARRANTY"));
    let (mut bought, mut refunded) = (0, 0);
    for record in shopped {
        let tried = by_user.get(&record.user).map_or(&[][..], Vec::as_slice);
        let by = |order, at| {
            let item = item_of(order);
            (orders.at(order, at), items.at(item, at), warranties.at(item, at))
        };
        for at in &record.never_bought {
            for order in tried {
                let left = by(*order, *at);
                let nothing = left.0.is_none() && left.1 != Some("false") && removed(left.2);
                assert!(nothing, "of {order} there was {left:?} at {at}: {record:?}");
            }
        }
        bought += record.never_bought.len();
        let Purchase::Bought(order) = record.purchase else {
            continue;
        };
        for at in &record.never_refunded {
            let was = by(order, *at);
            let all = was.0 == Some("PAID") && was.1 == Some("false") && !removed(was.2);
            assert!(all, "of {order} there was {was:?} at {at}: {record:?}");
        }
        refunded += record.never_refunded.len();
    }
    facts.push(("purchases said to be rolled back, and they were".to_owned(), bought));
    facts.push(("refunds said to be rolled back, and they were".to_owned(), refunded));
}

/// And what has ended has stayed as it was.
fn sagas_have_ended(world: &World, facts: &mut Facts) {
    effects::ended_for_good(world);
    let sagas = rows(
        world.database(Part::Order),
        "SELECT kind || CASE WHEN fence > 1 THEN ', taken over' ELSE '' END AS a, state AS b,
                count(*)::text AS c
         FROM saga GROUP BY 1, 2 ORDER BY 1, 2",
    );
    for [kind, state, count] in sagas {
        assert!(["committed", "compensated"].contains(&state.as_str()), "{count} {kind}: {state}");
        facts.push((format!("sagas: {kind}: {state}"), count.parse().unwrap()));
    }
    for part in LEDGERS {
        let calls = rows(
            world.database(part),
            "SELECT kind AS a, state AS b, count(*)::text AS c FROM deferred
             WHERE kind <> 'claim' GROUP BY 1, 2 ORDER BY 1, 2",
        );
        for [kind, state, count] in calls {
            assert_eq!(state, "done", "{count} {kind}");
            facts.push((format!("{}'s {kind}: {state}", part.name()), count.parse().unwrap()));
        }
    }
}

/// Nobody is at a key any more.
fn leases_are_over(world: &World, facts: &mut Facts) {
    let left = "SELECT count(*) FROM idempotency WHERE state <> 'done'";
    let left = Part::ALL.map(|part| usize::try_from(world.number(part, left)).unwrap());
    facts.push(("keys that a crash left, and free again".to_owned(), left.iter().sum()));
}

/// By Store's answers: each sees the order that they have and no other, and the key says the same
/// again, also to those who left without knowing.
async fn users_see_it(world: &World, shopped: &[Record], had: &BTreeMap<Uuid, Had>) {
    stream::iter(shopped)
        .for_each_concurrent(8, async |record| {
            let had = had.get(&record.user);
            // A breaker may be open still.
            let list = until(RECOVERY, "a list of orders", async || {
                let answer = world.list_of(record.user).send().await;
                (answer.status == 200).then(|| answer.ok())
            });
            let list = list.await;
            let seen: Vec<_> = list.as_array().unwrap().iter().collect();
            let Some(Had { order, refunded }) = had else {
                assert!(seen.is_empty(), "{record:?} sees {list}");
                return;
            };
            assert_eq!(seen.len(), 1, "{record:?} sees {list}");
            assert_eq!(seen[0]["orderUid"], order.to_string(), "{record:?}");
            let status = if *refunded { "CANCELED" } else { "PAID" };
            assert_eq!(seen[0]["status"], status, "{record:?}");
            let again = world.buy_as(record.user, &record.model).key(&record.key).send().await;
            assert_eq!(again.bought(), *order, "{record:?}");
        })
        .await;
}
