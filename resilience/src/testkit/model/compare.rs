//! The model beside the breaker.

use std::fmt;
use std::time::Duration;

use super::Model;
use super::history::{Call, Count};
use crate::breaker::{Snapshot, State};

impl Model {
    /// Whether a breaker that went through the same says the same of itself. Where a wait has
    /// jitter it is bounded here, and taken over from the breaker: compare after each step.
    ///
    /// # Errors
    ///
    /// What is different, for a person to read.
    pub fn compare(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        self.learn_wait(snapshot)?;
        let ended = |count: Count| {
            self.calls.iter().filter(|call| call.ended == Some(count)).count() as u64
        };
        let window = self.window.counts(self.now, self.spec.window);
        let window = self.spec.has_window().then_some(window);
        let numbers = [
            ("calls", snapshot.calls, self.calls.len() as u64),
            ("in_flight", snapshot.in_flight, self.under_way().count() as u64),
            ("hung", snapshot.hung, self.hung().count() as u64),
            ("probes", u64::from(snapshot.probes), self.probes().len() as u64),
            ("successes", snapshot.successes, ended(Count::Success)),
            ("failures", snapshot.failures, ended(Count::Failure)),
            ("ignored", snapshot.ignored, ended(Count::Ignored)),
            ("abandoned", snapshot.abandoned, ended(Count::Abandoned)),
            ("stale", snapshot.stale, ended(Count::Stale)),
            ("rejected", snapshot.rejected, self.rejected),
            ("opened", snapshot.opened, self.opened),
        ];
        let mut wrong: String = numbers.into_iter().map(differ).collect();
        wrong += &differ(("state", snapshot.state, self.state));
        wrong += &differ(("retry_after", snapshot.retry_after, self.retry_after()));
        wrong += &differ(("window", snapshot.window, window));
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn learn_wait(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        if self.state != State::Open || self.wait.start() == self.wait.end() {
            return Ok(());
        }
        let wait = snapshot.retry_after.unwrap_or_default() + self.now.saturating_sub(self.since);
        if !self.wait.contains(&wait) {
            return Err(format!("open for {wait:?} instead of {:?}", self.wait));
        }
        self.wait = wait..=wait;
        Ok(())
    }

    fn under_way(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(|call| call.ended.is_none())
    }

    /// Moments from now on at which something may change by itself: where off-by-ones live.
    pub fn moments(&self) -> Vec<Duration> {
        let mut moments = Vec::new();
        if self.state == State::Open {
            moments.push(self.since + *self.wait.start());
        }
        moments.extend(self.probes().into_iter().map(|index| self.calls[index].lease_end));
        for call in self.under_way() {
            moments.extend(self.spec.slow_call.map(|threshold| call.started + threshold));
            moments.extend(self.watch.hangs_from(call, &self.spec));
        }
        moments.extend(self.window.moments(self.spec.window));
        // A breaker's time ends after 584 years.
        let end = Duration::from_nanos(u64::MAX);
        moments.retain(|moment| (self.now..end).contains(moment));
        moments.sort_unstable();
        moments.dedup();
        moments
    }
}

/// Nothing where they are the same.
fn differ<T: fmt::Debug + PartialEq>((what, breaker, model): (&str, T, T)) -> String {
    if breaker == model {
        return String::new();
    }
    format!("{what}: {breaker:?} of the breaker, {model:?} of the model\n")
}
