//! Making a call again that failed, within bounds.
#![doc = include_str!("../../docs/retry.md")]

mod advice;
mod backoff;
mod budget;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use advice::{Advice, Advise, Never, Retryable, by_error};
pub use backoff::{Backoff, Delays};
pub use budget::{RetryBudget, RetryBudgetBuilder, RetryBudgetSnapshot};

use crate::call::{Attempt, Call, Idempotency};
use crate::clock::{Clock, SystemClock};
use crate::deadline::{Deadline, LEAST};

/// A loop that makes a call again while that is worth it, allowed, and paid for.
///
/// ```
/// use resilience::retry::{Advice, Retry, Retryable};
/// use resilience::{Backoff, Call, RetryBudget};
/// use std::time::Duration;
///
/// #[derive(Debug)]
/// struct ConnectionRefused;
///
/// impl Retryable for ConnectionRefused {
///     fn advice(&self) -> Advice {
///         Advice::retry().without_effect()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let retry = Retry::new(RetryBudget::builder("billing").build())
///     .attempts(3)
///     .backoff(Backoff::new().initial(Duration::from_millis(5)));
/// # retry.budget().deposit();
///
/// let result = retry.run(Call::idempotent(), |attempt| async move {
///     if attempt.number < 2 { Err(ConnectionRefused) } else { Ok("paid") }
/// });
/// assert_eq!(result.await.unwrap(), "paid");
/// # }
/// ```
///
/// Another attempt is made only if all of this holds; otherwise the last result is the result, at
/// once:
///
/// - the result advises it, see [`Advice`];
/// - the call is declared idempotent, or it is certain that it has had no effect;
/// - there are [`attempts`](Self::attempts) left;
/// - the wait for it ends within [`longest`](Self::longest) from the beginning, and before the
///   call's deadline;
/// - the other side didn't ask for a [longer pause](Self::longest_retry_after) than we are ready to
///   make;
/// - the [`RetryBudget`] pays for it.
///
/// Clones are cheap, and share the budget and the random source.
#[derive(Clone)]
pub struct Retry {
    attempts: u32,
    longest: Duration,
    longest_retry_after: Duration,
    backoff: Backoff,
    budget: RetryBudget,
    clock: Arc<dyn Clock>,
}

impl Retry {
    /// Up to 3 attempts, the last of which begins within 10 s, with the waits of [`Backoff::new`].
    /// The budget is the one of the dependency that is called.
    pub fn new(budget: RetryBudget) -> Self {
        Self {
            attempts: 3,
            longest: Duration::from_secs(10),
            longest_retry_after: Duration::from_secs(5),
            backoff: Backoff::new(),
            budget,
            clock: Arc::new(SystemClock),
        }
    }

    /// The most attempts, the first one included; 0 counts as 1, which repeats nothing. The default
    /// is 3.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// How long after the beginning of the first attempt the last one may begin. The default is
    /// 10 seconds. How long it may take is a matter of deadlines and timeouts.
    #[must_use]
    pub fn longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// The longest pause that another side may ask for (`Retry-After`). It is made in full, and a
    /// wait of the [`Backoff`] on top, as others were told the same; if more is asked for, the call
    /// isn't repeated, as it would come too early. The default is 5 seconds.
    #[must_use]
    pub fn longest_retry_after(mut self, longest: Duration) -> Self {
        self.longest_retry_after = longest;
        self
    }

    /// The waits between attempts.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Where the time comes from. The default is the [`SystemClock`]. In a
    /// [pipeline](crate::pipeline), it comes from the pipeline's clock.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// What pays for the retries.
    pub fn budget(&self) -> &RetryBudget {
        &self.budget
    }

    /// Makes the call, and makes it again as its errors advise. The operation is called once per
    /// attempt, after the wait; dropping the future ends everything.
    ///
    /// # Errors
    ///
    /// The error of the last attempt.
    pub async fn run<T, E: Retryable, F: Future<Output = Result<T, E>>>(
        &self,
        call: Call,
        op: impl FnMut(Attempt) -> F,
    ) -> Result<T, E> {
        self.run_with(&by_error, call, op).await
    }

    /// [`run`](Self::run), with your own view of what is worth another attempt.
    ///
    /// # Errors
    ///
    /// The error of the last attempt.
    pub async fn run_with<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        advise: &impl Advise<Result<T, E>>,
        call: Call,
        mut op: impl FnMut(Attempt) -> F,
    ) -> Result<T, E> {
        let mut now = self.clock.now();
        let mut run = self.begin(&call, now);
        loop {
            let attempt = Attempt {
                number: run.attempt,
                deadline: call.deadline,
                limit: call.deadline.map(|deadline| deadline.remaining_at(now)),
            };
            let result = op(attempt).await;
            let advice = advise.advise(&result);
            if result.is_ok() && advice == Advice::never() {
                self.budget.deposit();
                return result;
            }
            let Some(moment) = run.next(advice, self.clock.now()) else {
                return result;
            };
            drop(result);
            self.clock.sleep_until(moment).await;
            now = self.clock.now();
        }
    }

    pub(crate) fn begin(&self, call: &Call, now: Instant) -> Run<'_> {
        Run {
            retry: self,
            idempotent: call.idempotency == Idempotency::Idempotent,
            deadline: call.deadline,
            started: now,
            attempt: 1,
            delays: None,
        }
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("attempts", &self.attempts)
            .field("longest", &self.longest)
            .field("backoff", &self.backoff)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

/// The attempts at one call: decides, and neither calls nor waits.
pub(crate) struct Run<'a> {
    retry: &'a Retry,
    idempotent: bool,
    deadline: Option<Deadline>,
    started: Instant,
    /// The number of the present attempt.
    attempt: u32,
    /// Made at the first failure.
    delays: Option<Delays>,
}

impl Run<'_> {
    /// The moment of the next attempt, after one that ended like this; none if there is to be none.
    pub(crate) fn next(&mut self, advice: Advice, now: Instant) -> Option<Instant> {
        let retry = self.retry;
        if !advice.is_retry() || !(self.idempotent || advice.is_without_effect()) {
            return None;
        }
        if self.attempt >= retry.attempts {
            return None;
        }
        let asked = advice.wait().unwrap_or_default();
        if asked > retry.longest_retry_after {
            return None;
        }
        let delays = self.delays.get_or_insert_with(|| retry.backoff.delays());
        // Whoever asks for ages, and is granted them by the settings, gets no overflow.
        let wait = asked.checked_add(delays.next()?)?;
        let moment = now.checked_add(wait)?;
        // A wait that ends too late brings nothing but a later answer.
        if moment.saturating_duration_since(self.started) > retry.longest {
            return None;
        }
        if self.deadline.is_some_and(|deadline| deadline.remaining_at(moment) < LEAST) {
            return None;
        }
        let dependency = retry.budget.name();
        if !retry.budget.withdraw() {
            tracing::debug!(dependency, attempt = self.attempt, "no budget for a retry");
            return None;
        }
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(dependency, attempt = self.attempt, wait_ms, "to be tried again");
        self.attempt += 1;
        Some(moment)
    }
}
