//! A client that costs little: requests are encoded beforehand, connections are kept, and of an
//! answer only what is counted is looked at.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A user's patience, if nothing else is said, and what the contract promises.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is sent.
#[derive(Clone, Debug)]
pub struct Shot {
    pub kind: Kind,
    bytes: Arc<[u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Effect,
}

impl Shot {
    /// A read of this path and query.
    pub fn get(target: &str) -> Self {
        let text = format!("GET {target} HTTP/1.1\r\nHost: store\r\n\r\n");
        Self { kind: Kind::Read, bytes: text.into_bytes().into() }
    }

    /// With a body, which is JSON.
    pub fn post(target: &str, body: &str) -> Self {
        let text = format!(
            "POST {target} HTTP/1.1\r\nHost: store\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len(),
        );
        Self { kind: Kind::Effect, bytes: text.into_bytes().into() }
    }

    pub fn delete(target: &str) -> Self {
        let text = format!("DELETE {target} HTTP/1.1\r\nHost: store\r\n\r\n");
        Self { kind: Kind::Effect, bytes: text.into_bytes().into() }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Hit {
    pub kind: Kind,
    /// From when it was sent until the answer was read.
    pub took: Duration,
    pub answer: Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// All that was asked for.
    Good,
    /// 200 with something missing.
    Degraded,
    /// 503 `overloaded`, with `Retry-After`.
    Shed,
    /// Any other answer.
    Other(u16),
    /// No answer in time, or a connection that broke off.
    Nothing,
}

/// Connections to one server, kept for the next request.
#[derive(Clone, Debug)]
pub struct Lines {
    authority: Arc<str>,
    patience: Duration,
    idle: Arc<Mutex<Vec<Line>>>,
}

impl Lines {
    /// To this URL, which is one of plain HTTP without a path.
    pub fn to(url: &str) -> Self {
        let authority = url.strip_prefix("http://").unwrap_or(url).into();
        Self { authority, patience: PATIENCE, idle: Arc::default() }
    }

    /// Waits for an answer as long as this.
    #[must_use]
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Line>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that its server hasn't closed, as it does with those that rest for long.
    fn kept(&self) -> Option<Line> {
        let mut idle = self.idle();
        std::iter::from_fn(|| idle.pop()).find(Line::is_alive)
    }

    /// Sends it, and says what came of it.
    pub async fn fire(&self, shot: Shot) -> Hit {
        let kept = self.kept();
        let mut at = Instant::now();
        let answer = timeout(self.patience, async {
            let mut line = match kept {
                Some(line) => line,
                None => Line::to(&self.authority).await?,
            };
            at = Instant::now();
            let told = line.exchange(&shot.bytes).await?;
            if line.open {
                self.idle().push(line);
            }
            io::Result::Ok(told)
        });
        let answer = answer.await.ok().and_then(Result::ok).unwrap_or(Told::Nothing);
        Hit { kind: shot.kind, took: at.elapsed(), answer }
    }
}

#[derive(Debug)]
struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
    open: bool,
}

impl Line {
    async fn to(authority: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096), open: true })
    }

    fn is_alive(&self) -> bool {
        let nothing = self.stream.try_read(&mut [0]);
        nothing.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<Told> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let mut whole = None;
        while whole.is_none_or(|length| self.buffer.len() < length) {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if whole.is_none() {
                whole = length(&self.buffer);
            }
        }
        self.open = !has(&self.buffer, b"\r\nconnection: close");
        Ok(told(&self.buffer))
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Of head and body, once the head is there.
fn length(bytes: &[u8]) -> Option<usize> {
    const FIELD: &[u8] = b"\r\ncontent-length: ";
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let field = bytes[..head].windows(FIELD.len()).position(|window| window == FIELD);
    let body = field.map_or(0, |start| {
        let digits = bytes[start + FIELD.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
    });
    Some(head + body)
}

fn told(bytes: &[u8]) -> Told {
    let status = std::str::from_utf8(&bytes[9..12]).ok().and_then(|text| text.parse().ok());
    match status.unwrap_or_default() {
        200 if has(bytes, b"\"degraded\"") => Told::Degraded,
        200..=299 => Told::Good,
        503 if has(bytes, b"\"overloaded\"") && has(bytes, b"\r\nretry-after: ") => Told::Shed,
        status => Told::Other(status),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on fails where it is")]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_its_server_has_closed_is_not_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let lines = Lines::to(&format!("http://{}", listener.local_addr().unwrap()));
        let server = tokio::spawn(async move {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 64];
                assert!(stream.read(&mut head).await.unwrap() > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
        });
        assert_eq!(lines.fire(Shot::get("/")).await.answer, Told::Good);
        loop {
            let kept = lines.kept();
            let Some(kept) = kept else { break };
            lines.idle().push(kept);
            tokio::task::yield_now().await;
        }
        assert_eq!(lines.fire(Shot::get("/")).await.answer, Told::Good);
        server.await.unwrap();
    }
}
