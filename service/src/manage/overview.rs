//! `/manage/overview`: what one replica knows of itself, in one answer, for whoever puts together what
//! happens in all services.
//!
//! It answers soon, whatever is away: what is in the database is read by one reader at a time, however
//! many ask, and shown as it was last known, with since when it isn't known any more.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use resilience::deferred::{Deferred, Filter, Stage};
use resilience::saga::{self, Sagas};
use serde::Serialize;
use tokio::sync::{Mutex as Turn, watch};
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::deferred::{Call, Depth};
use super::history::{BreakerEvent, History};
use super::sagas::{OpenSagas, ShownSaga};
use super::view::Resilience;
use super::{Panel, Trusted, rfc3339};
use crate::db::Db;
use crate::failure::Failure;
use crate::health::Status;
use crate::traffic::{Traffic, TrafficView};

/// How long an answer waits for what is in the database.
const MOMENT: Duration = Duration::from_millis(300);

/// What is younger than this is not read again.
const FRESH: Duration = Duration::from_millis(250);

/// How long the database may take to say that it is there.
const PING_LIMIT: Duration = Duration::from_millis(400);

/// Rows that are shown of each kind: beyond that, the lists of `/manage/deferred` and `/manage/sagas`
/// have all.
const ROWS: u32 = 50;

/// Events of breakers that are shown.
const EVENTS: usize = 50;

/// What a service knows of itself. Clones share everything.
#[derive(Clone)]
pub struct Overview(Arc<Inner>);

pub(crate) struct Parts {
    pub(crate) panel: Panel,
    pub(crate) db: Db,
    pub(crate) traffic: Traffic,
    pub(crate) history: History,
    pub(crate) deferred: Option<Deferred>,
    pub(crate) sagas: Option<Sagas>,
}

struct Inner {
    parts: Parts,
    rows: Mutex<Rows>,
    /// Whoever has it reads.
    reader: Arc<Turn<()>>,
}

/// What the database said last.
#[derive(Clone, Default)]
struct Rows {
    read: Option<(SystemTime, Instant)>,
    unknown: Option<(SystemTime, String)>,
    ledger: Option<Arc<Ledger>>,
    journal: Option<Arc<Journal>>,
}

/// One replica of a service at one moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    /// The moment, by this replica's clock.
    at: String,
    /// Since when this replica is there.
    began_at: String,
    /// What protects its calls.
    #[serde(flatten)]
    resilience: Resilience,
    traffic: TrafficView,
    /// The latest changes of its breakers, the oldest first.
    events: Vec<BreakerEvent>,
    /// Whether it makes calls later.
    defers: bool,
    /// Whether it reaches into several systems.
    has_sagas: bool,
    rows: RowsView,
}

/// What is in the service's database, which all its replicas share.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RowsView {
    /// When the database said so; nothing when it has said nothing yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    /// Since when it gives no answer, where it gives none.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown_since: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Its deferred calls, where it defers any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Ledger>)]
    deferred: Option<Arc<Ledger>>,
    /// Its sagas, where it has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Journal>)]
    sagas: Option<Arc<Journal>>,
}

/// Deferred calls.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LedgerOverview)]
struct Ledger {
    /// Who carries them.
    broker: Status,
    /// How many there are of each kind.
    kinds: Vec<Depth>,
    /// Those that were given up and that nobody has discarded: the newest 50.
    parked: Vec<Call>,
    /// Those that wait, likewise.
    waiting: Vec<Call>,
}

/// Sagas that have not ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JournalOverview)]
struct Journal {
    /// How many there are of each kind.
    kinds: Vec<OpenSagas>,
    /// The newest 50.
    open: Vec<ShownSaga>,
}

impl fmt::Debug for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overview").field("of", &self.0.parts.panel).finish_non_exhaustive()
    }
}

