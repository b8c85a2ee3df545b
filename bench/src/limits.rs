//! What must hold: differences and ratios within the run, as absolute times say more about the
//! machine.

use crate::Results;
use crate::harness::{THREADS, Timing};

pub(crate) struct Limit {
    pub(crate) promise: String,
    pub(crate) measured: String,
    pub(crate) held: bool,
}

const ONE: usize = 0;
const TWO: usize = 1;
const EIGHT: usize = 2;

/// Above this, two threads didn't have two cores: what they cost each other can't be seen.
const CROWDED: f64 = 1.5;

impl Limit {
    /// No more than this many nanoseconds.
    fn at_most(promise: impl Into<String>, limit: f64, measured: Option<f64>) -> Self {
        Self {
            promise: promise.into(),
            measured: measured.map_or("not measured".to_owned(), |ns| format!("{ns:.1} ns")),
            held: measured.is_some_and(|ns| ns <= limit),
        }
    }
}

pub(crate) fn judge(results: &Results) -> Vec<Limit> {
    let [bare, ours, peers @ ..] = &*results.closed else { unreachable!("see Results") };
    let [clock, clocked @ ..] = &*results.clocked else { unreachable!("see Results") };
    let [rejection, ..] = &*results.open else { unreachable!("see Results") };

    let mut limits = vec![Limit::at_most(
        "closed, 1 thread: at most 5 ns over the bare call",
        5.0,
        ours.over(bare, ONE),
    )];
    limits.extend([TWO, EIGHT].map(|threads| four_times(ours, peers, threads)));
    for timing in clocked {
        for threads in [ONE, TWO] {
            limits.push(Limit::at_most(
                format!(
                    "{}, {}: at most 15 ns over a clock read",
                    timing.name.trim_start_matches("resilience, "),
                    threads_in_words(threads),
                ),
                15.0,
                timing.over(clock, threads),
            ));
        }
    }
    limits.push(Limit::at_most(
        "a rejection, 1 thread: at most 50 ns",
        50.0,
        rejection.median(ONE),
    ));
    limits.push(Limit {
        promise: "a rejection allocates nothing".to_owned(),
        measured: format!("{} allocations", rejection.allocations),
        held: rejection.allocations == 0,
    });
    limits
}

fn four_times(ours: &Timing, peers: &[Timing], threads: usize) -> Limit {
    let fastest = peers
        .iter()
        .filter_map(|peer| Some((peer.times(ours, threads)?, peer.name)))
        .min_by(|one, other| one.0.total_cmp(&other.0));
    Limit {
        promise: format!(
            "closed, {}: at least 4 times as fast as the fastest peer",
            threads_in_words(threads)
        ),
        measured: fastest.map_or("not measured".to_owned(), |(times, name)| {
            format!("{times:.1} times ({name})")
        }),
        held: fastest.is_some_and(|(times, _)| times >= 4.0),
    }
}

pub(crate) fn threads_in_words(threads: usize) -> String {
    let threads = THREADS[threads];
    if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") }
}

/// Whether something else took the cores while it ran.
pub(crate) fn is_crowded(results: &Results) -> bool {
    let bare = &results.closed[0];
    matches!((bare.median(ONE), bare.median(TWO)), (Some(one), Some(two)) if two > one * CROWDED)
}
