//! Whether the database answers: one question at a time, however many ask.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use tokio::sync::{Semaphore, watch};

use super::Db;
use crate::failure::Failure;

/// Kept apart for probes: that everybody is busy does not mean that the database is away.
#[derive(Debug)]
pub(super) struct Probe {
    place: Arc<Semaphore>,
    /// The question that was asked last, which may be under way: then nothing is there yet.
    asked: Mutex<Option<watch::Receiver<Option<bool>>>>,
    /// Why it doesn't answer, where it doesn't.
    reason: Mutex<Option<String>>,
}

impl Default for Probe {
    fn default() -> Self {
        let place = Arc::new(Semaphore::new(1));
        Self { place, asked: Mutex::default(), reason: Mutex::default() }
    }
}

impl Probe {
    /// Says once that probes fail, and that they don't any more: whoever asks them doesn't hear why. Not
    /// each one knows the reason, so that the longest is told.
    fn note(&self, failed: Option<&Failure>) {
        let mut reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(failed) = failed else {
            if reason.take().is_some() {
                tracing::info!("the database answers again");
            }
            return;
        };
        let causes = failed.causes().unwrap_or_default();
        if reason.as_ref().is_none_or(|told| told.len() < causes.len()) {
            tracing::warn!(causes, "the database doesn't answer");
            *reason = Some(causes);
        }
    }
}

impl Db {
    /// Whether the database answers within `limit`. Who comes while it is being asked is told what it
    /// says then: anybody may ask, so that asking must not be a load, nor wait for others.
    pub async fn ping(&self, limit: Duration) -> bool {
        let mut answer = self.ask(limit);
        answer.wait_for(Option::is_some).await.is_ok_and(|told| *told == Some(true))
    }

    fn ask(&self, limit: Duration) -> watch::Receiver<Option<bool>> {
        let mut asked = self.0.probe.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_under_way = |answer: &&watch::Receiver<Option<bool>>| {
            answer.has_changed().is_ok() && answer.borrow().is_none()
        };
        if let Some(answer) = asked.as_ref().filter(is_under_way) {
            return answer.clone();
        }
        let (told, answer) = watch::channel(None);
        *asked = Some(answer.clone());
        let db = self.clone();
        // It goes on when whoever began it is gone: others may wait for it.
        tokio::spawn(async move {
            let question = |conn: &mut diesel::PgConnection| Ok(conn.batch_execute("SELECT 1")?);
            let failed = db.run_within(&db.0.probe.place, limit, question).await.err();
            db.0.probe.note(failed.as_ref());
            told.send_replace(Some(failed.is_none()));
        });
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use backing::postgres::testing::TestDatabase;
    use futures_util::future::join_all;

    use super::super::tests::connected;

    /// Anybody may ask for health, at any rate: that must neither turn it red nor be the database's load.
    #[tokio::test(flavor = "multi_thread")]
    async fn however_many_ask_at_a_time_all_are_told_and_the_database_is_asked_now_and_then() {
        const MANY: u32 = 5000;
        let database = TestDatabase::new("asked", |_| Ok::<(), String>(()));
        let db = connected(&database, &[]);
        let limit = Duration::from_secs(1);
        assert!(db.ping(limit).await);
        let before = db.statements();
        let asked = (0..MANY).map(|_| {
            tokio::spawn({
                let db = db.clone();
                async move { db.ping(limit).await }
            })
        });
        let told = join_all(asked).await;
        assert_eq!(told.iter().filter(|told| matches!(told, Ok(true))).count(), told.len());
        let asked = db.statements() - before;
        assert!(asked < u64::from(MANY) / 10, "{asked} questions");
        assert!(db.ping(limit).await, "it is asked anew");
        assert!(db.statements() > before);
    }
}
