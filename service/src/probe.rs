//! Is a service ready? One bounded HTTP request, by hand: neither the launcher nor a container's health
//! check needs more of HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Readiness asks the database, and is answered within 500 ms by contract.
const LIMIT: Duration = Duration::from_secs(1);

/// Does `GET /manage/health/ready` answer 200 there, within a second? Of a service that listens on all
/// addresses, the loopback interface is asked.
pub async fn ready(address: SocketAddr) -> bool {
    let status = timeout(LIMIT, status(reachable(address))).await;
    matches!(status, Ok(Some(head)) if &head[9..12] == b"200")
}

fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The start of the status line: `HTTP/1.1 200`.
async fn status(address: SocketAddr) -> Option<[u8; 12]> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!(
        "GET /manage/health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
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
        let address = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /manage/health/ready HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(ready(address), server).0
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
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(!ready(address).await);
    }

    #[test]
    fn who_listens_everywhere_is_asked_on_loopback() {
        for (listens, asked) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.7:80", "10.0.0.7:80"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
