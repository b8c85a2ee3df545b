//! What has become of every claim.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, stream};
use order::ops::item_of;
use uuid::Uuid;

use super::effects::Effects;
use super::part::Part;
use super::promises::{Promise, Promises};
use super::sql::rows;
use super::stage::Stage;
use super::users::{Told, Users};
use super::{Report, Scene, shop, since_then};

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

/// Every accepted claim is decided exactly once, or parked with its reason.
pub(super) async fn check<S: Stage>(
    scene: &Scene<S>,
    users: &Users,
    report: &mut Report,
) -> Result<()> {
    let store = &scene.stage.databases()[Part::Store as usize];
    let ours = scene.goods.is_user("user_uid");
    let found = rows(
        store,
        &format!(
            "SELECT claim_uid::text AS a, order_uid || ' ' || user_uid AS b,
                    concat_ws(' ', status, decision) AS c
             FROM claims WHERE {ours}"
        ),
    )?;
    let mut claims = BTreeMap::new();
    for [claim, of, end] in found {
        let (order, user) = of.split_once(' ').context("a claim has an order and a user")?;
        claims.insert(claim.parse()?, Claim { order: order.parse()?, user: user.parse()?, end });
    }
    let promises = &mut report.promises;
    let mut rule = |holds: bool, how: &dyn Fn() -> String| {
        promises.check(Promise::Claimed, holds, how);
    };
    for told @ Told { order, claim, decided } in users.told() {
        let Some(found) = claims.get(claim) else {
            rule(false, &|| format!("{claim} is lost"));
            continue;
        };
        rule(found.order == *order, &|| format!("{told:?} is on {}", found.order));
        let kept = !decided || found.is_decided();
        rule(kept, &|| format!("{claim} was decided, and is {}", found.end));
    }
    let claimed: BTreeSet<_> = claims.values().map(|claim| claim.order).collect();
    let (keys, all) = (claimed.len(), claims.len());
    rule(keys == all, &|| format!("{keys} keys are {all} claims"));

    // The ledger tells the same.
    let orders = orders(scene)?;
    let ledger = rows(
        store,
        &format!(
            "SELECT id || ' ' || (payload ->> 'order') AS a, state AS b,
                    coalesce(last_error, '') AS c
             FROM deferred WHERE kind = 'claim' AND {}",
            since_then("created_at", scene.since)
        ),
    )?;
    let (mut calls, mut done, mut parked) = (0, 0, BTreeMap::<String, usize>::new());
    for [id, state, error] in ledger {
        let (id, order) = id.split_once(' ').context("a call has an id and an order")?;
        let Some(claim) = claims.get(&id.parse()?) else {
            let strange = !orders.contains(&order.parse()?);
            rule(strange, &|| format!("{id} on {order} is {state}, and no claim"));
            continue;
        };
        calls += 1;
        match state.as_str() {
            "done" => {
                rule(claim.is_decided(), &|| format!("{id} is done, and {}", claim.end));
                done += 1;
            }
            "parked" => {
                rule(claim.end == "FAILED", &|| format!("{id} is parked, and {}", claim.end));
                rule(!error.is_empty(), &|| format!("{id} is parked without a reason"));
                *parked.entry(error).or_default() += 1;
            }
            other => rule(false, &|| format!("{id} is {other}")),
        }
    }
    rule(calls == all, &|| format!("{calls} of {all} claims were deferred"));
    users_see_it(scene, users, &claims, promises).await;
    warranty_has_done_it_once(scene, &claims, &orders, promises)?;
    let given_up = parked.values().sum::<usize>();
    let shoppers = users.shopped().len();
    let seen = format!("{shoppers} shoppers, {all} claims");
    promises.looked(Promise::Seen, shoppers + all, seen);
    promises.looked(Promise::Claimed, all, format!("{all}, and {given_up} given up"));
    let facts = &mut report.facts;
    facts.push(("claims accepted".to_owned(), all.to_string()));
    facts.push(("… and told so".to_owned(), users.told().len().to_string()));
    facts.push(("done".to_owned(), done.to_string()));
    facts.push(("parked".to_owned(), given_up.to_string()));
    for (reason, count) in parked {
        facts.push((format!("… {reason}"), count.to_string()));
    }
    times(scene, report)
}

/// Every order that somebody has, had, or wanted to have.
fn orders<S: Stage>(scene: &Scene<S>) -> Result<BTreeSet<Uuid>> {
    let goods = scene.goods;
    let tried = rows(
        &scene.stage.databases()[Part::Order as usize],
        &format!(
            "SELECT input ->> 'uid' AS a, '' AS b, '' AS c FROM saga WHERE kind = 'place' AND {}
             UNION SELECT order_uid::text, '', '' FROM orders WHERE {}",
            goods.is_user("(input ->> 'user')::uuid"),
            goods.is_user("user_uid")
        ),
    )?;
    let mut orders: BTreeSet<_> =
        (0..scene.crowd.claimants).map(|number| goods.order(number)).collect();
    for [order, ..] in tried {
        orders.insert(order.parse()?);
    }
    Ok(orders)
}

