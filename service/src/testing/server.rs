//! A service in this process, on a port of its own.

use std::future::Future;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Client, until};
use crate::cli::Shutdown;
use crate::config::Reader;

/// How long a start or an end may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A running service. Dropped, it is told to end.
#[derive(Debug)]
pub struct TestServer {
    url: String,
    shutdown: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl TestServer {
    /// Serves on a free port of 127.0.0.1, and waits until the service is ready.
    ///
    /// # Panics
    /// When that takes too long, or `run` returns.
    pub async fn start<F, Fut>(run: F) -> Self
    where
        F: FnOnce(TcpListener, Shutdown) -> Fut,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let server = Self::spawn(run).await;
        server.ready(LIMIT).await;
        server
    }

    /// [`TestServer::start`] without the wait: for a service whose database is away.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn spawn<F, Fut>(run: F) -> Self
    where
        F: FnOnce(TcpListener, Shutdown) -> Fut,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::spawn_on(listener, run)
    }

    /// [`TestServer::spawn`] on a listener that is there already. Until then it accepts connections
    /// and says nothing: a service that hangs.
    ///
    /// # Panics
    /// When the listener isn't bound.
    pub fn spawn_on<F, Fut>(listener: TcpListener, run: F) -> Self
    where
        F: FnOnce(TcpListener, Shutdown) -> Fut,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run(listener, Box::pin(shutdown.clone().cancelled_owned())));
        Self { url, shutdown, running }
    }

    /// Waits until readiness says yes.
    ///
    /// # Panics
    /// When that takes longer than `limit`, or the service has ended.
    pub async fn ready(&self, limit: Duration) {
        let client = self.client();
        until(limit, "ready", async || {
            assert!(!self.running.is_finished(), "the service ended instead of getting ready");
            let answer = client.get("/manage/health/ready").try_send().await;
            answer.is_ok_and(|answer| answer.status == 200).then_some(())
        })
        .await;
    }

    /// `http://127.0.0.1:port`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(&self.url)
    }

    /// Tells it to end; [`TestServer::stop`] also waits for that.
    pub fn begin_stop(&self) {
        self.shutdown.cancel();
    }

    /// Ends it as SIGTERM would, and waits until it has.
    ///
    /// # Panics
    /// When it fails, or takes too long.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(LIMIT, &mut self.running).await;
        ended.expect("ended in time").expect("no panic").expect("a clean end");
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A service's configuration from these variables alone.
///
/// # Panics
/// When it is refused.
pub fn config<C>(read: fn(&mut Reader) -> Option<C>, variables: &[(&str, &str)]) -> C {
    let owned = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    let mut reader = Reader::from_variables(owned).unwrap_or_else(|error| panic!("{error}"));
    let config = read(&mut reader);
    reader.finish(config).unwrap_or_else(|error| panic!("{error}"))
}
