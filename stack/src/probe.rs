//! Is a service ready? One bounded HTTP request, by hand: the launcher needs no more of HTTP.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Readiness asks the database, and is answered within 500 ms by contract.
const LIMIT: Duration = Duration::from_secs(1);

/// Does `GET /manage/health/ready` on this port of 127.0.0.1 answer 200?
pub(crate) async fn ready(port: u16) -> bool {
    let status = timeout(LIMIT, status(port)).await;
    matches!(status, Ok(Some(head)) if &head[9..12] == b"200")
}

/// The start of the status line: `HTTP/1.1 200`.
async fn status(port: u16) -> Option<[u8; 12]> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    let request = format!(
        "GET /manage/health/ready HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.ok()?;
    Some(head)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn answered(answer: &'static str) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /manage/health/ready HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(ready(port), server).0
    }

    #[tokio::test]
    async fn only_a_200_is_ready() {
        assert!(answered("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await);
        assert!(!answered("HTTP/1.1 503 Service Unavailable\r\n\r\n").await);
        assert!(!answered("").await);
    }

    #[tokio::test]
    async fn nobody_listening_is_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert!(!ready(port).await);
    }
}
