//! What a service does with its deferred calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast::error::RecvError, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::Instrument as _;
use uuid::Uuid;

use super::builder::Builder;
use super::call::Hold;
use super::database::{Database, DatabaseError, waits};
use super::handler::Handler;
use super::kind::Kind;
use super::ledger;
use super::operators::Stage;
use super::shared::{Broker, Shared};
use crate::breaker::Breaker;

/// A handle on the deferred calls of a service: for whoever defers them, and for operators. Clones
/// are cheap and share everything.
#[derive(Clone)]
pub struct Deferred {
    pub(super) shared: Arc<Shared>,
}

/// How often [`Deferred::ended`] looks for what others have carried out.
const LOOK: Duration = Duration::from_millis(100);

impl Deferred {
    /// Begins to put a runtime together, over the database that holds the ledger.
    pub fn builder(database: impl Database) -> Builder {
        Builder::new(database)
    }

    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Something was deferred and committed: begin now, not within half a second.
    pub fn nudge(&self) {
        self.shared.nudge();
    }

    /// What stops the calls of this kind while their dependency is away.
    ///
    /// # Panics
    ///
    /// When the runtime was built without a handler of this kind.
    pub fn breaker<H: Handler>(&self) -> &Breaker {
        &self.kind::<H>().gate
    }

    /// Gives back at once what runs, to be made again later. For a shutdown that has no more time:
    /// [`Runtime::run`](super::Runtime::run), which was told to stop before, returns when the ledger
    /// knows. Nothing can be carried out in this process any more.
    pub fn cut_off(&self) {
        self.shared.cut_off();
    }

    /// Who carries the calls now.
    pub fn broker(&self) -> Broker {
        self.shared.broker()
    }

    /// Who carries the calls, as it changes.
    pub fn watch_broker(&self) -> watch::Receiver<Broker> {
        self.shared.broker.subscribe()
    }

    /// Waits until a call has ended, at most for `limit`: where it is then, which is where it
    /// [has ended](Stage::has_ended) unless the time was too short. Nothing when there is no such
    /// call.
    ///
    /// # Errors
    ///
    /// When the database can't be reached.
    pub async fn ended(&self, id: Uuid, limit: Duration) -> Result<Option<Stage>, DatabaseError> {
        let until = Instant::now() + limit.min(ledger::LONGEST);
        // Listens before it looks, or an end in between would be missed.
        let mut ended = self.shared.ended.subscribe();
        loop {
            let stage = self.shared.door.run(move |conn| ledger::stage(conn, id)).await?;
            let Some(stage) = stage else { return Ok(None) };
            if stage.has_ended() || Instant::now() >= until {
                return Ok(Some(stage));
            }
            let look = until.min(Instant::now() + LOOK);
            let told = async {
                loop {
                    match ended.recv().await {
                        Ok(other) if other != id => {}
                        // Missed some, or the one: look. The runtime is never gone before us.
                        Ok(_) | Err(RecvError::Lagged(_)) => return,
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            let _ = timeout_at(look, told).await;
        }
    }

    /// Has a call carried out that was to be [forgotten](Hold::forget), when nobody knows whether
    /// that was committed: the database may have been lost between the commit and its answer. The
    /// ledger is told in the background, as soon as the database is back.
    ///
    /// Should the process die before, the commit decides: the call is forgotten, or made when its
    /// lease is over.
    pub fn make_sure(&self, hold: Hold) {
        let shared = Arc::clone(&self.shared);
        let id = hold.id();
        let telling = async move {
            let told = async {
                let mut delays = waits().delays();
                loop {
                    let hold = hold.clone();
                    match shared.door.run(move |conn| hold.reinstate(conn)).await {
                        Ok(_) => return shared.nudge(),
                        Err(error) => {
                            let error = error.cause();
                            tracing::warn!(%id, error, "the ledger can't be told to make a call");
                        }
                    }
                    sleep(delays.next().unwrap_or_default()).await;
                }
            };
            tokio::select! {
                biased;
                () = told => {}
                () = shared.cut.cancelled() => {
                    tracing::error!(%id, "nobody knows whether a call is forgotten");
                }
            }
        };
        self.shared.running.spawn(telling.in_current_span());
    }

    #[cfg(feature = "saga")]
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The kind, as the runtime was built.
    pub(super) fn kind<H: Handler>(&self) -> &Arc<Kind> {
        let kind = self.shared.kinds.get(H::KIND);
        kind.unwrap_or_else(|| panic!("no handler was given for the kind {:?}", H::KIND))
    }
}

impl fmt::Debug for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred")
            .field("kinds", &self.shared.names())
            .field("broker", &self.broker())
            .finish_non_exhaustive()
    }
}
