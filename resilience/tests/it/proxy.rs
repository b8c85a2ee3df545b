//! The proxy that breaks connections, held to what its documentation says.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use resilience::Clock as _;
use resilience::testkit::{Fault, ManualClock, Proxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::soon;

/// A server that sends everything back, and tells the test what it got.
struct Echo {
    address: SocketAddr,
    heard: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let tell = tell.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                        let _ = tell.send(buffer[..length].to_vec());
                        if stream.write_all(&buffer[..length]).await.is_err() {
                            return;
                        }
                    }
                    // An empty message is the end of the stream.
                    let _ = tell.send(Vec::new());
                });
            }
        });
        Self { address, heard }
    }

    async fn heard(&mut self) -> Vec<u8> {
        soon(self.heard.recv()).await.unwrap()
    }

    fn silent(&mut self) -> bool {
        self.heard.try_recv().is_err()
    }
}

async fn broken() -> (Echo, Proxy) {
    let echo = Echo::start().await;
    let proxy = Proxy::new(echo.address.to_string());
    (echo, proxy)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    // What is sent is sent at once, also while nobody acknowledges what went before.
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends this, and reads as much again.
async fn ask(stream: &mut TcpStream, what: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(what).await?;
    let mut answer = vec![0; what.len()];
    soon(stream.read_exact(&mut answer)).await?;
    Ok(answer)
}

/// Everything that can happen by itself has happened: these tests run on one thread, and loopback
/// delivers at once.
async fn nothing_more_happens() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

/// Whether something has arrived, or the end.
fn arrived(stream: &TcpStream) -> bool {
    !matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[tokio::test]
async fn passes_everything_and_counts_it() {
    let (mut echo, proxy) = broken().await;
    let long: Vec<u8> = (0..=u8::MAX).cycle().take(1_000_000).collect();
    let mut stream = connect(&proxy).await;
    let (mut read, mut write) = stream.split();
    let mut back = vec![0; long.len()];
    let both = async { tokio::join!(write.write_all(&long), read.read_exact(&mut back)) };
    let (sent, received) = soon(both).await;
    sent.and(received.map(drop)).unwrap();
    assert!(back == long);
    // The end of a stream passes as well, and the other direction goes on.
    write.shutdown().await.unwrap();
    assert_eq!(soon(read.read(&mut [0])).await.unwrap(), 0);
    while !echo.heard().await.is_empty() {}
    let counts = soon(proxy.until(|counts| counts.open == 0)).await;
    assert_eq!((counts.accepted, counts.sent, counts.received), (1, 1_000_000, 1_000_000));
}

#[tokio::test]
async fn reset_ends_open_connections_and_new_ones() {
    let (_echo, proxy) = broken().await;
    let mut open = connect(&proxy).await;
    ask(&mut open, b"a").await.unwrap();
    proxy.set(Fault::Reset);
    assert_eq!(soon(open.read(&mut [0])).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut new = connect(&proxy).await;
    assert_eq!(soon(new.read(&mut [0])).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.heal();
    assert_eq!(ask(&mut connect(&proxy).await, b"b").await.unwrap(), b"b");
}

#[tokio::test]
async fn down_refuses_from_when_it_returns_and_up_is_at_the_same_port() {
    let (_echo, proxy) = broken().await;
    let mut open = connect(&proxy).await;
    ask(&mut open, b"a").await.unwrap();
    for _ in 0..10 {
        proxy.down().await;
        let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        proxy.up();
        proxy.up();
        assert_eq!(ask(&mut connect(&proxy).await, b"b").await.unwrap(), b"b");
    }
    assert!(ask(&mut open, b"a").await.is_err());
    assert_eq!(proxy.counts().accepted, 11);
}

/// A process that is being started holds a copy of every socket until its program runs.
#[tokio::test]
async fn down_refuses_also_while_processes_are_started() {
    let (_echo, proxy) = broken().await;
    let stop = Arc::new(AtomicBool::new(false));
    let starters: Vec<_> = (0..2)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut started = 0;
                while !stop.load(Ordering::Relaxed) {
                    assert!(Command::new("true").status().unwrap().success());
                    started += 1;
                }
                started
            })
        })
        .collect();
    for round in 0..500 {
        assert_eq!(ask(&mut connect(&proxy).await, b"a").await.unwrap(), b"a");
        let mut open = connect(&proxy).await;
        ask(&mut open, b"b").await.unwrap();
        proxy.down().await;
        let refused = TcpStream::connect(proxy.address()).await.map(drop).map_err(|e| e.kind());
        assert_eq!(refused, Err(ErrorKind::ConnectionRefused), "round {round}");
        proxy.up();
    }
    stop.store(true, Ordering::Relaxed);
    let started: u32 = starters.into_iter().map(|starter| starter.join().unwrap()).sum();
    assert!(started > 0);
}

