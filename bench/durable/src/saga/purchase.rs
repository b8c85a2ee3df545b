//! Something of two companies and a row of ours, with and without a journal.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::dsl::sql;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::sql_types::{BigInt, Uuid as SqlUuid};
use diesel::{Connection as _, PgConnection, QueryResult, RunQueryDsl as _, sql_query};
use resilience::deferred::{Attempt, Deferred, HandlerError, Runtime};
use resilience::http::{CallError, Context};
use resilience::saga::{
    Action, Committed, Failure, Outcome, Run, Saga, Sagas, Settings, Start, Started, Step, Steps,
    Stop,
};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use uuid::Uuid;

use super::company::Company;
use crate::ground::{Database, Ground};
use bench_ground::times::{Times, median};

/// How many clients buy at once, and how often all of them together in a round.
const CLIENTS: [(u32, u32); 3] = [(1, 500), (8, 2_400), (32, 4_800)];
const ROUNDS: usize = 3;

/// Those of the journals that have grown.
const GROWN: (u32, u32) = (8, 2_400);

/// What the commits are counted over.
const COUNTED: u32 = 500;

/// Of companies that never end, and a database of its own.
pub(crate) struct Shop {
    purchase: Purchase,
    journal: Database,
    pool: Pool<ConnectionManager<PgConnection>>,
}

/// How often a second, and how long one took.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) times: Times,
}

pub(crate) struct Both {
    pub(crate) clients: u32,
    pub(crate) bare: Rate,
    pub(crate) journaled: Rate,
}

#[derive(Clone, Debug)]
struct Purchase {
    take: Take,
    start: Begin,
}

impl Saga for Purchase {
    const KIND: &'static str = "purchase";
    type Input = Uuid;
    type Output = ();

    fn steps(&self) -> Steps {
        Steps::new().and(self.take.clone()).and(self.start.clone())
    }

    async fn run(&self, run: &mut Run, id: &Uuid) -> Result<Committed<()>, Stop> {
        let id = *id;
        run.step(&self.take, id).await?;
        run.step(&self.start, id).await?;
        run.commit(move |conn| Ok(insert(conn, id)?)).await
    }
}

#[derive(Clone, Debug)]
struct Take(Company);

impl Action for Take {
    const NAME: &'static str = "take";
    type Input = Uuid;
    type Output = ();

    async fn act(&self, attempt: Attempt<Uuid>) -> Result<(), Failure> {
        self.0.take(&context(&attempt), attempt.payload).await.map_err(failed)
    }
}

impl Step for Take {
    async fn undo(&self, attempt: Attempt<Uuid>) -> Result<(), HandlerError> {
        let given = self.0.give_back(&context(&attempt), attempt.payload).await;
        given.map_err(|error| HandlerError::unavailable(error.to_string()))
    }
}

#[derive(Clone, Debug)]
struct Begin(Company);

impl Action for Begin {
    const NAME: &'static str = "begin";
    type Input = Uuid;
    type Output = ();

    async fn act(&self, attempt: Attempt<Uuid>) -> Result<(), Failure> {
        self.0.take(&context(&attempt), attempt.payload).await.map_err(failed)
    }
}

impl Step for Begin {
    async fn undo(&self, attempt: Attempt<Uuid>) -> Result<(), HandlerError> {
        let given = self.0.give_back(&context(&attempt), attempt.payload).await;
        given.map_err(|error| HandlerError::unavailable(error.to_string()))
    }
}

fn context(attempt: &Attempt<Uuid>) -> Context {
    Context::new().with_deadline(attempt.deadline)
}

fn failed(error: CallError) -> Failure {
    let follows = HandlerError::unavailable(error.to_string());
    Failure::of_call(error, follows)
}

fn insert(conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
    let insert = sql_query("INSERT INTO purchases VALUES ($1)").bind::<SqlUuid, _>(id);
    insert.execute(conn).map(drop)
}

impl Shop {
    pub(crate) async fn new(ground: &Ground) -> Self {
        let (one, other) =
            (Company::new(ground, "warehouse").await, Company::new(ground, "warranty").await);
        Self::open(ground, Purchase { take: Take(one), start: Begin(other) })
    }

    /// Of the same companies.
    pub(crate) fn with_journal(&self, ground: &Ground) -> Self {
        Self::open(ground, self.purchase.clone())
    }

    fn open(ground: &Ground, purchase: Purchase) -> Self {
        let journal = ground.journal();
        let table = "CREATE TABLE purchases (id UUID PRIMARY KEY)";
        journal.connect().batch_execute(table).expect("a table");
        let pool = journal.pool();
        Self { purchase, journal, pool }
    }

    /// Sagas that ended well, with their steps.
    pub(crate) fn fill(&self, rows: u32) {
        let mut conn = self.journal.connect();
        let fill = format!(
            "INSERT INTO saga (id, kind, input, state, output, ended_at)
             SELECT gen_random_uuid(), 'purchase', '\"0\"', 'committed', 'null', now()
             FROM generate_series(1, {rows});
             INSERT INTO saga_step (saga, number, name, role, state, input, output, ended_at)
             SELECT id, number, CASE number WHEN 0 THEN 'take' ELSE 'begin' END, 'step', 'done',
                    input, 'null', now()
             FROM saga, generate_series(0, 1) AS number"
        );
        conn.batch_execute(&fill).expect("rows");
        // What the filling leaves behind isn't to be measured.
        conn.batch_execute("VACUUM ANALYZE saga").expect("it is clean");
        conn.batch_execute("VACUUM ANALYZE saga_step").expect("it is clean");
        conn.batch_execute("CHECKPOINT").expect("it is written");
    }

