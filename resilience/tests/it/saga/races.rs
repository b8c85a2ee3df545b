//! The same saga asked for twice, and two that exclude each other.

use std::convert::Infallible;

use diesel::connection::SimpleConnection as _;
use futures_util::future::join_all;
use resilience::saga::{Outcome, Stage, Start, StartError, Started};

use super::systems::Fault;
use super::trip::{End, Pivot, Trip, Wish, failed, wish};
use super::world::World;
use crate::deferred::eventually;

#[tokio::test]
async fn of_one_id_there_is_one_saga_however_many_ask_for_it() {
    let world = World::new();
    let (first, second) = (world.start(), world.start());
    let wish = wish(Pivot::Remote);
    let asked = (0..20).map(|n| if n % 2 == 0 { &first } else { &second }.try_to_ask(&wish, None));
    let begun = join_all(asked).await;
    let ran = begun.iter().filter(|begun| matches!(begun, Ok(Started::Begun(_)))).count();
    assert_eq!(ran, 1, "{begun:?}");
    assert_eq!(first.stage(wish.id).await, Stage::Committed);
    world.whole(wish.id, Pivot::Remote);
    assert_eq!(world.number("SELECT sum(times) FROM effects"), 4, "each once");
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn whoever_asks_again_is_told_what_became_of_it() {
    let world = World::new();
    let office = world.start();
    let done = wish(Pivot::Local);
    office.ask(&done, None).await;
    let Started::Known(known) = office.ask(&done, None).await else { panic!() };
    assert!(known.has_input(&done));
    assert!(!known.has_input(&Wish { end: End::No, ..done }));
    assert!(matches!(known.outcome::<u32>(), Outcome::Committed(42)));
    let refused = wish(Pivot::Local);
    world.systems.once("flight", Fault::Refused);
    office.ask(&refused, None).await;
    let Started::Known(known) = office.ask(&refused, None).await else { panic!() };
    assert_eq!(failed(known.outcome()).to_string(), "flight says no");
    office.stop().await;
}

#[tokio::test]
async fn of_those_with_the_same_key_one_is_open_at_a_time() {
    let world = World::new();
    let office = world.start();
    let start = |wish: &Wish| Start::<Trip>::new(wish.id, wish).unwrap().key("room 7");
    let held = wish(Pivot::Local);
    world.systems.once("flight", Fault::Hangs);
    let sagas = office.sagas.clone();
    let first = start(&held);
    let running =
        tokio::spawn(async move { sagas.run::<Trip, Infallible>(first, None, |_| Ok(())).await });
    eventually("it is under way", || world.steps(held.id).len() == 2).await;
    let other = wish(Pivot::Local);
    let known = office.sagas.run::<Trip, Infallible>(start(&other), None, |_| Ok(())).await;
    let Ok(Started::Known(known)) = known else { panic!("{known:?}") };
    assert_eq!((known.id, known.stage), (held.id, Stage::Running));
    assert_eq!(world.stage(other.id), None);
    crate::soon(running).await.unwrap().unwrap();
    // It has ended: the next one is begun.
    let begun = office.sagas.run::<Trip, Infallible>(start(&other), None, |_| Ok(())).await;
    assert!(matches!(begun, Ok(Started::Begun(Outcome::Committed(42)))), "{begun:?}");
    office.stop().await;
}

/// Keeps whoever begins a saga from going on, when it is written down or not.
const STOP_BEHIND_THE_INSERT: &str = "
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END';
    CREATE TRIGGER wait AFTER INSERT ON saga FOR EACH STATEMENT EXECUTE FUNCTION wait();";

#[tokio::test]
async fn a_key_that_is_given_back_while_somebody_looks_whose_it_is_is_theirs() {
    let world = World::new();
    let office = world.start();
    let start = |wish: &Wish| Start::<Trip>::new(wish.id, wish).unwrap().key("room 7");
    let (held, other) = (wish(Pivot::Local), wish(Pivot::Local));
    world.systems.once("flight", Fault::Held);
    let first = office.sagas.run::<Trip, Infallible>(start(&held), None, |_| Ok(()));
    let second = async {
        eventually("it is under way", || world.steps(held.id).len() == 2).await;
        world.execute(STOP_BEHIND_THE_INSERT);
        let mut lock = world.conn();
        lock.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(7)").unwrap();
        let asked = office.sagas.run::<Trip, Infallible>(start(&other), None, |_| Ok(()));
        let given_back = async {
            let waiting =
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
            eventually("it has met with the key", || world.number(waiting) == 1).await;
            world.systems.let_through_one();
            assert_eq!(office.stage(held.id).await, Stage::Committed);
            lock.batch_execute("COMMIT").unwrap();
        };
        tokio::join!(asked, given_back).0
    };
    let (first, second) = crate::soon(async { tokio::join!(first, second) }).await;
    for begun in [first, second] {
        assert!(matches!(begun, Ok(Started::Begun(Outcome::Committed(42)))), "{begun:?}");
    }
    office.stop().await;
}

/// Somebody always has it when it is reached for, and nobody when one looks who that is.
#[tokio::test]
async fn a_key_that_changes_hands_all_the_while_is_given_up_and_nothing_is_begun() {
    let world = World::new();
    let office = world.start();
    let start = |wish: &Wish| Start::<Trip>::new(wish.id, wish).unwrap().key("room 7");
    let (held, other) = (wish(Pivot::Local), wish(Pivot::Local));
    office.sagas.run::<Trip, Infallible>(start(&held), None, |_| Ok(())).await.unwrap();
    world.execute(
        "CREATE SEQUENCE tries;
         CREATE FUNCTION flip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF nextval('tries') > 100 THEN RAISE 'it never ends'; END IF;
             UPDATE saga SET state = CASE TG_WHEN WHEN 'BEFORE' THEN 'running' ELSE 'committed' END,
                             ended_at = CASE TG_WHEN WHEN 'AFTER' THEN clock_timestamp() END;
             RETURN NULL;
         END $$;
         CREATE TRIGGER opened BEFORE INSERT ON saga FOR EACH STATEMENT EXECUTE FUNCTION flip();
         CREATE TRIGGER ended AFTER INSERT ON saga FOR EACH STATEMENT EXECUTE FUNCTION flip();",
    );
    let refused = office.sagas.run::<Trip, Infallible>(start(&other), None, |_| Ok(())).await;
    assert!(matches!(refused, Err(StartError::Database(_))), "{refused:?}");
    let tries = world.number("SELECT last_value FROM tries");
    assert!((4..=40).contains(&tries), "{tries}");
    assert_eq!(world.stage(held.id).as_deref(), Some("committed"));
    assert_eq!(world.stage(other.id), None);
    assert!(world.effects(other.id).is_empty());
    office.stop().await;
}

#[tokio::test]
async fn whoever_goes_away_has_begun_it_all_the_same() {
    let world = World::new();
    let office = world.start();
    let wishes: Vec<_> = (0..20).map(|_| wish(Pivot::Remote)).collect();
    for wish in &wishes {
        let start = Start::new(wish.id, wish).unwrap();
        let asked = office.sagas.run::<Trip, Infallible>(start, None, |_| Ok(()));
        // Dropped somewhere in the middle.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(5), asked).await;
    }
    eventually("all have ended", || {
        world.number("SELECT count(*) FROM saga WHERE state = 'committed'") == 20
    })
    .await;
    for wish in &wishes {
        world.whole(wish.id, Pivot::Remote);
    }
    office.stop().await;
}

#[tokio::test]
async fn many_sagas_at_once_some_of_which_fail_leave_nothing_open() {
    let world = World::new();
    let (first, second) = (world.start(), world.start());
    for name in ["hotel", "flight", "price", "pay", "mail", "undo hotel", "undo flight"] {
        for fault in [Fault::Away, Fault::AnswerLost, Fault::Lost, Fault::Panics] {
            world.systems.once(name, fault);
        }
    }
    let pivots = [Pivot::Local, Pivot::Remote, Pivot::Decide];
    let wishes: Vec<_> = pivots.iter().cycle().take(120).map(|pivot| wish(*pivot)).collect();
    let asked = wishes.iter().enumerate();
    let office = |n| if n % 2 == 0 { &first } else { &second };
    let asked = asked.map(|(n, wish)| office(n).try_to_ask(wish, None));
    join_all(asked).await;
    world.calm().await;
    for wish in &wishes {
        world.whole(wish.id, wish.pivot);
    }
    first.stop().await;
    second.stop().await;
}
