//! What a reader of the documentation may do, and what a bad moment may do to it.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use resilience::deadline::Deadline;
use resilience::deferred::{Attempt, Database, DatabaseError, Deferred, HandlerError, Work};
use resilience::saga::{
    Action, Committed, Failure, Local, Outcome, Run, Saga, Sagas, Settings, Stage, Start, Started,
    Step, Steps, Stop,
};
use uuid::Uuid;

use super::systems::Fault;
use super::trip::{Pivot, Trip, wish};
use super::world::{Office, World, brief, quick};
use crate::deferred::{Connections, eventually};

type Ran<'a> = BoxFuture<'a, Result<Committed<i64>, Stop>>;
type Course = Arc<dyn for<'a> Fn(&'a mut Run) -> Ran<'a> + Send + Sync>;

/// A saga of whatever course.
struct Free {
    course: Course,
    steps: fn(&Notes) -> Steps,
    notes: Notes,
}

impl Saga for Free {
    const KIND: &'static str = "free";
    type Input = ();
    type Output = i64;

    fn steps(&self) -> Steps {
        (self.steps)(&self.notes)
    }

    async fn run(&self, run: &mut Run, (): &()) -> Result<Committed<i64>, Stop> {
        (self.course)(run).await
    }
}

/// What a system was asked for: what, by which id, and for whom.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<(&'static str, Uuid, u32)>>>);

impl Notes {
    fn of(&self, what: &str) -> Vec<(Uuid, u32)> {
        let notes = self.0.lock().unwrap();
        notes.iter().filter(|note| note.0 == what).map(|note| (note.1, note.2)).collect()
    }

    fn note(&self, what: &'static str, attempt: &Attempt<u32>) {
        self.0.lock().unwrap().push((what, attempt.id, attempt.payload));
    }
}

#[derive(Clone)]
struct Take(Notes);

impl Action for Take {
    const NAME: &'static str = "take";
    type Input = u32;
    type Output = ();

    async fn act(&self, attempt: Attempt<u32>) -> Result<(), Failure> {
        self.0.note("take", &attempt);
        Ok(())
    }
}

impl Step for Take {
    async fn undo(&self, attempt: Attempt<u32>) -> Result<(), HandlerError> {
        self.0.note("undo take", &attempt);
        Ok(())
    }
}

fn take(notes: &Notes) -> Steps {
    Steps::new().and(Take(notes.clone()))
}

fn office(
    database: impl Database,
    notes: &Notes,
    settings: Settings,
    steps: fn(&Notes) -> Steps,
    course: impl for<'a> Fn(&'a mut Run) -> Ran<'a> + Send + Sync + 'static,
) -> Office {
    let free = Free { course: Arc::new(course), steps, notes: notes.clone() };
    Office::start(Deferred::builder(database).saga(free).saga_settings(settings).build().unwrap())
}

async fn begin(sagas: &Sagas, id: Uuid, deadline: Option<Deadline>) -> Started<i64> {
    let start = Start::<Free>::new(id, &()).unwrap();
    sagas.run::<_, Infallible>(start, deadline, |_| Ok(())).await.unwrap()
}

fn none(why: &str) -> Failure {
    Failure::none(HandlerError::permanent(why))
}

thread_local! {
    static LOSE: Cell<bool> = const { Cell::new(false) };
}

/// A way to the database on which an answer may be lost: what was asked is committed all the same.
struct Losing(Connections);

impl Database for Losing {
    fn run(&self, work: Work) -> BoxFuture<'static, Result<(), DatabaseError>> {
        let pool = self.0.clone();
        Box::pin(async move {
            let worked = tokio::task::spawn_blocking(move || {
                let mut conn = pool.get().map_err(DatabaseError::new)?;
                LOSE.set(false);
                let done = work(&mut conn).map_err(DatabaseError::new);
                if LOSE.take() { Err(DatabaseError::new("the answer is lost")) } else { done }
            });
            worked.await.unwrap()
        })
    }
}