/// From a claim to its decision, and what became of the slowest.
fn times<S: Stage>(scene: &Scene<S>, report: &mut Report) -> Result<()> {
    let store = &scene.stage.databases()[Part::Store as usize];
    let ours = scene.goods.is_user("user_uid");
    let waits = rows(
        store,
        &format!(
            "SELECT coalesce(percentile_disc(0.5) WITHIN GROUP (ORDER BY wait)::text, '') AS a,
                    coalesce(percentile_disc(0.99) WITHIN GROUP (ORDER BY wait)::text, '') AS b,
                    coalesce(max(wait)::text, '') AS c
             FROM (SELECT decided_at - requested_at AS wait FROM claims WHERE {ours}) AS waits"
        ),
    )?;
    for [half, most, longest] in waits {
        let figure = format!("{half}, {most}");
        report.facts.push(("from claim to decision: p50, p99".to_owned(), figure));
        report.facts.push(("… longest".to_owned(), longest));
    }
    let slowest = rows(
        store,
        &format!(
            "SELECT attempts::text AS a, strikes::text AS b, coalesce(last_error, '') AS c
             FROM deferred JOIN claims ON claim_uid = deferred.id WHERE {ours}
             ORDER BY decided_at - requested_at DESC LIMIT 3"
        ),
    )?;
    for [attempts, strikes, error] in slowest {
        let figure = format!("{attempts}, {strikes}: {error}");
        report.facts.push(("… of the slowest: attempts, strikes".to_owned(), figure));
    }
    Ok(())
}

/// Store says how each has ended.
async fn users_see_it<S: Stage>(
    scene: &Scene<S>,
    users: &Users,
    claims: &BTreeMap<Uuid, Claim>,
    promises: &mut Promises,
) {
    let returning = users.shopped().iter().filter(|record| record.returns);
    let returning: BTreeSet<_> = returning.map(|record| record.user).collect();
    let seen = stream::iter(claims).map(async |(uid, claim)| {
        let wrong = |how: &str| Err(format!("{uid}, {}: {how}", claim.end));
        let call = shop::claims(&scene.stage.store(), claim.user, claim.order);
        let answer = match call.try_send().await {
            Ok(answer) if answer.status == 200 => answer.json(),
            other => return wrong(&format!("{other:?}")),
        };
        let Some([one]) = answer.as_array().map(Vec::as_slice) else {
            return wrong(&answer.to_string());
        };
        let text = |field: &str| one[field].as_str().unwrap_or_default();
        let end = [text("status"), text("decision")].join(" ");
        // Who gives it back before the decision may be refused.
        let refused = claim.end == "DECIDED REFUSED" && returning.contains(&claim.user);
        let fine = !claim.is_decided() || claim.end == "DECIDED RETURN" || refused;
        let same = text("claimUid") == uid.to_string() && end.trim_end() == claim.end;
        let reason = claim.is_decided() || one["failure"].is_string();
        if same && fine && reason { Ok(()) } else { wrong(&answer.to_string()) }
    });
    let mut seen = seen.buffer_unordered(8);
    while let Some(seen) = seen.next().await {
        if let Err(wrong) = seen {
            promises.broke(Promise::Seen, wrong);
        }
    }
}

/// Each that is decided had its effect once, and nothing else had any.
fn warranty_has_done_it_once<S: Stage>(
    scene: &Scene<S>,
    claims: &BTreeMap<Uuid, Claim>,
    orders: &BTreeSet<Uuid>,
    promises: &mut Promises,
) -> Result<()> {
    const USED: &str = "UPDATE ON_WARRANTY USE_WARRANTY";
    let (databases, goods) = (scene.stage.databases(), scene.goods);
    let effects = Effects::of(databases, Part::Warranty)?;
    let sold: BTreeMap<_, _> = (0..scene.crowd.claimants)
        .map(|number| (goods.order(number), goods.item(number)))
        .collect();
    let mut rule = |holds: bool, how: &dyn Fn() -> String| {
        promises.check(Promise::Claimed, holds, how);
    };
    let item = |order: Uuid| sold.get(&order).copied().unwrap_or_else(|| item_of(order));
    let mut used = BTreeSet::new();
    for (uid, claim) in claims {
        let times = effects.count(item(claim.order), USED);
        let due = match claim.end.as_str() {
            "DECIDED RETURN" => times == 1,
            "DECIDED REFUSED" => times == 0,
            // Nobody may know whether the last attempt had its effect.
            _ => times <= 1,
        };
        rule(due, &|| format!("{uid} is {}, and was carried out {times} times", claim.end));
        used.insert(item(claim.order));
    }
    let ours: BTreeSet<_> = orders.iter().map(|order| item(*order)).collect();
    for item in ours.difference(&used) {
        let times = effects.count(*item, USED);
        rule(times == 0, &|| format!("the warranty of {item} is used, and nobody has claimed"));
    }
    for item in sold.values() {
        let (touched, used) = (effects.len(*item), effects.count(*item, USED));
        rule(touched == used, &|| format!("something else became of {item}, sold before"));
    }
    // Under its own name, however often it came.
    let names = rows(
        &databases[Part::Warranty as usize],
        "SELECT key AS a, coalesce(string_agg(substring(path from '([0-9a-f-]{36})/warranty$'), ' '), '')
                AS b, count(*)::text AS c
         FROM idempotency WHERE path LIKE '%/warranty' GROUP BY 1",
    )?;
    for [key, items, times] in names {
        if items.split_whitespace().any(|item| item.parse().is_ok_and(|item| ours.contains(&item)))
        {
            rule(times == "1", &|| format!("{key} came under {times} names, to {items}"));
            let known = key.parse().is_ok_and(|key| claims.contains_key(&key));
            rule(known, &|| format!("{key} is nobody's claim, on {items}"));
        }
    }
    Ok(())
}
