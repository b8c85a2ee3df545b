//! Other systems, which may refuse, lose answers and hang, and a saga that reaches into all of them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backing::postgres::testing::{TestCluster, TestDatabase};
use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::sql_types::{BigInt, Text, Uuid as SqlUuid};
use diesel_migrations::MigrationHarness as _;
use resilience::Backoff;
use resilience::deadline::Deadline;
use resilience::deferred::{self, Attempt, Builder, Deferred, HandlerError, Runtime};
use resilience::saga::{
    Action, Committed, Failure, Known, Local, Outcome, Run, Saga, Sagas, Settings, Stage, Start,
    StartError, Started, Step, Steps, Stop,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::deferred::{Connections, connections, eventually};

/// The other systems' effects, and what the saga writes in the own database.
const TABLES: &str = "
    CREATE TABLE effects (
        number BIGSERIAL,
        system TEXT NOT NULL,
        id     UUID NOT NULL,
        undone BOOLEAN NOT NULL,
        times  BIGINT NOT NULL DEFAULT 1,
        PRIMARY KEY (system, id)
    );
    CREATE TABLE undos (number BIGSERIAL PRIMARY KEY, system TEXT NOT NULL, id UUID NOT NULL);
    CREATE TABLE trips (id UUID PRIMARY KEY);";

fn migrate(url: &str) -> Result<(), diesel::result::Error> {
    let mut conn = PgConnection::establish(url).unwrap();
    conn.run_pending_migrations(deferred::MIGRATIONS).unwrap();
    conn.run_pending_migrations(resilience::saga::MIGRATIONS).unwrap();
    conn.batch_execute(TABLES)
}

/// What happens to a call to a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It says no.
    Refused,
    /// Nobody is there.
    Away,
    /// It never arrives, and nobody knows.
    Lost,
    /// It has its effect, and nobody knows.
    AnswerLost,
    /// It arrives when the test [lets it](Systems::let_through), and nobody waits for it.
    Late,
    /// It waits until the test [lets it through](Systems::let_through).
    Held,
    /// It never answers.
    Hangs,
    /// The code panics.
    Panics,
    /// It is refused for good.
    Impossible,
}

/// The other systems. What they hold is in the database, and outlives the process.
#[derive(Clone)]
pub(super) struct Systems {
    pool: Connections,
    faults: Arc<Mutex<HashMap<String, Vec<Fault>>>>,
    always: Arc<Mutex<HashMap<String, Fault>>>,
    gate: Arc<Notify>,
    asked: Arc<Mutex<HashMap<String, usize>>>,
}

impl Systems {
    pub(super) fn new(url: &str) -> Self {
        // They don't take their connections from those who call them, and are patient.
        let pool = Pool::builder()
            .max_size(8)
            .min_idle(Some(0))
            .connection_timeout(Duration::from_secs(30))
            .error_handler(Box::new(diesel::r2d2::NopErrorHandler))
            .build_unchecked(ConnectionManager::new(url));
        let (faults, always) = (Arc::default(), Arc::default());
        Self { pool, faults, always, gate: Arc::default(), asked: Arc::default() }
    }

    /// The next call of this name: `hotel`, or `undo hotel`.
    pub(super) fn once(&self, name: &str, fault: Fault) {
        self.faults.lock().unwrap().entry(name.to_owned()).or_default().push(fault);
    }

    /// Every call of this name, from now on.
    pub(super) fn always(&self, name: &str, fault: Fault) {
        self.always.lock().unwrap().insert(name.to_owned(), fault);
    }

    pub(super) fn heal(&self) {
        self.always.lock().unwrap().clear();
        self.faults.lock().unwrap().clear();
    }

    /// What is [late](Fault::Late) arrives now.
    pub(super) fn let_through(&self) {
        self.gate.notify_waiters();
    }

    /// What has been [held](Fault::Held) for longest goes on.
    pub(super) fn let_through_one(&self) {
        self.gate.notify_one();
    }

