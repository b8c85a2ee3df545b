//! What operators do with what is stuck, whatever became of its calls meanwhile; and what they need not
//! see any more.

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
async fn deleted(world: &World) {
    let builder = Deferred::builder(world.pool.clone()).retention(Duration::from_micros(1));
    let office = Office::start(builder.build().unwrap());
    let left = "SELECT count(*) FROM deferred WHERE discarded_at IS NOT NULL";
    eventually("it is deleted", || world.number(left) == 0).await;
    office.stop().await;
}

async fn reason(office: &Office, id: Uuid) -> String {
    office.sagas.get(id).await.unwrap().unwrap().reason.unwrap()
}

/// What becomes of a call that was given up, before its saga is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    Discarded,
    Deleted,
}

const ALL: [Meanwhile; 3] = [Meanwhile::Nothing, Meanwhile::Discarded, Meanwhile::Deleted];

/// As an operator does it, to the only one.
async fn pass(world: &World, office: &Office, id: Uuid, meanwhile: Meanwhile) {
    let before = reason(office, id).await;
    if meanwhile == Meanwhile::Nothing {
        return;
    }
    let [call] = parked(office).await[..] else { panic!("{:?}", parked(office).await) };
    office.deferred.discard(call).await.unwrap();
    assert_eq!(world.stage(id).as_deref(), Some("stuck"), "nothing is as before");
    assert_eq!(reason(office, id).await, format!("discarded by an operator: {before}"));
    if meanwhile == Meanwhile::Deleted {
        deleted(world).await;
    }
}

#[tokio::test]
async fn a_stuck_saga_is_taken_back_on_retry_whatever_became_of_its_undo() {
    let world = World::new();
    let office = world.start();
    for meanwhile in ALL {
        let id = stuck(&world, &office, &["undo flight"]).await;
        assert_eq!(reason(&office, id).await, "flight can't undo that");
        pass(&world, &office, id, meanwhile).await;
        world.systems.heal();
        office.sagas.retry(id).await.unwrap();
        assert_eq!(office.stage(id).await, Stage::Compensated, "{meanwhile:?}");
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
async fn a_saga_stuck_behind_its_pivot_is_completed_on_retry_whatever_became_of_its_rest() {
    let world = World::new();
    let office = world.start();
    for meanwhile in ALL {
        world.systems.always("mail", Fault::Refused);
        let (id, outcome) = office.book(Pivot::Remote).await;
        assert!(matches!(outcome, Outcome::Completing(_)), "{outcome:?}");
        until_parked(&world, 1).await;
        assert!(world.undone(id).is_empty(), "there is no way back");
        pass(&world, &office, id, meanwhile).await;
        world.systems.heal();
        office.sagas.retry(id).await.unwrap();
        assert_eq!(office.stage(id).await, Stage::Committed, "{meanwhile:?}");
        world.whole(id, Pivot::Remote);
    }
    office.stop().await;
}

#[tokio::test]
async fn an_interrupted_saga_goes_on_on_retry_though_its_rest_was_discarded_and_deleted() {
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
    deleted(&world).await;
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

#[tokio::test]
async fn what_ended_long_ago_is_deleted_and_what_is_open_is_not() {
    let world = World::new();
    let retention = Duration::from_millis(1);
    let builder = world.builder().retention(retention).saga_settings(quick());
    let office = Office::start(builder.build().unwrap());
    world.systems.always("undo flight", Fault::Impossible);
    world.systems.once("price", Fault::Away);
    let (stuck, _) = office.book(Pivot::Local).await;
    office.book(Pivot::Local).await;
    eventually("it is deleted", || world.number("SELECT count(*) FROM saga") == 1).await;
    assert_eq!(world.stage(stuck).as_deref(), Some("stuck"));
    assert_eq!(world.number("SELECT count(*) FROM saga_step"), 3);
    office.stop().await;
}
