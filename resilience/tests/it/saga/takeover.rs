//! Sagas whose runner is gone, or only looks so.

use std::time::Duration;

use futures_util::future::BoxFuture;
use resilience::deferred::{Database, DatabaseError, Deferred, Work};
use resilience::saga::{
    Action, Committed, Outcome, Run, Saga, Stage, Start, Started, Step, Steps, Stop,
};
use tokio::sync::watch;

use super::systems::{Fault, Hotel};
use super::trip::{Pivot, Trip, failed, wish};
use super::world::{Office, World, brief, quick};
use crate::deferred::{Connections, eventually};

/// A way to the database that somebody can stop for good.
#[derive(Clone)]
struct Stoppable {
    pool: Connections,
    stopped: watch::Sender<bool>,
}

impl Database for Stoppable {
    fn run(&self, work: Work) -> BoxFuture<'static, Result<(), DatabaseError>> {
        let (pool, mut stopped) = (self.pool.clone(), self.stopped.subscribe());
        Box::pin(async move {
            let _ = stopped.wait_for(|stopped| !stopped).await;
            Database::run(&pool, work).await
        })
    }
}

impl World {
    fn stoppable(&self) -> (Stoppable, Office) {
        let database = Stoppable { pool: self.pool.clone(), stopped: watch::Sender::new(false) };
        let builder = Deferred::builder(database.clone()).saga(Trip(self.systems.clone()));
        (database, Office::start(builder.saga_settings(brief()).build().unwrap()))
    }
}

/// Whoever was thought to be dead writes nothing any more: each write is under its fence.
#[tokio::test]
async fn a_runner_that_comes_back_after_its_lease_writes_nothing() {
    let world = World::new();
    let (database, first) = world.stoppable();
    world.systems.once("flight", Fault::Hangs);
    let wish = wish(Pivot::Local);
    let asked = async {
        let start = Start::new(wish.id, &wish).unwrap();
        first.sagas.run::<Trip, std::convert::Infallible>(start, None, |_| Ok(())).await
    };
    let taken_over = async {
        eventually("flight is intended", || world.steps(wish.id).len() == 2).await;
        database.stopped.send_replace(true);
        let second = world.start_with(brief());
        assert_eq!(second.stage(wish.id).await, Stage::Compensated);
        database.stopped.send_replace(false);
        second
    };
    let (begun, second) = tokio::join!(asked, taken_over);
    let Ok(Started::Begun(outcome)) = begun else { panic!("{begun:?}") };
    assert!(matches!(outcome, Outcome::Compensated(_) | Outcome::Unknown), "{outcome:?}");
    world.whole(wish.id, Pivot::Local);
    assert_eq!(world.steps(wish.id), ["hotel undone", "flight undone"]);
    first.stop().await;
    second.stop().await;
}

/// So that whoever follows a request by its ids finds the end of it.
#[tokio::test]
async fn what_travels_with_a_saga_travels_on_with_who_takes_it_over() {
    let world = World::new();
    let (database, first) = world.stoppable();
    world.systems.once("flight", Fault::Hangs);
    let wish = wish(Pivot::Local);
    let asked = async {
        let start = Start::new(wish.id, &wish).unwrap().with_context("traceparent", "00-1");
        first.sagas.run::<Trip, std::convert::Infallible>(start, None, |_| Ok(())).await
    };
    let taken_over = async {
        eventually("flight is intended", || world.steps(wish.id).len() == 2).await;
        database.stopped.send_replace(true);
        let second = world.start_with(brief());
        assert_eq!(second.stage(wish.id).await, Stage::Compensated);
        database.stopped.send_replace(false);
        second
    };
    let (_, second) = tokio::join!(asked, taken_over);
    let travels = "SELECT context->>'traceparent' AS text FROM deferred WHERE kind = 'saga.resume'";
    assert_eq!(world.texts(travels), ["00-1"]);
    first.stop().await;
    second.stop().await;
}

