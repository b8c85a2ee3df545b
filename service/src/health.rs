//! `/manage/health`: whether this service can do its work.
//!
//! Only its own database decides. An open breaker is shown and never turns health into 503, or one
//! dead service would take every healthy one out of rotation.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{Local, SecondsFormat};
use http::StatusCode;
use resilience::breaker::{Snapshot, State as BreakerState};
use resilience::deferred::Deferred;
use resilience::registry::Registry;
use serde::Serialize;
use utoipa::ToSchema;

use crate::access::Access;
use crate::db::Db;
use crate::deferred::KINDS;
use crate::lifecycle::Lifecycle;
use crate::manage::rfc3339;

/// How long the database may take to answer a probe, so that health answers within 500 ms.
const PING_LIMIT: Duration = Duration::from_millis(400);

/// What health looks at.
#[derive(Clone, Debug)]
pub(crate) struct Pulse {
    pub(crate) name: &'static str,
    pub(crate) db: Db,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) registry: Registry,
    pub(crate) access: Access,
    pub(crate) deferred: Option<Deferred>,
}

/// `Work`, or what can't.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = HealthStatus)]
pub enum Status {
    /// It works.
    Work,
    /// It does not.
    Down,
    /// It isn't configured.
    Absent,
}

/// The body of `/manage/health`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// Of the service as a whole.
    status: Status,
    components: Components,
}

#[derive(Debug, Serialize, ToSchema)]
struct Components {
    db: DbHealth,
    ping: Ping,
    time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<Ping>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DbHealth {
    status: Status,
    /// The service's name.
    name: &'static str,
    database: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
struct Ping {
    status: Status,
}

#[derive(Debug, Serialize, ToSchema)]
struct Time {
    /// Seconds since 1970.
    epoch: i64,
    /// The service's local time, RFC 3339.
    local: String,
    /// The local offset from UTC in seconds.
    offset: f64,
}

#[derive(Debug, Serialize, ToSchema)]
struct Dependency {
    name: String,
    /// `closed`, `open` or `half_open`; of several breakers for several classes of calls, the
    /// worst.
    state: &'static str,
    /// Since when, RFC 3339.
    since: String,
}

/// Whether the service can do its work.
#[utoipa::path(get, path = "/manage/health", tag = "manage", responses(
    (status = 200, description = "It can", body = Health),
    (status = 503, description = "It can't: its database is away", body = Health),
))]
pub(crate) async fn health(State(pulse): State<Pulse>) -> Response {
    let alive = pulse.db.ping(PING_LIMIT).await;
    let status = if alive { Status::Work } else { Status::Down };
    let now = Local::now();
    let body = Health {
        status,
        components: Components {
            db: DbHealth { status, name: pulse.name, database: "PostgreSQL" },
            ping: Ping { status: Status::Work },
            time: Time {
                epoch: now.timestamp(),
                local: now.to_rfc3339_opts(SecondsFormat::Micros, false),
                offset: f64::from(now.offset().local_minus_utc()),
            },
            broker: pulse
                .deferred
                .as_ref()
                .map(|deferred| Ping { status: deferred.broker().into() }),
            dependencies: dependencies(&pulse.registry),
        },
    };
    let code = if alive { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let retry = [(http::header::RETRY_AFTER, "1")];
    if alive {
        (code, Json(body)).into_response()
    } else {
        (code, retry, Json(body)).into_response()
    }
}

/// Each dependency once, however many breakers stand before it.
fn dependencies(registry: &Registry) -> Vec<Dependency> {
    let mut worst: BTreeMap<String, Snapshot> = BTreeMap::new();
    let all = registry.breakers().into_iter();
    for (key, breaker) in all.filter(|(key, _)| key.dependency() != KINDS) {
        let seen = breaker.snapshot();
        match worst.entry(key.dependency().to_owned()) {
            Entry::Vacant(entry) => drop(entry.insert(seen)),
            Entry::Occupied(mut entry) => {
                if severity(seen.state) > severity(entry.get().state) {
                    entry.insert(seen);
                }
            }
        }
    }
    let shown = |(name, seen): (String, Snapshot)| Dependency {
        name,
        state: shown(seen.state),
        since: rfc3339(seen.since),
    };
    worst.into_iter().map(shown).collect()
}

fn severity(state: BreakerState) -> u8 {
    match state {
        BreakerState::Closed | BreakerState::ForcedClosed => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Open | BreakerState::ForcedOpen => 2,
    }
}

/// Whether calls get through is what matters here, not who decided it.
fn shown(state: BreakerState) -> &'static str {
    match state {
        BreakerState::ForcedClosed => BreakerState::Closed.as_str(),
        BreakerState::ForcedOpen => BreakerState::Open.as_str(),
        state => state.as_str(),
    }
}

/// Answers while the process runs.
#[utoipa::path(get, path = "/manage/health/live", tag = "manage", responses(
    (status = 200, description = "The process runs", body = Ping),
))]
pub(crate) async fn live() -> Response {
    Json(Ping { status: Status::Work }).into_response()
}

/// Whether this instance should be sent requests: its database answers, its schema is up to date,
/// and it isn't about to end.
#[utoipa::path(get, path = "/manage/health/ready", tag = "manage", responses(
    (status = 200, description = "It should", body = Ping),
    (status = 503, description = "It should not", body = Ping),
))]
pub(crate) async fn ready(State(pulse): State<Pulse>) -> Response {
    let open = !pulse.lifecycle.is_leaving() && pulse.lifecycle.is_migrated();
    if open && pulse.db.ping(PING_LIMIT).await {
        return Json(Ping { status: Status::Work }).into_response();
    }
    let down = Json(Ping { status: Status::Down });
    (StatusCode::SERVICE_UNAVAILABLE, [(http::header::RETRY_AFTER, "1")], down).into_response()
}