    /// How often it was called.
    pub(super) fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().get(name).copied().unwrap_or_default()
    }

    fn fault(&self, name: &str) -> Option<Fault> {
        *self.asked.lock().unwrap().entry(name.to_owned()).or_default() += 1;
        let mut faults = self.faults.lock().unwrap();
        let next = faults.get_mut(name).filter(|faults| !faults.is_empty());
        let next = next.map(|faults| faults.remove(0));
        next.or_else(|| self.always.lock().unwrap().get(name).copied())
    }

    async fn with(&self, system: &str, id: Uuid, sql: &'static str) -> usize {
        let (pool, system) = (self.pool.clone(), system.to_owned());
        let worked = tokio::task::spawn_blocking(move || {
            let query = diesel::sql_query(sql).bind::<Text, _>(system).bind::<SqlUuid, _>(id);
            query.execute(&mut pool.get().unwrap()).unwrap()
        });
        worked.await.unwrap()
    }

    /// The effect, once; refused when it was undone before.
    async fn have(&self, system: &str, id: Uuid) -> Result<(), Failure> {
        let had = self.with(
            system,
            id,
            "INSERT INTO effects (system, id, undone) VALUES ($1, $2, false)
             ON CONFLICT (system, id) DO UPDATE SET times = effects.times + 1
             WHERE NOT effects.undone",
        );
        if had.await == 0 {
            return Err(Failure::none(HandlerError::permanent("already undone")));
        }
        Ok(())
    }

    async fn act(&self, system: &'static str, id: Uuid) -> Result<(), Failure> {
        let unknown = |why: &str| Failure::unknown(HandlerError::unavailable(why));
        match self.fault(system) {
            None => return self.have(system, id).await,
            Some(Fault::Refused) => {
                return Err(Failure::none(HandlerError::permanent(format!("{system} says no"))));
            }
            Some(Fault::Away) => {
                let error = HandlerError::unavailable(format!("{system} is away"));
                return Err(Failure::none(error).with_dependency(system));
            }
            Some(Fault::AnswerLost) => self.have(system, id).await?,
            Some(Fault::Late) => {
                let systems = self.clone();
                let gate = Arc::clone(&self.gate);
                let (armed, is_armed) = oneshot::channel();
                tokio::spawn(async move {
                    let mut through = std::pin::pin!(gate.notified());
                    through.as_mut().enable();
                    armed.send(()).unwrap();
                    through.await;
                    let _ = systems.have(system, id).await;
                });
                is_armed.await.unwrap();
            }
            Some(Fault::Held) => {
                self.gate.notified().await;
                return self.have(system, id).await;
            }
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Panics) => panic!("as it was told to"),
            Some(Fault::Lost | Fault::Impossible) => {}
        }
        Err(unknown("the answer was lost").with_dependency(system))
    }

    async fn undo(&self, system: &'static str, id: Uuid) -> Result<(), HandlerError> {
        match self.fault(&format!("undo {system}")) {
            None | Some(Fault::AnswerLost) => {}
            Some(Fault::Impossible | Fault::Refused) => {
                return Err(HandlerError::permanent(format!("{system} can't undo that")));
            }
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Panics) => panic!("as it was told to"),
            Some(_) => return Err(HandlerError::unavailable(format!("{system} is away"))),
        }
        self.with(
            system,
            id,
            "WITH noted AS (INSERT INTO undos (system, id) VALUES ($1, $2))
             INSERT INTO effects (system, id, undone) VALUES ($1, $2, true)
             ON CONFLICT (system, id) DO UPDATE SET undone = true",
        )
        .await;
        Ok(())
    }
}

/// One of the systems, as the saga's steps know it. What it is asked for is named by the saga.
macro_rules! system {
    ($type:ident, $name:literal) => {
        #[derive(Clone)]
        pub(super) struct $type(pub(super) Systems);

        impl Action for $type {
            const NAME: &'static str = $name;
            type Input = Uuid;
            type Output = Uuid;

            async fn act(&self, attempt: Attempt<Uuid>) -> Result<Uuid, Failure> {
                self.0.act($name, attempt.payload).await?;
                Ok(attempt.payload)
            }
        }

        impl Step for $type {
            async fn undo(&self, attempt: Attempt<Uuid>) -> Result<(), HandlerError> {
                self.0.undo($name, attempt.payload).await
            }
        }
    };
}

system!(Hotel, "hotel");
system!(Flight, "flight");
system!(Pay, "pay");
system!(Mail, "mail");

/// A question, which changes nothing: how often it was asked.
#[derive(Clone)]
struct Price(Systems);

impl Action for Price {
    const NAME: &'static str = "price";
    type Input = ();
    type Output = u32;

    async fn act(&self, _: Attempt<()>) -> Result<u32, Failure> {
        match self.0.fault("price") {
            None => Ok(42),
            Some(_) => Err(Failure::none(HandlerError::unavailable("nobody knows the price"))),
        }
    }
}

/// Where the pivot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Pivot {
    /// The trip in the own database is the last thing, and decides.
    Local,
    /// Paying decides, and a mail comes behind it.
    Remote,
    /// The trip in the own database decides, and a mail comes behind it.
    Decide,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Wish {
    pub(super) id: Uuid,
    pub(super) pivot: Pivot,
    /// What the own database says at the end.
    pub(super) end: End,
}

/// What the own database says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum End {
    Yes,
    No,
    Broken,
}

