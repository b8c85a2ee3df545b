//! What is stuck until an operator has it tried again, whatever became of its calls meanwhile.

use std::time::Duration;

use resilience::deferred::{self, Deferred, OperatorError};
use resilience::saga::{Filter, Outcome, Stage};
use uuid::Uuid;

use super::systems::Fault;
use super::takeover::leave;
use super::trip::Pivot;
use super::world::{Office, World, quick};
use crate::deferred::eventually;

/// A trip that fails behind its flight, and of which these can't be undone.
async fn stuck(world: &World, office: &Office, undos: &[&str]) -> Uuid {
    for undo in undos {
        world.systems.always(undo, Fault::Impossible);
    }
    world.systems.once("price", Fault::Away);
    let (id, outcome) = office.book(Pivot::Local).await;
    assert!(matches!(outcome, Outcome::Compensating { .. }), "{outcome:?}");
    until_parked(world, undos.len()).await;
    id
}

async fn until_parked(world: &World, count: usize) {
    let parked = "SELECT count(*) FROM deferred WHERE state = 'parked'";
    eventually("they are given up", || world.number(parked) == i64::try_from(count).unwrap()).await;
}

/// As an operator finds them: the calls that were given up, the newest first.
async fn parked(office: &Office) -> Vec<Uuid> {
    let filter = deferred::Filter::new().stage(deferred::Stage::Parked);
    office.deferred.list(filter).await.unwrap().iter().map(|call| call.id).collect()
}

/// As when the retention of what was discarded is over.
async fn forgotten(world: &World) {
    let builder = Deferred::builder(world.pool.clone()).retention(Duration::from_micros(1));
    let office = Office::start(builder.build().unwrap());
    let left = "SELECT count(*) FROM deferred WHERE discarded_at IS NOT NULL";
    eventually("it is deleted", || world.number(left) == 0).await;
    office.stop().await;
}

async fn reason(office: &Office, id: Uuid) -> String {
    office.sagas.get(id).await.unwrap().unwrap().reason.unwrap()
}

#[tokio::test]
async fn a_stuck_saga_is_taken_back_on_retry_though_its_undo_was_discarded_and_is_gone() {
    let world = World::new();
    let office = world.start();
    for gone in [false, true] {
        let id = stuck(&world, &office, &["undo flight"]).await;
        let [call] = parked(&office).await[..] else { panic!() };
        office.deferred.discard(call).await.unwrap();
        assert_eq!(world.stage(id).as_deref(), Some("stuck"), "nothing is as before");
        assert_eq!(reason(&office, id).await, "discarded by an operator: flight can't undo that");
        if gone {
            forgotten(&world).await;
        }
        world.systems.heal();
        office.sagas.retry(id).await.unwrap();
        assert_eq!(office.stage(id).await, Stage::Compensated);
        world.whole(id, Pivot::Local);
        assert_eq!(world.undone(id), ["hotel", "flight"]);
        for nothing in [id, Uuid::new_v4()] {
            let refused = office.sagas.retry(nothing).await;
            assert!(matches!(refused, Err(OperatorError::Unknown)), "{refused:?}");
        }
    }
    office.stop().await;
}

#[tokio::test]
async fn a_saga_behind_its_pivot_is_completed_on_retry_though_its_rest_was_discarded_and_is_gone() {
    let world = World::new();
    let office = world.start();
    world.systems.always("mail", Fault::Refused);
    let (id, outcome) = office.book(Pivot::Remote).await;
    assert!(matches!(outcome, Outcome::Completing(_)), "{outcome:?}");
    until_parked(&world, 1).await;
    let [call] = parked(&office).await[..] else { panic!() };
    office.deferred.discard(call).await.unwrap();
    forgotten(&world).await;
    assert_eq!(world.stage(id).as_deref(), Some("stuck"));
    assert!(reason(&office, id).await.starts_with("discarded by an operator: "));
    world.systems.heal();
    office.sagas.retry(id).await.unwrap();
    assert_eq!(office.stage(id).await, Stage::Committed);
    world.whole(id, Pivot::Remote);
    office.stop().await;
}

