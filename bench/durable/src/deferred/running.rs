//! A runtime that does nothing for each call, and a ledger that holds many.

use std::time::Duration;

use diesel::RunQueryDsl as _;
use diesel::connection::SimpleConnection as _;
use diesel::dsl::sql;
use diesel::sql_types::BigInt;
use resilience::deferred::{Attempt, Broker, Deferred, Handler, HandlerError, Settings};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::ground::Database;

/// Does nothing, and says so.
pub(crate) struct Nothing(mpsc::UnboundedSender<(u32, Instant)>);

impl Handler for Nothing {
    const KIND: &'static str = "no-op";
    type Payload = u32;
    type Output = ();

    async fn run(&self, attempt: Attempt<u32>) -> Result<(), HandlerError> {
        // Nobody listens any more when the measuring is over.
        let _ = self.0.send((attempt.payload, Instant::now()));
        Ok(())
    }
}

/// A runtime that does nothing for each call.
pub(crate) struct Running {
    pub(crate) deferred: Deferred,
    /// What it has begun, and when.
    pub(crate) runs: mpsc::UnboundedReceiver<(u32, Instant)>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    /// Returns when it works, with the broker where there is one.
    pub(crate) async fn start(ledger: &Database, broker: Option<&str>, settings: Settings) -> Self {
        let (ran, runs) = mpsc::unbounded_channel();
        let builder = Deferred::builder(ledger.pool()).app("bench");
        let mut builder = builder.handler(Nothing(ran), settings);
        if let Some(broker) = broker {
            builder = builder.amqp(broker);
        }
        let runtime = builder.build().expect("a runtime");
        let deferred = runtime.handle();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(runtime.run(async {
            let _ = stopped.await;
        }));
        if broker.is_some() {
            let mut state = deferred.watch_broker();
            state.wait_for(|state| *state == Broker::Work).await.expect("it runs");
        }
        Self { deferred, runs, stop, task }
    }

    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.expect("it ends");
    }
}

/// Waits until everything has ended, by looking.
pub(crate) async fn until_done(ledger: &Database) {
    let mut conn = ledger.connect();
    let left = "(SELECT count(*) FROM deferred WHERE state IN ('pending', 'sent', 'running'))";
    while diesel::select(sql::<BigInt>(left)).get_result::<i64>(&mut conn).expect("a count") > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Rows that ended.
pub(crate) fn fill(ledger: &Database, rows: u32) {
    let mut conn = ledger.connect();
    let fill = format!(
        "INSERT INTO deferred (id, kind, payload, state, not_before, ended_at, attempts)
         SELECT gen_random_uuid(), 'no-op', '42', 'done', now(), now(), 1
         FROM generate_series(1, {rows})"
    );
    conn.batch_execute(&fill).expect("rows");
    // What the filling leaves behind isn't to be measured.
    conn.batch_execute("VACUUM ANALYZE deferred").expect("it is clean");
    conn.batch_execute("CHECKPOINT").expect("it is written");
}
