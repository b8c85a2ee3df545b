//! What becomes of a saga whose process lives: all of it, or nothing.

use std::convert::Infallible;
use std::time::Duration;

use diesel::PgConnection;
use diesel::connection::SimpleConnection as _;
use resilience::deadline::Deadline;
use resilience::saga::{Effect, Outcome, Stage, Start, StartError, Started};
use uuid::Uuid;

use super::systems::Fault;
use super::trip::{End, Pivot, Trip, Wish, failed, wish};
use super::world::{World, quick};
use crate::deferred::eventually;

const ALL: [Pivot; 3] = [Pivot::Local, Pivot::Remote, Pivot::Decide];

#[tokio::test]
async fn a_saga_has_all_its_effects_and_says_what_it_came_to() {
    let world = World::new();
    let office = world.start();
    for pivot in ALL {
        let (id, outcome) = office.book(pivot).await;
        assert!(matches!(outcome, Outcome::Committed(42)), "{outcome:?}");
        world.whole(id, pivot);
        let known = office.sagas.find::<Trip>(id).await.unwrap().unwrap();
        assert_eq!((known.stage, known.output.unwrap().get()), (Stage::Committed, "42"));
    }
    assert_eq!(world.number("SELECT count(*) FROM deferred"), 0, "nothing was left to anybody");
    office.stop().await;
}

#[tokio::test]
async fn whatever_step_fails_everything_is_taken_back_the_last_one_first() {
    let world = World::new();
    let office = world.start();
    // What fails, how, and what has to be undone then.
    let faults: [(&str, Fault, &[&str]); 8] = [
        ("hotel", Fault::Refused, &[]),
        ("hotel", Fault::Away, &[]),
        ("hotel", Fault::Lost, &["hotel"]),
        ("flight", Fault::Refused, &["hotel"]),
        ("flight", Fault::Lost, &["flight", "hotel"]),
        ("flight", Fault::AnswerLost, &["flight", "hotel"]),
        ("flight", Fault::Panics, &["flight", "hotel"]),
        ("price", Fault::Away, &["flight", "hotel"]),
    ];
    for pivot in ALL {
        for (name, fault, undone) in faults {
            world.systems.once(name, fault);
            let (id, outcome) = office.book(pivot).await;
            let failure = failed(outcome);
            let none = matches!(fault, Fault::Refused | Fault::Away);
            assert_eq!(failure.effect() == Effect::None, none, "{name} {fault:?}: {failure:?}");
            world.whole(id, pivot);
            assert_eq!(world.undone(id), undone, "{name} {fault:?}");
            assert_eq!(world.stage(id).as_deref(), Some("compensated"));
        }
    }
    office.stop().await;
}

#[tokio::test]
async fn a_pivot_that_says_no_takes_everything_back_and_one_that_is_silent_goes_forward() {
    let world = World::new();
    let office = world.start();
    for fault in [Fault::Refused, Fault::Away] {
        world.systems.once("pay", fault);
        let (id, outcome) = office.book(Pivot::Remote).await;
        assert_eq!(failed(outcome).effect(), Effect::None);
        world.whole(id, Pivot::Remote);
        assert_eq!(world.undone(id), ["flight", "hotel"]);
    }
    for fault in [Fault::Lost, Fault::AnswerLost, Fault::Panics] {
        world.systems.once("pay", fault);
        let (id, outcome) = office.book(Pivot::Remote).await;
        // It was asked again, under the same id.
        assert!(matches!(outcome, Outcome::Committed(42)), "{fault:?}: {outcome:?}");
        world.whole(id, Pivot::Remote);
    }
    office.stop().await;
}

#[tokio::test]
async fn a_no_after_silence_is_no_way_back() {
    let world = World::new();
    let office = world.start();
    // The first one is on its way still: it may have its effect after the second was refused.
    world.systems.once("pay", Fault::Late);
    world.systems.always("pay", Fault::Away);
    let (id, outcome) =
        office.book_by(Pivot::Remote, Some(Deadline::after(Duration::from_millis(400)))).await;
    assert!(matches!(outcome, Outcome::Completing(Some(_))), "{outcome:?}");
    world.systems.let_through();
    world.systems.heal();
    assert_eq!(office.stage(id).await, Stage::Committed);
    world.whole(id, Pivot::Remote);
    office.stop().await;
}

