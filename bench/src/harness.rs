//! Takes the time of calls: every case in every round, so that what disturbs one disturbs all.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::allocations;

/// How many threads call at once.
pub(crate) const THREADS: [usize; 3] = [1, 2, 8];

/// Odd, so that the median is one of them.
const ROUNDS: usize = 31;

/// How long one sample takes, roughly. With more threads than cores it has to span many of the
/// scheduler's turns, or the threads would run one after another.
const SAMPLE: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(10), Duration::from_millis(40)];

/// Whether all that is asked is that it runs, as on machines that others use: one round, whose numbers
/// mean nothing.
pub(crate) fn is_smoke() -> bool {
    std::env::var_os("BENCH_SMOKE").is_some()
}

/// Something to be called again and again, by several threads at once.
pub(crate) struct Case {
    name: &'static str,
    /// Makes this many calls.
    run: Box<dyn Fn(u32) + Sync>,
    most_threads: usize,
}

impl Case {
    /// What a call returns is what keeps it from being optimised away.
    pub(crate) fn new<R>(name: &'static str, call: impl Fn(u32) -> R + Sync + 'static) -> Self {
        Self::looped(name, move |calls| {
            for n in 0..calls {
                black_box(call(black_box(n)));
            }
        })
    }

    /// For what needs something of its own on each thread: makes all the calls itself.
    pub(crate) fn looped(name: &'static str, run: impl Fn(u32) + Sync + 'static) -> Self {
        Self { name, run: Box::new(run), most_threads: usize::MAX }
    }

    /// For what doesn't survive being called by several threads at once.
    pub(crate) fn on_one_thread(self) -> Self {
        Self { most_threads: 1, ..self }
    }

    /// How many allocations a call makes, rounded: what is made once doesn't show.
    fn allocations(&self) -> u64 {
        const CALLS: u32 = 10_000;
        let counted = allocations::count(|| (self.run)(CALLS));
        (counted + u64::from(CALLS) / 2) / u64::from(CALLS)
    }
}

/// Wall nanoseconds per call per thread: one number per round and number of threads.
pub(crate) struct Timing {
    pub(crate) name: &'static str,
    /// Per call, on one thread.
    pub(crate) allocations: u64,
    rounds: [Vec<f64>; THREADS.len()],
}

impl Timing {
    fn of(case: &Case) -> Self {
        Self { name: case.name, allocations: case.allocations(), rounds: Default::default() }
    }

    /// Nothing where it wasn't measured. `threads` is an index into [`THREADS`], here and below.
    pub(crate) fn median(&self, threads: usize) -> Option<f64> {
        quantile(self.rounds[threads].clone(), 0.5)
    }

    /// The middle half of the rounds lies within this much of each other.
    pub(crate) fn spread(&self, threads: usize) -> Option<f64> {
        let rounds = &self.rounds[threads];
        Some(quantile(rounds.clone(), 0.75)? - quantile(rounds.clone(), 0.25)?)
    }

    /// The median over the rounds of how much longer this took than the other in the same round.
    pub(crate) fn over(&self, other: &Self, threads: usize) -> Option<f64> {
        self.paired(other, threads, |this, other| this - other)
    }

    /// The median over the rounds of how many times as long as the other this took in the same
    /// round.
    pub(crate) fn times(&self, other: &Self, threads: usize) -> Option<f64> {
        self.paired(other, threads, |this, other| this / other)
    }

    fn paired(&self, other: &Self, threads: usize, of: fn(f64, f64) -> f64) -> Option<f64> {
        let pairs = self.rounds[threads].iter().zip(&other.rounds[threads]);
        quantile(pairs.map(|(&this, &other)| of(this, other)).collect(), 0.5)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "an index among a few dozen"
)]
fn quantile(mut values: Vec<f64>, share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some(values[(last as f64 * share).round() as usize])
}

/// Measures all of them, each group's in its order.
pub(crate) fn measure(groups: &[Vec<Case>]) -> Vec<Vec<Timing>> {
    let cases: Vec<&Case> = groups.iter().flatten().collect();
    let calls: Vec<[u32; THREADS.len()]> = cases.iter().map(|case| calibrate(case)).collect();
    let mut timings: Vec<Timing> = cases.iter().map(|case| Timing::of(case)).collect();
    for round in 0..if is_smoke() { 1 } else { ROUNDS } {
        for threads in 0..THREADS.len() {
            // Each round begins with another case: none always comes after the same other.
            for place in 0..cases.len() {
                let index = (place + round) % cases.len();
                if THREADS[threads] <= cases[index].most_threads {
                    let took = sample(cases[index], threads, calls[index][threads]);
                    timings[index].rounds[threads].push(took);
                }
            }
        }
    }
    let mut timings = timings.into_iter();
    groups.iter().map(|group| timings.by_ref().take(group.len()).collect()).collect()
}

/// How many calls each thread makes in a sample. Warms the case up as well.
fn calibrate(case: &Case) -> [u32; THREADS.len()] {
    std::array::from_fn(|threads| {
        let mut calls = 1_000;
        if THREADS[threads] > case.most_threads {
            return calls;
        }
        loop {
            let took = sample(case, threads, calls) * f64::from(calls);
            if took * 2.0 >= SAMPLE[threads].as_secs_f64() * 1e9 {
                return calls;
            }
            calls = calls.checked_mul(2).expect("a call takes some time");
        }
    })
}

/// Wall nanoseconds per call per thread: from the first thread's start to the last one's end,
/// divided by the calls that each of them made.
fn sample(case: &Case, threads: usize, calls: u32) -> f64 {
    let missing = AtomicUsize::new(THREADS[threads]);
    let spans: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let callers: Vec<_> = (0..THREADS[threads])
            .map(|_| {
                scope.spawn(|| {
                    // Awake until all are there: threads that sleep are woken on one core.
                    missing.fetch_sub(1, Ordering::Relaxed);
                    while missing.load(Ordering::Relaxed) > 0 {
                        thread::yield_now();
                    }
                    let began = Instant::now();
                    (case.run)(calls);
                    (began, Instant::now())
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().expect("a case panicked")).collect()
    });
    let began = spans.iter().map(|span| span.0).min().expect("at least one thread");
    let ended = spans.iter().map(|span| span.1).max().expect("at least one thread");
    (ended - began).as_secs_f64() * 1e9 / f64::from(calls)
}