#[tokio::test]
async fn nobody_gets_the_port_of_a_proxy_that_is_down() {
    let (_echo, proxy) = broken().await;
    proxy.down().await;
    let taken = TcpListener::bind(proxy.address()).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
}

#[tokio::test]
async fn black_hole_accepts_and_is_silent_even_when_it_is_over() {
    let (mut echo, proxy) = broken().await;
    let mut open = connect(&proxy).await;
    ask(&mut open, b"a").await.unwrap();
    assert_eq!(echo.heard().await, b"a");
    proxy.set(Fault::BlackHole);
    let mut new = connect(&proxy).await;
    for stream in [&mut open, &mut new] {
        stream.write_all(b"lost").await.unwrap();
    }
    nothing_more_happens().await;
    proxy.heal();
    nothing_more_happens().await;
    for stream in [&mut open, &mut new] {
        stream.write_all(b"too late").await.unwrap();
    }
    nothing_more_happens().await;
    assert!(echo.silent() && !arrived(&open) && !arrived(&new));
    assert_eq!(ask(&mut connect(&proxy).await, b"b").await.unwrap(), b"b");
    drop((open, new));
    soon(proxy.until(|counts| counts.open == 0)).await;
}

#[tokio::test]
async fn connection_that_was_idle_in_a_black_hole_works_again() {
    let (_echo, proxy) = broken().await;
    let mut open = connect(&proxy).await;
    ask(&mut open, b"a").await.unwrap();
    proxy.set(Fault::BlackHole);
    nothing_more_happens().await;
    proxy.heal();
    assert_eq!(ask(&mut open, b"b").await.unwrap(), b"b");
}

#[tokio::test]
async fn cut_reply_lets_so_many_bytes_back_and_the_request_is_carried_out() {
    let (mut echo, proxy) = broken().await;
    for after in [0, 3] {
        proxy.set(Fault::CutReply { after });
        let mut stream = connect(&proxy).await;
        stream.write_all(b"request").await.unwrap();
        let mut back = Vec::new();
        soon(stream.read_to_end(&mut back)).await.unwrap();
        assert_eq!(back, b"request"[..after]);
        assert_eq!(echo.heard().await, b"request");
        assert!(echo.heard().await.is_empty());
    }
    // However they come.
    let mut stream = connect(&proxy).await;
    assert_eq!(ask(&mut stream, b"ab").await.unwrap(), b"ab");
    stream.write_all(b"cd").await.unwrap();
    let mut back = Vec::new();
    soon(stream.read_to_end(&mut back)).await.unwrap();
    assert_eq!(back, b"c");
}

#[tokio::test]
async fn cut_request_lets_so_many_bytes_through() {
    let (mut echo, proxy) = broken().await;
    let mut stream = connect(&proxy).await;
    // What passed before the fault began doesn't count.
    ask(&mut stream, b"before").await.unwrap();
    assert_eq!(echo.heard().await, b"before");
    proxy.set(Fault::CutRequest { after: 3 });
    stream.write_all(b"request").await.unwrap();
    assert_eq!(echo.heard().await, b"req");
    assert!(echo.heard().await.is_empty());
    let mut back = Vec::new();
    let ended = soon(stream.read_to_end(&mut back)).await;
    assert!(ended.is_ok() && b"req".starts_with(&back), "{ended:?} {back:?}");
}

#[tokio::test]
async fn hold_keeps_bytes_back_until_another_fault_is_set() {
    let (mut echo, proxy) = broken().await;
    let mut open = connect(&proxy).await;
    ask(&mut open, b"a").await.unwrap();
    assert_eq!(echo.heard().await, b"a");
    proxy.set(Fault::Hold);
    open.write_all(b"held").await.unwrap();
    open.shutdown().await.unwrap();
    nothing_more_happens().await;
    assert!(echo.silent() && !arrived(&open));
    proxy.set(Fault::CutReply { after: 2 });
    assert_eq!(echo.heard().await, b"held");
    let mut back = Vec::new();
    soon(open.read_to_end(&mut back)).await.unwrap();
    assert_eq!(back, b"he");
}

