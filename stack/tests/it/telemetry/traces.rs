//! Spans, from hop to hop, into what is done later, and while nobody takes them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use resilience::testkit::crash;
use serde_json::Value;
use service::testing::{Call, until};
use tokio::net::TcpListener;

use super::collector::{Collector, Span, Trace, traced};
use crate::world::shop::{Promise as _, prompt};
use crate::world::{Part, RECOVERY, World};

/// The span of whoever calls Store, in every test.
const CALLER: &str = "00f067aa0ba902b7";

/// As part of a trace that somebody else has begun.
fn within(call: Call, trace: &str) -> Call {
    call.header("traceparent", format!("00-{trace}-{CALLER}-01")).header("X-Request-Id", trace)
}

const PURCHASE: &str = "POST /api/v1/store/{userUid}/purchase";
const CLAIM: &str = "POST /api/v1/store/{userUid}/{orderUid}/warranty";

/// Names the hops of a path: those that are served, called, or done later.
fn hops(path: &[String]) -> Vec<&str> {
    let all = path.iter().map(String::as_str);
    all.filter(|span| !span.contains(" internal ")).collect()
}

/// The way to what this service was asked for, and served, once all of it was sent.
fn way_to(trace: &Trace, service: &str, name: &str) -> Option<Vec<String>> {
    let span = trace.find(service, "server", name)?;
    is_whole(trace).then(|| trace.path(span))
}