/// As if its clock had stood still: it has not looked after its lease for long.
#[tokio::test]
async fn a_runner_that_does_not_know_that_it_was_overtaken_calls_nobody_any_more() {
    let world = World::new();
    let settings = quick().lease(Duration::from_mins(1)).timeout(Duration::from_secs(30));
    let (first, second) = (world.start_with(settings), world.start_with(brief()));
    world.systems.once("pay", Fault::Held);
    world.systems.once("mail", Fault::Held);
    let booked = async { first.book(Pivot::Remote).await };
    let overtaken = async {
        eventually("it pays", || world.systems.asked("pay") == 1).await;
        world.execute("UPDATE saga SET lease_until = clock_timestamp()");
        eventually("the other one sends the mail", || world.systems.asked("mail") == 1).await;
        // The first one hears that it has paid, and has time to do what it must not.
        world.systems.let_through_one();
        let times = "SELECT times FROM effects WHERE system = 'pay'";
        eventually("the first one has paid", || world.number(times) == 2).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        eventually("it is over", || {
            world.systems.let_through_one();
            world.number("SELECT count(*) FROM saga WHERE ended_at IS NULL") == 0
        })
        .await;
    };
    let ((id, outcome), ()) = tokio::join!(booked, overtaken);
    assert!(matches!(outcome, Outcome::Committed(42)), "{outcome:?}");
    world.whole(id, Pivot::Remote);
    assert_eq!(world.systems.asked("mail"), 1, "by the one that has it");
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_saga_that_takes_longer_than_its_lease_keeps_it() {
    let world = World::new();
    let lease = || quick().lease(Duration::from_secs(3)).timeout(Duration::from_secs(8));
    let (first, second) = (world.start_with(lease()), world.start_with(lease()));
    world.systems.once("flight", Fault::Hangs);
    // Eight seconds, more than two leases.
    let (id, outcome) = first.book(Pivot::Local).await;
    failed(outcome);
    assert_eq!(world.number(&format!("SELECT fence FROM saga WHERE id = '{id}'")), 1);
    world.whole(id, Pivot::Local);
    first.stop().await;
    second.stop().await;
}

/// As a process that died at that moment left it.
pub(super) fn leave(world: &World, count: i64, role: &str) {
    world.execute(&format!(
        "WITH left_open AS (
             INSERT INTO saga (id, kind, input, state, forward, lease_until)
             SELECT id, 'trip', json_build_object('id', id, 'pivot', 'Remote', 'end', 'Yes'),
                    'running', '{role}' = 'pivot', clock_timestamp()
             FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, {count})) AS ids
             RETURNING id),
         steps AS (
             INSERT INTO saga_step (saga, number, name, role, state, input, output)
             SELECT id, 0, 'hotel', 'step', 'done', to_json(id), to_json(id) FROM left_open
             UNION ALL
             SELECT id, 1, 'flight', 'step', CASE '{role}' WHEN 'pivot' THEN 'done' ELSE 'intent' END,
                    to_json(id), to_json(id) FROM left_open
             UNION ALL
             SELECT id, 2, 'price', 'read', 'done', 'null', '7' FROM left_open WHERE '{role}' = 'pivot'
             UNION ALL
             SELECT id, 3, 'pay', 'pivot', 'intent', to_json(id), NULL FROM left_open
             WHERE '{role}' = 'pivot')
         INSERT INTO effects (system, id, undone)
         SELECT system, id, false FROM left_open, (VALUES ('hotel'), ('flight')) AS had (system)"
    ));
}

#[tokio::test]
async fn two_replicas_bring_what_a_third_left_to_its_end_each_saga_once() {
    let world = World::new();
    leave(&world, 300, "step");
    leave(&world, 100, "pivot");
    let (first, second) = (world.start(), world.start());
    world.calm().await;
    assert_eq!(world.number("SELECT count(*) FROM saga WHERE state = 'compensated'"), 300);
    // With the answer that is in the journal.
    assert_eq!(
        world.number("SELECT count(*) FROM saga WHERE state = 'committed' AND output::text = '7'"),
        100
    );
    assert_eq!(world.number("SELECT count(*) FROM effects WHERE NOT undone"), 400);
    assert_eq!(world.number("SELECT count(*) FROM trips"), 100);
    // Taken over once, taken up once.
    assert_eq!(world.number("SELECT max(fence) FROM saga"), 3);
    assert_eq!(world.number("SELECT count(*) FROM undos"), 600);
    first.stop().await;
    second.stop().await;
}

