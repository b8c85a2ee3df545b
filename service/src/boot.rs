//! From configuration to a served router, and back out on SIGTERM.

use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use resilience::deferred::Runtime;
use resilience::registry::Registry;
use resilience::saga::Sagas;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::{Access, Tokens};
use crate::config::BaseConfig;
use crate::db::Db;
use crate::health::{self, Pulse};
use crate::identity::Identity;
use crate::lifecycle::Lifecycle;
use crate::manage::history::History;
use crate::manage::overview::{self, Overview};
use crate::manage::{self, Panel};
use crate::migrate::{self, Schema};
use crate::peer::Peers;
use crate::pipeline::{self, Shell};
use crate::traffic::Traffic;
use crate::{idempotency, openapi, server, telemetry};

/// What every service stands on.
#[derive(Clone, Debug)]
pub struct Base {
    /// As it was read.
    pub config: BaseConfig,
    /// Its database.
    pub db: Db,
    /// Its running work.
    pub lifecycle: Lifecycle,
    /// What protects its calls to other services.
    pub registry: Registry,
}

impl Base {
    /// Connects to nothing yet.
    pub fn new(config: BaseConfig) -> Self {
        Self {
            db: Db::new(&config),
            registry: Registry::new(),
            lifecycle: Lifecycle::new(),
            config,
        }
    }

    /// For a service that calls others: their connections are shared.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub fn peers(&self) -> anyhow::Result<Peers> {
        let tokens = self.config.access.service.as_ref();
        Peers::new(self.registry.clone(), tokens.and_then(Tokens::authorization))
    }

    /// For asking `/manage` of other services, as an operator does: with the management token, and with
    /// breakers that nobody else has.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub fn operated(&self) -> anyhow::Result<Peers> {
        let tokens = self.config.access.management.as_ref();
        Peers::new(Registry::new(), tokens.and_then(Tokens::authorization))
    }

    /// Who is let in.
    fn access(&self, open: &'static [&'static str]) -> anyhow::Result<Access> {
        let config = self.config.access.clone();
        let identity = match &config.identity {
            Some(identity) => Some(Identity::new(identity, &self.peers()?)?),
            None => None,
        };
        Ok(Access::new(self.config.name, config, identity, open))
    }
}

/// What a service hangs on its base.
pub struct Site {
    /// Its routes, with their state.
    pub routes: OpenApiRouter,
    /// Its schema.
    pub migrations: &'static Schema,
    /// What carries its deferred calls out, where it defers any.
    pub deferred: Option<Runtime>,
    /// Its sagas, where it has any: that runtime's.
    pub sagas: Option<Sagas>,
    /// Its page for operators, where it has one.
    pub page: Option<Page>,
}

/// A page for operators.
pub struct Page {
    /// What of it is open to everyone, as a browser asks for it without a token: it is the same for
    /// everybody, and says nothing of this service.
    pub open: &'static [&'static str],
    /// All of its routes, below `/manage`, given what this service knows of itself.
    pub routes: Box<dyn FnOnce(Overview) -> OpenApiRouter + Send>,
}

/// The part of a shutdown's time, one in so many, that is kept for giving back the deferred calls that
/// hang.
const LAST_WORDS: u32 = 4;

