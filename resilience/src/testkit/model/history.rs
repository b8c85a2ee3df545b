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
    /// Of which watch it is, and in which of its slices it started.
    pub(super) watch: u32,
    pub(super) slice: u128,
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
    const SECOND: u128 = 1_000_000_000;
    let whole = |nanos| Duration::from_secs(u64::try_from(nanos / SECOND).unwrap_or(u64::MAX));
    let rest = |nanos| Duration::from_nanos(u64::try_from(nanos % SECOND).unwrap_or_default());
    whole(nanos).saturating_add(rest(nanos))
}

/// Over the calls in flight. A new one begins when the slow threshold changes.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) number: u32,
    /// When the breaker was closed since the watch began. A new slice began each time.
    closings: Vec<Duration>,
}

impl Watch {
    pub(super) fn new(number: u32) -> Self {
        Self { number, closings: Vec::new() }
    }

    pub(super) fn close(&mut self, now: Duration) {
        self.closings.push(now);
    }

    /// The first slice since the breaker was last closed, and when it began.
    fn last_closing(&self, width: u128) -> (u128, Duration) {
        let mut first = (0, Duration::ZERO);
        for &closing in &self.closings {
            first = (first.0 + slice(closing.saturating_sub(first.1), width) + 1, closing);
        }
        first
    }

    pub(super) fn slice(&self, now: Duration, spec: &Spec) -> u128 {
        Self::width(spec).map_or(0, |width| {
            let (first, since) = self.last_closing(width);
            first + slice(now.saturating_sub(since), width)
        })
    }

    pub(super) fn is_hung(&self, call: &Call, now: Duration, spec: &Spec) -> bool {
        call.ended.is_none() && self.hangs_from(call, spec).is_some_and(|moment| moment <= now)
    }

    /// From when on this call is hung, if it is still under way. Calls of another watch never are:
    /// their slices mean nothing in this one.
    pub(super) fn hangs_from(&self, call: &Call, spec: &Spec) -> Option<Duration> {
        let width = Self::width(spec).filter(|_| call.watch == self.number)?;
        let (first, since) = self.last_closing(width);
        let more = (call.slice + STEPS + 1).saturating_sub(first);
        Some(since.saturating_add(nanos(more * width)))
    }

    /// Only those can open the breaker: the others were seen before it closed.
    pub(super) fn began_after_closing(&self, call: &Call, spec: &Spec) -> bool {
        Self::width(spec).is_some_and(|width| call.slice >= self.last_closing(width).0)
    }

    fn width(spec: &Spec) -> Option<u128> {
        spec.slow_call.map(|threshold| threshold.as_nanos().div_ceil(STEPS).max(SHORTEST))
    }
}
