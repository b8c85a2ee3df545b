//! `/manage/dashboard`: a live page on what happens in all four services, and why.
//!
//! - `watch`: what the page shows, asked of each service while somebody looks;
//! - `stream`: that, pushed to whoever looks; `page`: the page itself;
//! - `explain`: the story of one order, at `/manage/explain/{orderUid}`.
//!
//! The page is pushed to over a stream of server-sent events that it reads with `fetch`: a browser's own
//! `EventSource` can send no `Authorization`, nor can its `WebSocket`, and nothing has to be said in the
//! other direction. A stream ends within a minute, and the page begins the next one: so who has lost his
//! token loses the page, and no connection is kept for good.

mod explain;
mod page;
mod stream;
mod watch;

use std::sync::Arc;

use anyhow::Result;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use resilience::deferred::Deferred;
use resilience::http::Context;
use serde_json::Value;
use service::boot::{Base, Page};
use service::failure::code;
use service::input::uuid;
use service::manage::Trusted;
use service::manage::overview::Overview;
use service::peer::PeerConfig;
use service::{Db, Failure, Result as Answer};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use watch::{Other, Watch};

use crate::App;

/// What its routes work with.
#[derive(Clone)]
struct Dashboard {
    watch: Arc<Watch>,
    source: Source,
    /// Until when it is pushed.
    draining: CancellationToken,
}

/// What Store itself knows of an order.
#[derive(Clone)]
struct Source {
    db: Db,
    deferred: Deferred,
}

/// The page, on this service and these others.
///
/// # Errors
/// When TLS can't be set up.
pub(crate) fn page(base: &Base, app: &App, others: [&PeerConfig; 3]) -> Result<Page> {
    let peers = base.operated()?;
    let others =
        others.map(|peer| Other { name: peer.name, client: peers.unguarded(peer, watch::TIMEOUT) });
    let draining = base.lifecycle.draining();
    let source = Source { db: app.db.clone(), deferred: app.deferred.clone() };
    let routes = |own: Overview| {
        let watch = Watch::new(own, others, draining.clone());
        let dashboard = Dashboard { watch, source, draining };
        let own = Router::new()
            .route("/manage/dashboard/live", get(stream::live))
            .route("/manage/dashboard/{service}/{ledger}/{id}/{verb}", post(operate));
        let described = OpenApiRouter::new().routes(routes!(explain::explain)).merge(own.into());
        described.with_state(dashboard).merge(page::routes().into())
    };
    Ok(Page { open: page::PATHS, routes: Box::new(routes) })
}

/// An operator's hand on a row of another service, as its own `/manage` has it.
async fn operate(
    _: Trusted,
    State(dashboard): State<Dashboard>,
    Path((service, ledger, id, verb)): Path<(String, String, String, String)>,
) -> Answer<Json<Value>> {
    let unknown = || Failure::not_found(code::NOT_FOUND, "there is nothing here");
    let other = dashboard.watch.other(&service).ok_or_else(unknown)?;
    let known = [("deferred", "retry"), ("deferred", "discard"), ("sagas", "retry")];
    let (id, true) = (uuid(&id).ok_or_else(unknown)?, known.contains(&(&*ledger, &*verb))) else {
        return Err(unknown());
    };
    let path = format!("/manage/{ledger}/{id}/{verb}");
    let done = other.client.post(path).timeout(watch::PATIENCE).fetch(&Context::new()).await?;
    tracing::info!(service, ledger, %id, verb, "an operator's command was passed on");
    Ok(Json(done.body))
}
