use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::line::Line;
use super::message;
use super::rule::{Act, Rule, fits};

/// A request that an [`HttpProxy`] has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// The method, as it was sent.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The request line and the headers, in lower case; each line ends with `\r\n`.
    pub head: String,
    /// With which status upstream answered, once it has.
    pub status: Option<u16>,
}

/// A proxy for HTTP/1.1 that goes by requests: it loses the answer to a `POST`, holds a `DELETE`
/// back, answers in upstream's place, and remembers what it has seen.
///
/// Each connection carries one request, so that no test depends on which connection a pool happens
/// to hold. Upstream carries a request out to its end, also when whoever sent it has gone away
/// meanwhile. Messages pass as a whole: it is for calls, not for streams.
///
/// ```
/// use resilience::testkit::{Act, HttpProxy};
///
/// # async fn test(upstream: std::net::SocketAddr) {
/// let proxy = HttpProxy::new(&upstream.to_string());
/// proxy.on("DELETE /orders/", Act::Reset);
/// let lost = proxy.once("POST", Act::LoseAnswer);
/// // … what is tested calls `proxy.url()` …
/// assert_eq!(lost.hits(), 1);
/// assert_eq!(proxy.count("POST"), 2, "it was repeated");
/// proxy.heal();
/// # }
/// ```
#[derive(Debug)]
pub struct HttpProxy {
    line: Line,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last one goes first.
    rules: Vec<Rule>,
    seen: Vec<Seen>,
    /// How many it has seen and forgotten.
    forgotten: usize,
}

impl HttpProxy {
    /// A proxy on a free port of 127.0.0.1, in front of this `host:port` or `http://host:port`.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, or when there is no free port.
    pub fn new(upstream: &str) -> Self {
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let shared = Arc::new(Shared { upstream, state: Mutex::default() });
        let serving = Arc::clone(&shared);
        let line = Line::new(move |client| {
            let shared = Arc::clone(&serving);
            Box::pin(async move {
                // Who goes away while it is served has lost nothing that a test would look for.
                let _ = shared.serve(client).await;
            })
        });
        Self { line, shared }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.line.address()
    }

    /// The same as a URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// What becomes of all requests that begin like this from now on: `DELETE`, `GET /orders/`,
    /// or `*` for any. Of several rules that fit a request, the last one given holds.
    pub fn on(&self, start: &str, act: Act) -> Rule {
        self.add(Rule::new(start, act, None))
    }

    /// What becomes of the next request that begins like this.
    pub fn once(&self, start: &str, act: Act) -> Rule {
        self.add(Rule::new(start, act, Some(1)))
    }

    fn add(&self, rule: Rule) -> Rule {
        self.shared.lock().rules.push(rule.clone());
        rule
    }

    /// Everything passes again, and what is held is [released](Rule::release). A proxy that is
    /// [`down`](Self::down) stays down.
    pub fn heal(&self) {
        let rules = std::mem::take(&mut self.shared.lock().rules);
        rules.iter().for_each(Rule::release);
    }

    /// Ends all connections, and refuses new ones from when it returns. The port stays taken.
    pub async fn down(&self) {
        self.line.down().await;
    }

    /// Accepts connections again, on the same port.
    ///
    /// # Panics
    ///
    /// As for [`new`](Self::new).
    pub fn up(&self) {
        self.line.up();
    }

    /// What it has seen since it was last asked to [`forget`](Self::forget).
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }

    /// How many requests of these begin like this, as for [`on`](Self::on).
    pub fn count(&self, start: &str) -> usize {
        let seen = self.seen();
        seen.iter().filter(|seen| fits(start, &format!("{} {} ", seen.method, seen.target))).count()
    }

    /// Forgets what it has seen.
    pub fn forget(&self) {
        let mut state = self.shared.lock();
        state.forgotten += state.seen.len();
        state.seen.clear();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let request = message::read_request(&mut client).await?;
        let (number, rule) = self.lock().see(&request);
        let Some((rule, act)) = rule else {
            return client.write_all(&self.forward(&request, number).await?).await;
        };
        match act {
            Act::Reset => return client.set_zero_linger(),
            Act::Hang => return std::future::pending().await,
            Act::Answer { head, body } => {
                let length = body.len();
                let head = format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n");
                let answer = message::closing(&[head.as_bytes(), body.as_bytes()].concat());
                return client.write_all(&answer).await;
            }
            Act::Hold | Act::Late => rule.released().await,
            Act::Pass | Act::LoseAnswer | Act::CutAnswer(_) | Act::HoldAnswer => {}
        }
        let answer = self.forward(&request, number).await?;
        rule.count_served();
        let length = match act {
            Act::LoseAnswer | Act::Late => 0,
            Act::CutAnswer(length) => length.min(answer.len()),
            _ => answer.len(),
        };
        if act == Act::HoldAnswer {
            rule.released().await;
        }
        client.write_all(&answer[..length]).await
    }

    /// Upstream's answer, as a whole.
    async fn forward(&self, request: &[u8], number: usize) -> io::Result<Vec<u8>> {
        let mut upstream = TcpStream::connect(&self.upstream).await?;
        upstream.set_nodelay(true)?;
        upstream.write_all(&message::closing(request)).await?;
        let mut answer = Vec::new();
        upstream.read_to_end(&mut answer).await?;
        self.lock().answered(number, message::status(&answer));
        Ok(message::closing(&answer))
    }
}

impl State {
    /// Remembers a request. Its number, and the rule that is for it.
    fn see(&mut self, request: &[u8]) -> (usize, Option<(Rule, Act)>) {
        let head = message::head(request).unwrap_or_default();
        let head = String::from_utf8_lossy(head).into_owned() + "\r\n";
        let mut words = head.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut rules = self.rules.iter().rev();
        let rule = rules.find_map(|rule| Some((rule.clone(), rule.meet(&head)?)));
        let head = head.to_ascii_lowercase();
        self.seen.push(Seen { method, target, head, status: None });
        (self.forgotten + self.seen.len() - 1, rule)
    }

    fn answered(&mut self, number: usize, status: Option<u16>) {
        let index = number.checked_sub(self.forgotten);
        if let Some(seen) = index.and_then(|index| self.seen.get_mut(index)) {
            seen.status = status;
        }
    }
}
