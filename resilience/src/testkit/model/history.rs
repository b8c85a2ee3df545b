//! What the model remembers of calls.

use std::time::Duration;

use super::Spec;
use crate::breaker::WindowCounts;

/// The window slides in steps of a sixteenth.
const SLICES: u128 = 16;

/// Calls in flight are looked at in steps of a quarter of the slow threshold.
const STEPS: u128 = 4;

/// In nanoseconds: no slice is shorter.
const SHORTEST: u128 = 1;

/// One that was let in.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) started: Duration,
    /// Whether anybody looked at the clock then.
    pub(super) timed: bool,
    /// Of which watch it is.
    pub(super) watch: u32,
    pub(super) generation: u64,
    /// For a probe.
    pub(super) lease_end: Duration,
    /// A probe in whose place another call was let in.
    pub(super) replaced: bool,
    pub(super) ended: Option<Count>,
}

/// Where a call that has ended is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    Success,
    Failure,
    Ignored,
    Abandoned,
    Stale,
}

/// The results that rates are made of.
#[derive(Debug, Default)]
pub(super) struct Window(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    at: Duration,
    failed: bool,
    slow: bool,
}

impl Window {
    pub(super) fn add(&mut self, at: Duration, failed: bool, slow: bool) {
        self.0.push(Entry { at, failed, slow });
    }

    pub(super) fn counts(&self, now: Duration, length: Duration) -> WindowCounts {
        let inside = || self.0.iter().filter(move |entry| is_inside(entry, now, length));
        WindowCounts {
            calls: inside().count() as u64,
            failures: inside().filter(|entry| entry.failed).count() as u64,
            slow: inside().filter(|entry| entry.slow).count() as u64,
        }
    }

    /// What is in a window of this length counts as of now.
    pub(super) fn move_to(&mut self, now: Duration, length: Duration) {
        self.0.retain(|entry| is_inside(entry, now, length));
        for entry in &mut self.0 {
            entry.at = now;
        }
    }

    /// When something falls out of it.
    pub(super) fn moments(&self, length: Duration) -> impl Iterator<Item = Duration> {
        let width = width(length);
        self.0.iter().map(move |entry| nanos((slice(entry.at, width) + SLICES) * width))
    }
}

/// Whether it is in the slice of this moment, or in one of the 15 before.
fn is_inside(entry: &Entry, now: Duration, length: Duration) -> bool {
    let width = width(length);
    slice(now, width) - slice(entry.at, width) < SLICES
}

fn width(length: Duration) -> u128 {
    (length.as_nanos() / SLICES).max(SHORTEST)
}

fn slice(moment: Duration, width: u128) -> u128 {
    moment.as_nanos() / width
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Over the calls in flight. A new one begins when the slow threshold changes.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) number: u32,
    /// When the breaker was last closed; `None` while that was before the watch began.
    pub(super) closed_at: Option<Duration>,
}

impl Watch {
    pub(super) fn new(number: u32) -> Self {
        Self { number, closed_at: None }
    }

    pub(super) fn is_hung(&self, call: &Call, now: Duration, spec: &Spec) -> bool {
        let under_way = call.ended.is_none() && call.watch == self.number;
        under_way && Self::hangs_from(call, spec).is_some_and(|moment| moment <= now)
    }

    /// From when on this call is hung, if it is still under way.
    pub(super) fn hangs_from(call: &Call, spec: &Spec) -> Option<Duration> {
        let width = Self::width(spec)?;
        Some(nanos((slice(call.started, width) + STEPS + 1) * width))
    }

    /// Only those can open the breaker: the others were seen before it closed.
    pub(super) fn began_after_closing(&self, call: &Call, spec: &Spec) -> bool {
        Self::width(spec).is_some_and(|width| {
            self.closed_at.is_none_or(|closed| slice(call.started, width) > slice(closed, width))
        })
    }

    fn width(spec: &Spec) -> Option<u128> {
        spec.slow_call.map(|threshold| threshold.as_nanos().div_ceil(STEPS).max(SHORTEST))
    }
}
