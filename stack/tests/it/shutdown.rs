//! SIGTERM: no new work, and what runs is finished.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, PgConnection};
use nix::sys::signal::Signal;
use service::testing::network::Act;
use service::testing::{Call, Response, assert_envelope, until};

use crate::world::shop::{Promise as _, prompt};
use crate::world::{Part, RECOVERY, World, met};

/// A promise.
const LIMIT: Duration = Duration::from_secs(10);

/// Ends `part` while `call` runs and `there` says so. The trouble that `call` is in ends when
/// everything new is refused, or later, when the call was answered.
async fn ends_while(
    world: &World,
    part: Part,
    call: Call,
    there: impl Future<Output = ()>,
    refused: impl FnOnce(),
    answered: impl FnOnce(),
) -> Response {
    let process = world.replica(part, 0);
    let client = process.client();
    let end = async {
        there.await;
        let begin = Instant::now();
        process.signal(Signal::SIGTERM);
        until(Duration::from_secs(1), "readiness says no", async || {
            let ready = client.get("/manage/health/ready").send().await;
            (ready.status == 503).then_some(())
        })
        .await;
        assert_eq!(client.get("/manage/health/live").send().await.status, 200);
        until(Duration::from_secs(1), "nothing new is begun", async || {
            let answer = client.post("/api/v1/anything").send().await;
            (answer.status == 503).then(|| assert_envelope(&answer, 503, "shutting_down"))
        })
        .await;
        refused();
        begin
    };
    let (answer, begin) = tokio::join!(prompt(call), end);
    answered();
    let status = process.ended().await;
    assert!(begin.elapsed() <= LIMIT, "{part:?} took {:?} to end", begin.elapsed());
    assert!(status.success(), "{part:?} ended with {status}");
    answer
}

#[tokio::test]
async fn store_ends_after_its_purchase_was_answered_and_rolled_back() {
    let world = World::plan().proxied(Part::Order).impatient().start().await;
    let order = world.proxy(Part::Order);
    let held = order.on("*", Act::Late);
    let (call, there) = (world.buy(), met(&held));
    let answer = ends_while(&world, Part::Store, call, there, || {}, || order.heal()).await;
    answer.blames("rollback_pending", Part::Order);
    // Written down: whichever Store comes next undoes it.
    world.restart(Part::Store).await;
    world.settles_with(&[]).await;
    world.works_again(Instant::now()).await;
}

#[tokio::test]
async fn order_ends_after_its_purchase_was_answered_and_rolled_back() {
    let world = World::plan().proxied(Part::Warehouse).impatient().start().await;
    let warehouse = world.proxy(Part::Warehouse);
    let held = warehouse.on("*", Act::Late);
    let (call, there) = (world.buy(), met(&held));
    let answer = ends_while(&world, Part::Order, call, there, || {}, || warehouse.heal()).await;
    answer.blames("rollback_pending", Part::Warehouse);
    // Written down: whichever Order comes next undoes it.
    world.restart(Part::Order).await;
    world.settles_with(&[]).await;
    let bought = world.works_again(Instant::now()).await;
    world.settles_with(&bought).await;
}

#[tokio::test]
async fn warehouse_ends_after_its_claim_was_answered() {
    let world = World::plan().proxied(Part::Warranty).start().await;
    let order = world.bought().await;
    let warranty = world.proxy(Part::Warranty);
    let held = warranty.on("*", Act::Late);
    let (call, there) = (world.claim(order), met(&held));
    let answer = ends_while(&world, Part::Warehouse, call, there, || {}, || warranty.heal()).await;
    answer.queued(order);
    world.restart(Part::Warehouse).await;
    world.works_again(Instant::now()).await;
}

#[tokio::test]
async fn warranty_ends_after_its_start_was_answered() {
    let world = World::start().await;
    // What holds it up is its database.
    let mut holder = PgConnection::establish(world.database(Part::Warranty)).unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE warranty IN ACCESS EXCLUSIVE MODE").unwrap();
    let waiting = "(SELECT count(*) FROM pg_locks WHERE NOT granted)";
    let there = until(Duration::from_secs(1), "Warranty waits", async || {
        (world.number(Part::Warranty, waiting) > 0).then_some(())
    });
    let let_go = || holder.batch_execute("COMMIT").unwrap();
    let answer = ends_while(&world, Part::Warranty, world.buy(), there, let_go, || {}).await;
    let order = answer.bought();
    world.restart(Part::Warranty).await;
    world.works_again(Instant::now()).await;
    assert!(world.paid().await.contains(&order));
    world.settles().await;
}

#[tokio::test]
async fn all_four_end_cleanly_when_idle() {
    let world = World::start().await;
    world.bought().await;
    let begin = Instant::now();
    for part in Part::ALL {
        world.terminate(part).await;
    }
    assert!(begin.elapsed() < RECOVERY);
}
