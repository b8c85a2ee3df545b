#![allow(clippy::unwrap_used, reason = "a test that can't go on fails where it is")]

use std::future::pending;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::*;
use crate::access::{Access, Callers};
use crate::lifecycle::Lifecycle;
use crate::pipeline::{Shell, wrap};
use crate::testing::{Client, assert_envelope, until};
use crate::traffic::Traffic;

/// Longer than anything here takes on a crowded machine.
const SOON: Duration = Duration::from_secs(20);

/// A time that a test waits for.
const SHORT: Duration = Duration::from_millis(150);

/// A time that no test reaches.
const LONG: Duration = Duration::from_mins(10);

const LIMITS: Limits = Limits {
    connections: 100,
    head_bytes: 8192,
    head_time: LONG,
    body_time: LONG,
    idle_time: LONG,
    write_time: LONG,
};

struct Server {
    address: SocketAddr,
    closing: CancellationToken,
    lifecycle: Lifecycle,
    running: tokio::task::JoinHandle<()>,
}

async fn start(limits: Limits) -> Server {
    start_for(Callers::Services, limits).await
}

/// `/` says hello, `/big` says a lot, `/hang` nothing.
async fn start_for(callers: Callers, limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, closing) = (listener.local_addr().unwrap(), CancellationToken::new());
    let lifecycle = Lifecycle::new();
    let routes = Router::new()
        .route("/", get(async || "hello").post(async |body: String| body).delete(async || "gone"))
        .route("/manage/health", get(async || "well"))
        .route("/panic", get(panics).post(panics))
        .route("/big", get(async || "x".repeat(1024 * 1024)))
        .route("/hang", get(async || pending::<StatusCode>().await));
    let shell = Shell {
        name: "thing",
        lifecycle: lifecycle.clone(),
        budget: LONG,
        access: Access::open("thing", callers),
        body_time: limits.body_time,
        traffic: Traffic::default(),
    };
    let app = wrap(routes, shell);
    let running = tokio::spawn(serve(listener, app, "thing", limits, closing.clone()));
    Server { address, closing, lifecycle, running }
}

impl Server {
    fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.address))
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection on which something hangs.
    async fn hanging(&self) -> TcpStream {
        let before = self.lifecycle.requests();
        let mut stream = self.connect().await;
        stream.write_all(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        until(SOON, "it hangs", async || (self.lifecycle.requests() > before).then_some(())).await;
        stream
    }
}

async fn panics() -> StatusCode {
    tokio::task::yield_now().await;
    panic!("a handler of a test panics");
}

/// Asks, and reads the whole answer; the connection stays.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    answer(stream).await
}

