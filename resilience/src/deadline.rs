//! One time budget for a request, narrowed per call and carried from hop to hop.

use std::time::Duration;

use tokio::time::Instant;

/// Stands in for "no limit" where adding a duration would overflow: about thirty years.
const FAR: Duration = Duration::from_hours(24 * 365 * 30);

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    at: Instant,
}

impl Deadline {
    /// The header that carries what is left, in whole milliseconds, to the next hop.
    pub const HEADER: &str = "x-request-timeout";

    /// The deadline that is this far away. More than thirty years count as thirty years.
    pub fn after(budget: Duration) -> Self {
        Self { at: Instant::now() + budget.min(FAR) }
    }

    /// What is left of the budget; zero once it has run out.
    pub fn remaining(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Whether nothing is left.
    pub fn is_expired(self) -> bool {
        self.remaining().is_zero()
    }

    /// The earlier of this deadline and the one that is `limit` away.
    #[must_use]
    pub fn narrow(self, limit: Duration) -> Self {
        self.min(Self::after(limit))
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
    use super::*;

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