#[tokio::test]
async fn a_decision_whose_answer_is_lost_is_made_once() {
    let world = World::new();
    world.execute("CREATE TABLE account (balance BIGINT); INSERT INTO account VALUES (100)");
    let (notes, lost) = (Notes::default(), Arc::new(AtomicBool::new(false)));
    let office = office(Losing(world.pool.clone()), &notes, quick(), take, move |run| {
        let lost = Arc::clone(&lost);
        async move {
            run.decide("pay", move |conn| {
                conn.batch_execute("UPDATE account SET balance = balance - 10")?;
                LOSE.set(!lost.swap(true, Ordering::SeqCst));
                Ok(())
            })
            .await?;
            run.commit(|_| Ok(0)).await
        }
        .boxed()
    });
    let begun = begin(&office.sagas, Uuid::new_v4(), None).await;
    assert!(matches!(begun, Started::Begun(Outcome::Committed(0))), "{begun:?}");
    assert_eq!(world.number("SELECT balance FROM account"), 90);
    office.stop().await;
}

#[tokio::test]
async fn a_decision_whose_answer_is_lost_is_not_taken_back() {
    let world = World::new();
    let (notes, lost) = (Notes::default(), Arc::new(AtomicBool::new(false)));
    let steps = Take(notes.clone());
    let id = Uuid::new_v4();
    let office = office(Losing(world.pool.clone()), &notes, quick(), take, move |run| {
        let (lost, steps) = (Arc::clone(&lost), steps.clone());
        async move {
            run.step(&steps, 1).await?;
            run.decide("note", move |conn| {
                conn.batch_execute(&format!("INSERT INTO trips VALUES ('{id}')"))?;
                LOSE.set(!lost.swap(true, Ordering::SeqCst));
                Ok(())
            })
            .await?;
            run.commit(|_| Ok(0)).await
        }
        .boxed()
    });
    let begun = begin(&office.sagas, id, None).await;
    let undone = notes.of("undo take").len();
    assert_eq!((world.is_noted(id), undone), (true, 0), "{begun:?} {:?}", world.stage(id));
    office.stop().await;
}

/// Told that it is certainly taken back, and then it is committed.
#[tokio::test]
async fn what_is_said_of_a_commit_that_takes_longer_than_the_lease_stays_true() {
    let world = World::new();
    let notes = Notes::default();
    let settings = brief().timeout(Duration::from_millis(500));
    let steps = Take(notes.clone());
    let office = office(world.pool.clone(), &notes, settings, take, move |run| {
        let steps = steps.clone();
        async move {
            run.step(&steps, 1).await?;
            run.commit(|conn| {
                Ok(conn.batch_execute("SELECT pg_advisory_xact_lock(42)").map(|()| 7)?)
            })
            .await
        }
        .boxed()
    });
    let mut holder = world.conn();
    holder.batch_execute("SELECT pg_advisory_lock(42)").unwrap();
    let id = Uuid::new_v4();
    let begun = begin(&office.sagas, id, None).await;
    holder.batch_execute("SELECT pg_advisory_unlock(42)").unwrap();
    eventually("it ends", || {
        world.number(&format!(
            "SELECT count(*) FROM saga WHERE id = '{id}' AND ended_at IS NOT NULL"
        )) == 1
    })
    .await;
    let stage = world.stage(id).unwrap();
    let told_back = matches!(begun, Started::Begun(Outcome::Compensating { .. }));
    assert!(!(told_back && stage == "committed"), "told {begun:?}, and it is {stage}");
    office.stop().await;
}

/// One of this id is committed; who asks again while the database is slow is told that it is taken back.
#[tokio::test]
async fn whoever_asks_again_while_the_database_is_slow_is_not_told_a_rollback() {
    let world = World::new();
    let office = world.start();
    let wish = wish(Pivot::Local);
    office.ask(&wish, None).await;
    let mut slow = world.conn();
    slow.batch_execute("BEGIN; LOCK TABLE saga IN SHARE ROW EXCLUSIVE MODE").unwrap();
    let again = office.try_to_ask(&wish, Some(Deadline::after(Duration::from_millis(300)))).await;
    slow.batch_execute("COMMIT").unwrap();
    assert_eq!(world.stage(wish.id).as_deref(), Some("committed"));
    assert!(!matches!(again, Ok(Started::Begun(Outcome::Compensating { .. }))), "{again:?}");
    office.stop().await;
}

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

/// A saga whose input has numbers.
struct Priced;

impl Saga for Priced {
    const KIND: &'static str = "priced";
    type Input = (Vec<f32>, Vec<f64>);
    type Output = ();

    fn steps(&self) -> Steps {
        Steps::new()
    }

    async fn run(&self, run: &mut Run, _: &Self::Input) -> Result<Committed<()>, Stop> {
        run.commit(|_| Ok(())).await
    }
}

