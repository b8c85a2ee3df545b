//! Whatever a saga's code does, and however many there are of it: no saga is lost, or half done.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use futures_util::FutureExt as _;
use resilience::deferred::{Attempt, Deferred, HandlerError};
use resilience::saga::{
    Action, Failure, Local, Outcome, Run, Stage, Start, Started, Step, Steps, Stop,
};
use uuid::Uuid;

use super::free::{Free, Notes, Take, begin, none, office, take};
use super::systems::Fault;
use super::trip::{Pivot, wish};
use super::world::{Office, World, brief, quick};
use crate::deferred::{Connections, eventually};

#[tokio::test]
async fn a_step_that_nobody_could_undo_is_not_taken() {
    let world = World::new();
    let notes = Notes::default();
    let steps = Take(notes.clone());
    let office = office(
        world.pool.clone(),
        &notes,
        quick(),
        |_| Steps::new(),
        move |run| {
            let steps = steps.clone();
            async move {
                run.step(&steps, 1).await?;
                Err(run.abort(none("no")))
            }
            .boxed()
        },
    );
    let id = Uuid::new_v4();
    let begun = begin(&office.sagas, id, None).await;
    let known = office.sagas.ended::<Free>(id, Duration::from_secs(10)).await.unwrap();
    assert_eq!(notes.of("take").len(), 0, "{begun:?}, then {:?}", known.map(|known| known.stage));
    office.stop().await;
}

#[tokio::test]
async fn a_step_that_is_taken_twice_has_two_ids() {
    let world = World::new();
    let notes = Notes::default();
    let steps = Take(notes.clone());
    let office = office(world.pool.clone(), &notes, quick(), take, move |run| {
        let steps = steps.clone();
        async move {
            run.step(&steps, 1).await?;
            run.step(&steps, 2).await?;
            run.commit(|_| Ok(0)).await
        }
        .boxed()
    });
    let begun = begin(&office.sagas, Uuid::new_v4(), None).await;
    let taken = notes.of("take");
    assert!(taken.len() < 2 || taken[0].0 != taken[1].0, "{begun:?}: {taken:?}");
    office.stop().await;
}

/// A course that gives up waiting for a step, and goes on.
#[tokio::test]
async fn a_step_that_nobody_waited_for_makes_no_pivot_vanish() {
    let world = World::new();
    let notes = Notes::default();
    let (steps, tries) = (Take(notes.clone()), Arc::new(AtomicUsize::new(0)));
    let (locked, lock) = (world.pool.clone(), Arc::clone(&tries));
    let office = office(world.pool.clone(), &notes, quick(), refuses, move |run| {
        let (steps, pool, notes) = (steps.clone(), locked.clone(), steps.0.clone());
        let first = lock.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            run.step(&steps, 1).await?;
            if first {
                let mut slow = pool.get().unwrap();
                slow.batch_execute("BEGIN; LOCK TABLE saga_step IN SHARE ROW EXCLUSIVE MODE")
                    .unwrap();
                let limit = Duration::from_millis(300);
                let late = tokio::time::timeout(limit, run.step(&Extra, 2)).await.is_err();
                assert!(late);
                slow.batch_execute("COMMIT").unwrap();
            } else {
                run.step(&Extra, 2).await?;
            }
            run.pivot(&Pay(notes), 3).await?;
            run.commit(|_| Ok(0)).await
        }
        .boxed()
    });
    let id = Uuid::new_v4();
    let begun = begin(&office.sagas, id, None).await;
    let known = office.sagas.ended::<Free>(id, Duration::from_secs(10)).await.unwrap().unwrap();
    let paid = notes.of("pay").len();
    assert!(
        !(paid > 0 && known.stage == Stage::Compensated),
        "{begun:?}, then {}: {:?}",
        known.stage,
        world.steps(id)
    );
    office.stop().await;
}

fn refuses(notes: &Notes) -> Steps {
    take(notes).and(Extra)
}

/// Something that is sold out.
#[derive(Clone)]
struct Extra;

impl Action for Extra {
    const NAME: &'static str = "extra";
    type Input = u32;
    type Output = ();

    async fn act(&self, _: Attempt<u32>) -> Result<(), Failure> {
        Err(none("sold out"))
    }
}

impl Step for Extra {
    async fn undo(&self, _: Attempt<u32>) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// It is paid, and nobody knows.
#[derive(Clone)]
struct Pay(Notes);

impl Action for Pay {
    const NAME: &'static str = "pay";
    type Input = u32;
    type Output = ();

