//! An operator's hand on the breakers of running services.

use std::time::Instant;

use serde_json::json;
use service::testing::operator::{breaker, command};

use crate::outage::read_is_right;
use crate::world::shop::{Promise as _, prompt};
use crate::world::{Part, World};

#[tokio::test]
async fn breakers_forced_open_cost_what_an_outage_costs_until_they_are_reset() {
    let world = World::start().await;
    let order = world.bought().await;
    let before = world.get(order).send().await.ok();
    let callers = [Part::Store, Part::Order].map(|part| world.client(part));
    for caller in &callers {
        let done = command(caller, "warehouse", "force_open").send().await.ok();
        assert_eq!(done["breaker"]["state"], "forced_open");
    }

    // Warehouse is well, and nobody asks it.
    read_is_right(&prompt(world.get(order)).await, Part::Warehouse, &before);
    prompt(world.buy()).await.blames("rolled_back", Part::Warehouse);
    prompt(world.refund(order)).await.blames("rolled_back", Part::Warehouse);
    let claim = prompt(world.claim(order)).await;
    assert_eq!(claim.status, 202, "{claim:?}");
    for caller in &callers {
        let forced = breaker(caller, "warehouse").await;
        assert!(forced["rejected"].as_u64().is_some_and(|calls| calls > 0), "{forced}");
        let health = caller.get("/manage/health").send().await.ok();
        assert_eq!(health["status"], "Work");
    }
    assert_eq!(world.breaker(Part::Order, Part::Warehouse).await, "open");
    assert_eq!(world.get(order).send().await.ok()["degraded"], json!(["warehouse"]));

    for caller in &callers {
        let done = command(caller, "warehouse", "reset").send().await.ok();
        assert_eq!(done["breaker"]["state"], "closed");
    }
    let healed = Instant::now();
    assert_eq!(world.get(order).send().await.ok(), before, "healed at once");
    let mut paid = vec![order];
    paid.extend(world.works_again(healed).await);
    world.settles_with(&paid).await;
}
