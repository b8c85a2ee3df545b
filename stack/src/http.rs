//! One request to a service, by hand: the commands need no more of HTTP.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// A service answers within its own budget, which is shorter.
const LIMIT: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(2);

/// The status and the body of the answer from the service at `http://<address>`.
///
/// `header` is one more line of the request.
pub(crate) fn exchange(
    address: &str,
    method: &str,
    target: &str,
    header: Option<&str>,
) -> Result<(u16, String)> {
    let failed = || format!("could not ask {address}");
    let peer: SocketAddr = address.parse().with_context(failed)?;
    let mut stream = TcpStream::connect_timeout(&peer, CONNECT).with_context(failed)?;
    stream.set_read_timeout(Some(LIMIT)).with_context(failed)?;
    stream.set_write_timeout(Some(LIMIT)).with_context(failed)?;
    let header = header.map(|header| format!("{header}\r\n")).unwrap_or_default();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 0\r\n{header}\r\n"
    );
    stream.write_all(request.as_bytes()).with_context(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(failed)?;
    read(&answer).with_context(|| format!("{address} did not answer as a service does"))
}

fn read(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    // A body that was cut off is none.
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    (body.len() == length).then(|| (status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_whole_or_none() {
        let whole = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(read(whole), Some((404, "{}".to_owned())));
        assert_eq!(read(&whole[..whole.len() - 1]), None);
        assert_eq!(read("SSH-2.0-OpenSSH\r\n\r\n"), None);
        assert_eq!(read(""), None);
    }
}
