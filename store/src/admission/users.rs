//! So many requests per second of one user.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use uuid::Uuid;

/// Users who are remembered at a time, some 100 bytes each. Whoever is forgotten for others begins
/// anew, with a full bucket.
const REMEMBERED: usize = 10_000;

/// A bucket of tokens for each user, told by one number: the moment at which it is full again.
#[derive(Debug)]
pub(super) struct Users {
    begin: Instant,
    /// Until one token more is in a bucket.
    interval: u64,
    /// Until an empty one is full.
    full: u64,
    /// In nanoseconds after `begin`.
    buckets: Cache<Uuid, Arc<AtomicU64>>,
}

impl Users {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let interval = 1_000_000_000 / u64::from(per_second);
        let full = interval * u64::from(burst);
        Self { begin: Instant::now(), interval, full, buckets: Cache::new(REMEMBERED) }
    }

    /// Takes a token of this user.
    ///
    /// # Errors
    /// How long until there is one.
    pub(super) fn spend(&self, user: Uuid) -> Result<(), Duration> {
        self.spend_at(user, self.begin.elapsed())
    }

    fn spend_at(&self, user: Uuid, now: Duration) -> Result<(), Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.buckets.get_or_insert_with(&user, || Ok::<_, ()>(Arc::default()));
        let Ok(bucket) = bucket else { return Ok(()) };
        let spent = |full_again: u64| {
            let next = full_again.max(now) + self.interval;
            (next - now <= self.full).then_some(next)
        };
        let done = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent);
        done.map(drop).map_err(|full_again| {
            Duration::from_nanos((full_again + self.interval - now).saturating_sub(self.full))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_user_has_a_burst_and_then_so_many_per_second() {
        let users = Users::new(10, 3);
        let (user, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for _ in 0..3 {
            assert_eq!(users.spend_at(user, ms(0)), Ok(()));
        }
        assert_eq!(users.spend_at(user, ms(0)), Err(ms(100)));
        assert_eq!(users.spend_at(user, ms(60)), Err(ms(40)), "what is refused costs nothing");
        assert_eq!(users.spend_at(other, ms(60)), Ok(()), "each has a bucket of their own");
        assert_eq!(users.spend_at(user, ms(100)), Ok(()));
        assert_eq!(users.spend_at(user, ms(100)), Err(ms(100)));
        // However long the pause, no more than the burst.
        for _ in 0..3 {
            assert_eq!(users.spend_at(user, ms(60_000)), Ok(()));
        }
        assert!(users.spend_at(user, ms(60_000)).is_err());
    }

    #[test]
    fn no_more_users_are_remembered_than_there_is_room_for() {
        let users = Users::new(10, 3);
        for number in 0..50_000 {
            assert_eq!(users.spend_at(Uuid::from_u128(number), ms(0)), Ok(()));
        }
        assert!(users.buckets.len() <= REMEMBERED, "{}", users.buckets.len());
    }
}