/// Hotel, flight and a price; then the pivot.
pub(super) struct Trip(pub(super) Systems);

impl Saga for Trip {
    const KIND: &'static str = "trip";
    type Input = Wish;
    type Output = u32;

    fn steps(&self) -> Steps {
        Steps::new().and(Hotel(self.0.clone())).and(Flight(self.0.clone()))
    }

    async fn run(&self, run: &mut Run, wish: &Wish) -> Result<Committed<u32>, Stop> {
        let systems = &self.0;
        if systems.fault("before") == Some(Fault::Away) {
            let failure = Failure::none(HandlerError::unavailable("known to be away"));
            return Err(run.abort(failure.with_dependency("hotel")));
        }
        run.step(&Hotel(systems.clone()), wish.id).await?;
        run.step(&Flight(systems.clone()), wish.id).await?;
        let price = run.read(&Price(systems.clone()), ()).await?;
        match wish.pivot {
            Pivot::Local => {}
            Pivot::Remote => {
                run.pivot(&Pay(systems.clone()), wish.id).await?;
                run.forward(&Mail(systems.clone()), wish.id).await?;
            }
            Pivot::Decide => {
                let noted = wish.clone();
                run.decide("note", move |conn| note(conn, &noted)).await?;
                run.forward(&Mail(systems.clone()), wish.id).await?;
            }
        }
        let wish = wish.clone();
        run.commit(move |conn| {
            if wish.pivot != Pivot::Decide {
                note(conn, &wish)?;
            }
            Ok(price)
        })
        .await
    }
}

fn note(conn: &mut PgConnection, wish: &Wish) -> Result<(), Local> {
    match wish.end {
        End::Yes => {}
        End::No => {
            return Err(Local::Refused(Failure::none(HandlerError::permanent("sold out"))));
        }
        End::Broken => drop(diesel::sql_query("SELECT 1 / 0").execute(conn)?),
    }
    diesel::sql_query("INSERT INTO trips (id) VALUES ($1)")
        .bind::<SqlUuid, _>(wish.id)
        .execute(conn)?;
    Ok(())
}

/// A journal of one's own, and the systems beside it.
pub(super) struct World {
    pub(super) systems: Systems,
    pub(super) pool: Connections,
    /// Last: it is gone when nobody is connected any more.
    database: TestDatabase,
}

/// For tests in which somebody dies, or looks so: their sagas are taken over at once.
pub(super) fn brief() -> Settings {
    quick().lease(Duration::from_millis(500))
}

/// Everything is over soon, and nobody is taken for dead on a crowded machine.
pub(super) fn quick() -> Settings {
    Settings::new()
        .lease(Duration::from_secs(10))
        .timeout(Duration::from_secs(5))
        .attempts(3)
        .backoff(
            Backoff::new()
                .initial(Duration::from_millis(20))
                .max_interval(Duration::from_millis(100)),
        )
}

impl World {
    pub(super) fn new() -> Self {
        Self::over(TestDatabase::new("saga", migrate))
    }

    /// In a cluster that the test may kill.
    pub(super) fn within(cluster: &TestCluster) -> Self {
        Self::over(cluster.database("saga", migrate))
    }

    fn over(database: TestDatabase) -> Self {
        let pool = connections(database.url());
        Self { systems: Systems::new(database.url()), pool, database }
    }

    pub(super) fn url(&self) -> &str {
        self.database.url()
    }

    pub(super) fn builder(&self) -> Builder {
        Deferred::builder(self.pool.clone()).saga(Trip(self.systems.clone()))
    }

    pub(super) fn start(&self) -> Office {
        self.start_with(quick())
    }

    pub(super) fn start_with(&self, settings: Settings) -> Office {
        Office::start(self.builder().saga_settings(settings).build().unwrap())
    }

    pub(super) fn conn(&self) -> diesel::r2d2::PooledConnection<ConnectionManager<PgConnection>> {
        self.pool.get().unwrap()
    }