impl Overview {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner { parts, rows: Mutex::default(), reader: Arc::default() }))
    }

    /// The service's name.
    pub fn name(&self) -> &'static str {
        self.0.parts.panel.service
    }

    /// What `/manage/overview` answers at this moment; within some 300 ms, whatever is away.
    ///
    /// # Errors
    /// 500 when it can't be written as JSON: a defect.
    pub async fn now(&self) -> Result<serde_json::Value, Failure> {
        serde_json::to_value(self.look().await).map_err(Failure::internal)
    }

    /// Tells when a breaker of this replica changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.parts.history.changes()
    }

    async fn look(&self) -> View {
        let rows = self.rows().await;
        let Parts { panel, traffic, history, deferred, sagas, .. } = &self.0.parts;
        View {
            at: rfc3339(SystemTime::now()),
            began_at: rfc3339(history.began()),
            resilience: panel.view(),
            traffic: traffic.view(),
            events: history.latest(EVENTS),
            defers: deferred.is_some(),
            has_sagas: sagas.is_some(),
            rows: RowsView {
                at: rows.read.map(|(at, _)| rfc3339(at)),
                unknown_since: rows.unknown.as_ref().map(|(since, _)| rfc3339(*since)),
                error: rows.unknown.map(|(_, error)| error),
                deferred: rows.ledger,
                sagas: rows.journal,
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.0.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As fresh as the database allows within a moment.
    async fn rows(&self) -> Rows {
        let is_fresh = self.lock().read.is_some_and(|(_, read)| read.elapsed() < FRESH);
        if !is_fresh && let Ok(turn) = Arc::clone(&self.0.reader).try_lock_owned() {
            let mine = self.clone();
            // Goes on when nobody waits any more: there is one of it at a time.
            tokio::spawn(async move {
                mine.keep(mine.read().await);
                drop(turn);
            });
        }
        let _ = tokio::time::timeout(MOMENT, self.0.reader.lock()).await;
        self.lock().clone()
    }

    fn keep(&self, read: Result<(Option<Ledger>, Option<Journal>), Failure>) {
        let now = SystemTime::now();
        let mut rows = self.lock();
        match read {
            Ok((ledger, journal)) => {
                *rows = Rows {
                    read: Some((now, Instant::now())),
                    unknown: None,
                    ledger: ledger.map(Arc::new),
                    journal: journal.map(Arc::new),
                };
            }
            Err(failure) => {
                let since = rows.unknown.as_ref().map_or(now, |(since, _)| *since);
                rows.unknown = Some((since, failure.message().to_owned()));
            }
        }
    }

    /// One statement after the other: it takes one connection at a time.
    async fn read(&self) -> Result<(Option<Ledger>, Option<Journal>), Failure> {
        let Parts { db, deferred, sagas, .. } = &self.0.parts;
        if !db.ping(PING_LIMIT).await {
            let message = "the database gives no answer";
            return Err(Failure::unavailable(crate::failure::code::DATABASE_UNAVAILABLE, message));
        }
        let ledger = match deferred {
            Some(deferred) => Some(Ledger::read(deferred).await?),
            None => None,
        };
        let journal = match sagas {
            Some(sagas) => Some(Journal::read(sagas).await?),
            None => None,
        };
        Ok((ledger, journal))
    }
}

impl Ledger {
    async fn read(deferred: &Deferred) -> Result<Self, Failure> {
        let seen = deferred.snapshot().await?;
        let those = |stage| Filter::new().stage(stage).without_discarded().limit(ROWS);
        let parked = deferred.list(those(Stage::Parked)).await?;
        let waiting = deferred.list(those(Stage::Pending)).await?;
        Ok(Self {
            broker: seen.broker.into(),
            kinds: seen.kinds.into_iter().map(Depth::from).collect(),
            parked: parked.into_iter().map(Call::from).collect(),
            waiting: waiting.into_iter().map(Call::from).collect(),
        })
    }
}

impl Journal {
    async fn read(sagas: &Sagas) -> Result<Self, Failure> {
        let kinds = sagas.snapshot().await?;
        let open = sagas.list(saga::Filter::new().limit(ROWS)).await?;
        Ok(Self {
            kinds: kinds.into_iter().map(OpenSagas::from).collect(),
            open: open.into_iter().map(ShownSaga::from).collect(),
        })
    }
}

/// Its route, with its state.
pub(crate) fn routes(overview: Overview) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(show)).with_state(overview)
}

/// All that this replica knows of itself. By management token, or where there is none, from this machine only.
#[utoipa::path(get, path = "/manage/overview", tag = "manage", responses(
    (status = 200, description = "What is in the database as it was last known", body = View),
    (status = 403, description = "From another machine, where there are no tokens", body = crate::failure::ErrorBody),
))]
async fn show(_: Trusted, State(overview): State<Overview>) -> Json<View> {
    Json(overview.look().await)
}
