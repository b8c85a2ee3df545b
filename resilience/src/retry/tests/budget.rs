//! What pays for retries, under a clock that is turned by hand.

use std::time::Duration;

use crate::retry::{RetryBudget, RetryBudgetBuilder, RetryBudgetSnapshot};
use crate::testkit::ManualClock;

fn budget(clock: &ManualClock) -> RetryBudgetBuilder {
    RetryBudget::builder("billing").floor(0.0).clock(clock.clone())
}

fn succeed(budget: &RetryBudget, times: u32) {
    (0..times).for_each(|_| budget.deposit());
}

fn granted(budget: &RetryBudget) -> u32 {
    (0..1000).take_while(|_| budget.withdraw()).map(|_| 1).sum()
}

#[test]
fn a_share_of_the_successes_is_granted() {
    let budget = budget(&ManualClock::new()).ratio(0.05).build();
    assert_eq!(granted(&budget), 0);
    succeed(&budget, 19);
    assert_eq!(granted(&budget), 0);
    succeed(&budget, 1);
    assert_eq!(granted(&budget), 1);
    succeed(&budget, 380);
    assert_eq!(granted(&budget), 19);
}

#[test]
fn the_floor_is_there_only_while_there_are_successes() {
    let clock = ManualClock::new();
    let budget = budget(&clock).ratio(0.0).floor(0.5).build();
    assert_eq!(granted(&budget), 0, "none before the first success");
    succeed(&budget, 1);
    assert_eq!(granted(&budget), 5, "half a retry per second, for ten seconds");
    clock.advance(Duration::from_secs(11));
    assert_eq!(granted(&budget), 0, "none in an outage");
    succeed(&budget, 1);
    assert_eq!(granted(&budget), 5);
}

#[test]
fn successes_and_retries_drop_out_of_the_window_slice_by_slice() {
    let clock = ManualClock::new();
    let budget = budget(&clock).ratio(0.5).window(Duration::from_secs(16)).build();
    for _ in 0..16 {
        succeed(&budget, 2);
        assert_eq!(granted(&budget), 1);
        clock.advance(Duration::from_secs(1));
    }
    for left in (0..16).rev() {
        let snapshot = budget.snapshot();
        let now = (snapshot.recent_successes, snapshot.recent_retries);
        assert_eq!(now, (2 * left, left));
        clock.advance(Duration::from_secs(1));
    }
    succeed(&budget, 2);
    assert_eq!(granted(&budget), 1, "the places of old slices are used again");
    let snapshot = budget.snapshot();
    assert_eq!(
        (snapshot.recent_successes, snapshot.recent_retries),
        (2, 1),
        "without their counts"
    );
}

#[test]
fn clones_share_it_and_the_snapshot_tells() {
    let budget = budget(&ManualClock::new()).ratio(0.1).build();
    succeed(&budget.clone(), 25);
    assert!(budget.clone().withdraw());
    let expected = RetryBudgetSnapshot {
        name: "billing".into(),
        recent_successes: 25,
        recent_retries: 1,
        available: 1,
        retries: 1,
        denied: 0,
    };
    assert_eq!(budget.snapshot(), expected);
    assert_eq!(granted(&budget), 1);
    assert_eq!(budget.snapshot().denied, 1);
}

#[test]
fn an_unlimited_one_counts_and_grants() {
    let budget = RetryBudget::unlimited("backlog");
    assert_eq!(granted(&budget), 1000);
    assert_eq!((budget.snapshot().retries, budget.snapshot().denied), (1000, 0));
}

#[test]
fn threads_together_get_no_more_than_there_is() {
    let budget = budget(&ManualClock::new()).ratio(0.1).build();
    let granted: u32 = std::thread::scope(|scope| {
        let deposits = [0; 4].map(|_| scope.spawn(|| succeed(&budget, 500)));
        for thread in deposits {
            thread.join().expect("no panic");
        }
        let threads = [0; 4].map(|_| scope.spawn(|| granted(&budget)));
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(granted, 200);
}

#[test]
fn senseless_settings_are_bent_into_sense() {
    let budget =
        budget(&ManualClock::new()).ratio(f64::NAN).floor(-1.0).window(Duration::ZERO).build();
    succeed(&budget, 100);
    assert_eq!(granted(&budget), 0);
}
