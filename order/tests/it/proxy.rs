//! The network between two services, with a test's hand on it: it passes requests on, loses their
//! answers, holds them back, answers in their place, or is down, and remembers what it has seen.
//!
//! One request per connection, so that no test depends on which connection a pool happens to hold.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Pass,
    /// The connection ends before the request arrives.
    Reset,
    /// The request is carried out, and its answer is lost.
    LoseAnswer,
    /// Nothing ever happens.
    Hang,
    /// It arrives when the gate opens, whether its sender still waits or not.
    Hold(Gate),
    /// It is carried out, and its answer arrives when the gate opens.
    HoldAnswer(Gate),
    /// Somebody else answers: status line, headers and body, without what frames them.
    Say {
        head: &'static str,
        body: &'static str,
    },
}

/// 500, as a defect would be answered.
pub(crate) const DEFECT: Act = Act::Say {
    head: "500 Internal Server Error\r\nContent-Type: application/json",
    body: r#"{"message": "something went wrong", "code": "internal", "requestId": "x"}"#,
};

/// A success that says nothing of what was asked.
pub(crate) const RUBBISH: Act =
    Act::Say { head: "200 OK\r\nContent-Type: text/html", body: "<html>It works!</html>" };

/// An answer that promises that nothing was done.
pub(crate) const ENDING: Act = Act::Say {
    head: "503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1",
    body: r#"{"message": "about to end", "code": "shutting_down", "requestId": "x"}"#,
};

/// Holds requests or answers back until it is opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn opened(&self) {
        let mut watched = self.0.subscribe();
        let _ = watched.wait_for(|open| *open).await;
    }
}

/// A request that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// With which status it was answered by whom it was meant for, as far as that is known.
    pub(crate) status: Option<u16>,
    head: String,
}

#[derive(Debug)]
struct Rule {
    method: String,
    act: Act,
    /// How many more requests it is for; `None` is all.
    left: Option<usize>,
}

impl Rule {
    fn applies_to(&self, method: &str) -> bool {
        (self.method == method || self.method == "*") && self.left != Some(0)
    }
}

#[derive(Debug, Default)]
struct Inner {
    rules: Vec<Rule>,
    seen: Vec<Seen>,
    /// How many it has seen and forgotten.
    forgotten: usize,
}

impl Inner {
    fn act(&mut self, method: &str) -> Act {
        let rule = self.rules.iter_mut().find(|rule| rule.applies_to(method));
        rule.map_or(Act::Pass, |rule| {
            rule.left = rule.left.map(|left| left - 1);
            rule.act.clone()
        })
    }
}

/// In front of one service. Dropped, it is down.
#[derive(Debug)]
pub(crate) struct Proxy {
    here: SocketAddr,
    there: String,
    inner: Arc<Mutex<Inner>>,
    line: Line,
}

#[derive(Debug)]
enum Line {
    Up(JoinHandle<()>),
    /// Bound, so that nobody else gets the port, and not listening: connections are refused.
    Down(TcpSocket),
    Moving,
}

