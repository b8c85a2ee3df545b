//! What a client repeats, what it never repeats, and what is known of the effect afterwards.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::{BoxFuture, pending, ready};
use resilience::http::{
    CallError, Client, ClientBuilder, Context, Effect, ErrorKind, Method, Request, StatusCode,
};
use resilience::{
    Backoff, Breaker, Bulkhead, Clock, Deadline, Random, Retry, RetryBudget, SystemClock,
};
use serde_json::Value;
use url::Url;

use crate::server::{Reaction, Server, answer, header, json};
use crate::transport;

/// One that pays for everything, and waits for next to nothing.
fn retry() -> Retry {
    let backoff = Backoff::new().initial(Duration::from_millis(1)).random(Random::seeded(1));
    Retry::new(RetryBudget::unlimited("billing")).attempts(3).backoff(backoff)
}

fn builder(url: &Url) -> ClientBuilder {
    // Opens for nothing that happens here.
    let breaker = Breaker::builder("billing").consecutive_failures(100).build();
    Client::builder("billing", url.clone()).breaker(breaker).final_codes(&["not_found"])
}

/// With retries, and bound to a server that reacts like this in turn, and as the last from then on.
async fn client(reactions: Vec<Reaction>) -> (Client, Server) {
    let react = move |n: usize| ready(reactions[n.min(reactions.len() - 1)].clone());
    let server = Server::start(react).await;
    (builder(&server.url).retry(retry()).build(&transport()), server)
}

fn error(status: u16, headers: &[(&str, &str)], code: &str) -> Reaction {
    let body = format!("{{\"code\": \"{code}\", \"message\": \"says {code}\"}}");
    let mut headers = headers.to_vec();
    headers.push(("content-type", "application/json"));
    Reaction::Send(answer(status, &headers, &body))
}

fn defect() -> Reaction {
    error(500, &[], "internal")
}

async fn fetch(request: Request) -> Result<Value, CallError> {
    request.fetch(&Context::new()).await.map(|reply| reply.body)
}

