//! One time budget for a request, narrowed per call and carried from hop to hop.
#![doc = include_str!("../docs/deadline.md")]

use std::time::{Duration, Instant};

use crate::clock::{Clock, SystemClock};

/// Stands in for "no limit" where adding a duration would overflow: about thirty years.
const FAR: Duration = Duration::from_hours(24 * 365 * 30);

/// With less than this left, nothing is begun: the next hop is told whole milliseconds.
pub(crate) const LEAST: Duration = Duration::from_millis(1);

/// The moment at which a request's budget ends.
///
/// ```
/// use resilience::Deadline;
/// use std::time::Duration;
///
/// let request = Deadline::after(Duration::from_secs(2));
/// let call = request.narrow(Duration::from_millis(500));
/// assert!(call < request);
/// assert!(call.remaining() <= Duration::from_millis(500));
/// // Narrowing never gives more time than there is.
/// assert_eq!(call.narrow(Duration::from_mins(1)), call);
/// ```
///
/// It is passed from hand to hand, never found in a task-local: what a function may take is part of
/// its signature. The methods in `_on` take the time from a [`Clock`] of yours, the others from the
/// [`SystemClock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline {
    at: Instant,
}

impl Deadline {
    /// The header that carries what is left, in whole milliseconds, to the next hop.
    pub const HEADER: &str = "x-request-timeout";

    /// The deadline at this moment.
    pub const fn at(moment: Instant) -> Self {
        Self { at: moment }
    }

    /// The deadline that is this far away. More than thirty years count as thirty years.
    pub fn after(budget: Duration) -> Self {
        Self::after_on(&SystemClock, budget)
    }

    /// [`after`](Self::after), by this clock.
    pub fn after_on(clock: &(impl Clock + ?Sized), budget: Duration) -> Self {
        Self::since(clock.now(), budget)
    }

    /// What is left of the budget; zero once it has run out.
    pub fn remaining(self) -> Duration {
        self.remaining_on(&SystemClock)
    }

    /// [`remaining`](Self::remaining), by this clock.
    pub fn remaining_on(self, clock: &(impl Clock + ?Sized)) -> Duration {
        self.remaining_at(clock.now())
    }

    /// Whether nothing is left.
    pub fn is_expired(self) -> bool {
        self.remaining().is_zero()
    }

    /// [`is_expired`](Self::is_expired), by this clock.
    pub fn is_expired_on(self, clock: &(impl Clock + ?Sized)) -> bool {
        self.remaining_on(clock).is_zero()
    }

    /// The earlier of this deadline and the one that is `limit` away.
    #[must_use]
    pub fn narrow(self, limit: Duration) -> Self {
        self.narrow_on(&SystemClock, limit)
    }

    /// [`narrow`](Self::narrow), by this clock.
    #[must_use]
    pub fn narrow_on(self, clock: &(impl Clock + ?Sized), limit: Duration) -> Self {
        self.min(Self::after_on(clock, limit))
    }

    /// The moment itself.
    pub const fn moment(self) -> Instant {
        self.at
    }

    pub(crate) fn since(now: Instant, budget: Duration) -> Self {
        Self { at: now + budget.min(FAR) }
    }

    pub(crate) fn remaining_at(self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }

    /// Reads the value of [`Deadline::HEADER`]: whole milliseconds, ASCII digits and nothing else
    /// (no sign, no unit, no blanks). More than thirty years are thirty years.
    pub fn parse(header_value: &str) -> Result<Duration, InvalidTimeout> {
        let digits = header_value.bytes().all(|byte| byte.is_ascii_digit());
        if header_value.is_empty() || !digits {
            return Err(InvalidTimeout);
        }
        // Digits alone fail for being too many.
        Ok(header_value.parse().map_or(FAR, Duration::from_millis).min(FAR))
    }

    /// What [`Deadline::parse`] reads: whole milliseconds, rounded down, from 1 on.
    #[cfg(feature = "http")]
    pub(crate) fn format(limit: Duration) -> String {
        limit.as_millis().clamp(1, 999_999_999).to_string()
    }
}

/// The value of [`Deadline::HEADER`] isn't what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the timeout must be whole milliseconds: digits, nothing else")]
pub struct InvalidTimeout;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testkit::ManualClock;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_a_time_or_refused(text in "[0-9]{0,30}|.{0,60}") {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            prop_assert_eq!(Deadline::parse(&text).is_ok(), digits);
        }
    }

    #[test]
    fn only_plain_milliseconds_are_read() {
        assert_eq!(Deadline::parse("0"), Ok(Duration::ZERO));
        assert_eq!(Deadline::parse("1500"), Ok(Duration::from_millis(1500)));
        assert_eq!(Deadline::parse("999999999"), Ok(Duration::from_millis(999_999_999)));
        assert_eq!(Deadline::parse(&"9".repeat(40)), Ok(FAR));
        for bad in ["", " 5", "5 ", "+5", "-5", "5ms", "1.5", "1e3", "٣", "0x10"] {
            assert_eq!(Deadline::parse(bad), Err(InvalidTimeout), "{bad:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_is_used_up() {
        let deadline = Deadline::after(Duration::from_millis(30));
        assert_eq!(deadline.remaining(), Duration::from_millis(30));
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(deadline.remaining(), Duration::from_millis(10));
        assert!(!deadline.is_expired());
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(deadline.remaining(), Duration::ZERO);
        assert!(deadline.is_expired());
    }

    #[test]
    fn time_is_used_up_by_the_clock_that_is_given() {
        let clock = ManualClock::new();
        let deadline = Deadline::after_on(&clock, Duration::from_hours(1));
        let narrow = deadline.narrow_on(&clock, Duration::from_mins(1));
        assert_eq!(narrow.moment(), clock.now() + Duration::from_mins(1));
        clock.advance(Duration::from_mins(20));
        assert_eq!(deadline.remaining_on(&clock), Duration::from_mins(40));
        assert!(narrow.is_expired_on(&clock) && !deadline.is_expired_on(&clock));
    }

    #[tokio::test(start_paused = true)]
    async fn narrowing_takes_the_earlier_end() {
        let deadline = Deadline::after(Duration::from_millis(30));
        assert_eq!(deadline.narrow(Duration::from_millis(10)).remaining().as_millis(), 10);
        assert_eq!(deadline.narrow(Duration::from_secs(10)), deadline);
    }

    #[test]
    fn an_endless_budget_does_not_overflow() {
        assert!(Deadline::after(Duration::MAX).remaining() > Duration::from_hours(24));
    }
}
