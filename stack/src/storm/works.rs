//! Whether everything works when it is over.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;
use service::client::{Call, Client, Response};
use tokio::time::sleep;

use super::part::Part;
use super::promises::Promise;
use super::stage::Stage;
use super::verdict::LOOK;
use super::{Report, Scene, shop};

/// The promise: an open breaker probes again after at most six seconds.
pub(super) const RECOVERY: Duration = Duration::from_secs(7);

/// Somebody who comes late does everything that a user does, at every Store; and then every service is
/// healthy, and every breaker closed.
pub(super) async fn check<S: Stage>(scene: &Scene<S>, report: &mut Report) -> Result<()> {
    let begin = Instant::now();
    loop {
        let stores = scene.stage.processes();
        for (_, store) in stores.iter().filter(|(part, _)| *part == Part::Store) {
            if let Err(wrong) = visit(scene, store, report).await {
                report.promises.broke(Promise::Works, format!("{wrong:#}"));
                return Ok(());
            }
        }
        // A breaker that nobody asks stays open.
        let sick = sick(scene).await;
        if sick.is_empty() {
            break;
        }
        if begin.elapsed() > RECOVERY {
            report.promises.broke(Promise::Works, format!("not healthy: {sick:?}"));
            return Ok(());
        }
    }
    let took = begin.elapsed().as_secs_f64();
    report.promises.looked(Promise::Works, 1, format!("within {took:.1} s"));
    Ok(())
}

/// Everything that a user does at Store, all of it until it works.
async fn visit<S: Stage>(scene: &Scene<S>, store: &Client, report: &mut Report) -> Result<()> {
    let healed = Instant::now();
    let user = scene.goods.user(scene.crowd.late());
    let model = &scene.stock.plenty.0;
    let buy = || shop::buy(store, user, model);
    let order = works(healed, "a purchase", buy, |answer| shop::bought(answer).ok()).await?;
    report.paid.push(order);
    let whole = |answer: &Response| {
        (answer.status == 200 && !answer.text().contains("degraded")).then_some(())
    };
    works(healed, "a list of orders", || shop::list(store, user), whole).await?;
    works(healed, "an order", || store.get(shop::path(user, order)), whole).await?;
    let decided = |answer: &Response| (answer.status == 200).then_some(());
    works(healed, "a claim", || shop::claim(store, user, order), decided).await?;
    let returned = works(healed, "a purchase", buy, |answer| shop::bought(answer).ok()).await?;
    let done = |answer: &Response| (answer.status == 204).then_some(());
    works(healed, "a refund", || shop::refund(store, user, returned), done).await
}

async fn works<T>(
    healed: Instant,
    what: &str,
    call: impl Fn() -> Call,
    good: impl Fn(&Response) -> Option<T>,
) -> Result<T> {
    loop {
        let answer = call().try_send().await;
        if let Some(found) = answer.as_ref().ok().and_then(&good) {
            return Ok(found);
        }
        if healed.elapsed() > RECOVERY {
            bail!("{what} doesn't work, after {} s: {answer:?}", RECOVERY.as_secs());
        }
        sleep(LOOK).await;
    }
}

/// Whose health isn't what it should be, and what it says.
async fn sick<S: Stage>(scene: &Scene<S>) -> Vec<Value> {
    let mut sick = Vec::new();
    for (part, client) in scene.stage.processes() {
        let health = match client.get("/manage/health").try_send().await {
            Ok(answer) => answer.json(),
            Err(error) => Value::String(format!("{}: {error}", part.name())),
        };
        let components = &health["components"];
        let broker = &components["broker"]["status"];
        let dependencies = components["dependencies"].as_array();
        let closed = |all: &Vec<Value>| all.iter().all(|one| one["state"] == "closed");
        let carried = if scene.stage.is_carried(part) { "Work" } else { "Absent" };
        let healthy = health["status"] == "Work"
            && (broker.is_null() || broker == carried)
            && dependencies.is_some_and(closed);
        if !healthy {
            sick.push(health);
        }
    }
    sick
}
