//! What operators see of sagas, and what they can do.

use resilience::saga::{Outcome, Stage};

use super::systems::Fault;
use super::trip::Pivot;
use super::world::World;
use crate::deferred::eventually;

#[tokio::test]
async fn what_can_not_be_completed_is_stuck_behind_its_pivot_and_completed_on_retry() {
    let world = World::new();
    let office = world.start();
    world.systems.always("mail", Fault::Refused);
    let (id, outcome) = office.book(Pivot::Remote).await;
    assert!(matches!(outcome, Outcome::Completing(_)), "{outcome:?}");
    eventually("it is stuck", || world.stage(id).as_deref() == Some("stuck")).await;
    assert!(world.undone(id).is_empty(), "there is no way back");
    world.systems.heal();
    office.sagas.retry(id).await.unwrap();
    assert_eq!(office.stage(id).await, Stage::Committed);
    world.whole(id, Pivot::Remote);
    office.stop().await;
}

#[tokio::test]
async fn a_time_that_no_action_can_have_is_refused_when_the_runtime_is_built() {
    let world = World::new();
    for timeout in [std::time::Duration::ZERO, std::time::Duration::MAX] {
        let settings = super::world::quick().timeout(timeout);
        let refused = world.builder().saga_settings(settings).build().unwrap_err();
        assert!(matches!(refused, resilience::deferred::BuildError::Time(_)), "{refused}");
    }
}

#[tokio::test]
async fn what_ended_long_ago_is_deleted_and_what_is_open_is_not() {
    let world = World::new();
    let retention = std::time::Duration::from_millis(1);
    let builder = world.builder().retention(retention).saga_settings(super::world::quick());
    let office = super::world::Office::start(builder.build().unwrap());
    world.systems.always("undo flight", Fault::Impossible);
    world.systems.once("price", Fault::Away);
    let (stuck, _) = office.book(Pivot::Local).await;
    office.book(Pivot::Local).await;
    eventually("it is deleted", || world.number("SELECT count(*) FROM saga") == 1).await;
    assert_eq!(world.stage(stuck).as_deref(), Some("stuck"));
    assert_eq!(world.number("SELECT count(*) FROM saga_step"), 3);
    office.stop().await;
}
