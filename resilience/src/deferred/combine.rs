//! Many small writes in one commit: what comes while one is under way shares the next.
//!
//! The first question waits for nobody: it is asked at once. A commit costs its sync, and a statement
//! its plan, whoever is in it, so that under load the ledger does many times as many calls per second.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diesel::{PgConnection, QueryResult};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::database::Door;

/// How many questions share a transaction at the most.
const MOST: usize = 100;

/// Where several have shared a transaction, the next one is so much later: they come again, one after
/// the other, and would each find it just begun.
const GATHER: Duration = Duration::from_millis(1);

/// Answers all questions, in their order, in one transaction: by one statement, or by one that it
/// begins.
pub(super) type Answer<Q, A> =
    Arc<dyn Fn(&mut PgConnection, &[Q]) -> QueryResult<Vec<A>> + Send + Sync>;

/// Puts questions together.
pub(super) struct Combiner<Q, A> {
    answer: Answer<Q, A>,
    queue: Mutex<Queue<Q, A>>,
}

struct Queue<Q, A> {
    waiting: Vec<(Q, oneshot::Sender<A>)>,
    /// Somebody is asking, and will take those that wait.
    busy: bool,
}

impl<Q: Send + 'static, A: Send + 'static> Combiner<Q, A> {
    pub(super) fn new(
        answer: impl Fn(&mut PgConnection, &[Q]) -> QueryResult<Vec<A>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let queue = Mutex::new(Queue { waiting: Vec::new(), busy: false });
        Arc::new(Self { answer: Arc::new(answer), queue })
    }

    /// The answer, committed. Nothing when the transaction failed for whatever reason, which may be
    /// somebody else's question: ask by yourself then.
    pub(super) async fn ask(self: &Arc<Self>, door: &Door, question: Q) -> Option<A> {
        let (sender, answer) = oneshot::channel();
        let leads = {
            let mut queue = self.lock();
            queue.waiting.push((question, sender));
            !std::mem::replace(&mut queue.busy, true)
        };
        if leads {
            // In a task: who asked first may be cut off, and the others count on it.
            tokio::spawn(Arc::clone(self).lead(door.clone()));
        }
        answer.await.ok()
    }

    async fn lead(self: Arc<Self>, door: Door) {
        loop {
            let batch = {
                let mut queue = self.lock();
                let count = queue.waiting.len().min(MOST);
                if count == 0 {
                    queue.busy = false;
                    return;
                }
                queue.waiting.drain(..count).collect::<Vec<_>>()
            };
            let company = batch.len() > 1;
            let (questions, senders): (Vec<Q>, Vec<_>) = batch.into_iter().unzip();
            let answer = Arc::clone(&self.answer);
            if let Ok(answers) = door.lend(move |conn| answer(conn, &questions)).await {
                for (sender, answer) in senders.into_iter().zip(answers) {
                    // Whoever doesn't wait any more is served by the lease.
                    let _ = sender.send(answer);
                }
            }
            if company {
                sleep(GATHER).await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<Q, A>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Q, A> fmt::Debug for Combiner<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Combiner").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::mpsc;

    use backing::postgres::testing::TestDatabase;
    use diesel::Connection as _;
    use diesel::RunQueryDsl as _;
    use diesel::dsl::sql;
    use diesel::r2d2::{ConnectionManager, Pool};
    use diesel::sql_types::BigInt;
    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;

    /// The number of the transaction, for each question; fails where one is zero.
    fn divide(conn: &mut PgConnection, questions: &[i64]) -> QueryResult<Vec<i64>> {
        let divide = |conn: &mut PgConnection, question: &i64| {
            let number = format!("pg_current_xact_id()::text::bigint + 0 / {question}");
            diesel::select(sql::<BigInt>(&number)).get_result(conn)
        };
        conn.transaction(|conn| questions.iter().map(|question| divide(conn, question)).collect())
    }

    /// Asks a first question, and these while it is being answered: the answers to all.
    async fn behind_a_first(questions: &[i64]) -> (Option<i64>, Vec<Option<i64>>) {
        let database = TestDatabase::new("combine", |_| Ok::<(), diesel::result::Error>(()));
        let door = Door::new(Pool::new(ConnectionManager::new(database.url())).unwrap());
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let (go, goes) = mpsc::channel();
        let goes = Mutex::new(goes);
        let combiner = Combiner::new(move |conn, questions: &[i64]| {
            begun.send(()).unwrap();
            goes.lock().unwrap().recv().unwrap();
            divide(conn, questions)
        });
        let mut first = Box::pin(combiner.ask(&door, 1));
        assert!(first.as_mut().now_or_never().is_none());
        begins.recv().await.unwrap();
        let mut others =
            Box::pin(join_all(questions.iter().map(|question| combiner.ask(&door, *question))));
        assert!(others.as_mut().now_or_never().is_none());
        // As many as may be needed at the most.
        (0..=questions.len() + 1).for_each(|_| go.send(()).unwrap());
        let answers = (first.await, others.await);
        assert!(combiner.ask(&door, 1).await.is_some(), "it goes on");
        drop(door);
        answers
    }

    #[tokio::test]
    async fn those_that_wait_behind_one_share_a_transaction() {
        let (first, others) = behind_a_first(&[1; 50]).await;
        let others: HashSet<i64> = others.into_iter().map(Option::unwrap).collect();
        assert_eq!(others.len(), 1);
        assert!(!others.contains(&first.unwrap()), "the first waits for nobody");
    }

    #[tokio::test]
    async fn a_question_that_fails_leaves_all_that_share_its_transaction_without_an_answer() {
        let (first, others) = behind_a_first(&[1, 1, 0, 1]).await;
        assert!(first.is_some(), "its transaction was another one");
        assert_eq!(others, [None; 4]);
    }
}
