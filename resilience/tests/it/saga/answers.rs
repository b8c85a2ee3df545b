//! What is said of a saga is true, whatever the database did meanwhile.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use resilience::deadline::Deadline;
use resilience::deferred::{Database, DatabaseError, Work};
use resilience::saga::{Committed, Outcome, Run, Saga, Start, StartError, Started, Steps, Stop};
use uuid::Uuid;

use super::free::{Notes, Take, begin, office, take};
use super::systems::Fault;
use super::trip::{Pivot, wish};
use super::world::{Office, World, brief, quick};
use crate::deferred::{Connections, eventually};

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
    for (what, said, start) in [
        ("an id of another kind", "of another kind", start(taken.id)),
        ("a key with a NUL", "its key has a NUL", start(Uuid::new_v4()).key("a\0b")),
        ("a long key", "more than 1000 bytes", start(Uuid::new_v4()).key(noise)),
        (
            "not a number",
            "can't be read back",
            Start::<Priced>::new(Uuid::new_v4(), &(vec![], vec![f64::NAN])).unwrap(),
        ),
    ] {
        let begun = office.sagas.run::<_, Infallible>(start, None, |_| Ok(())).await;
        let Err(StartError::Invalid(why)) = begun else { panic!("{what}: {begun:?}") };
        assert!(why.contains(said), "{what}: {why}");
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