/// The same saga in another release: its course has changed.
struct Changed(Hotel);

impl Saga for Changed {
    const KIND: &'static str = "trip";
    type Input = super::trip::Wish;
    type Output = ();

    fn steps(&self) -> Steps {
        Steps::new().and(self.0.clone())
    }

    async fn run(&self, run: &mut Run, wish: &Self::Input) -> Result<Committed<()>, Stop> {
        run.step(&Coach(self.0.clone()), wish.id).await?;
        run.commit(|_| Ok(())).await
    }
}

#[derive(Clone)]
struct Coach(Hotel);

impl Action for Coach {
    const NAME: &'static str = "coach";
    type Input = uuid::Uuid;
    type Output = uuid::Uuid;

    async fn act(
        &self,
        attempt: resilience::deferred::Attempt<uuid::Uuid>,
    ) -> Result<uuid::Uuid, resilience::saga::Failure> {
        self.0.act(attempt).await
    }
}

impl Step for Coach {
    async fn undo(
        &self,
        attempt: resilience::deferred::Attempt<uuid::Uuid>,
    ) -> Result<(), resilience::deferred::HandlerError> {
        self.0.undo(attempt).await
    }
}

#[tokio::test]
async fn a_saga_whose_code_has_changed_is_stuck_and_goes_on_when_it_fits_again() {
    let world = World::new();
    leave(&world, 1, "pivot");
    leave(&world, 1, "step");
    let hotel = Hotel(world.systems.clone());
    let builder = Deferred::builder(world.pool.clone()).saga(Changed(hotel));
    let changed = Office::start(builder.saga_settings(quick()).build().unwrap());
    eventually("both are stuck", || {
        world.number("SELECT count(*) FROM saga WHERE state = 'stuck'") == 2
    })
    .await;
    let stuck = changed.sagas.list(resilience::saga::Filter::new()).await.unwrap();
    let mut reasons: Vec<_> = stuck.iter().map(|saga| saga.reason.clone().unwrap()).collect();
    reasons.sort();
    assert!(reasons[0].contains("nobody knows how to undo trip.flight"), "{reasons:?}");
    assert!(reasons[1].contains(r#"step 0 was "hotel", and is "coach" now"#), "{reasons:?}");
    changed.stop().await;
    let office = world.start();
    for saga in &stuck {
        office.sagas.retry(saga.id).await.unwrap();
    }
    world.calm().await;
    for saga in &stuck {
        world.whole(saga.id, Pivot::Remote);
    }
    office.stop().await;
}

/// A shutdown in order cuts nothing off that can still end, and leaves the rest to the others.
#[tokio::test]
async fn what_a_shutdown_cuts_off_is_taken_over() {
    let world = World::new();
    // A lease that nobody waits for.
    let settings = quick().lease(Duration::from_mins(1));
    let builder = world.builder().saga_settings(settings).drain(Duration::from_millis(100));
    let first = Office::start(builder.build().unwrap());
    world.systems.once("flight", Fault::Hangs);
    let wish = wish(Pivot::Local);
    let sagas = first.sagas.clone();
    let start = Start::new(wish.id, &wish).unwrap();
    let asked = tokio::spawn(async move {
        sagas.run::<Trip, std::convert::Infallible>(start, None, |_| Ok(())).await
    });
    eventually("flight is intended", || world.steps(wish.id).len() == 2).await;
    first.stop().await;
    let second = world.start();
    assert_eq!(second.stage(wish.id).await, Stage::Compensated);
    world.whole(wish.id, Pivot::Local);
    let begun = crate::soon(asked).await.unwrap();
    assert!(matches!(begun, Ok(Started::Begun(Outcome::Compensated(_)))), "{begun:?}");
    second.stop().await;
}
