//! A bad network, or a bad service, between a dependency and those who call it: HTTP/1.1, one
//! request per connection.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use service::testing::until;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How a request fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is accepted and never answered. It goes through when the fault ends, which is late.
    Silence,
    /// The connection is reset.
    Reset,
    /// These bytes are the answer.
    Answer(&'static str),
    /// It goes through, and the reply is cut off after the first bytes.
    LoseReply,
    /// It goes through when the fault ends, and so does the reply.
    Hold,
}

/// What is wrong with a dependency that is broken without being away.
pub(crate) const BROKEN: [(&str, Fault); 6] = [
    ("silent", Fault::Silence),
    ("resetting", Fault::Reset),
    ("answering 500", Fault::Answer(INTERNAL)),
    ("answering HTML 200", Fault::Answer(HTML)),
    ("answering half a JSON", Fault::Answer(HALF)),
    ("answering HTML 404", Fault::Answer(NOT_FOUND)),
];

const INTERNAL: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n\
    Content-Length: 59\r\nConnection: close\r\n\r\n\
    {\"code\":\"internal\",\"message\":\"something\",\"requestId\":\"r-1\"}";
const HTML: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 19\r\n\
    Connection: close\r\n\r\n<h1>It works!</h1>\r\n";
const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\
    Connection: close\r\n\r\n[{\"order";
const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\
    Content-Length: 20\r\nConnection: close\r\n\r\n<h1>Not found.</h1>\r\n";

/// In front of one service. Dropped, it refuses connections.
pub(crate) struct Proxy {
    url: String,
    shared: Arc<Shared>,
    running: JoinHandle<()>,
}

struct Shared {
    target: String,
    rules: Mutex<Vec<Rule>>,
    /// Counts how often all faults ended.
    healed: watch::Sender<u64>,
}

struct Rule {
    /// What the request begins with: `DELETE /api/v1/warranty/`.
    start: String,
    fault: Fault,
    left: usize,
    hits: Hits,
}

/// The requests that met with a fault.
#[derive(Clone, Default)]
pub(crate) struct Hits(Arc<Counts>);

#[derive(Default)]
struct Counts {
    met: AtomicUsize,
    served: AtomicUsize,
}

impl Hits {
    pub(crate) fn count(&self) -> usize {
        self.0.met.load(Ordering::SeqCst)
    }

    /// Waits until so many of them went through, however late.
    pub(crate) async fn served(&self, count: usize) {
        let served = async || (self.0.served.load(Ordering::SeqCst) >= count).then_some(());
        until(Duration::from_secs(5), "a request goes through after all", served).await;
    }

    /// Waits until there has been one.
    pub(crate) async fn first(&self) {
        let hit = async || (self.count() > 0).then_some(());
        until(Duration::from_secs(5), "a request meets with the fault", hit).await;
    }
}

impl Proxy {
    pub(super) async fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared =
            Arc::new(Shared { target, rules: Mutex::default(), healed: watch::Sender::new(0) });
        let door = Arc::clone(&shared);
        let running = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&door);
                // Who breaks off gets what comes of it.
                tokio::spawn(async move { drop(shared.serve(stream).await) });
            }
        });
        Self { url, shared, running }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// Every request fares so, until it heals.
    pub(crate) fn breaks(&self, fault: Fault) -> Hits {
        self.add("", fault, usize::MAX)
    }

    /// Every request that begins like this fares so, until it heals.
    pub(crate) fn on(&self, start: &str, fault: Fault) -> Hits {
        self.add(start, fault, usize::MAX)
    }

    /// The next request that begins like this fares so.
    pub(crate) fn once(&self, start: &str, fault: Fault) -> Hits {
        self.add(start, fault, 1)
    }

    fn add(&self, start: &str, fault: Fault, left: usize) -> Hits {
        let hits = Hits::default();
        let rule = Rule { start: start.to_owned(), fault, left, hits: hits.clone() };
        self.shared.rules.lock().unwrap().push(rule);
        hits
    }

    /// All faults end.
    pub(crate) fn heal(&self) {
        self.shared.rules.lock().unwrap().clear();
        self.shared.healed.send_modify(|count| *count += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Shared {
    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut healed = self.healed.subscribe();
        healed.mark_unchanged();
        let Some(request) = read_request(&mut stream).await? else { return Ok(()) };
        let Some((fault, hits)) = self.fault(&request) else {
            let reply = self.forward(&request).await?;
            return stream.write_all(&reply).await;
        };
        let reply = match fault {
            Fault::Reset => return stream.set_zero_linger(),
            Fault::Answer(bytes) => return stream.write_all(bytes.as_bytes()).await,
            Fault::LoseReply => self.forward(&request).await?,
            Fault::Silence | Fault::Hold => {
                // Fails when the proxy is gone.
                drop(healed.changed().await);
                self.forward(&request).await?
            }
        };
        hits.0.served.fetch_add(1, Ordering::SeqCst);
        match fault {
            Fault::LoseReply => stream.write_all(&reply[..reply.len().min(12)]).await,
            Fault::Silence => Ok(()),
            _ => stream.write_all(&reply).await,
        }
    }

    fn fault(&self, request: &[u8]) -> Option<(Fault, Hits)> {
        let mut rules = self.rules.lock().unwrap();
        let meets = |rule: &&mut Rule| rule.left > 0 && request.starts_with(rule.start.as_bytes());
        let rule = rules.iter_mut().find(meets)?;
        rule.left -= 1;
        rule.hits.0.met.fetch_add(1, Ordering::SeqCst);
        Some((rule.fault, rule.hits.clone()))
    }

    /// The whole reply.
    async fn forward(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(&self.target).await?;
        stream.set_nodelay(true)?;
        // The reply ends with the connection, on both sides.
        let line = request.windows(2).position(|two| two == b"\r\n").unwrap_or_default() + 2;
        let mut out = request[..line].to_owned();
        out.extend_from_slice(b"Connection: close\r\n");
        out.extend_from_slice(&request[line..]);
        stream.write_all(&out).await?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await?;
        Ok(reply)
    }
}

/// Head and body, as long as the head says; `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                return Ok(Some(bytes));
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}
