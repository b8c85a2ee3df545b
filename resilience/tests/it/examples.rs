//! The examples tell the stories that they say they tell. Their time is turned by hand here.

use std::time::Duration;

use resilience::testkit::ManualClock;

#[path = "../../examples/deferred.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run`")]
mod deferred;
#[path = "../../examples/fallback.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run`")]
mod fallback;
#[path = "../../examples/function.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run`")]
mod function;
#[path = "../../examples/http_client.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run`")]
mod http_client;
#[path = "../../examples/saga.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run`")]
mod saga;
#[path = "../../examples/tower_service.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run`")]
mod tower_service;

fn text(out: Vec<u8>) -> String {
    String::from_utf8(out).unwrap()
}

#[test]
fn example_of_a_function_opens_probes_twice_and_closes() {
    let (mut out, clock) = (Vec::new(), ManualClock::new());
    function::story(&mut out, clock.clone(), |time| clock.advance(time)).unwrap();
    let expected = "\
call 1: no answer
call 2: no answer
call 3: no answer
        -> open
call 4: weather is unavailable: no answer (circuit breaker open, next attempt in 1 s)
call 5: no answer
        -> half-open, and this call was the probe
        -> open
call 6: weather is unavailable: no answer (circuit breaker open, next attempt in 2 s)
call 7: 21 degrees
        -> half-open, and this call was the probe
        -> closed
call 8: 21 degrees
8 calls, and the station was asked 6 times
";
    assert_eq!(text(out), expected);
}

#[tokio::test]
async fn example_of_an_http_client_tells_effects_and_asks_no_more_than_it_has_to() {
    let (mut out, clock) = (Vec::new(), ManualClock::new());
    let turn = async |time: Duration| clock.advance(time);
    http_client::story(&mut out, clock.clone(), turn).await.unwrap();
    let expected = "\
call 1: billing is unavailable: answered 500
        effect: Unknown
call 2: billing is unavailable: answered 500
        effect: Unknown
call 3: billing is unavailable: answered 500
        effect: Unknown
call 4: billing is unavailable: answered 500 (circuit breaker open, next attempt in 1 s)
        effect: None
call 5: paid, receipt 17
call 6: paid, receipt 17
6 calls, and billing was asked 5 times
";
    assert_eq!(text(out), expected);
}

#[test]
fn example_of_a_fallback_chain_says_where_each_price_comes_from() {
    let (mut out, clock) = (Vec::new(), ManualClock::new());
    fallback::story(&mut out, clock.clone(), |time| clock.advance(time)).unwrap();
    let expected = "\
the shop is open
  tea: 400, live
  coffee: there is no such thing
a second later it is away
  tea: 400, as it was 1 s ago (connection refused)
  milk: 250, declared
another second later what is known is too old
  tea: 250, declared
";
    assert_eq!(text(out), expected);
}

#[tokio::test(start_paused = true)]
async fn example_of_a_tower_service_repeats_a_hiccup_and_opens_in_an_outage() {
    let mut out = Vec::new();
    tower_service::story(&mut out).await.unwrap();
    let expected = "\
call 1: 200, asked 1 times
call 2: 200, asked 2 times
call 3: 503, asked 3 times
call 4: billing is unavailable: answered 503 (circuit breaker open, next attempt in 1 s), asked 0 times
call 5: 200, asked 1 times
";
    assert_eq!(text(out), expected);
}

#[tokio::test]
async fn example_of_deferred_calls_ships_later_what_it_accepted() {
    let database = backing::postgres::testing::TestDatabase::new("shop", |_| Ok::<_, ()>(()));
    let mut out = Vec::new();
    deferred::story(&mut out, database.url()).await.unwrap();
    let expected = "\
order 1: shipped
the parcel service is away
order 2: accepted, to be shipped later
order 3: accepted, to be shipped later
it is back
order 2: done
order 3: done
";
    assert_eq!(text(out), expected);
}

#[tokio::test]
async fn example_of_a_saga_books_all_or_nothing() {
    let database = backing::postgres::testing::TestDatabase::new("travel", |_| Ok::<_, ()>(()));
    let mut out = Vec::new();
    saga::story(&mut out, database.url()).await.unwrap();
    let expected = "\
trip 1: booked
trip 1 again: it is committed already
trip 2: nothing was booked: sold out
held: 1 seats, 1 rooms
trip 3: the process dies; held: 2 seats, 1 rooms
trip 3: compensated; held: 1 seats, 1 rooms
";
    assert_eq!(text(out), expected);
}
