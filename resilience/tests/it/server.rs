//! A server on a raw socket that misbehaves as it is told.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use url::Url;

/// What a server does with a request.
#[derive(Clone)]
pub(crate) enum Reaction {
    /// Sends these bytes, and keeps the connection.
    Send(Vec<u8>),
    /// Sends these bytes, and closes the connection.
    SendAndClose(Vec<u8>),
    /// Never answers.
    Hang,
    /// Resets the connection.
    Reset,
}

pub(crate) struct Server {
    pub(crate) url: Url,
    pub(crate) address: SocketAddr,
    /// Each request as it came.
    requests: mpsc::UnboundedReceiver<String>,
    hits: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    /// Reacts to every request in the same way.
    pub(crate) async fn always(reaction: Reaction) -> Self {
        Self::start(move |_| std::future::ready(reaction.clone())).await
    }

    /// Reacts to the n-th request, counted from 0, as this function says.
    pub(crate) async fn start<F, Fut>(react: F) -> Self
    where
        F: Fn(usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reaction> + Send + 'static,
    {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), react).await
    }

    pub(crate) async fn start_at<F, Fut>(address: SocketAddr, react: F) -> Self
    where
        F: Fn(usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reaction> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let url = Url::parse(&format!("http://{address}")).expect("a URL");
        let (log, requests) = mpsc::unbounded_channel();
        let hits = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&hits);
        let react = Arc::new(react);
        let task = tokio::spawn(async move {
            // Dropped with the task: a server that is stopped takes its connections along.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (react, log) = (Arc::clone(&react), log.clone());
                let counter = Arc::clone(&counter);
                connections.spawn(async move { serve(stream, &*react, &log, &counter).await });
            }
        });
        Self { url, address, requests, hits, task }
    }

    /// The number of requests so far.
    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// The next request, once it has come.
    pub(crate) async fn request(&mut self) -> String {
        self.requests.recv().await.expect("a running server")
    }

    /// Stops it as a killed process stops: listener and connections are gone on return.
    pub(crate) async fn kill(mut self) -> SocketAddr {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<F, Fut>(
    mut stream: TcpStream,
    react: &F,
    log: &mpsc::UnboundedSender<String>,
    counter: &AtomicUsize,
) where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Reaction>,
{
    while let Some(request) = read(&mut stream).await {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        let _ = log.send(request);
        match react(number).await {
            Reaction::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Reaction::SendAndClose(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Reaction::Hang => std::future::pending().await,
            Reaction::Reset => {
                stream.set_zero_linger().expect("a socket");
                return;
            }
        }
    }
}

/// One request: head, and body by its length.
async fn read(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = header(head, "content-length").map_or(0, |value| value.parse().unwrap());
            if body.len() >= length {
                return Some(text);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// The value of a header of a request.
pub(crate) fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// An answer, its length declared.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut head = vec![format!("HTTP/1.1 {status} Whatever")];
    head.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
    // A 204 has neither a body nor a length.
    if status != 204 {
        head.push(format!("content-length: {}", body.len()));
    }
    format!("{}\r\n\r\n{body}", head.join("\r\n")).into_bytes()
}

/// An answer in JSON.
pub(crate) fn json(status: u16, body: &str) -> Reaction {
    Reaction::Send(answer(status, &[("content-type", "application/json")], body))
}