    pub(super) fn number(&self, query: &str) -> i64 {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = BigInt)]
            number: i64,
        }
        let query = format!("SELECT ({query})::bigint AS number");
        diesel::sql_query(query).get_result::<Row>(&mut self.conn()).unwrap().number
    }

    pub(super) fn execute(&self, sql: &str) {
        self.conn().batch_execute(sql).unwrap();
    }

    /// Of which systems there is an effect.
    pub(super) fn effects(&self, id: Uuid) -> Vec<String> {
        self.texts(&format!(
            "SELECT system AS text FROM effects WHERE id = '{id}' AND NOT undone ORDER BY number"
        ))
    }

    /// Which systems have undone, in this order; each once.
    pub(super) fn undone(&self, id: Uuid) -> Vec<String> {
        self.texts(&format!(
            "SELECT system AS text FROM undos WHERE id = '{id}' GROUP BY system ORDER BY min(number)"
        ))
    }

    /// What the journal says of each step.
    pub(super) fn steps(&self, id: Uuid) -> Vec<String> {
        self.texts(&format!(
            "SELECT name || ' ' || state AS text FROM saga_step WHERE saga = '{id}' ORDER BY number"
        ))
    }

    pub(super) fn texts(&self, query: &str) -> Vec<String> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Text)]
            text: String,
        }
        let rows: Vec<Row> = diesel::sql_query(query).load(&mut self.conn()).unwrap();
        rows.into_iter().map(|row| row.text).collect()
    }

    pub(super) fn is_noted(&self, id: Uuid) -> bool {
        self.number(&format!("SELECT count(*) FROM trips WHERE id = '{id}'")) == 1
    }

    pub(super) fn stage(&self, id: Uuid) -> Option<String> {
        self.texts(&format!("SELECT state AS text FROM saga WHERE id = '{id}'")).pop()
    }

    /// All effects or none, as the journal says.
    pub(super) fn whole(&self, id: Uuid, pivot: Pivot) {
        let stage = self.stage(id);
        let all: &[&str] = match pivot {
            Pivot::Local => &["hotel", "flight"],
            Pivot::Remote => &["hotel", "flight", "pay", "mail"],
            Pivot::Decide => &["hotel", "flight", "mail"],
        };
        let (effects, noted) = (self.effects(id), self.is_noted(id));
        match stage.as_deref() {
            Some("committed") => assert!(effects == all && noted, "{effects:?}, noted: {noted}"),
            Some("compensated") | None => {
                assert!(effects.is_empty() && !noted, "{stage:?}: {effects:?}, noted: {noted}");
            }
            other => panic!("{id} is {other:?}: {:?}", self.steps(id)),
        }
    }

    /// Waits until no saga is open, and nothing of any is left in the ledger.
    pub(super) async fn calm(&self) {
        eventually("no saga is open", || {
            self.number("SELECT count(*) FROM saga WHERE ended_at IS NULL") == 0
                && self.number("SELECT count(*) FROM deferred WHERE ended_at IS NULL") == 0
        })
        .await;
    }
}

/// A runtime at work.
pub(super) struct Office {
    pub(super) sagas: Sagas,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Office {
    pub(super) fn start(runtime: Runtime) -> Self {
        let sagas = runtime.sagas();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(runtime.run(async {
            let _ = stopped.await;
        }));
        Self { sagas, stop, task }
    }

    /// Shuts it down in order.
    pub(super) async fn stop(self) {
        let _ = self.stop.send(());
        crate::soon(self.task).await.unwrap();
    }

    pub(super) async fn book(&self, pivot: Pivot) -> (Uuid, Outcome<u32>) {
        self.book_by(pivot, None).await
    }

    pub(super) async fn book_by(
        &self,
        pivot: Pivot,
        deadline: Option<Deadline>,
    ) -> (Uuid, Outcome<u32>) {
        let wish = wish(pivot);
        let begun = self.ask(&wish, deadline).await;
        let Started::Begun(outcome) = begun else { panic!("{begun:?}") };
        (wish.id, outcome)
    }

    pub(super) async fn ask(&self, wish: &Wish, deadline: Option<Deadline>) -> Started<u32> {
        self.try_to_ask(wish, deadline).await.unwrap()
    }

    /// Of many at once, not each gets a connection in time: nothing is promised then.
    pub(super) async fn try_to_ask(
        &self,
        wish: &Wish,
        deadline: Option<Deadline>,
    ) -> Result<Started<u32>, StartError<Infallible>> {
        let start = Start::new(wish.id, wish).unwrap();
        let nothing = |_: &mut PgConnection| Ok(());
        crate::patiently(self.sagas.run::<Trip, _>(start, deadline, nothing)).await
    }

    pub(super) async fn ended(&self, id: Uuid) -> Known {
        let known = self.sagas.ended::<Trip>(id, Duration::from_secs(20)).await.unwrap();
        known.unwrap_or_else(|| panic!("there is no saga {id}"))
    }

    pub(super) async fn stage(&self, id: Uuid) -> Stage {
        self.ended(id).await.stage
    }
}

pub(super) fn wish(pivot: Pivot) -> Wish {
    Wish { id: Uuid::new_v4(), pivot, end: End::Yes }
}

pub(super) fn failed(outcome: Outcome<u32>) -> Failure {
    match outcome {
        Outcome::Compensated(failure) => failure,
        other => panic!("it isn't compensated: {other:?}"),
    }
}