#[tokio::test]
async fn a_no_for_good_after_silence_takes_everything_back() {
    let world = World::new();
    let office = world.start();
    world.systems.once("pay", Fault::Lost);
    world.systems.always("pay", Fault::Refused);
    let (id, outcome) = office.book(Pivot::Remote).await;
    assert_eq!(failed(outcome).to_string(), "pay says no");
    world.whole(id, Pivot::Remote);
    assert_eq!(world.undone(id), ["flight", "hotel"]);
    office.stop().await;
}

#[tokio::test]
async fn what_comes_behind_the_pivot_is_repeated_until_it_is_done() {
    let world = World::new();
    let office = world.start();
    for pivot in [Pivot::Remote, Pivot::Decide] {
        for fault in [Fault::Away, Fault::Lost, Fault::AnswerLost, Fault::Refused] {
            world.systems.once("mail", fault);
            let (id, outcome) = office.book(pivot).await;
            assert!(matches!(outcome, Outcome::Committed(42)), "{fault:?}: {outcome:?}");
            world.whole(id, pivot);
            assert!(world.undone(id).is_empty());
        }
    }
    office.stop().await;
}

#[tokio::test]
async fn a_pivot_in_the_own_database_that_refuses_or_fails_takes_everything_back() {
    let world = World::new();
    let office = world.start();
    for pivot in [Pivot::Local, Pivot::Decide] {
        for end in [End::No, End::Broken] {
            let wish = Wish { end, ..wish(pivot) };
            let Started::Begun(outcome) = office.ask(&wish, None).await else { panic!() };
            let failure = failed(outcome);
            let reason = if end == End::No { "sold out" } else { "division by zero" };
            assert!(failure.to_string().contains(reason), "{failure}");
            world.whole(wish.id, pivot);
            assert_eq!(world.undone(wish.id), ["flight", "hotel"]);
        }
    }
    office.stop().await;
}

#[tokio::test]
async fn an_undo_that_fails_is_repeated_and_the_others_go_on() {
    let world = World::new();
    let office = world.start();
    for fault in [Fault::Away, Fault::Hangs, Fault::Panics] {
        world.systems.always("undo flight", fault);
        world.systems.once("price", Fault::Away);
        let settings = Deadline::after(Duration::from_secs(8));
        let (id, outcome) = office.book_by(Pivot::Local, Some(settings)).await;
        let Outcome::Compensating { cause, step } = outcome else { panic!("{outcome:?}") };
        assert_eq!(cause.to_string(), "nobody knows the price");
        assert_eq!(step.as_deref(), Some("flight"));
        assert_eq!(world.undone(id), ["hotel"], "it goes on beside it");
        world.systems.heal();
        assert_eq!(office.stage(id).await, Stage::Compensated, "{fault:?}");
        world.whole(id, Pivot::Local);
    }
    office.stop().await;
}

#[tokio::test]
async fn a_call_that_arrives_after_its_undo_has_no_effect() {
    let world = World::new();
    let office = world.start();
    world.systems.once("flight", Fault::Late);
    let (id, outcome) = office.book(Pivot::Local).await;
    failed(outcome);
    world.systems.let_through();
    world.systems.once("hotel", Fault::Refused);
    office.book(Pivot::Local).await;
    world.whole(id, Pivot::Local);
    office.stop().await;
}

#[tokio::test]
async fn what_is_not_decided_in_time_is_taken_back() {
    let world = World::new();
    let office = world.start();
    for (name, pivot) in [("flight", Pivot::Local), ("hotel", Pivot::Remote)] {
        world.systems.once(name, Fault::Hangs);
        let deadline = Deadline::after(Duration::from_millis(300));
        let (id, outcome) = office.book_by(pivot, Some(deadline)).await;
        assert!(
            matches!(outcome, Outcome::Compensating { .. } | Outcome::Compensated(_)),
            "{outcome:?}"
        );
        assert_eq!(office.stage(id).await, Stage::Compensated);
        world.whole(id, pivot);
    }
    // Nothing is begun for which there is no time.
    let (id, outcome) = office.book_by(Pivot::Local, Some(Deadline::after(Duration::ZERO))).await;
    assert!(matches!(outcome, Outcome::Compensating { .. } | Outcome::Compensated(_)));
    assert_eq!(world.stage(id), None);
    office.stop().await;
}