#[tokio::test]
async fn nothing_is_repeated_unless_that_was_asked_for() {
    let server = Server::always(defect()).await;
    let client = builder(&server.url).build(&transport());
    fetch(client.get("/")).await.expect_err("a defect");
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn a_read_that_fails_is_repeated() {
    let half = b"HTTP/1.1 200 O".to_vec();
    for failure in [
        defect(),
        error(429, &[], "too_many_requests"),
        error(409, &[], "idempotency_in_progress"),
        Reaction::Reset,
        Reaction::SendAndClose(half),
        Reaction::Send(answer(200, &[], "<h1>nginx</h1>")),
    ] {
        let (client, server) = client(vec![failure.clone(), failure, json(200, "7")]).await;
        assert_eq!(fetch(client.get("/")).await.expect("the third works"), 7);
        assert_eq!(server.hits(), 3);
    }
}

#[tokio::test]
async fn an_attempt_that_times_out_is_repeated_within_the_deadline() {
    let reactions = [Reaction::Hang, json(200, "7")];
    let server = Server::start(move |n| ready(reactions[n.min(1)].clone())).await;
    let builder = builder(&server.url).retry(retry()).timeout(Duration::from_millis(30));
    let client = builder.build(&transport());
    assert_eq!(fetch(client.get("/")).await.expect("the second works"), 7);

    // When that was the deadline itself, nobody waits for another.
    let hanging = Server::always(Reaction::Hang).await;
    let client = Client::builder("billing", hanging.url.clone()).retry(retry()).build(&transport());
    let cx = Context::new().with_deadline(Deadline::after(Duration::from_millis(30)));
    let late = client.get("/").fetch::<Value>(&cx).await.expect_err("no time");
    assert!(matches!(late.kind(), ErrorKind::TimedOut { inherited: true, .. }), "{late:?}");
    assert_eq!(hanging.hits(), 1);
}

#[tokio::test]
async fn what_may_happen_twice_is_not_repeated_without_a_name_of_its_own() {
    let attempts = async |request: fn(Client) -> Request| {
        let (client, server) = client(vec![defect()]).await;
        fetch(request(client)).await.expect_err("a defect");
        server.hits()
    };
    assert_eq!(attempts(|client| client.post("/")).await, 1);
    assert_eq!(attempts(|client| client.request(Method::PATCH, "/")).await, 1);
    assert_eq!(attempts(|client| client.post("/").idempotency_key("k")).await, 3);
    assert_eq!(attempts(|client| client.post("/").idempotent()).await, 3);
    assert_eq!(attempts(|client| client.delete("/")).await, 3);
    assert_eq!(attempts(|client| client.request(Method::PUT, "/")).await, 3);
}

#[tokio::test]
async fn what_was_never_sent_is_repeated_in_any_case() {
    let nobody = Server::always(defect()).await.kill().await;
    let url = Url::parse(&format!("http://{nobody}")).expect("a URL");
    let client = builder(&url).retry(retry()).build(&transport());
    let error = fetch(client.post("/")).await.expect_err("nobody is there");
    assert!(matches!(error.kind(), ErrorKind::Connect(_)), "{error:?}");
    assert_eq!(error.effect(), Effect::None);
    assert_eq!(client.breaker().snapshot().failures, 3);
}

#[tokio::test]
async fn what_another_attempt_would_not_change_is_not_repeated() {
    for answer in [
        error(404, &[], "not_found"),
        error(401, &[], "unauthorized"),
        error(501, &[], "not_implemented"),
        error(503, &[], "deadline_exceeded"),
    ] {
        let (client, server) = client(vec![answer]).await;
        fetch(client.get("/")).await.expect_err("no");
        assert_eq!(server.hits(), 1);
    }
}

#[tokio::test]
async fn an_answer_that_names_a_system_further_down_is_never_repeated() {
    for effect in ["dependency_unavailable", "rolled_back"] {
        let named = error(503, &[("x-failed-dependency", "warranty")], effect);
        let (client, server) = client(vec![named]).await;
        let error = fetch(client.get("/")).await.expect_err("a 503");
        assert_eq!(error.dependency(), "warranty");
        assert_eq!(server.hits(), 1);
    }
}

#[tokio::test]
async fn without_a_budget_nothing_is_repeated() {
    let server = Server::always(defect()).await;
    let broke = Retry::new(RetryBudget::builder("billing").build());
    let client = builder(&server.url).retry(broke.clone()).build(&transport());
    fetch(client.get("/")).await.expect_err("a defect");
    assert_eq!((server.hits(), broke.budget().snapshot().denied), (1, 1));
}

/// A clock on which waits are over at once, and written down. Timeouts never come.
#[derive(Clone, Default)]
struct Waits(Arc<Mutex<Vec<Duration>>>);

/// Longer than any wait.
const TIMEOUT: Duration = Duration::from_hours(1);

impl Clock for Waits {
    fn now(&self) -> Instant {
        SystemClock.now()
    }

    fn wall(&self) -> SystemTime {
        SystemClock.wall()
    }

    fn sleep_until(&self, moment: Instant) -> BoxFuture<'static, ()> {
        let wait = moment.saturating_duration_since(self.now());
        if wait > TIMEOUT / 2 {
            return Box::pin(pending());
        }
        self.0.lock().expect("no panic").push(wait);
        Box::pin(ready(()))
    }
}

#[tokio::test]
async fn retry_after_is_honoured_up_to_a_cap() {
    let ask = async |seconds: &str| {
        let busy = error(503, &[("retry-after", seconds)], "overloaded");
        let reactions = [busy, json(200, "7")];
        let server = Server::start(move |n| ready(reactions[n.min(1)].clone())).await;
        let waits = Waits::default();
        let retry = retry().longest_retry_after(Duration::from_secs(5));
        let builder = builder(&server.url).retry(retry).timeout(TIMEOUT).clock(waits.clone());
        let reply = fetch(builder.build(&transport()).get("/")).await;
        (reply.is_ok(), waits.0.lock().expect("no panic").clone())
    };
    let (worked, waits) = ask("2").await;
    assert!(worked);
    let [wait] = waits[..] else { panic!("{waits:?}") };
    // Less the moments since it was reckoned, and with a millisecond of backoff.
    assert!(wait > Duration::from_millis(1900) && wait < Duration::from_millis(2002), "{wait:?}");
    // Who asks for more than we are ready to wait isn't bothered before his time.
    assert_eq!(ask("6").await, (false, Vec::new()));
}