/// Whether every span of it was begun by another, but for one, which the caller began.
fn is_whole(trace: &Trace) -> bool {
    let roots = trace.roots();
    roots.len() == 1 && roots[0].parent == CALLER
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_and_a_claim_are_each_one_trace_from_store_to_warranty() {
    let collector = Collector::start().await;
    let plan = World::plan().patient().variable("LOG_FORMAT", "json");
    let world = collector.takes_from(plan).start().await;
    let bought = "0af7651916cd43dd8448eb211c80319c";
    let answer = within(world.buy(), bought).send().await;
    let own = answer.header("traceparent").unwrap().to_owned();
    assert!(own.contains(bought) && !own.contains(CALLER), "{own}");
    let order = answer.bought();

    let way = collector.until(bought, "Warranty has begun", |trace| {
        way_to(trace, "warranty", "POST /api/v1/warranty/{itemUid}")
    });
    let way = way.await;
    assert_eq!(
        hops(&way),
        [
            &format!("store server {PURCHASE}"),
            "store client POST",
            "order server POST /api/v1/orders/{uid}",
            "order client POST",
            "warranty server POST /api/v1/warranty/{itemUid}",
        ]
    );
    let steps: Vec<_> = way.iter().filter(|span| span.contains("internal")).collect();
    assert_eq!(steps, ["order internal saga", "order internal step"]);
    let root = collector.until(bought, "the request itself is sent", |trace| {
        trace.find("store", "server", PURCHASE).cloned()
    });
    let root = root.await;
    assert_eq!(root.parent, CALLER);
    assert!(own.contains(&root.id) && !root.failed, "{own} {root:?}");
    assert_eq!(root.attributes["http.response.status_code"], "201");
    assert_eq!(root.attributes["http.route"], "/api/v1/store/{userUid}/purchase");

    // What is done for a request is sent before it.
    let trace = collector.until(bought, "every service has sent its part", |trace| {
        let served = |part: &Part| trace.find(part.name(), "server", "POST").is_some();
        Part::ALL.iter().all(served).then(|| Trace(trace.0.clone()))
    });
    let trace = trace.await;
    let calls: Vec<_> = trace.0.iter().filter(|span| span.kind == "client").collect();
    let to = |name: &str| calls.iter().filter(|call| call.is("peer.service", name)).count();
    assert_eq!((to("order"), to("warehouse"), to("warranty")), (1, 1, 1));
    let databases = calls.iter().filter(|span| span.attributes.contains_key("wait_ms")).count();
    assert!(databases >= 4, "each service has asked its database: {:#?}", trace.paths());

    let claimed = "1af7651916cd43dd8448eb211c80319c";
    assert_eq!(within(world.claim(order), claimed).send().await.status, 200);
    let way = collector.until(claimed, "Warranty has decided", |trace| {
        way_to(trace, "warranty", "POST /api/v1/warranty/{itemUid}/warranty")
    });
    let way = way.await;
    assert_eq!(
        hops(&way),
        [
            &format!("store server {CLAIM}"),
            "store client POST",
            "order server POST /api/v1/orders/{uid}/warranty",
            "order client POST",
            "warehouse server POST /api/v1/warehouse/{itemUid}/warranty",
            "warehouse client POST",
            "warranty server POST /api/v1/warranty/{itemUid}/warranty",
        ]
    );

    // What is asked every few seconds tells no story.
    let all = collector.all();
    assert!(all.iter().all(|span| !span.name.contains("/manage")), "{all:#?}");
    let begun = |span: &&Span| span.parent.is_empty() && span.kind != "server";
    let begun: Vec<_> = all.iter().filter(begun).collect();
    assert!(begun.is_empty(), "traces of nobody's request: {begun:#?}");

    // Lines say which trace and which span, and whose request.
    for part in Part::ALL {
        let said = world.replica(part, 0).said();
        let lines: Vec<Value> = said
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect();
        let own = |line: &&Value| line["request_id"] == bought && line["message"] == "answered";
        let answered = lines.iter().find(own).unwrap_or_else(|| panic!("{part:?}: {said}"));
        let span = trace.find(part.name(), "server", "POST").unwrap();
        assert_eq!(
            (&answered["trace_id"], &answered["span_id"]),
            (&bought.into(), &span.id.clone().into())
        );
    }
}

/// Heads are 16 KiB at most: `tracestate` of about so much, as it is well-formed.
fn tracestate(bytes: usize) -> String {
    let half = (bytes / 32 - 6) / 2;
    let member = |number: i32| format!("k{number}{}={}", "k".repeat(half), "v".repeat(half));
    let members = (10..42).map(member);
    members.collect::<Vec<_>>().join(",")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_sends_is_neither_kept_at_length_nor_a_burden_to_whoever_is_called() {
    let collector = Collector::start().await;
    let plan = World::plan().patient().variable("LOG_FORMAT", "json");
    let world = collector.takes_from(plan).start().await;
    let order = world.bought().await;
    let full = "6af7651916cd43dd8448eb211c80319c";
    // As much as Store takes, and less than it would take with what it adds itself.
    let mut taken = 0;
    for bytes in (15_000..16_400).step_by(48) {
        let call = within(world.get(order), full).header("tracestate", tracestate(bytes));
        let answer = call.send().await;
        match answer.status {
            200 => {
                assert!(!answer.text().contains("unavailable"), "{bytes}: {answer:?}");
                taken += 1;
            }
            status => assert_eq!(status, 431, "{bytes}: {answer:?}"),
        }
    }
    assert!((5..29).contains(&taken), "{taken}");
    world.assert_all_closed().await;

    // What isn't well-formed is no trace to go on with.
    let answer = world.get(order).header("traceparent", "00-1-1-01").send().await;
    let own = answer.header("traceparent").unwrap();
    assert!(!own.contains("-00000000000000000000000000000001-"), "{own}");

    let (long, odd) = ("x".repeat(5000), "7af7651916cd43dd8448eb211c80319c");
    let call = world.store().call(&long.to_uppercase(), format!("/{long}"));
    assert_eq!(within(call, odd).send().await.status, 404);
    let span = collector
        .until(odd, "what is odd is sent", |trace| trace.find("store", "server", "").cloned());
    let span = span.await;
    assert_eq!(span.name, "HTTP");
    assert_eq!(span.attributes["http.request.method"], "_OTHER");
    assert!(span.attributes.values().all(|value| value.len() <= 256), "{span:?}");
    let said = world.replica(Part::Store, 0).said();
    let longest = said.lines().map(str::len).max().unwrap();
    assert!(longest < 2000, "a line of {longest} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_later_is_in_the_trace_of_whoever_asked_for_it() {
    let collector = Collector::start().await;
    let plan = World::plan().impatient().variable("BREAKER_FAILURES", "1");
    let world = collector.takes_from(plan).start().await;
    let order = world.bought().await;
    world.kill(Part::Warranty).await;

    // A purchase is taken back, in its own trace.
    let lost = "2af7651916cd43dd8448eb211c80319c";
    within(world.buy(), lost).send().await.blames("rolled_back", Part::Warranty);
    let way = collector.until(lost, "Warehouse has taken the item back", |trace| {
        way_to(trace, "warehouse", "DELETE")
    });
    let way = way.await;
    assert!(way.contains(&"order internal undo".to_owned()), "{way:#?}");
    assert_eq!(way[0], format!("store server {PURCHASE}"));
    let failed = collector.until(lost, "the call that failed says how", |trace| {
        let mut all = trace.0.iter();
        all.find(|span| span.is("error.type", "connect")).cloned()
    });
    let failed = failed.await;
    assert!(failed.failed && failed.kind == "client", "{failed:?}");
    assert_eq!(failed.attributes["peer.service"], "warranty");

    // What a breaker keeps back isn't called: where that was, it is said.
    let kept = "5af7651916cd43dd8448eb211c80319c";
    for _ in 0..2 {
        assert_eq!(within(world.get(order), kept).send().await.status, 200);
    }
    collector
        .until(kept, "the breaker says that it kept it back", |trace| {
            let mut events = trace.0.iter().flat_map(|span| &span.events);
            events.find(|event| *event == "not let through").cloned()
        })
        .await;

    // A claim waits, and is decided in the trace that it came in, however late.
    let late = "3af7651916cd43dd8448eb211c80319c";
    let claim = within(world.claim(order), late).send().await.queued(order);
    world.restart(Part::Warranty).await;
    world.settled_claim(RECOVERY, order, claim).await;
    let way =
        collector.until(late, "Warranty has decided", |trace| way_to(trace, "warranty", "POST"));
    let way = way.await;
    assert_eq!(hops(&way)[..2], [&format!("store server {CLAIM}"), "store consumer process claim"]);
    assert!(way.iter().any(|span| span.starts_with("warehouse server")), "{way:#?}");
    let said = world.replica(Part::Store, 0).said();
    assert!(said.contains("deferred{kind=\"claim\"") && !said.contains("otel."), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_is_taken_back_in_the_trace_of_the_request_that_began_it() {
    let collector = Collector::start().await;
    let world = collector.takes_from(World::plan().impatient()).start().await;
    let order = world.replica(Part::Order, 0);
    order.kill().await;
    // The item is taken, and Warranty not asked yet.
    order.spawn_with(&[(crash::AT, "before POST warranty #1")]);
    order.ready().await;
    let trace = "8af7651916cd43dd8448eb211c80319c";
    within(world.buy(), trace).send().await;
    order.ended().await;
    // Nobody asks Order to take it back: it does so by itself.
    world.kill(Part::Store).await;
    world.restart(Part::Order).await;
    let way = collector.until(trace, "Order has taken the item back", |trace| {
        let way = trace.path(trace.find("warehouse", "server", "DELETE")?);
        way[0].starts_with("order consumer process ").then_some(way)
    });
    let way = way.await;
    let [.., undo, call, _] = &way[..] else { panic!("{way:#?}") };
    assert_eq!([undo, call], ["order internal undo", "order client DELETE"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_traces_that_no_caller_has_decided_on_one_in_ten_is_sent() {
    const ASKED: usize = 400;
    let collector = Collector::start().await;
    let plan = World::plan().variable("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    let world = plan.start().await;
    let bought = world.buy().send().await;
    let mut told = vec![bought.header("traceparent").unwrap().to_owned()];
    let order = bought.bought();
    for _ in 0..ASKED {
        let answer = world.get(order).send().await;
        told.push(answer.header("traceparent").unwrap().to_owned());
    }
    let (sampled, others): (Vec<_>, Vec<_>) = told.iter().partition(|told| told.ends_with("-01"));
    assert!(others.iter().all(|told| told.ends_with("-00")), "{others:?}");
    // Six times what chance makes of 40, to either side.
    assert!((4..=76).contains(&sampled.len()), "{} of {ASKED}", sampled.len());
    let trace = "9af7651916cd43dd8448eb211c80319c";
    within(world.get(order), trace).send().await;
    let is_sent = |trace: &Trace| trace.find("warranty", "server", "GET").map(drop);
    collector.until(trace, "a caller's is sent, whatever chance says", is_sent).await;
    let mut sent: BTreeSet<_> = collector.all().into_iter().map(|span| span.trace).collect();
    assert!(sent.remove(trace));
    let sampled: BTreeSet<_> = sampled.iter().map(|told| told[3..35].to_owned()).collect();
    assert!(sent.is_subset(&sampled), "{sent:?} beside {sampled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_costs_requests_nothing_and_no_end_its_time() {
    // It accepts, and never answers.
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", hung.local_addr().unwrap());
    let plan = World::plan().variable("OTEL_BSP_MAX_QUEUE_SIZE", "64");
    let plan = plan.variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16");
    let world = traced(plan, &url).start().await;
    let accepted = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = hung.accept().await {
            held.push(stream);
        }
    });
    let order = world.bought().await;
    for _ in 0..200 {
        let answer = prompt(world.get(order)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert!(world.replica(Part::Store, 0).said().contains("queue full"), "more than are kept");
    assert!(!accepted.is_finished());
    let begin = Instant::now();
    world.terminate(Part::Store).await;
    // Its own time to send is 10 s.
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_a_trace_passes_through_as_it_is() {
    let world = World::start().await;
    let trace = "4af7651916cd43dd8448eb211c80319c";
    let answer = within(world.buy(), trace).send().await;
    let sent = format!("00-{trace}-{CALLER}-01");
    assert_eq!(answer.header("traceparent"), Some(sent.as_str()));
    until(RECOVERY, "every service has said something", async || {
        Part::ALL.iter().all(|part| world.replica(*part, 0).said().contains(trace)).then_some(())
    })
    .await;
}