#[tokio::test]
async fn the_same_input_is_the_same_input() {
    let world = World::new();
    let office = Office::start(world.builder().saga(Priced).build().unwrap());
    let bits = (1..2000_u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let doubles: Vec<_> = bits.map(f64::from_bits).filter(|n| n.is_finite()).collect();
    let mut same = Vec::new();
    for input in [(vec![], doubles), (vec![0.1_f32], vec![])] {
        let id = Uuid::new_v4();
        let start = Start::<Priced>::new(id, &input).unwrap();
        office.sagas.run::<_, Infallible>(start, None, |_| Ok(())).await.unwrap();
        same.push(office.sagas.find::<Priced>(id).await.unwrap().unwrap().has_input(&input));
    }
    assert_eq!(same, [true, true], "f64, f32");
    office.stop().await;
}

#[tokio::test]
async fn what_can_not_be_begun_says_why() {
    let world = World::new();
    let office = Office::start(world.builder().saga(Priced).build().unwrap());
    let taken = wish(Pivot::Local);
    office.ask(&taken, None).await;
    let start = |id| Start::<Priced>::new(id, &(vec![], vec![])).unwrap();
    let noise = (0..100_000_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let noise: String = noise.collect();
    for (what, start) in [
        ("an id of another kind", start(taken.id)),
        ("a key with a NUL", start(Uuid::new_v4()).key("a\0b")),
        ("a long key", start(Uuid::new_v4()).key(noise)),
        ("not a number", Start::<Priced>::new(Uuid::new_v4(), &(vec![], vec![f64::NAN])).unwrap()),
    ] {
        let begun = office.sagas.run::<_, Infallible>(start, None, |_| Ok(())).await;
        let source = begun
            .as_ref()
            .err()
            .and_then(|e| std::error::Error::source(e).map(ToString::to_string));
        println!("{what}: {:?} {source:?}", begun.as_ref().map_err(ToString::to_string));
    }
    office.stop().await;
}

#[tokio::test]
async fn what_runs_is_not_said_to_be_taken_back() {
    let world = World::new();
    let office = world.start();
    let wish = wish(Pivot::Local);
    world.systems.once("flight", Fault::Held);
    let first = office.ask(&wish, None);
    let second = async {
        eventually("it is under way", || world.steps(wish.id).len() == 2).await;
        let again = office.ask(&wish, None).await;
        world.systems.let_through_one();
        again
    };
    let (first, again) = tokio::join!(first, second);
    assert!(matches!(first, Started::Begun(Outcome::Committed(_))), "{first:?}");
    let Started::Known(known) = again else { panic!("{again:?}") };
    let told = known.outcome::<u32>();
    assert!(!matches!(told, Outcome::Compensating { .. }), "{told:?}");
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

#[tokio::test]
async fn a_panic_in_the_commit_is_told() {
    let world = World::new();
    let notes = Notes::default();
    let office = office(world.pool.clone(), &notes, brief(), take, move |run| {
        async move { run.commit(|_| -> Result<i64, Local> { panic!("as it was told to") }).await }
            .boxed()
    });
    let begun = begin(&office.sagas, Uuid::new_v4(), None).await;
    let told = format!("{begun:?}");
    assert!(told.contains("panic"), "{told}");
    office.stop().await;
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
            let builder = builder.saga(Trip(world.systems.clone()));
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

/// At the deadline the pivot is being written down, by a slow database.
#[tokio::test]
async fn what_is_behind_its_pivot_is_said_to_be_completed() {
    let world = World::new();
    let office = world.start();
    let wish = wish(Pivot::Remote);
    world.systems.once("pay", Fault::Hangs);
    world.systems.once("flight", Fault::Held);
    let asked = office.try_to_ask(&wish, Some(Deadline::after(Duration::from_millis(700))));
    let slowed = async {
        eventually("flight", || world.steps(wish.id).len() == 2).await;
        let mut slow = world.conn();
        // The pivot's intent is written, and its commit waits until a moment after the deadline.
        slow.batch_execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM pg_sleep(0.8); RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE INSERT ON saga_step FOR EACH ROW
                 WHEN (NEW.role = 'pivot') EXECUTE FUNCTION slow()",
        )
        .unwrap();
        world.systems.let_through_one();
    };
    let (told, ()) = tokio::join!(asked, slowed);
    println!("told {told:?}");
    assert!(!matches!(told, Ok(Started::Begun(Outcome::Unknown))), "{told:?}");
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
