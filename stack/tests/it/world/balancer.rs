//! What a platform puts in front of replicas: each request goes to the next one that says that it is
//! ready, and none is ever repeated.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use service::testing::{Client, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How often each replica is asked.
const PERIOD: Duration = Duration::from_millis(50);

const NOBODY: &[u8] = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Listens until it is dropped.
pub(crate) struct Balancer {
    url: String,
    targets: Arc<[Target]>,
    _running: JoinSet<()>,
}

struct Target {
    address: String,
    ready: AtomicBool,
}

impl Balancer {
    /// In front of those who listen, or will, on these ports.
    pub(super) async fn new(ports: &[u16]) -> Self {
        let targets: Arc<[Target]> = ports
            .iter()
            .map(|port| Target { address: format!("127.0.0.1:{port}"), ready: false.into() })
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut running = JoinSet::new();
        for number in 0..targets.len() {
            running.spawn(watch(Arc::clone(&targets), number));
        }
        running.spawn(accept(listener, Arc::clone(&targets)));
        Self { url, targets, _running: running }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Waits until it has seen that this one is ready.
    pub(crate) async fn knows(&self, number: usize) {
        let ready = || self.targets[number].ready.load(Ordering::Relaxed);
        until(Duration::from_secs(10), "it is seen", async || ready().then_some(())).await;
    }
}

async fn watch(targets: Arc<[Target]>, number: usize) {
    let target = &targets[number];
    let client = Client::new(&format!("http://{}", target.address));
    loop {
        let answer = client.get("/manage/health/ready").try_send().await;
        let ready = answer.is_ok_and(|answer| answer.status == 200);
        target.ready.store(ready, Ordering::Relaxed);
        tokio::time::sleep(PERIOD).await;
    }
}

async fn accept(listener: TcpListener, targets: Arc<[Target]>) {
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (targets, next) = (Arc::clone(&targets), Arc::clone(&next));
        running.spawn(async move {
            // Whoever asked sees that it broke off.
            let _ = pass_on(stream, &targets, &next).await;
        });
        while running.try_join_next().is_some() {}
    }
}

/// One request, on a connection of its own.
async fn pass_on(mut client: TcpStream, targets: &[Target], next: &AtomicUsize) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let ready: Vec<_> =
        targets.iter().filter(|target| target.ready.load(Ordering::Relaxed)).collect();
    let chosen = ready.get(next.fetch_add(1, Ordering::Relaxed) % ready.len().max(1));
    let Some(target) = chosen else { return client.write_all(NOBODY).await };
    let Ok(mut upstream) = TcpStream::connect(&target.address).await else {
        return client.write_all(NOBODY).await;
    };
    let line = head.windows(2).position(|two| two == b"\r\n").unwrap_or_default() + 2;
    head.splice(line..line, *b"Connection: close\r\n");
    upstream.write_all(&head).await?;
    copy_bidirectional(&mut client, &mut upstream).await.map(drop)
}
