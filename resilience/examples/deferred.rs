//! A shop whose parcel service is away: orders are accepted all the same, and shipped when it is back.
//! What was accepted is a row in PostgreSQL.
//!
//! `cargo run -p resilience --example deferred --features deferred`, with `DATABASE_URL` set, or on a
//! PostgreSQL that is started for it and gone afterwards.

use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backing::postgres::testing::TestDatabase;
use diesel::connection::SimpleConnection as _;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::{Connection as _, PgConnection, QueryResult, RunQueryDsl as _, sql_query, sql_types};
use diesel_migrations::MigrationHarness as _;
use resilience::Breaker;
use resilience::deferred::{
    Attempt, Deferral, Deferred, Handler, HandlerError, MIGRATIONS, Settings, Submitted,
};
use uuid::Uuid;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    if let Ok(url) = std::env::var("DATABASE_URL") {
        return story(&mut io::stdout(), &url).await;
    }
    let database = TestDatabase::new("shop", |_| Ok::<_, std::convert::Infallible>(()));
    story(&mut io::stdout(), database.url()).await
}

/// The parcel service.
#[derive(Clone, Default)]
struct Parcels {
    is_away: Arc<AtomicBool>,
}

/// Ships one order. Its call is written down with the order, and ends with it.
struct Ship(Parcels);

impl Handler for Ship {
    const KIND: &'static str = "ship";
    /// The number of the order.
    type Payload = i32;
    /// The number of the parcel.
    type Output = i32;

    async fn run(&self, attempt: Attempt<i32>) -> Result<i32, HandlerError> {
        // A real one sends `attempt.id` as the idempotency key: it may be asked twice.
        if self.0.is_away.load(Ordering::SeqCst) {
            return Err(HandlerError::unavailable("no answer"));
        }
        Ok(1000 + attempt.payload)
    }

    fn done(&self, conn: &mut PgConnection, id: Uuid, parcel: &i32) -> QueryResult<()> {
        sql_query("UPDATE example_orders SET parcel = $2 WHERE ship_call = $1")
            .bind::<sql_types::Uuid, _>(id)
            .bind::<sql_types::Integer, _>(parcel)
            .execute(conn)
            .map(drop)
    }
}

/// Accepts an order: shipped at once, or later.
async fn order(deferred: &Deferred, number: i32) -> Result<(Uuid, &'static str), Failure> {
    let id = Uuid::new_v4();
    let call = Deferral::new::<Ship>(id, &number)?;
    // One transaction with the call.
    let prepare = move |conn: &mut PgConnection| {
        sql_query("INSERT INTO example_orders (number, ship_call) VALUES ($1, $2)")
            .bind::<sql_types::Integer, _>(number)
            .bind::<sql_types::Uuid, _>(id)
            .execute(conn)
            .map(drop)
    };
    let submitted =
        deferred.submit::<Ship, diesel::result::Error>(call, None, prepare, |_, _| Ok(()));
    Ok(match submitted.await? {
        Submitted::Done(_) => (id, "shipped"),
        Submitted::Deferred => (id, "accepted, to be shipped later"),
        Submitted::Refused(_) | Submitted::Known(_) => (id, "that doesn't happen here"),
    })
}

/// The story, for `main` and for the test that reads what is written.
pub(crate) async fn story(out: &mut impl Write, url: &str) -> Result<(), Failure> {
    let mut conn = PgConnection::establish(url)?;
    conn.run_pending_migrations(MIGRATIONS)?;
    conn.batch_execute(
        "DROP TABLE IF EXISTS example_orders;
         CREATE TABLE example_orders (number int PRIMARY KEY, ship_call uuid, parcel int)",
    )?;
    let pool = Pool::builder().max_size(4).build(ConnectionManager::<PgConnection>::new(url))?;

    let parcels = Parcels::default();
    let wait = Duration::from_millis(200);
    let breaker = Breaker::builder("parcels").consecutive_failures(1).open_for(wait).build();
    let runtime = Deferred::builder(pool)
        .app("shop")
        .handler(Ship(parcels.clone()), Settings::new().breaker(breaker))
        .build()?;
    let deferred = runtime.handle();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(runtime.run(async {
        let _ = stopped.await;
    }));

    writeln!(out, "order 1: {}", order(&deferred, 1).await?.1)?;
    parcels.is_away.store(true, Ordering::SeqCst);
    writeln!(out, "the parcel service is away")?;
    let (second, said) = order(&deferred, 2).await?;
    writeln!(out, "order 2: {said}")?;
    // The breaker is open by now: this one asks nobody.
    let (third, said) = order(&deferred, 3).await?;
    writeln!(out, "order 3: {said}")?;
    parcels.is_away.store(false, Ordering::SeqCst);
    writeln!(out, "it is back")?;
    for (number, id) in [(2, second), (3, third)] {
        if let Some(stage) = deferred.ended(id, Duration::from_secs(20)).await? {
            writeln!(out, "order {number}: {stage}")?;
        }
    }
    let _ = stop.send(());
    running.await?;
    Ok(())
}