    async fn act(&self, attempt: Attempt<u32>) -> Result<(), Failure> {
        self.0.note("pay", &attempt);
        Err(Failure::unknown(HandlerError::unavailable("the answer is lost")))
    }
}

#[tokio::test]
async fn a_failure_that_was_swallowed_in_the_commit_is_told() {
    let world = World::new();
    let notes = Notes::default();
    let steps = Take(notes.clone());
    let office = office(world.pool.clone(), &notes, brief(), take, move |run| {
        let steps = steps.clone();
        async move {
            run.step(&steps, 1).await?;
            run.commit(|conn| {
                let _ = diesel::sql_query("SELECT 1 / 0").execute(conn);
                Ok::<_, Local>(0)
            })
            .await
        }
        .boxed()
    });
    let begun = begin(&office.sagas, Uuid::new_v4(), None).await;
    println!("swallowed: {begun:?}");
    let told = format!("{begun:?}");
    assert!(told.contains("aborted") || told.contains("zero"), "{told}");
    office.stop().await;
}

/// PostgreSQL would answer COMMIT with a rollback, which is no error: steps would be taken of a saga that
/// nobody has written down.
#[tokio::test]
async fn a_failure_that_was_swallowed_in_the_beginning_begins_nothing() {
    for steps_first in [true, false] {
        let world = World::new();
        let notes = Notes::default();
        let steps = Take(notes.clone());
        let office = office(world.pool.clone(), &notes, brief(), take, move |run| {
            let steps = steps.clone();
            async move {
                if steps_first {
                    run.step(&steps, 1).await?;
                }
                run.commit(|_| Ok::<_, Local>(0)).await
            }
            .boxed()
        });
        let start = Start::<Free>::new(Uuid::new_v4(), &()).unwrap();
        let begun = office.sagas.run::<_, Infallible>(start, None, |conn| {
            let _ = diesel::sql_query("SELECT 1 / 0").execute(conn);
            Ok(())
        });
        let told = begun.await.map(|_| ()).expect_err("it is told").to_string();
        assert!(told.contains("database"), "{told}");
        assert_eq!(world.number("SELECT count(*) AS number FROM saga"), 0);
        assert!(notes.of("take").is_empty(), "{told}");
        office.stop().await;
    }
}

/// The database's own defaults are somebody else's.
#[tokio::test]
async fn sagas_end_whatever_the_isolation_of_transactions_is() {
    for isolation in ["repeatable read", "serializable"] {
        let world = World::new();
        let name = world.url().rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
        world.execute(&format!(
            "ALTER DATABASE \"{name}\" SET default_transaction_isolation TO '{isolation}'"
        ));
        let pool = crate::deferred::connections(world.url());
        let build = || {
            let builder = Deferred::builder(pool.clone());
            let builder = builder.saga(super::trip::Trip(world.systems.clone()));
            Office::start(builder.saga_settings(quick()).build().unwrap())
        };
        let (first, second) = (build(), build());
        for name in ["hotel", "flight", "price", "pay", "mail", "undo hotel", "undo flight"] {
            for fault in [Fault::Away, Fault::AnswerLost, Fault::Lost, Fault::Panics, Fault::Away] {
                world.systems.once(name, fault);
            }
        }
        let pivots = [Pivot::Local, Pivot::Remote, Pivot::Decide];
        let wishes: Vec<_> = pivots.iter().cycle().take(60).map(|pivot| wish(*pivot)).collect();
        let office = |n| if n % 2 == 0 { &first } else { &second };
        let asked = wishes.iter().enumerate().map(|(n, wish)| office(n).try_to_ask(wish, None));
        let told = futures_util::future::join_all(asked).await;
        let errors = told.iter().filter(|told| told.is_err()).count();
        println!("{isolation}: {errors} not begun");
        let still = tokio::time::timeout(Duration::from_secs(20), world.calm()).await.is_err();
        println!(
            "{isolation}: open {still}, {} stuck",
            world.number("SELECT count(*) FROM saga WHERE state = 'stuck'")
        );
        for (wish, told) in wishes.iter().zip(&told) {
            if told.is_ok() && !still {
                world.whole(wish.id, wish.pivot);
            }
        }
        assert!(!still);
        first.stop().await;
        second.stop().await;
    }
}

/// One system hangs, for all who undo there; the others are well.
#[tokio::test]
async fn undos_that_hang_keep_no_other_saga_waiting() {
    let world = World::new();
    let limit = Duration::from_secs(1);
    let settings = quick().timeout(limit).attempts(20).concurrency(16);
    let office = world.start_with(settings);
    world.systems.always("undo flight", Fault::Hangs);
    world.systems.always("price", Fault::Refused);
    let hung: Vec<_> = (0..40).map(|_| wish(Pivot::Local)).collect();
    let asked = hung.iter().map(|wish| office.try_to_ask(wish, None));
    futures_util::future::join_all(asked).await;
    let deferred = "SELECT count(*) FROM saga_step WHERE state = 'undo_deferred'";
    eventually("they hang", || world.number(deferred) == 40).await;
    tokio::time::sleep(3 * limit).await;
    world.systems.once("flight", Fault::Refused);
    world.systems.once("undo hotel", Fault::Away);
    let other = wish(Pivot::Local);
    let begun = std::time::Instant::now();
    let told = office.ask(&other, None).await;
    assert!(matches!(told, Started::Begun(Outcome::Compensating { .. })), "{told:?}");
    eventually("the other is taken back", || {
        world.stage(other.id).as_deref() == Some("compensated")
    })
    .await;
    let after = begun.elapsed();
    println!("after {after:?}: {:?}", world.texts(
        "SELECT concat(count(*), ' ', state, ' ', last_error, ' strikes ', min(strikes), '-', max(strikes), ' attempts ', min(attempts), '-', max(attempts)) AS text FROM deferred GROUP BY state, last_error"));
    world.systems.heal();
    assert!(after < Duration::from_secs(3), "{after:?}");
}

#[tokio::test]
async fn one_connection_is_enough_and_so_are_thousands_of_steps() {
    let world = World::new();
    let manager = diesel::r2d2::ConnectionManager::new(world.url());
    let one: Connections = diesel::r2d2::Pool::builder().max_size(1).build(manager).unwrap();
    let notes = Notes::default();
    let steps = Take(notes.clone());
    let office = office(one, &notes, quick(), take, move |run| {
        let steps = steps.clone();
        async move {
            for number in 0..3000 {
                run.step(&steps, number).await?;
            }
            Err(run.abort(none("no")))
        }
        .boxed()
    });
    let began = std::time::Instant::now();
    let begun = begin(&office.sagas, Uuid::new_v4(), None).await;
    println!("{:?} after {:?}", begun, began.elapsed());
    assert!(matches!(begun, Started::Begun(Outcome::Compensated(_))), "{begun:?}");
    assert_eq!(notes.of("undo take").len(), 3000);
    office.stop().await;
}

/// Whoever comes second with an id, and puts its own failure in the place of the stop that it is given.
async fn second_with_an_id(stops: fn(&mut Run, Stop) -> Stop) {
    let world = World::new();
    let notes = Notes::default();
    let (steps, asked) = (Take(notes.clone()), Arc::new(AtomicUsize::new(0)));
    let (gate, go_on) =
        (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (held, goes_on) = (Arc::clone(&gate), Arc::clone(&go_on));
    let office = office(world.pool.clone(), &notes, quick(), take, move |run| {
        let steps = steps.clone();
        let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        let (held, goes_on) = (Arc::clone(&held), Arc::clone(&goes_on));
        async move {
            if let Err(stop) = run.step(&steps, 1).await {
                return Err(stops(run, stop));
            }
            if first {
                held.notify_one();
                goes_on.notified().await;
            }
            run.commit(|_| Ok(0)).await
        }
        .boxed()
    });
    let id = Uuid::new_v4();
    let second = async {
        gate.notified().await;
        let again = begin(&office.sagas, id, None).await;
        println!("the second: {again:?}");
        go_on.notify_one();
    };
    let (first, ()) = tokio::join!(begin(&office.sagas, id, None), second);
    println!("the first: {first:?}");
    let known = office.sagas.ended::<Free>(id, Duration::from_secs(10)).await.unwrap().unwrap();
    let (open, calls) = (world.steps(id), world.number("SELECT count(*) FROM deferred"));
    assert!(
        known.stage.has_ended(),
        "{} for ever: {open:?}, leased: {}, calls in the ledger: {calls}, undone: {}",
        known.stage,
        world.number("SELECT count(*) FROM saga WHERE lease_until IS NOT NULL"),
        notes.of("undo take").len(),
    );
    office.stop().await;
}

#[tokio::test]
async fn whoever_aborts_after_a_stop_harms_nobody_else() {
    second_with_an_id(|run, _| run.abort(none("mine"))).await;
}

#[tokio::test]
async fn whoever_panics_over_a_stop_harms_nobody_else() {
    second_with_an_id(|_, _| panic!("as it was told to")).await;
}

/// A course that gives up waiting for a step, and says no.
#[tokio::test]
async fn a_saga_that_gave_up_waiting_for_a_step_ends() {
    let world = World::new();
    let notes = Notes::default();
    let (steps, pool) = (Take(notes.clone()), world.pool.clone());
    let office = office(world.pool.clone(), &notes, brief(), refuses, move |run| {
        let (steps, pool) = (steps.clone(), pool.clone());
        async move {
            run.step(&steps, 1).await?;
            let mut slow = pool.get().unwrap();
            slow.batch_execute("BEGIN; LOCK TABLE saga_step IN SHARE ROW EXCLUSIVE MODE").unwrap();
            let limit = Duration::from_millis(100);
            let late = tokio::time::timeout(limit, run.step(&Extra, 2)).await.is_err();
            assert!(late);
            slow.batch_execute("COMMIT").unwrap();
            Err(run.abort(none("it took too long")))
        }
        .boxed()
    });
    let id = Uuid::new_v4();
    let begun = begin(&office.sagas, id, None).await;
    let known = office.sagas.ended::<Free>(id, Duration::from_secs(10)).await.unwrap().unwrap();
    assert_eq!(
        known.stage,
        Stage::Compensated,
        "{begun:?} {:?}, calls in the ledger: {}",
        world.steps(id),
        world.number("SELECT count(*) FROM deferred")
    );
    office.stop().await;
}
