use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::task::yield_now;
use tokio::time::{self, Instant};

use super::*;
use crate::random::Random;
use crate::testkit::ManualClock;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Room for many who wait, for a second each.
fn bulkhead(limit: usize) -> Bulkhead {
    Bulkhead::builder("billing", limit).queue(100, ms(1000)).build()
}

fn counts(bulkhead: &Bulkhead) -> (usize, usize) {
    let snapshot = bulkhead.snapshot();
    (snapshot.in_flight, snapshot.waiting)
}

/// Somebody who waits for a place, and once he has it waits to be told to leave.
fn occupy(bulkhead: &Bulkhead) -> tokio::task::JoinHandle<Place<'static>> {
    let bulkhead = bulkhead.clone();
    tokio::spawn(async move { bulkhead.acquire_owned(None).await.expect("a place") })
}

async fn settle() {
    for _ in 0..5 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_limit_are_in_flight() {
    let bulkhead = Bulkhead::builder("billing", 2).build();
    let one = bulkhead.acquire(None).await.expect("a place");
    let _two = bulkhead.try_acquire().expect("a place");
    let full = bulkhead.acquire(None).await.expect_err("full");
    assert_eq!((full.bulkhead(), full.limit(), full.waited()), ("billing", 2, Duration::ZERO));
    assert!(bulkhead.clone().try_acquire().is_err());
    assert_eq!(bulkhead.snapshot().rejected, 2);
    drop(one);
    assert!(bulkhead.try_acquire().is_ok());
    assert_eq!(counts(&bulkhead), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn places_are_given_in_the_order_in_which_they_were_asked_for() {
    let bulkhead = bulkhead(1);
    let first = bulkhead.try_acquire().expect("a place");
    let order = Mutex::new(Vec::new());
    let all = join_all((0..20).map(|n| {
        let (bulkhead, order) = (&bulkhead, &order);
        async move {
            let place = bulkhead.acquire(None).await.expect("a place");
            order.lock().expect("no panic").push(n);
            time::sleep(ms(1)).await;
            drop(place);
        }
    }));
    let ((), _) = tokio::join!(
        async {
            settle().await;
            drop(first);
            // Nobody gets in before those who wait, however fast he is.
            assert!(bulkhead.try_acquire().is_err());
        },
        all
    );
    assert_eq!(*order.lock().expect("no panic"), (0..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_in_length() {
    let bulkhead = Bulkhead::builder("billing", 1).queue(2, ms(1000)).build();
    let place = bulkhead.try_acquire().expect("a place");
    let waiting = [occupy(&bulkhead), occupy(&bulkhead)];
    settle().await;
    assert_eq!(counts(&bulkhead), (1, 2));
    let started = Instant::now();
    let full = bulkhead.acquire(None).await.expect_err("full");
    assert_eq!((full.waited(), started.elapsed()), (Duration::ZERO, Duration::ZERO));
    drop(place);
    for waiting in waiting {
        drop(waiting.await.expect("no panic"));
    }
    assert_eq!(counts(&bulkhead), (0, 0));
    let snapshot = bulkhead.snapshot();
    assert_eq!((snapshot.admitted, snapshot.queued, snapshot.rejected), (3, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_bounded_in_time() {
    let bulkhead = Bulkhead::builder("billing", 1).queue(10, ms(50)).build();
    let _place = bulkhead.try_acquire().expect("a place");
    let started = Instant::now();
    let full = bulkhead.acquire(None).await.expect_err("full");
    assert_eq!(started.elapsed(), ms(50));
    assert_eq!(
        full.to_string(),
        "billing is busy: the limit on calls in flight (1) is reached, \
         and no place became free within 50 ms",
    );
    assert_eq!(counts(&bulkhead), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_wait_never_exceeds_the_deadline() {
    let bulkhead = bulkhead(1);
    let _place = bulkhead.try_acquire().expect("a place");
    let started = Instant::now();
    assert!(bulkhead.acquire(Some(Deadline::after(ms(30)))).await.is_err());
    assert_eq!(started.elapsed(), ms(30));
    let past = Deadline::at(started.into_std());
    assert!(bulkhead.acquire(Some(past)).await.is_err());
    assert!(bulkhead.acquire_owned(Some(past)).await.is_err());
    assert_eq!(started.elapsed(), ms(30), "no time, no wait");
    let far = Deadline::after(Duration::from_hours(1));
    assert!(bulkhead.acquire(Some(far)).await.is_err());
    assert_eq!(started.elapsed(), ms(1030), "a deadline makes no wait longer");
}

#[test]
fn the_wait_goes_by_the_clock_that_is_given() {
    let clock = ManualClock::new();
    let builder = Bulkhead::builder("billing", 1).queue(1, ms(50));
    let bulkhead = builder.clock(clock.clone()).build();
    let _place = bulkhead.try_acquire().expect("a place");
    let mut waiting = Box::pin(bulkhead.acquire(None));
    assert!(waiting.as_mut().now_or_never().is_none());
    clock.advance(ms(49));
    assert!(waiting.as_mut().now_or_never().is_none());
    clock.advance(ms(1));
    assert_eq!(waiting.now_or_never().expect("ready").expect_err("full").waited(), ms(50));
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_the_queue() {
    let bulkhead = bulkhead(1);
    let place = bulkhead.try_acquire().expect("a place");
    let mut first = Box::pin(bulkhead.acquire(None));
    let mut second = Box::pin(bulkhead.acquire(None));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    drop(first);
    assert_eq!(counts(&bulkhead), (1, 1));
    drop(place);
    assert!(second.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_place_given_to_who_has_just_given_up_goes_to_the_next() {
    let bulkhead = bulkhead(1);
    let place = bulkhead.try_acquire().expect("a place");
    let mut first = Box::pin(bulkhead.acquire(None));
    let mut second = Box::pin(bulkhead.acquire(None));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    drop(place);
    assert_eq!(counts(&bulkhead), (1, 1), "given to the first, who doesn't know yet");
    drop(first);
    assert_eq!(counts(&bulkhead), (1, 0));
    drop(second.now_or_never().expect("its turn"));
    assert_eq!(counts(&bulkhead), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_gives_the_place_back() {
    let bulkhead = bulkhead(1);
    let inside = bulkhead.clone();
    let task = tokio::spawn(async move {
        let _place = inside.acquire(None).await;
        panic!("a defect");
    });
    assert!(task.await.is_err());
    assert_eq!(counts(&bulkhead), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn growing_lets_those_in_who_wait() {
    let bulkhead = bulkhead(1);
    let _place = bulkhead.try_acquire().expect("a place");
    let waiting = [occupy(&bulkhead), occupy(&bulkhead), occupy(&bulkhead)];
    settle().await;
    bulkhead.resize(3);
    settle().await;
    assert_eq!(counts(&bulkhead), (3, 1));
    assert_eq!(waiting.iter().filter(|task| task.is_finished()).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn shrinking_lets_calls_end_and_admits_none_before() {
    let bulkhead = bulkhead(3);
    let mut places: Vec<_> = (0..3).map(|_| bulkhead.try_acquire().expect("a place")).collect();
    let waiting = occupy(&bulkhead);
    settle().await;
    bulkhead.resize(0);
    assert_eq!(bulkhead.snapshot().limit, 1, "0 counts as 1");
    for in_flight in [2, 1] {
        places.pop();
        settle().await;
        assert_eq!(counts(&bulkhead), (in_flight, 1));
    }
    places.pop();
    drop(waiting.await.expect("its turn"));
    assert_eq!(counts(&bulkhead), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_snapshot_tells_how_long_was_waited() {
    let bulkhead = bulkhead(1);
    let place = bulkhead.try_acquire().expect("a place");
    let waiting = occupy(&bulkhead);
    time::sleep(ms(20)).await;
    drop(place);
    drop(waiting.await.expect("its turn"));
    let expected = BulkheadSnapshot {
        name: "billing".into(),
        limit: 1,
        in_flight: 0,
        waiting: 0,
        admitted: 2,
        queued: 1,
        waited: ms(20),
        rejected: 0,
    };
    assert_eq!(bulkhead.snapshot(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_a_storm_of_callers_no_place_is_lost_and_none_is_given_twice() {
    const LIMIT: usize = 4;
    let bulkhead = Bulkhead::builder("billing", LIMIT).queue(1000, ms(60_000)).build();
    let random = Arc::new(Random::seeded(3));
    let inside = Arc::new(AtomicUsize::new(0));
    let callers = (0..200).map(|_| {
        let (bulkhead, random, inside) = (bulkhead.clone(), random.clone(), inside.clone());
        tokio::spawn(async move {
            for _ in 0..50 {
                let patience = random.next_u64() % 4;
                let place = bulkhead.acquire(None);
                let place = tokio::select! {
                    biased;
                    place = place => place.expect("a place"),
                    // Some give up after a few polls.
                    () = async { for _ in 0..patience { yield_now().await } }, if patience < 3 => {
                        continue;
                    }
                };
                assert!(inside.fetch_add(1, Ordering::SeqCst) < LIMIT);
                yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                drop(place);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("no more than the limit");
    }
    assert_eq!(counts(&bulkhead), (0, 0));
    let all: Vec<_> = (0..LIMIT).map(|_| bulkhead.try_acquire()).collect();
    assert!(all.iter().all(Result::is_ok));
}

/// One place, and a queue that stands after 100 ms, in which nobody waits for more than 10 ms then.
fn impatient() -> Bulkhead {
    let builder = Bulkhead::builder("billing", 1).queue(100, ms(1000));
    builder.standing_queue(ms(100), ms(10)).build()
}

/// How long somebody waits, and whether for a place.
async fn waits(bulkhead: &Bulkhead) -> (Duration, bool) {
    let started = Instant::now();
    let place = bulkhead.acquire(None).await;
    (started.elapsed(), place.is_ok())
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_waited_out() {
    let bulkhead = impatient();
    let place = bulkhead.try_acquire().expect("a place");
    let (waited, ()) = tokio::join!(waits(&bulkhead), async {
        time::sleep(ms(95)).await;
        drop(place);
    });
    assert_eq!(waited, (ms(95), true));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_long_in_a_queue_that_stands() {
    let bulkhead = impatient();
    let _place = bulkhead.try_acquire().expect("a place");
    let later = async |delay| {
        time::sleep(ms(delay)).await;
        waits(&bulkhead).await
    };
    // The first gives up as soon as it stands; those who come then don't wait for the second step.
    let waited = tokio::join!(later(0), later(95), later(97), later(105), later(112));
    let gave_up = |millis| (ms(millis), false);
    assert_eq!(waited.0, gave_up(100));
    assert_eq!(waited.1, gave_up(10));
    assert_eq!(waited.2, gave_up(10));
    assert_eq!(waited.3, gave_up(10));
    assert_eq!(waited.4, gave_up(10));
    assert_eq!(counts(&bulkhead), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_was_empty_is_a_burst_again() {
    let bulkhead = impatient();
    let place = bulkhead.try_acquire().expect("a place");
    assert_eq!(waits(&bulkhead).await, (ms(100), false));
    time::sleep(ms(500)).await;
    let (waited, ()) = tokio::join!(waits(&bulkhead), async {
        time::sleep(ms(95)).await;
        drop(place);
    });
    assert_eq!(waited, (ms(95), true));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_moves_is_never_an_overload() {
    let bulkhead = impatient();
    // One every 30 ms, each of whom stays for as long, and three in the beginning: somebody always waits.
    let come = (0..50_u64).map(|n| {
        let bulkhead = &bulkhead;
        async move {
            time::sleep(ms(30) * u32::try_from(n.saturating_sub(2)).expect("few")).await;
            let place = bulkhead.acquire(None).await;
            assert!(place.is_ok(), "{n} is turned away");
            time::sleep(ms(30)).await;
        }
    });
    join_all(come).await;
    assert_eq!(bulkhead.snapshot().queued, 49);
}

#[tokio::test(start_paused = true)]
async fn an_overload_with_a_pause_is_the_same_one() {
    let bulkhead = impatient();
    let _place = bulkhead.try_acquire().expect("a place");
    assert_eq!(waits(&bulkhead).await, (ms(100), false));
    // Nobody waits for less than the 100 ms that tell a burst.
    for pause in [1, 60, 99] {
        time::sleep(ms(pause)).await;
        let (first, second) = tokio::join!(waits(&bulkhead), async {
            time::sleep(ms(35)).await;
            waits(&bulkhead).await
        });
        assert_eq!((first, second), ((ms(40), false), (ms(10), false)), "{pause}");
    }
    time::sleep(ms(101)).await;
    assert_eq!(waits(&bulkhead).await, (ms(100), false));
}

#[tokio::test(start_paused = true)]
async fn nobody_has_to_wait_for_longer_than_he_may_for_it_to_stand() {
    for after in [100, 101, u64::MAX] {
        let builder = Bulkhead::builder("billing", 1).queue(100, ms(100));
        let bulkhead = builder.standing_queue(ms(after), ms(10)).build();
        let _place = bulkhead.try_acquire().expect("a place");
        let later = async {
            time::sleep(ms(95)).await;
            waits(&bulkhead).await
        };
        let (first, second) = tokio::join!(waits(&bulkhead), later);
        assert_eq!((first, second), ((ms(100), false), (ms(10), false)), "{after}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_may_wait_for_a_moment_waits_for_all_of_it() {
    for after in [0, 1, 9] {
        let builder = Bulkhead::builder("billing", 1).queue(100, ms(1000));
        let bulkhead = builder.standing_queue(ms(after), ms(10)).build();
        let _place = bulkhead.try_acquire().expect("a place");
        for _ in 0..3 {
            assert_eq!(waits(&bulkhead).await, (ms(10), false), "{after}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_when_it_begins_to_stand_are_told_before_they_have_waited_twice_as_long() {
    let bulkhead = impatient();
    let _place = bulkhead.try_acquire().expect("a place");
    let come = (0..100).map(|n| {
        let bulkhead = &bulkhead;
        async move {
            time::sleep(ms(n)).await;
            let (waited, served) = waits(bulkhead).await;
            let by_then = ms(100 - n);
            assert!(!served && waited <= ms(10).max(by_then * 2), "{n}: {waited:?}");
        }
    });
    join_all(come).await;
}

/// What part is shed of what comes from 2 s after an overload of 5 s on, at that part of what 8 places can
/// carry. Both the gaps and the calls, 50 ms each, are exponentially distributed.
async fn shed_after_an_overload(after: Duration, wait: Duration, load: f64, seed: u64) -> f64 {
    let builder = Bulkhead::builder("billing", 8).queue(64, ms(4000));
    let bulkhead = builder.standing_queue(after, wait).build();
    let random = Random::seeded(seed);
    let exponential = |mean: f64| Duration::from_secs_f64(-mean * (1.0 - random.fraction()).ln());
    let begun = Instant::now();
    let (mut calls, mut next) = (Vec::new(), begun);
    while begun.elapsed() < ms(37_000) {
        let overload = begun.elapsed() < ms(5000);
        let (load, takes) = if overload { (4.0, 0.3) } else { (load, 0.05) };
        next += exponential(takes / 8.0 / load);
        time::sleep_until(next).await;
        let (takes, late, bulkhead) =
            (exponential(takes), begun.elapsed() > ms(7000), bulkhead.clone());
        calls.push(tokio::spawn(async move {
            let place = bulkhead.acquire_owned(None).await;
            if place.is_ok() {
                time::sleep(takes).await;
            }
            late.then(|| place.is_err())
        }));
    }
    let shed: Vec<_> = join_all(calls).await.into_iter().flatten().flatten().collect();
    let count = |many: usize| f64::from(u32::try_from(many).expect("few"));
    count(shed.iter().filter(|shed| **shed).count()) / count(shed.len())
}

#[tokio::test(start_paused = true)]
async fn an_overload_is_over_when_less_comes() {
    // With a wait of 5 ms for 1250 it goes on by itself: for half a minute one in ten is shed.
    for (after, wait) in [(250, 5), (1250, 25)] {
        for (load, seed) in [(0.8, 1), (0.8, 2), (0.9, 1), (0.9, 3)] {
            let shed = shed_after_an_overload(ms(after), ms(wait), load, seed).await;
            assert!(shed < 0.003, "{after}, {wait}, {load}: {shed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn places_of_a_queue_that_stands_go_to_those_who_wait() {
    let bulkhead = impatient();
    let served = Mutex::new(0);
    // One every 4 ms, and a place that is held for 8: half of them can't be served.
    let come = (0..200).map(|n| {
        let (bulkhead, served) = (&bulkhead, &served);
        async move {
            time::sleep(ms(4 * n)).await;
            let started = Instant::now();
            let place = bulkhead.acquire(None).await;
            assert!(started.elapsed() <= ms(110), "{n} waited for {:?}", started.elapsed());
            if place.is_ok() {
                time::sleep(ms(8)).await;
                *served.lock().expect("no panic") += 1;
            }
        }
    });
    let started = Instant::now();
    join_all(come).await;
    let served = *served.lock().expect("no panic");
    let possible = started.elapsed().as_millis() / 8;
    assert!(served + 2 >= possible, "{served} of {possible}");
}