/// One that ends in hello.
async fn answer(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(b"hello") {
        let mut buffer = [0; 1024];
        let count = timeout(SOON, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(count > 0, "closed after {seen:?}");
        seen.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(seen).unwrap()
}

/// Waits until the server closes it; what came until then.
async fn closed(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    // Its end may come as a reset.
    let _ = timeout(SOON, stream.read_to_end(&mut seen)).await.expect("it is closed");
    String::from_utf8(seen).unwrap()
}

/// Sends a little again and again, until it is closed.
async fn drip(mut stream: TcpStream) {
    until(SOON, "a slow sender is cut off", async || stream.write_all(b"x").await.err()).await;
}

#[tokio::test]
async fn a_head_that_comes_slowly_is_cut_off_and_an_idle_connection_stays() {
    let server = start(Limits { head_time: SHORT, ..LIMITS }).await;
    let mut idle = server.connect().await;
    ask(&mut idle).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
    drip(slow).await;
    // Neither is a second head waited for any longer, nor a first one that never begins.
    let mut second = server.connect().await;
    ask(&mut second).await;
    second.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
    drip(second).await;
    closed(&mut server.connect().await).await;
    ask(&mut idle).await;
}

#[tokio::test]
async fn a_body_that_comes_slowly_is_refused() {
    let server = start(Limits { body_time: SHORT, ..LIMITS }).await;
    let mut slow = server.connect().await;
    let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc";
    slow.write_all(head).await.unwrap();
    let answer = closed(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("too slowly"), "{answer}");
}

/// Nothing was begun of it, and whoever sends slowly must not hold up the end of everybody's work.
#[tokio::test]
async fn the_end_does_not_wait_for_a_body() {
    let server = start(LIMITS).await;
    let mut slow = server.connect().await;
    let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc";
    slow.write_all(head).await.unwrap();
    until(SOON, "it comes", async || (server.lifecycle.requests() > 0).then_some(())).await;
    server.lifecycle.leave();
    server.lifecycle.drain();
    assert!(server.lifecycle.finished(SOON).await, "nothing is under way any more");
    let answer = closed(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("shutting_down"), "{answer}");
}

#[tokio::test]
async fn a_connection_without_a_next_request_is_closed() {
    let server = start(Limits { idle_time: SHORT, ..LIMITS }).await;
    let mut idle = server.connect().await;
    ask(&mut idle).await;
    closed(&mut idle).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let server = start(Limits { write_time: SHORT, ..LIMITS }).await;
    let mut deaf = server.connect().await;
    let request = "GET /big HTTP/1.1\r\nHost: x\r\n\r\n".repeat(64);
    deaf.write_all(request.as_bytes()).await.unwrap();
    drip(deaf).await;
}

#[tokio::test]
async fn a_request_under_way_has_no_time_but_its_own() {
    let limits = Limits { head_time: SHORT, idle_time: SHORT, write_time: SHORT, ..LIMITS };
    let server = start(limits).await;
    let mut working = server.hanging().await;
    // Others come and go by all of these times meanwhile.
    for _ in 0..3 {
        closed(&mut server.connect().await).await;
    }
    let mut buffer = [0];
    let waits = timeout(Duration::ZERO, working.read(&mut buffer)).await;
    assert!(waits.is_err(), "{waits:?}");
}

#[tokio::test]
async fn a_new_connection_gets_the_place_of_whoever_was_silent_for_longest() {
    let server = start(Limits { connections: 3, ..LIMITS }).await;
    let [mut first, mut second, mut third] =
        [server.connect().await, server.connect().await, server.connect().await];
    for stream in [&mut first, &mut second, &mut third] {
        ask(stream).await;
    }
    ask(&mut first).await;
    // A slow sender is one of them.
    second.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut new = server.connect().await;
    ask(&mut new).await;
    closed(&mut second).await;
    for stream in [&mut first, &mut third, &mut new] {
        ask(stream).await;
    }
}

#[tokio::test]
async fn whoever_is_sending_a_body_keeps_the_place_of_who_is_silent() {
    let server = start(Limits { connections: 2, ..LIMITS }).await;
    let [mut first, mut second] = [server.connect().await, server.connect().await];
    for stream in [&mut first, &mut second] {
        ask(stream).await;
    }
    let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe";
    first.write_all(head).await.unwrap();
    until(SOON, "it comes", async || (server.lifecycle.requests() > 0).then_some(())).await;
    ask(&mut server.connect().await).await;
    closed(&mut second).await;
    first.write_all(b"llo").await.unwrap();
    assert_eq!(answer(&mut first).await.matches("hello").count(), 1);
}

#[tokio::test]
async fn a_thousand_idle_connections_keep_nobody_out() {
    let server = start(Limits { connections: 50, ..LIMITS }).await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(server.connect().await);
    }
    assert_eq!(server.client().get("/").send().await.text(), "hello");
}

/// A request may come just as its connection's place is given away.
#[tokio::test]
async fn a_place_that_is_worked_for_after_all_keeps_nobody_waiting() {
    let (places, limits) = (Places::new("thing", 2, RESERVE), Arc::new(LIMITS));
    let [first, second] = [places.take().await, places.take().await];
    let [turn, _other] = [&first, &second].map(|place| Turn::new(place, &limits));
    let mut new = pin!(places.take());
    assert!(futures_util::poll!(new.as_mut()).is_pending());
    timeout(SOON, first.given_away()).await.expect("it was silent for longest");
    turn.asked();
    turn.complete();
    assert!(futures_util::poll!(new.as_mut()).is_pending());
    timeout(SOON, second.given_away()).await.expect("the next one is asked for its place");
    drop(second);
    let new = timeout(SOON, new).await.expect("a place");
    // Once answered, the first is one that waits, as any other.
    turn.answered();
    let turn_of_new = Turn::new(&new, &limits);
    turn_of_new.asked();
    turn_of_new.complete();
    let mut another = pin!(places.take());
    assert!(futures_util::poll!(another.as_mut()).is_pending());
    timeout(SOON, first.given_away()).await.expect("it is silent again");
    drop(first);
    timeout(SOON, another).await.expect("a place");
}

#[tokio::test]
async fn health_is_answered_while_every_place_works_and_everything_else_is_shed() {
    let server = start(Limits { connections: 2, ..LIMITS }).await;
    let working = [server.hanging().await, server.hanging().await];
    // More than the reserve has, and none of them says anything.
    let mut silent = Vec::new();
    for _ in 0..RESERVE + 10 {
        silent.push(server.connect().await);
    }
    let health = server.client().get("/manage/health").send().await;
    assert_eq!((health.status, health.header("connection")), (200, Some("close")));
    assert_envelope(&server.client().get("/").send().await, 503, "overloaded");
    // Whoever is worked for keeps the place.
    assert_eq!(server.lifecycle.requests(), 2);
    drop(working);
    until(SOON, "there is room again", async || {
        (server.client().get("/").send().await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_undo_is_let_in_where_all_else_is_shed_and_nobody_else_can_say_that_it_is_one() {
    for callers in [Callers::Services, Callers::Users] {
        let server = start_for(callers, Limits { connections: 1, ..LIMITS }).await;
        let _working = server.hanging().await;
        let client = server.client();
        for drained in [false, true] {
            if drained {
                server.lifecycle.drain();
            }
            let mut shed = vec![
                client.post("/").compensate(),
                client.get("/").compensate(),
                client.delete("/").header("X-Compensate", "false"),
            ];
            let undo = client.delete("/").compensate();
            if callers == Callers::Users {
                // There it undoes nothing.
                shed.push(undo);
            } else {
                assert_eq!(undo.send().await.text(), "gone");
            }
            for call in shed {
                assert_envelope(&call.send().await, 503, "overloaded");
            }
        }
    }
}

#[tokio::test]
async fn a_panic_is_a_500_also_of_what_runs_on_its_own() {
    let server = start(LIMITS).await;
    let client = server.client();
    for call in [client.get("/panic"), client.post("/panic"), client.post("/panic/")] {
        let answer = call.header("X-Request-Id", "mine").send().await;
        assert_envelope(&answer, 500, "internal");
        assert_eq!(answer.header("x-request-id"), Some("mine"));
        assert!(answer.header("traceparent").is_some() && !answer.text().contains("of a test"));
    }
    // The connection goes on.
    let mut stream = server.connect().await;
    stream.write_all(b"HEAD /panic HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let answer = ask(&mut stream).await;
    let (panicked, hello) = answer.split_once("\r\n\r\n").unwrap();
    assert!(panicked.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(panicked.contains("content-type: application/json\r\n"), "{answer}");
    assert!(hello.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(server.lifecycle.requests(), 0);
}

#[tokio::test]
async fn a_body_may_be_none_or_empty_or_come_in_pieces_or_when_it_is_asked_for() {
    let server = start(LIMITS).await;
    let mut stream = server.connect().await;
    for (sent, expected) in [
        ("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", "200 "),
        ("POST / HTTP/1.1\r\nHost: x\r\n\r\n", "200 "),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "200 "),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "200 "),
        ("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "405 "),
        (
            "POST /no HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "404 ",
        ),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n", "200 "),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", "100 "),
        ("x", "200 "),
    ] {
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut seen = String::new();
        while !seen.contains("\r\n\r\n") {
            let mut buffer = [0; 1024];
            let count = timeout(SOON, stream.read(&mut buffer)).await.unwrap().unwrap();
            assert!(count > 0, "closed after {seen:?}");
            seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        assert!(seen.starts_with(&format!("HTTP/1.1 {expected}")), "{sent}: {seen}");
        assert_eq!(seen.contains("allow: GET,HEAD,POST,DELETE"), expected == "405 ", "{seen}");
        assert_eq!(seen.contains("x-request-id: "), expected != "100 ", "{seen}");
    }
    assert!(ask(&mut stream).await.ends_with("hello"));
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = start(LIMITS).await;
    let large = server.client().get("/").header("X-Large", "x".repeat(9000)).send().await;
    assert_eq!(large.status, 431);
    let many =
        (0..101).fold(server.client().get("/"), |call, n| call.header(&format!("X-{n}"), ""));
    assert_eq!(many.send().await.status, 431);
}

#[tokio::test]
async fn the_end_closes_what_is_idle_and_waits_for_what_is_not() {
    let server = start(LIMITS).await;
    let mut idle = server.connect().await;
    ask(&mut idle).await;
    let (mut fresh, working) = (server.connect().await, server.hanging().await);
    server.closing.cancel();
    closed(&mut idle).await;
    closed(&mut fresh).await;
    assert!(!server.running.is_finished());
    drop(working);
    timeout(SOON, server.running).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn the_kernel_asks_a_silent_peer_whether_it_is_still_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (stream, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (accepted, _) = accepted.unwrap();
    prepare(&accepted);
    let socket = SockRef::from(&accepted);
    assert!(socket.keepalive().unwrap());
    assert!(accepted.nodelay().unwrap());
    drop(stream);
}
