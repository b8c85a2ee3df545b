//! Connections: how many there are, and whose turn it is on each.
//!
//! A client that says nothing costs a place, and places are bounded; so is the time for each thing
//! that a client has to do: to send a head, to send a body ([`crate::pipeline`]), to take its answer,
//! to come with the next request. When all places are taken, a new connection takes that of the client
//! who has kept us waiting the longest, so that whoever only sits there keeps nobody out. Where each
//! of them is being worked for, the new one gets one of [`RESERVE`] places, on which health and the
//! other routes for operators are answered and everything else is 503 `overloaded`. Beyond that
//! nothing is accepted: it waits in the kernel's queue.
//!
//! - `limits`: the numbers; `descriptors`: what the operating system allows of them;
//! - `places`: who has a place, and whose is given to somebody else;
//! - `turn`: whose turn it is, since when, and until when; `stream`: what tells that.

mod descriptors;
mod limits;
mod places;
mod stream;
#[cfg(all(test, feature = "testing"))]
mod tests;
mod turn;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use crate::pipeline::Piped;

pub use limits::Limits;
use places::{Place, Places};
use stream::Stream;
pub(crate) use turn::Turn;

/// Connections beyond [`Limits::connections`], for health and for operators.
pub const RESERVE: usize = 32;

/// The request came on one of the [`RESERVE`] places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserved;

/// How long the kernel waits before it asks a silent peer whether it is still there, how long
/// between two questions, and how many of them it asks.
const PROBES: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// hyper takes no smaller one. In bytes.
const SMALLEST_BUFFER: usize = 8192;

/// Serves until `closing`, then until the last connection has ended: those without a request under
/// way end at once.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Piped,
    name: &'static str,
    limits: Limits,
    closing: CancellationToken,
) {
    let connections = descriptors::allowed(limits.connections);
    if connections < limits.connections {
        tracing::warn!(connections, "fewer descriptors than MAX_CONNECTIONS needs: ulimit -n");
    }
    let places = Places::new(name, connections, RESERVE);
    let limits = Arc::new(limits);
    let running = TaskTracker::new();
    let mut http = http1::Builder::new();
    // Times are kept by `turn`, as a wait for a request and for the rest of its head differ.
    http.header_read_timeout(None);
    http.max_header_size(limits.head_bytes).max_buf_size(limits.head_bytes.max(SMALLEST_BUFFER));
    let accepting = async {
        loop {
            let (stream, peer) = accept(&listener).await;
            // Until it has one, the others stay in the kernel's queue.
            let place = places.take().await;
            let task = connection(stream, peer, place, app.clone(), &http, &limits, &closing);
            running.spawn(task);
        }
    };
    closing.run_until_cancelled(accepting).await;
    drop(listener);
    running.close();
    running.wait().await;
}

/// The next one. What is wrong with a connection is its client's affair; anything else may pass.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        let error = match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => error,
        };
        let gone = [
            io::ErrorKind::ConnectionAborted,
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::ConnectionReset,
        ];
        if !gone.contains(&error.kind()) {
            tracing::error!(%error, "no connection can be accepted");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// One connection, from its first request to its end.
fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    app: Piped,
    http: &http1::Builder,
    limits: &Arc<Limits>,
    closing: &CancellationToken,
) -> impl Future<Output = ()> + Send + use<> {
    prepare(&stream);
    let turn = Turn::new(&place, limits);
    let stream = TokioIo::new(Stream::new(stream, turn.clone()));
    let (reserved, told) = (place.is_reserved(), turn.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (turn, mut app) = (told.clone(), app.clone());
        async move {
            let mut request = request.map(Body::new);
            turn.asked();
            request.extensions_mut().insert(turn.clone());
            request.extensions_mut().insert(ConnectInfo(peer));
            if reserved {
                request.extensions_mut().insert(Reserved);
            }
            let mut response: Response<Body> = app.call(request).await?;
            turn.answered();
            if reserved {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let http = http.serve_connection(stream, service);
    let closing = closing.clone().cancelled_owned();
    async move {
        let (mut http, mut closing) = (pin!(http), pin!(closing));
        let mut given_away = pin!(place.given_away());
        let mut timer = pin!(sleep_until(turn.ends().unwrap_or_else(tokio::time::Instant::now)));
        let mut told = false;
        poll_fn(|cx| {
            // Before it: one that has ended by then needs no telling.
            let mut ended = http.as_mut().poll(cx);
            if ended.is_pending() && !told && closing.as_mut().poll(cx).is_ready() {
                told = true;
                http.as_mut().graceful_shutdown();
                ended = http.as_mut().poll(cx);
            }
            if let Poll::Ready(result) = ended {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection broke off");
                }
                return Poll::Ready(());
            }
            // After it: a request that came at the last moment keeps its place.
            if given_away.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            // As it is after all of the above: nothing else moves it but what polls this.
            let Some(end) = turn.ends() else { return Poll::Pending };
            if timer.deadline() != end {
                timer.as_mut().reset(end);
            }
            let late = timer.as_mut().poll(cx);
            late.map(|()| turn.missed())
        })
        .await;
    }
}

/// What the kernel does for a connection. It works without, too.
fn prepare(stream: &TcpStream) {
    let (first, between, count) = PROBES;
    let probes = TcpKeepalive::new().with_time(first).with_interval(between).with_retries(count);
    let done =
        stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_keepalive(&probes));
    if let Err(error) = done {
        tracing::debug!(%error, "a connection keeps its settings");
    }
}
