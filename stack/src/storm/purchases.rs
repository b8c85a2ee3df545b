//! What has become of every purchase and every refund, and whether each shopper was told the truth.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use futures_util::{StreamExt as _, stream};
use order::ops::item_of;
use tokio::time::timeout;
use uuid::Uuid;

use super::effects::Effects;
use super::part::Part;
use super::promises::{Promise, Promises};
use super::shoppers::{Purchase, Record, Refund};
use super::sql::{number, rows};
use super::stage::Stage;
use super::verdict::until;
use super::works::RECOVERY;
use super::{Facts, Report, Scene, shop, since_then};

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

/// Each has what they were told, all of it once.
pub(super) async fn check<S: Stage>(
    scene: &Scene<S>,
    shopped: &[Record],
    report: &mut Report,
) -> Result<()> {
    let orders = rows(
        &scene.stage.databases()[Part::Order as usize],
        &format!(
            "SELECT order_uid::text AS a, user_uid::text AS b, status AS c FROM orders WHERE {}",
            scene.goods.is_user("user_uid")
        ),
    )?;
    let Report { promises, facts, paid, .. } = report;
    let users: BTreeSet<_> = shopped.iter().map(|record| record.user).collect();
    let mut had = BTreeMap::new();
    for [order, user, status] in orders {
        let user = user.parse()?;
        if users.contains(&user) {
            let order = Had { order: order.parse()?, refunded: status == "CANCELED" };
            let before = had.insert(user, order);
            promises.check(Promise::Bought, before.is_none(), || {
                format!("{user} has two orders under one key")
            });
        }
    }
    told_the_truth_of_the_end(shopped, &had, promises, facts);
    told_the_truth_at_once(scene, shopped, promises, facts)?;
    sagas_have_ended(scene, promises, facts)?;
    leases_are_over(scene, facts)?;
    users_see_it(scene, shopped, &had, promises).await;
    paid.extend(had.values().filter(|had| !had.refunded).map(|had| had.order));
    Ok(())
}

fn told_the_truth_of_the_end(
    shopped: &[Record],
    had: &BTreeMap<Uuid, Had>,
    promises: &mut Promises,
    facts: &mut Facts,
) {
    let mut count = BTreeMap::from([("shoppers", shopped.len())]);
    for record in shopped {
        let had = had.get(&record.user);
        let fact = match (record.purchase, had) {
            (Purchase::Bought(order), Some(had)) => {
                promises.check(Promise::Bought, order == had.order, || {
                    format!("{} was bought instead: {record:?}", had.order)
                });
                "… and told so"
            }
            (Purchase::Bought(_), None) => {
                promises.broke(Promise::Bought, format!("what was bought is gone: {record:?}"));
                continue;
            }
            (Purchase::Unknown, Some(_)) => "… and left without knowing",
            (Purchase::Unknown, None) => "not bought: left without knowing",
            (Purchase::Refused, None) => "not bought: refused",
            (Purchase::RolledBack, None) => "not bought: rolled back, and left",
            (Purchase::Pending, None) => "not bought: rollback pending, and left",
            (_, Some(had)) => {
                let all_the_same = format!("{} was bought all the same: {record:?}", had.order);
                promises.broke(Promise::Bought, all_the_same);
                continue;
            }
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
            _ => {
                promises.broke(Promise::Refunded, format!("is it: {refunded}; {record:?}"));
                continue;
            }
        };
        *count.entry(fact).or_default() += 1;
    }
    let of = |fate: &str| count.get(fate).copied().unwrap_or_default();
    let (all, bought, kept) = (of("shoppers"), of("purchases"), of("… kept"));
    promises.looked(Promise::Bought, bought, format!("{bought}, by {all} shoppers"));
    promises.looked(Promise::Refunded, bought - kept, format!("{} of {bought}", bought - kept));
    for fate in FATES {
        facts.push((fate.to_owned(), of(fate).to_string()));
    }
}

