//! Who is let in: so many at a time, and so many per second of one user.
//!
//! What comes to Store is the work of four services: taking in more than they can carry makes all of it
//! late, until nobody gets an answer in time. So a request waits here, before anything is begun, and is
//! shed where waiting is of no use: 503 `overloaded`. Reads and requests with an effect have places of
//! their own, so that neither keeps the other out. A burst is waited out; in an overload, in which
//! somebody has waited for an eighth of a request's time, nobody waits for more than a few milliseconds.
//! What is shed has reached neither a database nor another service: no breaker counts it, and it leaves
//! nothing behind.
//!
//! Health, metrics and the other routes for operators don't come through here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use resilience::bulkhead::{Bulkhead, Place};
use resilience::deadline::Deadline;
use resilience::registry::{Key, RegistryFull};
use service::boot::Base;
use service::config::Reader;
use service::{Failure, Result};
use uuid::Uuid;

mod users;

use users::Users;

/// How long anybody waits in an overload, at least.
const MOMENT: Duration = Duration::from_millis(5);

/// How often the log says how much is shed.
const REPORT: Duration = Duration::from_secs(1);

/// How much is let in. Its variables are in the table of [`Config`](crate::Config).
#[derive(Clone, Copy, Debug)]
pub struct AdmissionConfig {
    /// Requests that are worked on at a time.
    pub in_flight: u32,
    /// Requests that wait for that.
    pub waiting: u32,
    /// Requests per second of one user, where that is limited.
    pub per_second: u32,
    /// Requests of one user that may come at once.
    pub burst: u32,
}

impl AdmissionConfig {
    pub(crate) fn read(reader: &mut Reader) -> Self {
        Self {
            // As many with an effect as there are connections to a database: more would wait for those.
            in_flight: reader.number("MAX_IN_FLIGHT", 24, 2..=100_000),
            waiting: reader.number("MAX_WAITING", 96, 0..=100_000),
            per_second: reader.number("RATE_LIMIT_PER_SECOND", 0, 0..=100_000),
            burst: reader.number("RATE_LIMIT_BURST", 50, 1..=100_000),
        }
    }
}

/// Lets requests in. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: &'static str,
    reads: Bulkhead,
    effects: Bulkhead,
    users: Option<Users>,
    /// Since the last report, and when that was.
    shed: AtomicU64,
    reported: Mutex<Instant>,
}

impl Admission {
    /// Everybody is let in so far. Its bulkheads are shown with all others of the service.
    pub(crate) fn new(config: &AdmissionConfig, base: &Base) -> Result<Self, RegistryFull> {
        let effects = (of_effects(config.in_flight).max(1), of_effects(config.waiting));
        let reads = (config.in_flight as usize - effects.0, config.waiting as usize - effects.1);
        let bulkhead = |class, (in_flight, waiting)| {
            let key = Key::new("requests").class(class);
            base.registry.bulkhead(&key, in_flight, |bulkhead| {
                let budget = base.config.budget;
                // Half of it at most, as of any deadline: see `patience`. As many as may wait are served in
                // an eighth, where nothing is wrong.
                let after = budget / 8;
                bulkhead.queue(waiting, budget / 2).standing_queue(after, moment(after))
            })
        };
        Ok(Self(Arc::new(Inner {
            name: base.config.name,
            reads: bulkhead("read", reads)?,
            effects: bulkhead("effect", effects)?,
            users: (config.per_second > 0).then(|| Users::new(config.per_second, config.burst)),
            shed: AtomicU64::new(0),
            reported: Mutex::new(Instant::now()),
        })))
    }

    /// A place among those who are worked on, to be held until the answer is there.
    ///
    /// # Errors
    /// 429 when this user asks too often; 503 `overloaded` when there is no place in time.
    pub(crate) async fn admit(
        &self,
        user: Option<Uuid>,
        effect: bool,
        deadline: Option<Deadline>,
    ) -> Result<Place<'_>> {
        if let Some((users, user)) = self.0.users.as_ref().zip(user)
            && let Err(wait) = users.spend(user)
        {
            self.turned_away();
            return Err(Failure::too_many("too many requests of this user", wait));
        }
        let bulkhead = if effect { &self.0.effects } else { &self.0.reads };
        bulkhead.acquire(deadline.map(patience)).await.map_err(|_| {
            self.turned_away();
            Failure::shed("too many requests at once; try again shortly")
        })
    }

    /// Says now and then how many were turned away, as no line does for each.
    fn turned_away(&self) {
        self.0.shed.fetch_add(1, Ordering::Relaxed);
        let Ok(mut reported) = self.0.reported.try_lock() else { return };
        if reported.elapsed() >= REPORT {
            *reported = Instant::now();
            let requests = self.0.shed.swap(0, Ordering::Relaxed);
            tracing::warn!(
                service = self.0.name,
                requests,
                "turned away: more than can be carried"
            );
        }
    }
}

/// Until when somebody may wait who wants his answer by then: who has waited for half of that has no time
/// left to be served.
fn patience(deadline: Deadline) -> Deadline {
    Deadline::after(deadline.remaining() / 2)
}

/// How long anybody waits in an overload that is told by somebody who has waited for so long. Were it much
/// less, chance alone would make an overload go on that is over: see [`resilience::Bulkhead`].
fn moment(after: Duration) -> Duration {
    MOMENT.max(after / 48)
}

/// One place in three. What has an effect is the work of all four services and of some ten commits: with
/// more places it takes so much from the reads that in an overload less is done in all.
fn of_effects(all: u32) -> usize {
    (all / 3) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_more_time_for_a_request_waits_for_longer_in_an_overload() {
        let of_budget = |millis| moment(Duration::from_millis(millis) / 8).as_millis();
        assert_eq!([100, 1900, 19_200, 192_000].map(of_budget), [5, 5, 50, 500]);
    }

    #[test]
    fn nobody_waits_until_there_is_no_time_left_for_the_answer() {
        let left = patience(Deadline::after(Duration::from_mins(2))).remaining();
        assert!(left > Duration::from_secs(50) && left <= Duration::from_mins(1), "{left:?}");
        assert!(patience(Deadline::after(Duration::ZERO)).remaining().is_zero());
    }
}
