//! As much of HTTP/1.1 as it takes to know where a message ends.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

const BLANK_LINE: &[u8] = b"\r\n\r\n";

/// Reads a request, head and body.
pub(super) async fn read_request(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(length) = length(&bytes) {
            bytes.truncate(length);
            return Ok(bytes);
        }
        if from.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// How long the request is that these bytes begin with, once all of it is there.
fn length(bytes: &[u8]) -> Option<usize> {
    let head = head(bytes)?;
    let body = head.len() + BLANK_LINE.len();
    let end = if header(head, "transfer-encoding").is_some_and(is_chunked) {
        body + chunked_length(&bytes[body..])?
    } else {
        let length = header(head, "content-length").and_then(|text| text.trim().parse().ok());
        body.saturating_add(length.unwrap_or(0))
    };
    (bytes.len() >= end).then_some(end)
}

fn is_chunked(coding: &str) -> bool {
    coding.trim().to_ascii_lowercase().ends_with("chunked")
}

/// How long a chunked body is, once all of it is there, trailers included (RFC 9112, 7.1).
fn chunked_length(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = position(&body[at..], b"\r\n")?;
        let size = std::str::from_utf8(&body[at..at + line]).ok()?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            // The blank line ends the trailers, if there are any.
            return Some(at + line + position(&body[at + line..], BLANK_LINE)? + BLANK_LINE.len());
        }
        at = at.checked_add(line + 2)?.checked_add(size)?.checked_add(2)?;
        if at > body.len() {
            return None;
        }
    }
}

/// The head of the message that these bytes begin with, without the blank line; `None` while some
/// of it is missing.
pub(super) fn head(bytes: &[u8]) -> Option<&[u8]> {
    position(bytes, BLANK_LINE).map(|end| &bytes[..end])
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    lines(head).skip(1).find_map(|line| {
        let (found, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn position(bytes: &[u8], sought: &[u8]) -> Option<usize> {
    bytes.windows(sought.len()).position(|window| window == sought)
}

/// The same message, which says that its connection ends with it.
pub(super) fn closing(message: &[u8]) -> Vec<u8> {
    let Some(head) = head(message) else { return message.to_vec() };
    let mut closing = Vec::with_capacity(message.len() + 32);
    for (number, line) in lines(head).enumerate() {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if !name.eq_ignore_ascii_case(b"connection") {
            closing.extend_from_slice(line);
            closing.extend_from_slice(b"\r\n");
        }
        if number == 0 {
            closing.extend_from_slice(b"Connection: close\r\n");
        }
    }
    closing.extend_from_slice(b"\r\n");
    closing.extend_from_slice(&message[head.len() + BLANK_LINE.len()..]);
    closing
}

/// The status that a reply begins with.
pub(super) fn status(reply: &[u8]) -> Option<u16> {
    std::str::from_utf8(reply.get(9..12)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn requests_in(mut bytes: &[u8]) -> io::Result<Vec<u8>> {
        read_request(&mut bytes).await
    }

    #[tokio::test]
    async fn request_ends_where_its_length_says() {
        for request in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nCONTENT-length: 4\r\n\r\nbody",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\na;x=y\r\n0123\r\n\r\n\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\n\n\r\n0\r\nTrailer: t\r\n\r\n",
        ] {
            let more = format!("{request}GET /more");
            assert_eq!(requests_in(more.as_bytes()).await.unwrap(), request.as_bytes());
            let short = &request.as_bytes()[..request.len() - 1];
            let error = requests_in(short).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{request}");
        }
    }

    #[test]
    fn closing_message_says_so_once() {
        let message = b"GET / HTTP/1.1\r\nHost: a\r\nconnection: keep-alive\r\n\r\nbody: \r\n\r\n";
        let closing = closing(message);
        assert_eq!(
            String::from_utf8(closing).unwrap(),
            "GET / HTTP/1.1\r\nConnection: close\r\nHost: a\r\n\r\nbody: \r\n\r\n"
        );
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n\r\n"), Some(204));
        assert_eq!(status(b"HTTP"), None);
    }
}
