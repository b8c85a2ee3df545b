//! A trip is a seat and a room, from two companies, and a row of ours. One of them says no, or dies
//! with the process: then there was no trip.
//!
//! `cargo run -p resilience --example saga --features saga`, with `DATABASE_URL` set, or on a PostgreSQL
//! that is started for it and gone afterwards.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backing::postgres::testing::TestDatabase;
use diesel::connection::SimpleConnection as _;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::{Connection as _, PgConnection, RunQueryDsl as _, sql_query, sql_types};
use diesel_migrations::MigrationHarness as _;
use resilience::deferred::{self, Attempt, Deferred, HandlerError};
use resilience::saga::{
    Action, Committed, Failure, MIGRATIONS, Outcome, Run, Saga, Sagas, Settings, Start, Started,
    Step, Steps, Stop,
};
use uuid::Uuid;

type AnyError = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    if let Ok(url) = std::env::var("DATABASE_URL") {
        return story(&mut io::stdout(), &url).await;
    }
    let database = TestDatabase::new("travel", |_| Ok::<_, Infallible>(()));
    story(&mut io::stdout(), database.url()).await
}

/// Another company. What it holds is for one trip each; of what was given back before it was taken, it
/// remembers that it must not be taken any more.
#[derive(Clone, Default)]
struct Company(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    /// Whether it is still held.
    held: HashMap<Uuid, bool>,
    sold_out: bool,
    hangs: bool,
}

impl Company {
    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn take(&self, trip: Uuid) -> Result<(), Failure> {
        if self.books().hangs {
            std::future::pending::<()>().await;
        }
        let mut books = self.books();
        if books.sold_out || books.held.get(&trip) == Some(&false) {
            // Certainly no effect.
            return Err(Failure::none(HandlerError::permanent("sold out")));
        }
        books.held.insert(trip, true);
        Ok(())
    }

    fn give_back(&self, trip: Uuid) {
        self.books().held.insert(trip, false);
    }

    fn holds(&self) -> usize {
        self.books().held.values().filter(|held| **held).count()
    }
}

#[derive(Clone)]
struct Seat(Company);

impl Action for Seat {
    const NAME: &'static str = "seat";
    type Input = Uuid;
    type Output = ();

    async fn act(&self, attempt: Attempt<Uuid>) -> Result<(), Failure> {
        self.0.take(attempt.payload).await
    }
}

impl Step for Seat {
    async fn undo(&self, attempt: Attempt<Uuid>) -> Result<(), HandlerError> {
        self.0.give_back(attempt.payload);
        Ok(())
    }
}

#[derive(Clone)]
struct Room(Company);

impl Action for Room {
    const NAME: &'static str = "room";
    type Input = Uuid;
    type Output = ();

    async fn act(&self, attempt: Attempt<Uuid>) -> Result<(), Failure> {
        self.0.take(attempt.payload).await
    }
}

impl Step for Room {
    async fn undo(&self, attempt: Attempt<Uuid>) -> Result<(), HandlerError> {
        self.0.give_back(attempt.payload);
        Ok(())
    }
}

/// A seat, a room, and a row of ours.
struct Trip {
    seat: Seat,
    room: Room,
}

impl Saga for Trip {
    const KIND: &'static str = "trip";
    type Input = Uuid;
    type Output = ();

    fn steps(&self) -> Steps {
        Steps::new().and(self.seat.clone()).and(self.room.clone())
    }

    async fn run(&self, run: &mut Run, trip: &Uuid) -> Result<Committed<()>, Stop> {
        let trip = *trip;
        run.step(&self.seat, trip).await?;
        run.step(&self.room, trip).await?;
        // From here on there is a trip.
        run.commit(move |conn| {
            let insert = sql_query("INSERT INTO example_trips (id) VALUES ($1)");
            insert.bind::<sql_types::Uuid, _>(trip).execute(conn)?;
            Ok(())
        })
        .await
    }
}

async fn book(sagas: &Sagas, trip: Uuid) -> Result<String, AnyError> {
    let start = Start::<Trip>::new(trip, &trip)?;
    Ok(match sagas.run::<_, Infallible>(start, None, |_| Ok(())).await? {
        Started::Begun(Outcome::Committed(())) => "booked".to_owned(),
        Started::Begun(Outcome::Compensated(why)) => format!("nothing was booked: {why}"),
        Started::Begun(other) => format!("{other:?}"),
        Started::Known(known) => format!("it is {} already", known.stage),
    })
}

/// The story, for `main` and for the test that reads what is written.
pub(crate) async fn story(out: &mut impl Write, url: &str) -> Result<(), AnyError> {
    let mut conn = PgConnection::establish(url)?;
    conn.run_pending_migrations(deferred::MIGRATIONS)?;
    conn.run_pending_migrations(MIGRATIONS)?;
    conn.batch_execute("CREATE TABLE IF NOT EXISTS example_trips (id uuid PRIMARY KEY)")?;
    let pool = Pool::builder().max_size(4).build(ConnectionManager::<PgConnection>::new(url))?;

    let (airline, hotel) = (Company::default(), Company::default());
    let runtime = || {
        let trip = Trip { seat: Seat(airline.clone()), room: Room(hotel.clone()) };
        let settings = Settings::new().lease(Duration::from_millis(500));
        Deferred::builder(pool.clone()).app("travel").saga(trip).saga_settings(settings).build()
    };
    let held = || format!("{} seats, {} rooms", airline.holds(), hotel.holds());

    let first = runtime()?;
    let sagas = first.sagas();
    let running = tokio::spawn(first.run(std::future::pending()));
    let trip = Uuid::new_v4();
    writeln!(out, "trip 1: {}", book(&sagas, trip).await?)?;
    writeln!(out, "trip 1 again: {}", book(&sagas, trip).await?)?;
    hotel.books().sold_out = true;
    writeln!(out, "trip 2: {}", book(&sagas, Uuid::new_v4()).await?)?;
    writeln!(out, "held: {}", held())?;

    // The hotel never answers, and the process that asked it dies.
    (hotel.books().sold_out, hotel.books().hangs) = (false, true);
    let trip = Uuid::new_v4();
    let asked =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    asked.spawn(async move { book(&sagas, trip).await });
    while airline.holds() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    asked.shutdown_background();
    running.abort();
    writeln!(out, "trip 3: the process dies; held: {}", held())?;

    let second = runtime()?;
    let sagas = second.sagas();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(second.run(async {
        let _ = stopped.await;
    }));
    if let Some(known) = sagas.ended::<Trip>(trip, Duration::from_secs(20)).await? {
        writeln!(out, "trip 3: {}; held: {}", known.stage, held())?;
    }
    let _ = stop.send(());
    running.await?;
    Ok(())
}
