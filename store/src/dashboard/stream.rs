//! What is known, pushed to whoever looks.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use http::header::CONTENT_TYPE;
use service::manage::Trusted;
use tokio::time::{Instant, sleep, timeout_at};

use super::Dashboard;

/// After this the page begins anew, and shows its token again. Shorter than the time after which a
/// connection without a request is ended.
const LIFE: Duration = Duration::from_secs(45);

/// So much comes together: what several services say at about the same time is pushed once.
const TOGETHER: Duration = Duration::from_millis(50);

/// Server-sent events, each with all that is known: whoever has missed some has missed nothing.
pub(super) async fn live(_: Trusted, State(dashboard): State<Dashboard>) -> Response {
    let Dashboard { watch, draining, .. } = dashboard;
    let end = Instant::now() + LIFE;
    let events = unfold((watch.look(), draining), move |(mut looks, draining)| async move {
        let next = async {
            looks.changed().await.ok()?;
            sleep(TOGETHER).await;
            Some(looks.borrow_and_update().clone())
        };
        let next = draining.run_until_cancelled(timeout_at(end, next)).await;
        let event = next?.ok()??;
        Some((Ok::<_, Infallible>(event), (looks, draining)))
    });
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}