#[tokio::test]
async fn delay_is_in_both_directions_by_the_given_clock() {
    const DELAY: Duration = Duration::from_millis(300);
    let echo = Echo::start().await;
    let clock = ManualClock::new();
    let proxy = Proxy::with_clock(echo.address.to_string(), clock.clone());
    proxy.set(Fault::Delay(DELAY));
    let mut stream = connect(&proxy).await;
    stream.write_all(b"a").await.unwrap();
    let start = clock.now();
    while !arrived(&stream) && clock.now() - start < DELAY * 10 {
        nothing_more_happens().await;
        clock.advance(Duration::from_millis(10));
    }
    let took = clock.now() - start;
    assert!((DELAY * 2..DELAY * 2 + Duration::from_millis(30)).contains(&took), "{took:?}");
    // What is under way when it heals arrives at once.
    stream.write_all(b"b").await.unwrap();
    nothing_more_happens().await;
    assert!(!arrived(&stream));
    proxy.heal();
    assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 1);
}

#[tokio::test]
async fn throttle_lets_so_many_bytes_a_second_pass() {
    const RATE: u32 = 10_000;
    let echo = Echo::start().await;
    let clock = ManualClock::new();
    let proxy = Proxy::with_clock(echo.address.to_string(), clock.clone());
    proxy.set(Fault::Throttle { bytes_per_second: RATE });
    let mut stream = connect(&proxy).await;
    stream.write_all(&[1; 5_000]).await.unwrap();
    let start = clock.now();
    while proxy.counts().sent < 5_000 && clock.now() - start < Duration::from_secs(10) {
        nothing_more_happens().await;
        let passed = (clock.now() - start).mul_f64(f64::from(RATE)).as_secs_f64();
        assert!(f64::from(u32::try_from(proxy.counts().sent).unwrap()) <= passed + 1.0);
        clock.advance(Duration::from_millis(10));
    }
    let took = clock.now() - start;
    let expected = Duration::from_millis(500);
    assert!((expected..expected * 2).contains(&took), "{took:?}");
}

#[tokio::test]
async fn once_is_for_the_next_connections_in_turn() {
    let (_echo, proxy) = broken().await;
    proxy.once(Fault::Reset);
    proxy.once(Fault::CutReply { after: 0 });
    let mut ends = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(&proxy).await;
        ends.push(ask(&mut stream, b"a").await.map_err(|error| error.kind()));
    }
    assert_eq!(ends[0].as_ref().unwrap_err(), &ErrorKind::ConnectionReset);
    assert_eq!(ends[1].as_ref().unwrap_err(), &ErrorKind::UnexpectedEof);
    assert_eq!(ends[2].as_ref().unwrap(), b"a");
    // Healing reaches a connection that has a fault of its own, and those that are to come.
    proxy.once(Fault::Hold);
    proxy.once(Fault::Hold);
    let mut held = connect(&proxy).await;
    held.write_all(b"b").await.unwrap();
    nothing_more_happens().await;
    assert!(!arrived(&held));
    proxy.heal();
    assert_eq!(soon(held.read(&mut [0])).await.unwrap(), 1);
    assert_eq!(ask(&mut connect(&proxy).await, b"c").await.unwrap(), b"c");
}

#[tokio::test]
async fn upstream_that_is_away_resets_the_connection() {
    let (_echo, proxy) = broken().await;
    let behind = Proxy::new(proxy.address().to_string());
    proxy.down().await;
    let error = ask(&mut connect(&behind).await, b"a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn dropped_proxy_leaves_nothing_behind() {
    let (mut echo, proxy) = broken().await;
    let mut open = connect(&proxy).await;
    ask(&mut open, b"a").await.unwrap();
    assert_eq!(echo.heard().await, b"a");
    let address = proxy.address();
    drop(proxy);
    assert!(echo.heard().await.is_empty(), "upstream sees the end");
    assert!(matches!(soon(open.read(&mut [0])).await, Ok(0) | Err(_)), "and so does the client");
    TcpListener::bind(address).await.unwrap();
}