#[tokio::test]
async fn an_interrupted_saga_goes_on_on_retry_though_its_rest_was_discarded_and_is_gone() {
    let world = World::new();
    for role in ["step", "pivot"] {
        leave(&world, 1, role);
    }
    world.execute("UPDATE saga SET state = 'stuck', lease_until = NULL");
    let office = world.start();
    let stuck = office.sagas.list(Filter::new()).await.unwrap();
    assert_eq!(stuck.len(), 2);
    for saga in stuck {
        office.sagas.retry(saga.id).await.unwrap();
        office.ended(saga.id).await;
        world.whole(saga.id, Pivot::Remote);
    }
    office.stop().await;
}

/// What waits for a system that is away is given up by an operator, not by itself.
#[tokio::test]
async fn what_is_discarded_while_it_waits_leaves_its_saga_stuck_until_it_is_retried() {
    let world = World::new();
    let office = world.start();
    world.systems.always("undo flight", Fault::Away);
    world.systems.once("price", Fault::Away);
    let (id, _) = office.book(Pivot::Local).await;
    let [call] = &office.deferred.list(deferred::Filter::new()).await.unwrap()[..] else {
        panic!()
    };
    // Not while it is being tried.
    while let Err(OperatorError::Stage(_)) = office.deferred.discard(call.id).await {}
    assert_eq!(office.stage(id).await, Stage::Stuck);
    assert_eq!(reason(&office, id).await, "discarded by an operator");
    world.systems.heal();
    office.sagas.retry(id).await.unwrap();
    assert_eq!(office.stage(id).await, Stage::Compensated);
    office.stop().await;
}

#[tokio::test]
async fn a_saga_is_stuck_as_long_as_one_of_its_undos_is_given_up() {
    let world = World::new();
    let office = world.start();
    let id = stuck(&world, &office, &["undo flight", "undo hotel"]).await;
    let calls = parked(&office).await;
    let [one, other] = calls[..] else { panic!("{calls:?}") };
    world.systems.heal();
    // One of them succeeds, and the other is where it was: nobody would look for it any more.
    office.deferred.retry(one).await.unwrap();
    let ended = office.deferred.ended(one, Duration::from_secs(20)).await.unwrap();
    assert_eq!(ended, Some(deferred::Stage::Done));
    assert_eq!(world.stage(id).as_deref(), Some("stuck"));
    office.deferred.discard(other).await.unwrap();
    forgotten(&world).await;
    office.sagas.retry(id).await.unwrap();
    assert_eq!(office.stage(id).await, Stage::Compensated);
    world.whole(id, Pivot::Local);
    office.stop().await;
}

/// Whoever takes it back is still at the next undo when the first one is given up.
#[tokio::test]
async fn an_undo_that_is_given_up_stops_none_that_is_under_way() {
    let world = World::new();
    let office = world.start_with(quick().timeout(Duration::from_secs(20)));
    world.systems.always("undo flight", Fault::Impossible);
    world.systems.once("undo hotel", Fault::Held);
    world.systems.once("price", Fault::Away);
    let booked = async { office.book(Pivot::Local).await };
    let given_up = async {
        until_parked(&world, 1).await;
        world.systems.let_through_one();
    };
    let ((id, outcome), ()) = tokio::join!(booked, given_up);
    assert!(matches!(outcome, Outcome::Compensating { .. }), "{outcome:?}");
    assert_eq!(world.stage(id).as_deref(), Some("stuck"));
    assert_eq!(world.steps(id), ["hotel undone", "flight undo_deferred", "price refused"]);
    world.systems.heal();
    office.sagas.retry(id).await.unwrap();
    assert_eq!(office.stage(id).await, Stage::Compensated);
    assert_eq!(world.systems.asked("undo hotel"), 1);
    office.stop().await;
}