/// Whoever was told that nothing had happened was told so when it was true.
fn told_the_truth_at_once<S: Stage>(
    scene: &Scene<S>,
    shopped: &[Record],
    promises: &mut Promises,
    facts: &mut Facts,
) -> Result<()> {
    let databases = scene.stage.databases();
    let orders = Effects::of(databases, Part::Order)?;
    let items = Effects::of(databases, Part::Warehouse)?;
    let warranties = Effects::of(databases, Part::Warranty)?;
    let mut effects_in_all = 0;
    for (effects, end, what) in [
        (&orders, "DELETE PAID", "orders committed"),
        (&items, "UPDATE false true", "items taken"),
        (&warranties, " REMOVED_FROM_WARRANTY", "warranties started"),
    ] {
        let (all, tombstones) = effects.happened_once(end, promises);
        effects_in_all += all;
        facts.push((format!("{what}, each once"), all.to_string()));
        let behind = "… tombstones, and nothing behind them".to_owned();
        facts.push((behind, tombstones.to_string()));
    }
    promises.looked(Promise::Once, effects_in_all, format!("{effects_in_all} effects"));
    let tried = rows(
        &databases[Part::Order as usize],
        &format!(
            "SELECT DISTINCT input ->> 'user' AS a, input ->> 'uid' AS b, '' AS c FROM saga
             WHERE kind = 'place' AND {}",
            scene.goods.is_user("(input ->> 'user')::uuid")
        ),
    )?;
    let mut by_user = BTreeMap::<Uuid, Vec<Uuid>>::new();
    for [user, order, _] in tried {
        by_user.entry(user.parse()?).or_default().push(order.parse()?);
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
                promises.check(Promise::RolledBack, nothing, || {
                    format!("of {order} there was {left:?} at {at}: {record:?}")
                });
            }
        }
        bought += record.never_bought.len();
        let Purchase::Bought(order) = record.purchase else {
            continue;
        };
        for at in &record.never_refunded {
            let was = by(order, *at);
            let all = was.0 == Some("PAID") && was.1 == Some("false") && !removed(was.2);
            promises.check(Promise::RolledBack, all, || {
                format!("of {order} there was {was:?} at {at}: {record:?}")
            });
        }
        refunded += record.never_refunded.len();
    }
    let figure = format!("{bought} purchases, {refunded} refunds");
    promises.looked(Promise::RolledBack, bought + refunded, figure);
    Ok(())
}

/// None is stuck, and none was given up.
fn sagas_have_ended<S: Stage>(
    scene: &Scene<S>,
    promises: &mut Promises,
    facts: &mut Facts,
) -> Result<()> {
    let databases = scene.stage.databases();
    let sagas = rows(
        &databases[Part::Order as usize],
        &format!(
            "SELECT kind || CASE WHEN fence > 1 THEN ', taken over' ELSE '' END AS a, state AS b,
                    count(*)::text AS c
             FROM saga WHERE {} GROUP BY 1, 2 ORDER BY 1, 2",
            since_then("begun_at", scene.since)
        ),
    )?;
    for [kind, state, count] in sagas {
        let ended = ["committed", "compensated"].contains(&state.as_str());
        promises.check(Promise::Ends, ended, || format!("{count} {kind}: {state}"));
        facts.push((format!("sagas: {kind}: {state}"), count));
    }
    for part in Part::LEDGERS {
        let calls = rows(
            &databases[part as usize],
            &format!(
                "SELECT kind AS a, state AS b, count(*)::text AS c FROM deferred
                 WHERE kind <> 'claim' AND {} GROUP BY 1, 2 ORDER BY 1, 2",
                since_then("created_at", scene.since)
            ),
        )?;
        for [kind, state, count] in calls {
            promises.check(Promise::Ends, state == "done", || format!("{count} {kind}: {state}"));
            facts.push((format!("{}'s {kind}: {state}", part.name()), count));
        }
    }
    Ok(())
}

/// Nobody is at a key any more.
fn leases_are_over<S: Stage>(scene: &Scene<S>, facts: &mut Facts) -> Result<()> {
    let left = format!(
        "(SELECT count(*) FROM idempotency WHERE state <> 'done' AND {})",
        since_then("created_at", scene.since)
    );
    let left = scene.stage.databases().iter().map(|url| number(url, &left));
    let left = left.sum::<Result<i64>>()?;
    facts.push(("keys that a crash left, and free again".to_owned(), left.to_string()));
    Ok(())
}

/// By Store's answers: each sees the order that they have and no other, and the key says the same
/// again, also to those who left without knowing.
async fn users_see_it<S: Stage>(
    scene: &Scene<S>,
    shopped: &[Record],
    had: &BTreeMap<Uuid, Had>,
    promises: &mut Promises,
) {
    let seen = stream::iter(shopped).map(async |record| {
        // A breaker may be open still.
        let mut list = None;
        let asked = until(async || {
            let answer = shop::list(&scene.stage.store(), record.user).try_send().await?;
            list = (answer.status == 200).then(|| answer.json());
            Ok(list.is_some())
        });
        let asked = timeout(RECOVERY, asked).await;
        let seen = list.as_ref().and_then(|list| list.as_array()).map(Vec::as_slice);
        let wrong = |how: String| Err(format!("{how}: {record:?}"));
        match (had.get(&record.user), seen) {
            (_, None) => wrong(format!("no list of orders, {asked:?}")),
            (None, Some([])) => Ok(()),
            (Some(Had { order, refunded }), Some([one])) => {
                let status = if *refunded { "CANCELED" } else { "PAID" };
                if one["orderUid"] != order.to_string() || one["status"] != status {
                    return wrong(format!("sees {one}, and {order} is {status}"));
                }
                let again = shop::buy(&scene.stage.store(), record.user, &record.model);
                match again.key(&record.key).try_send().await {
                    Ok(answer) if shop::bought(&answer) == Ok(*order) => Ok(()),
                    other => wrong(format!("asked again, and told {other:?}")),
                }
            }
            (_, Some(seen)) => wrong(format!("sees {seen:?}")),
        }
    });
    let mut seen = seen.buffer_unordered(8);
    while let Some(seen) = seen.next().await {
        if let Err(wrong) = seen {
            promises.broke(Promise::Seen, wrong);
        }
    }
}
