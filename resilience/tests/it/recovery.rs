//! Breakers around calls that hang, are cancelled, or come back late; and restarts.

use std::sync::Arc;
use std::time::Duration;

use resilience::http::{CallError, Client, Context, ErrorKind};
use resilience::testkit::ManualClock;
use resilience::{Breaker, State};
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::server::{Reaction, Server, answer, json};
use crate::{client, transport};

type Result = std::result::Result<(), CallError>;

fn call(client: &Client) -> JoinHandle<Result> {
    let client = client.clone();
    tokio::spawn(async move { fetch(&client).await })
}

async fn fetch(client: &Client) -> Result {
    client.get("/").fetch::<Value>(&Context::new()).await.map(drop)
}

/// A client whose calls never time out by themselves, on a breaker with a clock of ours.
fn patient(server: &Server, failures: u32) -> (Client, ManualClock) {
    let clock = ManualClock::new();
    let breaker =
        Breaker::builder("billing").consecutive_failures(failures).clock(clock.clone()).build();
    let client = Client::builder("billing", server.url.clone())
        .timeout(Duration::from_mins(2))
        .breaker(breaker)
        .build(&transport());
    (client, clock)
}

/// The first request fails at once, the others wait for their release.
async fn fails_then_waits(release: &Arc<Notify>) -> Server {
    let release = Arc::clone(release);
    Server::start(move |n| {
        let release = Arc::clone(&release);
        async move {
            if n == 0 {
                return Reaction::Send(answer(500, &[], ""));
            }
            release.notified().await;
            json(200, "{}")
        }
    })
    .await
}

#[tokio::test]
async fn of_a_thousand_callers_at_recovery_one_reaches_the_dependency() {
    let release = Arc::new(Notify::new());
    let server = fails_then_waits(&release).await;
    let (client, clock) = patient(&server, 1);
    fetch(&client).await.expect_err("500");
    clock.advance(Duration::from_secs(6));

    let (results, mut ended) = mpsc::unbounded_channel();
    for _ in 0..1000 {
        let (client, results) = (client.clone(), results.clone());
        tokio::spawn(async move { results.send(fetch(&client).await) });
    }
    for _ in 0..999 {
        let error = ended.recv().await.expect("a result").expect_err("rejected");
        assert!(matches!(error.kind(), ErrorKind::Rejected(_)), "{error:?}");
    }
    release.notify_one();
    ended.recv().await.expect("a result").expect("the probe");
    assert_eq!(server.hits(), 2);
    assert_eq!(client.breaker().state(), State::Closed);
}

#[tokio::test]
async fn a_hung_probe_is_replaced() {
    let release = Arc::new(Notify::new());
    let mut server = fails_then_waits(&release).await;
    let (client, clock) = patient(&server, 1);
    fetch(&client).await.expect_err("500");
    server.request().await;
    clock.advance(Duration::from_secs(6));

    let hung = call(&client);
    server.request().await;
    fetch(&client).await.expect_err("a probe is under way");
    clock.advance(Duration::from_secs(10));
    let second = call(&client);
    server.request().await;
    // Both are released; whichever order they come in, the second decides and the first doesn't.
    release.notify_waiters();
    hung.await.expect("no panic").expect("an answer");
    second.await.expect("no panic").expect("an answer");
    let snapshot = client.breaker().snapshot();
    assert_eq!((snapshot.state, snapshot.stale), (State::Closed, 1));
}

#[tokio::test]
async fn a_late_success_does_not_close() {
    let release = Arc::new(Notify::new());
    let waiting = Arc::clone(&release);
    let mut server = Server::start(move |n| {
        let release = Arc::clone(&waiting);
        async move {
            if n > 0 {
                return Reaction::Send(answer(500, &[], ""));
            }
            release.notified().await;
            json(200, "{}")
        }
    })
    .await;
    let (client, _) = patient(&server, 3);
    let slow = call(&client);
    server.request().await;
    for _ in 0..3 {
        fetch(&client).await.expect_err("500");
    }
    release.notify_one();
    slow.await.expect("no panic").expect("an answer");
    let snapshot = client.breaker().snapshot();
    assert_eq!((snapshot.state, snapshot.stale), (State::Open, 1));
}

#[tokio::test]
async fn cancelled_calls_are_abandoned_and_slow_ones_are_failures() {
    let mut server = Server::always(Reaction::Hang).await;
    let (client, clock) = patient(&server, 2);
    for (held, state) in [(1, State::Closed), (3, State::Closed), (3, State::Open)] {
        let cancelled = call(&client);
        server.request().await;
        clock.advance(Duration::from_secs(held));
        cancelled.abort();
        assert!(cancelled.await.expect_err("cancelled").is_cancelled());
        assert_eq!(client.breaker().state(), state);
    }
    let snapshot = client.breaker().snapshot();
    assert_eq!(snapshot.abandoned, 3);
    assert_eq!(snapshot.reason.as_deref(), Some("given up after 3000 ms"));
}

#[tokio::test]
async fn a_restart_between_two_calls_costs_nothing() {
    let ok = || std::future::ready(json(200, "{}"));
    let mut server = Server::start(move |_| ok()).await;
    let client = client(&server.url);
    for _ in 0..20 {
        fetch(&client).await.expect("an answer");
        let address = server.kill().await;
        server = Server::start_at(address, move |_| ok()).await;
    }
    fetch(&client).await.expect("an answer");
    assert_eq!(client.breaker().snapshot().reason, None);
}

#[tokio::test]
async fn a_dead_dependency_refuses_although_connections_to_it_were_pooled() {
    for _ in 0..20 {
        let server = Server::always(json(200, "{}")).await;
        let client = client(&server.url);
        fetch(&client).await.expect("an answer");
        server.kill().await;
        let error = fetch(&client).await.expect_err("dead");
        assert!(matches!(error.kind(), ErrorKind::Connect(_)), "{error:?}");
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                // A small request comes in one piece.
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    let Reaction::Send(bytes) = json(200, "{}") else {
                        return;
                    };
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let client = client(&url.parse().expect("a URL"));
    for _ in 0..10 {
        fetch(&client).await.expect("an answer");
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}
