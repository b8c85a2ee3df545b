//! The proxy that goes by requests, held to what its documentation says.

use std::io::ErrorKind;

use resilience::testkit::{Act, HttpProxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::{Reaction, Server, answer};
use crate::soon;

const ORDER: &str = "POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
const LIST: &str = "GET /orders?all HTTP/1.1\r\nHost: a\r\nX-Request-Id: r-1\r\n\r\n";

/// A server that answers every request with 201 and `done`.
async fn broken() -> (Server, HttpProxy) {
    let reply = answer(201, &[("content-type", "text/plain")], "done");
    let server = Server::always(Reaction::SendAndClose(reply)).await;
    let proxy = HttpProxy::new(server.url.as_str());
    (server, proxy)
}

async fn send(proxy: &HttpProxy, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn received(mut stream: TcpStream) -> Result<String, ErrorKind> {
    let mut text = String::new();
    soon(stream.read_to_string(&mut text)).await.map_err(|error| error.kind())?;
    Ok(text)
}

async fn ask(proxy: &HttpProxy, request: &str) -> Result<String, ErrorKind> {
    received(send(proxy, request).await).await
}

#[tokio::test]
async fn request_and_answer_pass_and_their_connection_ends_with_them() {
    let (mut server, proxy) = broken().await;
    let answer = ask(&proxy, ORDER).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 Whatever\r\nConnection: close\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\ndone"), "{answer}");
    let request = soon(server.request()).await;
    assert!(request.contains("\r\nConnection: close\r\n") && request.ends_with("\r\n\r\nbody"));
    ask(&proxy, LIST).await.unwrap();
    let seen = proxy.seen();
    let summary: Vec<_> =
        seen.iter().map(|seen| (&*seen.method, &*seen.target, seen.status)).collect();
    assert_eq!(summary, [("POST", "/orders", Some(201)), ("GET", "/orders?all", Some(201))]);
    assert!(seen[1].head.contains("\r\nx-request-id: r-1\r\n"), "{:?}", seen[1]);
    assert_eq!((proxy.count("*"), proxy.count("GET"), proxy.count("GET /or")), (2, 1, 1));
    assert_eq!((proxy.count("GET /orders?al "), proxy.count("get")), (0, 0));
    proxy.forget();
    assert_eq!(proxy.count("*"), 0);
}

#[tokio::test]
async fn last_rule_that_fits_holds_and_once_is_for_one_request() {
    let (server, proxy) = broken().await;
    let every = proxy.on("*", Act::Reset);
    let orders = proxy.once("POST /orders", Act::LoseAnswer);
    assert!(proxy.once("POST /orders/", Act::Hang).hits() == 0);
    assert_eq!(ask(&proxy, ORDER).await, Ok(String::new()));
    assert_eq!(ask(&proxy, ORDER).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(ask(&proxy, LIST).await, Err(ErrorKind::ConnectionReset));
    assert_eq!((every.hits(), every.served(), orders.hits(), orders.served()), (2, 0, 1, 1));
    assert_eq!(server.hits(), 1, "what is reset doesn't arrive");
    proxy.heal();
    assert!(ask(&proxy, ORDER).await.unwrap().ends_with("done"));
}

#[tokio::test]
async fn answer_is_cut_after_so_many_bytes_of_what_was_carried_out() {
    let (server, proxy) = broken().await;
    proxy.once("POST", Act::CutAnswer(12));
    assert_eq!(ask(&proxy, ORDER).await.unwrap(), "HTTP/1.1 201");
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn another_answers_in_place_of_upstream() {
    let (server, proxy) = broken().await;
    let head = "503 Service Unavailable\r\nRetry-After: 1".into();
    proxy.on("*", Act::Answer { head, body: "later".into() });
    assert_eq!(
        ask(&proxy, ORDER).await.unwrap(),
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n\
         Content-Length: 5\r\n\r\nlater"
    );
    assert_eq!((server.hits(), proxy.seen()[0].status), (0, None));
}

#[tokio::test]
async fn held_request_is_carried_out_when_released_although_its_sender_is_gone() {
    let (mut server, proxy) = broken().await;
    let held = proxy.once("POST", Act::Hold);
    drop(send(&proxy, ORDER).await);
    soon(held.until_hits(1)).await;
    assert_eq!((server.hits(), held.served()), (0, 0));
    held.release();
    assert!(soon(server.request()).await.starts_with("POST"));
    soon(held.until_served(1)).await;
    assert_eq!(proxy.seen()[0].status, Some(201));
}

#[tokio::test]
async fn healing_releases_what_is_held() {
    let (mut server, proxy) = broken().await;
    proxy.once("POST", Act::Hold);
    let late = proxy.on("GET", Act::Late);
    let (held, lost) = (send(&proxy, ORDER).await, send(&proxy, LIST).await);
    soon(late.until_hits(1)).await;
    proxy.heal();
    assert!(received(held).await.unwrap().ends_with("done"));
    assert_eq!(received(lost).await, Ok(String::new()), "carried out, and its answer is lost");
    soon(server.request()).await;
    soon(server.request()).await;
}

#[tokio::test]
async fn held_answer_is_of_a_request_that_was_carried_out() {
    let (mut server, proxy) = broken().await;
    let held = proxy.once("POST", Act::HoldAnswer);
    let stream = send(&proxy, ORDER).await;
    soon(held.until_served(1)).await;
    soon(server.request()).await;
    assert_eq!(stream.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    held.release();
    assert!(received(stream).await.unwrap().ends_with("done"));
}

#[tokio::test]
async fn hanging_request_never_arrives_and_ends_with_the_proxy() {
    let (server, proxy) = broken().await;
    let hung = proxy.on("*", Act::Hang);
    let stream = send(&proxy, ORDER).await;
    soon(hung.until_hits(1)).await;
    proxy.heal();
    ask(&proxy, LIST).await.unwrap();
    assert_eq!(server.hits(), 1, "the other one");
    assert_eq!(stream.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    proxy.down().await;
    received(stream).await.unwrap_or_default();
    let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    proxy.up();
    ask(&proxy, LIST).await.unwrap();
}

#[tokio::test]
async fn answer_that_comes_after_its_request_was_forgotten_is_nobody_else_s() {
    let (_server, proxy) = broken().await;
    let held = proxy.once("POST", Act::Hold);
    let stream = send(&proxy, ORDER).await;
    soon(held.until_hits(1)).await;
    proxy.forget();
    proxy.once("GET", Act::Reset);
    ask(&proxy, LIST).await.unwrap_err();
    held.release();
    received(stream).await.unwrap();
    assert_eq!(proxy.seen().iter().map(|seen| seen.status).collect::<Vec<_>>(), [None]);
}