/// Serves until `shutdown` resolves, then lets running requests, sagas and deferred calls finish.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    base: Base,
    site: Site,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let access = base.access(site.page.as_ref().map_or(&[], |page| page.open))?;
    access.warn();
    let Base { config, db, lifecycle, registry } = base;
    // Counts from the first request on.
    telemetry::metrics();
    let shell = Shell {
        name: config.name,
        lifecycle: lifecycle.clone(),
        budget: config.budget,
        access: access.clone(),
        body_time: config.limits.body_time,
        traffic: Traffic::default(),
    };
    let pulse = Pulse {
        name: config.name,
        db: db.clone(),
        lifecycle: lifecycle.clone(),
        registry: registry.clone(),
        access: access.clone(),
        deferred: site.deferred.as_ref().map(Runtime::handle),
    };
    let history = History::of(&registry);
    let panel = Panel::new(config.name, registry);
    let overview = Overview::new(overview::Parts {
        panel: panel.clone(),
        db: db.clone(),
        traffic: shell.traffic.clone(),
        history,
        deferred: site.deferred.as_ref().map(Runtime::handle),
        sagas: site.sagas.clone(),
    });
    let mut manage = manage::routes(panel);
    manage = manage.merge(manage::access::routes(access));
    manage = manage.merge(overview::routes(overview.clone()));
    if let Some(runtime) = &site.deferred {
        manage = manage.merge(manage::deferred::routes(runtime.handle()));
    }
    if let Some(sagas) = site.sagas {
        manage = manage.merge(manage::sagas::routes(sagas));
    }
    if let Some(page) = site.page {
        manage = manage.merge((page.routes)(overview));
    }
    let (routes, document) = site.routes.merge(plumbing(pulse)).merge(manage).split_for_parts();
    let routes = routes.merge(openapi::routes(openapi::complete(document)?));
    let app = pipeline::wrap(routes, shell);

    prepare(&config, site.migrations, &db, &lifecycle);
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(stop.clone().run_until_cancelled_owned(telemetry::fold()));
    let deferring = site.deferred.map(|runtime| {
        let handle = runtime.handle();
        (defer(runtime, &lifecycle, stop.clone()), handle)
    });
    tracing::info!(service = config.name, address = %listener.local_addr()?, "listening");
    let closing = CancellationToken::new();
    let server = server::serve(listener, app, config.name, config.limits, closing.clone());
    let mut server = tokio::spawn(server);

    tokio::select! {
        ended = &mut server => return Ok(ended?),
        () = shutdown => {}
    }
    tracing::info!(service = config.name, "ending: not ready any more");
    lifecycle.leave();
    // Whoever sends requests finds that out by asking, and sends them here until then.
    tokio::time::sleep(config.shutdown_delay).await;
    tracing::info!(service = config.name, "ending: no new requests");
    lifecycle.drain();
    let limit = Instant::now() + config.shutdown_timeout;
    let requests = async {
        let complete = lifecycle.finished(config.shutdown_timeout).await;
        // Not before: a request that was running may have waited for a deferred call.
        stop.cancel();
        complete
    };
    let calls = async {
        let Some((mut task, handle)) = deferring else { return true };
        let last = limit - config.shutdown_timeout / LAST_WORDS;
        if tokio::time::timeout_at(last, &mut task).await.is_ok() {
            return true;
        }
        // What hangs is given back while there is time to write that down, whoever waits for it.
        stop.cancel();
        handle.cut_off();
        tokio::time::timeout_at(limit, task).await.is_ok()
    };
    let (requests, calls) = tokio::join!(requests, calls);
    let complete = requests && calls;
    if !complete {
        tracing::error!(service = config.name, "ending with work unfinished");
    }
    closing.cancel();
    // Idle connections close at once; what is left has had its time.
    drop(tokio::time::timeout(Duration::from_secs(1), &mut server).await);
    server.abort();
    tracing::info!(service = config.name, "ended");
    Ok(())
}

/// Carries deferred calls out, once there is a ledger.
fn defer(runtime: Runtime, lifecycle: &Lifecycle, stop: CancellationToken) -> JoinHandle<()> {
    let lifecycle = lifecycle.clone();
    tokio::spawn(async move {
        if stop.run_until_cancelled(lifecycle.migrated()).await.is_some() {
            runtime.run(stop.cancelled_owned()).await;
        }
    })
}

/// The routes that are the same in every service.
fn plumbing(pulse: Pulse) -> OpenApiRouter {
    let probes = OpenApiRouter::new()
        .routes(routes!(health::health))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .with_state(pulse.clone());
    let metrics = Router::new().route("/metrics", get(metrics)).with_state(pulse);
    probes.merge(metrics.into())
}

/// Prometheus' text format.
async fn metrics(State(pulse): State<Pulse>) -> Response {
    pulse.db.publish(pulse.deferred.is_some());
    telemetry::publish();
    pulse.access.publish();
    pulse.registry.publish();
    let text = telemetry::metrics().render();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Brings the schema up to date, however long the database stays away, and keeps the table of
/// idempotency keys short.
fn prepare(config: &BaseConfig, schema: &'static Schema, db: &Db, lifecycle: &Lifecycle) {
    let (url, wanted, db) = (config.database_url.clone(), config.migrate, db.clone());
    let lifecycle = lifecycle.clone();
    let draining = lifecycle.draining();
    let work = async move {
        while wanted && !lifecycle.is_draining() {
            let url = url.clone();
            match tokio::task::spawn_blocking(move || migrate::up(url.as_str(), schema)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => tracing::warn!(%error, "the schema can't be brought up to date"),
                Err(error) => tracing::error!(%error, "a migration panicked"),
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        lifecycle.set_migrated();
        let mut hourly = tokio::time::interval(Duration::from_hours(1));
        loop {
            hourly.tick().await;
            match db.run(|conn| Ok(idempotency::purge(conn)?)).await {
                Ok(0) => {}
                Ok(keys) => tracing::info!(keys, "forgot old idempotency keys"),
                Err(error) => tracing::warn!(%error, "old idempotency keys stay for now"),
            }
        }
    };
    tokio::spawn(async move { draining.run_until_cancelled(work).await });
}
