//! A small HTTP client that sends exactly what it is told to, well-formed or not: what a user is, to the
//! tests and to the launcher's drill.
//!
//! It writes all of its request before it reads, one connection each: the client that is worst off
//! when a server answers early.

use std::io;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends requests to one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    authority: String,
    token: Option<String>,
}

impl Client {
    /// To the server at `url`, which is `http://host:port`.
    pub fn new(url: &str) -> Self {
        let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        Self { authority: authority.to_owned(), token: None }
    }

    /// The same with this bearer token, in every call.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// `target` is the path with its query, percent-encoded.
    pub fn get(&self, target: impl Into<String>) -> Call {
        self.call("GET", target)
    }

    /// As [`Client::get`].
    pub fn post(&self, target: impl Into<String>) -> Call {
        self.call("POST", target)
    }

    /// As [`Client::get`].
    pub fn delete(&self, target: impl Into<String>) -> Call {
        self.call("DELETE", target)
    }

    /// Any method.
    pub fn call(&self, method: &str, target: impl Into<String>) -> Call {
        let call = Call {
            authority: self.authority.clone(),
            method: method.to_owned(),
            target: target.into(),
            headers: Vec::new(),
            body: None,
            chunked: false,
        };
        match &self.token {
            Some(token) => call.header("Authorization", format!("Bearer {token}")),
            None => call,
        }
    }
}

/// A request that is being put together.
#[derive(Clone, Debug)]
pub struct Call {
    authority: String,
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
    chunked: bool,
}

impl Call {
    /// Adds a header, also twice, and also with bytes that no header should have.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Adds an `Idempotency-Key`.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.header("Idempotency-Key", key)
    }

    /// Adds `X-Compensate: true`.
    #[must_use]
    pub fn compensate(self) -> Self {
        self.header("X-Compensate", "true")
    }

    /// With a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body(Some("application/json"), body.to_string())
    }

    /// With any body, of any type or none.
    #[must_use]
    pub fn body(mut self, content_type: Option<&str>, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Some(bytes.into());
        match content_type {
            Some(content_type) => self.header("Content-Type", content_type),
            None => self,
        }
    }

    /// The body goes out in chunks, its length unknown to the server.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// The answer, where there is one.
    ///
    /// # Errors
    /// When the server can't be reached, breaks off, or says nothing for half a minute.
    pub async fn try_send(self) -> io::Result<Response> {
        tokio::time::timeout(PATIENCE, self.exchange()).await?
    }

    async fn exchange(self) -> io::Result<Response> {
        let mut stream = TcpStream::connect(&self.authority).await?;
        // Strict: a server that answers early must still read what a client goes on to write.
        stream.write_all(&self.bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Response::parse(&answer, self.method == "HEAD")
            .ok_or_else(|| io::Error::other("the answer broke off or is malformed"))
    }

    /// What it asks for, in a line.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { method, target, authority, .. } = self;
        let mut out = format!("{method} {target} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
        out.extend_from_slice(b"Connection: close\r\n");
        for (name, value) in &self.headers {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        match &self.body {
            None => out.extend_from_slice(b"\r\n"),
            Some(body) if self.chunked => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(16 * 1024) {
                    out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    out.extend_from_slice(chunk);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"0\r\n\r\n");
            }
            Some(body) => {
                out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                out.extend_from_slice(body);
            }
        }
        out
    }
}

/// An answer, read to its end.
#[derive(Clone)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl Response {
    /// A header's value, where there is one and it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON; `null` where it isn't.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What is wrong with it as an error with this status and code, if anything is.
    ///
    /// # Errors
    /// The first rule of the envelope that it breaks.
    pub fn envelope(&self, status: u16, code: &str) -> Result<(), String> {
        let rule = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(rule.to_owned()) };
        rule(self.status == status, &format!("status should be {status}"))?;
        let json = self.header("content-type") == Some("application/json");
        rule(json, "content type should be application/json and nothing more")?;
        let body = self.json();
        rule(body["code"] == code, &format!("code should be {code}"))?;
        let message = body["message"].as_str().unwrap_or_default();
        rule(!message.is_empty(), "a message is due")?;
        for leak in ["SELECT ", "INSERT ", "panicked", ".rs:", "postgres://", "127.0.0.1"] {
            rule(!message.contains(leak), &format!("the message leaks {leak:?}"))?;
        }
        let id = self.header("x-request-id").unwrap_or_default();
        rule(!id.is_empty() && body["requestId"] == id, "requestId should be X-Request-Id")?;
        if status == 503 || status == 429 {
            let wait = self.header("retry-after").and_then(|text| text.parse::<u64>().ok());
            rule(wait.is_some_and(|wait| wait >= 1), "Retry-After is due")?;
        }
        let blamed = self.header("x-failed-dependency");
        rule(
            status != 503 || blamed == body["dependency"].as_str(),
            "X-Failed-Dependency should be the dependency of the body",
        )
    }

    fn parse(bytes: &[u8], no_body: bool) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = bytes.get(..end)?;
        let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        let status = std::str::from_utf8(lines.next()?).ok()?;
        let status = status.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let mut headers = HeaderMap::new();
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
            let value = HeaderValue::from_bytes(line.get(colon + 1..)?.trim_ascii()).ok()?;
            headers.append(name, value);
        }
        let rest = bytes.get(end + 4..)?;
        let length = headers.get("content-length").map(|value| value.to_str().ok()?.parse().ok());
        let body = match length {
            _ if no_body => Vec::new(),
            Some(length) => rest.get(..length?)?.to_owned(),
            None if headers.contains_key("transfer-encoding") => unchunked(rest)?,
            None => rest.to_owned(),
        };
        Some(Self { status, headers, body })
    }
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(rest.get(..end)?).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + size)?);
        rest = rest.get(end + 2 + size + 2..)?;
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body: String = self.text().chars().take(1000).collect();
        write!(f, "{} {:?} {body}", self.status, self.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_by_length_by_chunks_or_to_its_end() {
        for (head, body) in [
            ("Content-Length: 3", "abc"),
            ("Transfer-Encoding: chunked", "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
            ("X: y", "abc"),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}");
            let answer = Response::parse(text.as_bytes(), false).unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "abc"), "{head}");
        }
    }

    #[test]
    fn half_an_answer_is_none() {
        for text in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"] {
            assert!(Response::parse(text.as_bytes(), false).is_none(), "{text:?}");
        }
    }
}
