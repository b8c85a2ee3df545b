//! What must hold: differences and ratios within the run, as absolute times say more about the
//! machine.

use bench_page::Limit;

use crate::Results;
use crate::harness::Timing;

const ONE: usize = 0;
const TWO: usize = 1;
const EIGHT: usize = 2;

/// Above this, two threads didn't have two cores: what they cost each other can't be seen.
const CROWDED: f64 = 1.5;

/// No more than this many nanoseconds.
fn at_most(promise: &'static str, limit: f64, measured: Option<f64>) -> Limit {
    Limit {
        promise,
        measured: measured.map_or("not measured".to_owned(), |ns| format!("{ns:.1} ns")),
        held: measured.is_some_and(|ns| ns <= limit),
    }
}

pub(crate) fn judge(results: &Results) -> Vec<Limit> {
    let [bare, ours, peers @ ..] = &*results.closed else { unreachable!("see Results") };
    let [_, clock, slow_threshold, window, ..] = &*results.clocked else {
        unreachable!("see Results")
    };
    let rejection = &results.open[0];
    let [future, _, pipeline] = &*results.futures else { unreachable!("see Results") };

    vec![
        at_most("closed, 1 thread: at most 5 ns over a bare call", 5.0, ours.over(bare, ONE)),
        four_times(ours, peers, TWO),
        four_times(ours, peers, EIGHT),
        at_most(
            "slow threshold, 1 thread: at most 15 ns over a bare call and a clock read",
            15.0,
            slow_threshold.over(clock, ONE),
        ),
        at_most(
            "window, 1 thread: at most 15 ns over a bare call and a clock read",
            15.0,
            window.over(clock, ONE),
        ),
        at_most("rejection, 1 thread: at most 50 ns", 50.0, rejection.median(ONE)),
        Limit {
            promise: "rejection: no allocation",
            measured: rejection.allocations.to_string(),
            held: rejection.allocations == 0,
        },
        at_most(
            "the whole pipeline, 1 thread: at most 300 ns over a bare future",
            300.0,
            pipeline.over(future, ONE),
        ),
    ]
}

fn four_times(ours: &Timing, peers: &[Timing], threads: usize) -> Limit {
    let fastest = peers
        .iter()
        .filter_map(|peer| Some((peer.times(ours, threads)?, peer.name)))
        .min_by(|one, other| one.0.total_cmp(&other.0));
    Limit {
        promise: if threads == TWO {
            "closed, 2 threads: at least 4 times as fast as the fastest peer"
        } else {
            "closed, 8 threads: at least 4 times as fast as the fastest peer"
        },
        measured: fastest.map_or("not measured".to_owned(), |(times, name)| {
            format!("{times:.1} times ({name})")
        }),
        held: fastest.is_some_and(|(times, _)| times >= 4.0),
    }
}

/// Whether something else took the cores while it ran.
pub(crate) fn is_crowded(results: &Results) -> bool {
    let bare = &results.closed[0];
    matches!((bare.median(ONE), bare.median(TWO)), (Some(one), Some(two)) if two > one * CROWDED)
}