#[tokio::test]
async fn each_attempt_is_the_same_request_with_the_time_that_is_left() {
    let (client, mut server) = client(vec![defect(), json(200, "7")]).await;
    let cx = Context::new().with_deadline(Deadline::after(Duration::from_secs(20)));
    let request = client.post("/things").idempotency_key("key-1").json(&[1, 2]);
    request.timeout(TIMEOUT).fetch::<Value>(&cx).await.expect("the second works");
    let (first, second) = (server.request().await, server.request().await);
    let left = |request: &str| {
        let millis = header(request, Deadline::HEADER).expect("a timeout");
        millis.parse::<u64>().expect("a number")
    };
    assert!(left(&second) <= left(&first) && left(&first) <= 20_000);
    for request in [&first, &second] {
        assert!(request.starts_with("POST /things "), "{request}");
        assert!(request.ends_with("\r\n\r\n[1,2]"), "{request}");
        assert_eq!(header(request, "idempotency-key"), Some("key-1"));
    }
}

#[tokio::test]
async fn a_refusal_says_nothing_of_the_effect_of_the_attempt_before() {
    let (client, server) = client(vec![Reaction::Reset, error(404, &[], "not_found")]).await;
    let error = fetch(client.post("/").idempotent()).await.expect_err("refused");
    assert!(error.is_refused(), "{error:?}");
    assert_eq!((server.hits(), error.effect()), (2, Effect::Unknown));
}

#[tokio::test]
async fn what_was_done_once_is_done_whatever_becomes_of_its_repetition() {
    let mut cut = answer(200, &[("content-type", "application/json")], "{\"id\": 7}");
    cut.truncate(cut.len() - 3);
    let (client, server) = client(vec![Reaction::SendAndClose(cut), Reaction::Reset]).await;
    let error = fetch(client.post("/").idempotent()).await.expect_err("lost");
    assert_eq!((server.hits(), error.effect()), (3, Effect::Done));
}

#[tokio::test]
async fn calls_in_flight_are_bounded() {
    let mut server = Server::always(Reaction::Hang).await;
    let bulkhead = Bulkhead::builder("billing/read", 1).build();
    let client = builder(&server.url).bulkhead(bulkhead.clone()).build(&transport());
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.get("/").timeout(TIMEOUT).fetch::<Value>(&Context::new()).await }
    });
    server.request().await;
    let error = fetch(client.get("/")).await.expect_err("full");
    assert!(matches!(error.kind(), ErrorKind::BulkheadFull(_)), "{error:?}");
    assert_eq!(error.effect(), Effect::None);
    let text = "billing is busy: 1 calls are in flight, as many as there may be";
    assert_eq!(error.to_string(), text);
    assert_eq!((server.hits(), bulkhead.snapshot().rejected), (1, 1));
    assert_eq!(client.breaker().snapshot().calls, 1, "nothing that was sent, nothing to count");
    first.abort();
}

#[tokio::test]
async fn a_status_alone_is_repeated_as_well() {
    let (client, server) = client(vec![defect(), Reaction::Send(answer(204, &[], ""))]).await;
    client.delete("/").expect(StatusCode::NO_CONTENT).execute(&Context::new()).await.expect("done");
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn an_answer_that_names_a_system_further_down_is_not_repeated_whatever_its_status() {
    for status in [429, 500, 502, 503, 504] {
        let failed = [("x-failed-dependency", "bank"), ("retry-after", "0")];
        let (client, server) = client(vec![error(status, &failed, "dependency_unavailable")]).await;
        let failed = fetch(client.get("/")).await.expect_err("it failed");
        assert_eq!((failed.dependency(), server.hits()), ("bank", 1), "{status}");
    }
}

#[tokio::test]
async fn a_pause_too_long_to_count_is_not_taken_for_none() {
    let endless = [("retry-after", "99999999999999999999999")];
    let (client, server) = client(vec![error(503, &endless, "overloaded")]).await;
    let error = fetch(client.get("/")).await.expect_err("it wants a pause");
    assert!(error.retry_after().is_some_and(|pause| pause > Duration::from_hours(24 * 365)));
    assert_eq!(server.hits(), 1, "it would come too early");
}
