//! A runtime in a process of its own, which can be killed and frozen.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text, Uuid as SqlUuid};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use resilience::deferred::{
    Attempt, Deferral, Deferred, Handler, HandlerError, Settings, Submitted,
};
use uuid::Uuid;

use super::bed::{Connections, Ledger, connections, quick};

const URL: &str = "TEST_LEDGER";
const NAME: &str = "TEST_WORKER";
const TASK: &str = "TEST_TASK";

/// What a [`Chore`] is to do, beside writing down when it began and ended.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
pub(super) enum Do {
    Nothing,
    /// Takes its time: milliseconds.
    Take(u64),
    /// Waits until the table `notes` says `go`.
    WaitForGo,
    /// Ends the process.
    Poison,
}

/// Writes down when each of its runs began and ended.
pub(super) struct Chore {
    pool: Connections,
    worker: String,
}

impl Chore {
    pub(super) fn new(pool: &Connections, worker: &str) -> Self {
        Self { pool: pool.clone(), worker: worker.to_owned() }
    }

    pub(super) fn call(what: &Do) -> Deferral {
        Deferral::new::<Self>(Uuid::new_v4(), what).unwrap()
    }

    /// Its own database work; a database that is away makes it unavailable.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut PgConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, HandlerError> {
        let pool = self.pool.clone();
        let worked = tokio::task::spawn_blocking(move || {
            let mut conn = pool.get().map_err(|error| error.to_string())?;
            work(&mut conn).map_err(|error| error.to_string())
        });
        worked.await.unwrap().map_err(HandlerError::unavailable)
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

impl Handler for Chore {
    const KIND: &'static str = "chore";
    type Payload = Do;
    type Output = String;

    async fn run(&self, attempt: Attempt<Do>) -> Result<String, HandlerError> {
        let (id, worker) = (attempt.id, self.worker.clone());
        let began = self.with(move |conn| {
            diesel::sql_query("INSERT INTO runs (id, worker) VALUES ($1, $2) RETURNING number")
                .bind::<SqlUuid, _>(id)
                .bind::<Text, _>(worker)
                .get_result::<Number>(conn)
        });
        let run = began.await?.number;
        match attempt.payload {
            Do::Nothing => {}
            Do::Take(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Do::Poison => std::process::abort(),
            Do::WaitForGo => {
                let go = "SELECT count(*) AS number FROM notes WHERE what = 'go'";
                let asked = || self.with(move |conn| diesel::sql_query(go).get_result(conn));
                while asked().await.is_ok_and(|count: Number| count.number == 0) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        self.with(move |conn| {
            diesel::sql_query("UPDATE runs SET ended_at = clock_timestamp() WHERE number = $1")
                .bind::<BigInt, _>(run)
                .execute(conn)
        })
        .await?;
        Ok(self.worker.clone())
    }

    fn done(&self, conn: &mut PgConnection, id: Uuid, worker: &String) -> QueryResult<()> {
        diesel::sql_query("INSERT INTO notes (id, what) VALUES ($1, $2)")
            .bind::<SqlUuid, _>(id)
            .bind::<Text, _>(format!("done by {worker}"))
            .execute(conn)
            .map(drop)
    }
}

/// Settings of the workers: leases of a second.
pub(super) fn settings() -> Settings {
    quick().timeout(Duration::from_secs(20))
}

/// Such a process. Dropped, it is killed.
pub(super) struct Worker(Child);

impl Worker {
    /// Returns when it is at work.
    pub(super) fn start(ledger: &Ledger, name: &str) -> Self {
        Self::with(ledger, name, "work")
    }

    /// One that submits a call, and carries out nothing else.
    pub(super) fn submitting(ledger: &Ledger, id: Uuid) -> Self {
        Self::with(ledger, "submitter", &id.to_string())
    }

    fn with(ledger: &Ledger, name: &str, task: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "deferred::worker::process_to_be_killed", "--ignored", "--nocapture"])
            .env(URL, ledger.url())
            .env(NAME, name)
            .env(TASK, task)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).any(|line| line == "READY");
        assert!(ready, "the worker has not begun");
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    pub(super) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub(super) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The [`Worker`]: works until it is killed, or whoever started it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by other tests, in a process of its own"]
async fn process_to_be_killed() {
    let (Ok(url), Ok(name), Ok(task)) =
        (std::env::var(URL), std::env::var(NAME), std::env::var(TASK))
    else {
        return;
    };
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::abort();
    });
    let pool = connections(&url);
    let builder = Deferred::builder(pool.clone());
    let runtime = builder.handler(Chore::new(&pool, &name), settings()).build().unwrap();
    let deferred = runtime.handle();
    if let Ok(id) = task.parse() {
        eprintln!("READY");
        let call = Deferral::new::<Chore>(id, &Do::WaitForGo).unwrap();
        let prepare = move |conn: &mut PgConnection| {
            diesel::sql_query("INSERT INTO notes (id, what) VALUES ($1, 'prepared')")
                .bind::<SqlUuid, _>(id)
                .execute(conn)
                .map(drop)
        };
        let submitted = deferred.submit::<Chore, _>(call, None, prepare, |_, _| Ok(()));
        assert!(matches!(submitted.await, Ok(Submitted::Done(_))), "its parent lets it go on");
    } else {
        let work = tokio::spawn(runtime.run(std::future::pending()));
        eprintln!("READY");
        work.await.unwrap();
    }
}