    pub(crate) fn runtime(&self, settings: Settings) -> Runtime {
        Deferred::builder(self.pool.clone())
            .app("bench")
            .saga(self.purchase.clone())
            .saga_settings(settings)
            .build()
            .expect("a runtime")
    }

    /// Whom each purchase asks last.
    pub(crate) fn last(&self) -> &Company {
        &self.purchase.start.0
    }

    pub(crate) fn holds(&self) -> [i64; 2] {
        [self.purchase.take.0.holds(), self.purchase.start.0.holds()]
    }

    pub(crate) fn execute(&self, statement: &str) {
        self.journal.connect().batch_execute(statement).expect("it is done");
    }

    pub(crate) fn number(&self, expression: &str) -> i64 {
        let mut conn = self.pool.get().expect("a connection");
        let number = sql::<BigInt>(&format!("({expression})"));
        diesel::select(number).get_result(&mut conn).expect("a number")
    }

    fn journaled(&self) -> Open<'_> {
        let runtime = self.runtime(Settings::new());
        let sagas = runtime.sagas();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(runtime.run(async {
            let _ = stopped.await;
        }));
        Open { shop: self, sagas: Some(sagas), background: Some((stop, task)) }
    }

    fn bare(&self) -> Open<'_> {
        Open { shop: self, sagas: None, background: None }
    }
}

/// A shop in which can be bought.
struct Open<'a> {
    shop: &'a Shop,
    sagas: Option<Sagas>,
    background: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Open<'_> {
    /// So many clients buy so often.
    async fn buy(&self, (clients, purchases): (u32, u32)) -> Rate {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let (purchase, pool) = (self.shop.purchase.clone(), self.shop.pool.clone());
            let sagas = self.sagas.clone();
            tasks.spawn(async move {
                let mut times = Vec::new();
                for _ in 0..purchases / clients {
                    let began = Instant::now();
                    match &sagas {
                        Some(sagas) => buy(sagas, Uuid::now_v7()).await,
                        None => buy_bare(&purchase, pool.clone(), Uuid::now_v7()).await,
                    }
                    times.push(began.elapsed());
                }
                times
            });
        }
        let times: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
        let count = u32::try_from(times.len()).unwrap_or(u32::MAX);
        let per_second = f64::from(count) / began.elapsed().as_secs_f64();
        Rate { per_second, times: Times::of(times) }
    }

    async fn close(self) {
        if let Some((stop, task)) = self.background {
            let _ = stop.send(());
            task.await.expect("it ends");
        }
    }
}

async fn buy(sagas: &Sagas, id: Uuid) {
    let start = Start::<Purchase>::new(id, &id).expect("an id");
    let started = sagas.run::<_, Infallible>(start, None, |_| Ok(())).await;
    let bought = matches!(started, Ok(Started::Begun(Outcome::Committed(()))));
    assert!(bought, "{started:?}");
}

/// The same calls, and the same row, and nothing to go by when something fails.
async fn buy_bare(purchase: &Purchase, pool: Pool<ConnectionManager<PgConnection>>, id: Uuid) {
    let cx = Context::new();
    purchase.take.0.take(&cx, id).await.expect("it is taken");
    purchase.start.0.take(&cx, id).await.expect("it is taken");
    let committed = spawn_blocking(move || {
        let mut conn = pool.get().expect("a connection");
        conn.transaction(|conn| insert(conn, id))
    });
    committed.await.expect("it runs").expect("it is committed");
}

/// Both in turn: what disturbs one disturbs both.
pub(crate) async fn measure(shop: &Shop) -> Vec<Both> {
    let mut results = Vec::new();
    for load in CLIENTS {
        let (mut bare, mut journaled) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(shop.bare().buy(load).await);
            let open = shop.journaled();
            journaled.push(open.buy(load).await);
            open.close().await;
        }
        results.push(Both { clients: load.0, bare: middle(bare), journaled: middle(journaled) });
    }
    results
}

/// In each of these shops, in turn.
pub(crate) async fn in_turn(shops: &[Shop]) -> Vec<Rate> {
    let mut rates = vec![Vec::new(); shops.len()];
    for _ in 0..ROUNDS {
        for (shop, rates) in shops.iter().zip(&mut rates) {
            let open = shop.journaled();
            rates.push(open.buy(GROWN).await);
            open.close().await;
        }
    }
    rates.into_iter().map(middle).collect()
}

/// The round in the middle.
fn middle(rounds: Vec<Rate>) -> Rate {
    let wanted = median(rounds.iter().map(|round| round.per_second).collect());
    let found = rounds.into_iter().find(|round| round.per_second.to_bits() == wanted.to_bits());
    found.expect("it is one of them")
}

/// Transactions that write, for one purchase, the companies' with them: with a journal, and without.
pub(crate) async fn commits(shop: &Shop) -> (f64, f64) {
    let written = || shop.number("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint");
    let open = shop.journaled();
    let mut counts = [0.0; 2];
    for (open, count) in [&open, &shop.bare()].into_iter().zip(&mut counts) {
        let before = written();
        open.buy((1, COUNTED)).await;
        let after = i32::try_from(written() - before).unwrap_or(i32::MAX);
        *count = f64::from(after) / f64::from(COUNTED);
    }
    open.close().await;
    (counts[0], counts[1])
}

/// So many purchases, all of which hang.
pub(crate) async fn hang(sagas: &Sagas, count: u32) {
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let sagas = sagas.clone();
        tasks.spawn(async move { buy(&sagas, Uuid::now_v7()).await });
    }
    tasks.join_all().await;
}