/// Whoever waits gives up by its clock, and the run hasn't heard of it by its own.
#[tokio::test]
async fn what_its_caller_was_told_is_taken_back_is_never_committed() {
    let world = World::new();
    let office = world.start_with(quick().lease(Duration::from_mins(1)));
    for pivot in ALL {
        let wish = wish(pivot);
        world.systems.once("hotel", Fault::Held);
        let (sagas, start) = (office.sagas.clone(), Start::<Trip>::new(wish.id, &wish).unwrap());
        let deadline = Some(Deadline::after(Duration::from_secs(20)));
        let asked = tokio::spawn(async move {
            sagas.run::<_, Infallible>(start, deadline, |_: &mut PgConnection| Ok(())).await
        });
        eventually("it is under way", || world.steps(wish.id).len() == 1).await;
        // It stands between two steps.
        let mut lock = world.conn();
        lock.batch_execute("BEGIN; LOCK TABLE saga_step IN SHARE MODE").unwrap();
        world.systems.let_through_one();
        let waiting =
            "SELECT count(*) FROM pg_locks WHERE relation = 'saga_step'::regclass AND NOT granted";
        eventually("it waits for the journal", || world.number(waiting) > 0).await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(21)).await;
        tokio::time::resume();
        let begun = crate::soon(asked).await.unwrap();
        let Ok(Started::Begun(Outcome::Compensating { cause, .. })) = begun else {
            panic!("{begun:?}");
        };
        assert_eq!(cause.to_string(), "there was no time left");
        lock.batch_execute("COMMIT").unwrap();
        assert_eq!(office.stage(wish.id).await, Stage::Compensated, "{pivot:?}");
        world.whole(wish.id, pivot);
    }
    office.stop().await;
}

#[tokio::test]
async fn nothing_is_written_for_a_saga_that_stops_before_its_first_step() {
    let world = World::new();
    let office = world.start();
    world.systems.once("before", Fault::Away);
    let (id, outcome) = office.book(Pivot::Local).await;
    let failure = failed(outcome);
    assert_eq!(failure.dependency(), Some("hotel"));
    assert_eq!(world.stage(id), None);
    office.stop().await;
}

#[tokio::test]
async fn what_belongs_to_a_saga_is_written_with_it_or_not_at_all() {
    let world = World::new();
    let office = world.start();
    let wish = wish(Pivot::Local);
    let start = || Start::new(wish.id, &wish).unwrap();
    let refused = office.sagas.run::<Trip, _>(start(), None, |_| Err("no such user")).await;
    assert!(matches!(refused, Err(StartError::Prepare("no such user"))), "{refused:?}");
    assert_eq!(world.stage(wish.id), None);
    assert!(world.effects(wish.id).is_empty());
    let other = Uuid::new_v4();
    let prepared =
        office.sagas.run::<Trip, Infallible>(start(), None, move |conn: &mut PgConnection| {
            use diesel::RunQueryDsl as _;
            diesel::sql_query(format!("INSERT INTO trips (id) VALUES ('{other}')"))
                .execute(conn)
                .unwrap();
            Ok(())
        });
    assert!(matches!(prepared.await, Ok(Started::Begun(Outcome::Committed(_)))));
    assert!(world.is_noted(other));
    office.stop().await;
}

#[tokio::test]
async fn a_time_that_no_action_can_have_is_refused_when_the_runtime_is_built() {
    let world = World::new();
    for timeout in [Duration::ZERO, Duration::MAX] {
        let settings = quick().timeout(timeout);
        let refused = world.builder().saga_settings(settings).build().unwrap_err();
        assert!(matches!(refused, resilience::deferred::BuildError::Time(_)), "{refused}");
    }
}

#[tokio::test]
async fn a_database_that_is_away_promises_nothing() {
    let cluster = backing::postgres::testing::TestCluster::dedicated();
    let world = World::within(&cluster);
    let office = world.start();
    cluster.kill();
    let start = Start::new(Uuid::new_v4(), &wish(Pivot::Local)).unwrap();
    let begun = office.sagas.run::<Trip, Infallible>(start, None, |_| Ok(())).await;
    assert!(matches!(begun, Err(StartError::Database(_))), "{begun:?}");
    office.stop().await;
}