impl Proxy {
    /// In front of the service at this address, `http://host:port`.
    pub(crate) fn new(url: &str) -> Self {
        let socket = bind("127.0.0.1:0".parse().unwrap());
        let mut proxy = Self {
            here: socket.local_addr().unwrap(),
            there: url.trim_start_matches("http://").to_owned(),
            inner: Arc::default(),
            line: Line::Down(socket),
        };
        proxy.up();
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.here)
    }

    /// Connections are refused, and those that are open end.
    pub(crate) async fn down(&mut self) {
        if let Line::Up(serving) = &mut self.line {
            serving.abort();
            let _ = serving.await;
            self.line = Line::Down(bind(self.here));
        }
    }

    pub(crate) fn up(&mut self) {
        self.line = match std::mem::replace(&mut self.line, Line::Moving) {
            Line::Down(socket) => {
                let (listener, there) = (socket.listen(64).unwrap(), self.there.clone());
                Line::Up(tokio::spawn(serve(listener, there, Arc::clone(&self.inner))))
            }
            other => other,
        };
    }

    /// What becomes of requests with this method from now on; `*` is any.
    pub(crate) fn on(&self, method: &str, act: Act) {
        self.rule(method, act, None);
    }

    /// What becomes of the next request with this method.
    pub(crate) fn once(&self, method: &str, act: Act) {
        self.rule(method, act, Some(1));
    }

    fn rule(&self, method: &str, act: Act, left: Option<usize>) {
        let rules = &mut lock(&self.inner).rules;
        rules.retain(|rule| rule.method != method);
        rules.push(Rule { method: method.to_owned(), act, left });
    }

    /// Everything passes again.
    pub(crate) fn heal(&self) {
        lock(&self.inner).rules.clear();
    }

    /// What it has seen since it was last asked to forget.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.inner).seen.clone()
    }

    /// How many requests with this method it has seen.
    pub(crate) fn count(&self, method: &str) -> usize {
        self.seen().iter().filter(|seen| method == "*" || seen.method == method).count()
    }

    /// The heads of the requests that it has seen, in lower case.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.head).collect()
    }

    pub(crate) fn forget(&self) {
        let mut inner = lock(&self.inner);
        inner.forgotten += inner.seen.len();
        inner.seen.clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Line::Up(serving) = &self.line {
            serving.abort();
        }
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn serve(listener: TcpListener, there: String, inner: Arc<Mutex<Inner>>) {
    // Dropped with this task, and all open connections with it.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (there, inner) = (there.clone(), Arc::clone(&inner));
        connections.spawn(async move {
            // Who goes away while it is served has lost nothing that a test would look for.
            let _ = exchange(stream, &there, &inner).await;
        });
    }
}

async fn exchange(mut client: TcpStream, there: &str, inner: &Mutex<Inner>) -> io::Result<()> {
    let request = read_message(&mut client).await?;
    let head = String::from_utf8_lossy(&request).into_owned();
    let mut words = head.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let (act, number) = {
        let mut inner = lock(inner);
        let act = inner.act(&method);
        let head = head.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase() + "\r\n";
        inner.seen.push(Seen { method, target, status: None, head });
        (act, inner.forgotten + inner.seen.len() - 1)
    };
    let answer = match act {
        Act::Reset => return Ok(()),
        Act::Hang => return std::future::pending().await,
        Act::Say { head, body } => {
            let length = body.len();
            format!(
                "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .into_bytes()
        }
        Act::Pass => forward(&request, there, inner, number).await?,
        Act::Hold(gate) => {
            gate.opened().await;
            forward(&request, there, inner, number).await?
        }
        Act::HoldAnswer(gate) => {
            let answer = forward(&request, there, inner, number).await?;
            gate.opened().await;
            answer
        }
        Act::LoseAnswer => {
            forward(&request, there, inner, number).await?;
            return Ok(());
        }
    };
    client.write_all(&answer).await
}

async fn forward(
    request: &[u8],
    there: &str,
    inner: &Mutex<Inner>,
    number: usize,
) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(there).await?;
    server.write_all(&closing(request)).await?;
    let answer = read_message(&mut server).await?;
    let status = std::str::from_utf8(&answer).ok().and_then(|text| text.get(9..12)?.parse().ok());
    let mut inner = lock(inner);
    let index = number.checked_sub(inner.forgotten);
    if let Some(seen) = index.and_then(|index| inner.seen.get_mut(index)) {
        seen.status = status;
    }
    Ok(closing(&answer))
}

/// The same message, which says that its connection ends with it.
fn closing(message: &[u8]) -> Vec<u8> {
    let line = message.windows(2).position(|two| two == b"\r\n").map_or(0, |end| end + 2);
    [&message[..line], b"Connection: close\r\n", &message[line..]].concat()
}

/// Head and body. All that our services send one another says how long it is.
async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let head = message.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = head
            && message.len() >= end + 4 + length(&message[..end])
        {
            return Ok(message);
        }
        if stream.read_buf(&mut message).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let value = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}
