//! Whether the four databases tell the same story.

use std::collections::BTreeSet;
use std::time::Duration;

use storm::books::Books;
use storm::goods::shelve;
use storm::sql::Row;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::World;

/// Undos wait for a breaker (6 s), and for each other: how long after healing nothing may be left.
const SETTLED: Duration = Duration::from_secs(12);

/// Between one look and the next.
const LOOK: Duration = Duration::from_millis(20);

/// Three columns of text, each row.
pub(crate) fn rows(url: &str, select: &str) -> Vec<Row> {
    storm::sql::rows(url, select).unwrap()
}

impl World {
    /// Waits until nothing is being undone or completed any more; then exactly these orders are
    /// paid for, each holds one item and one warranty, and nothing else holds any.
    #[track_caller]
    pub(crate) fn settles_with(&self, paid: &[Uuid]) -> impl Future<Output = ()> {
        self.balances(Some(paid.iter().map(Uuid::to_string).collect()))
    }

    /// [`settles_with`](Self::settles_with), for whichever orders there are.
    #[track_caller]
    pub(crate) fn settles(&self) -> impl Future<Output = ()> {
        self.balances(None)
    }

    #[track_caller]
    fn balances(&self, paid: Option<BTreeSet<String>>) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let mut wrong = String::new();
            let mut balance = async || loop {
                let books = self.books().await;
                match books.balance(paid.as_ref().unwrap_or(&books.paid())) {
                    Ok(()) => break,
                    Err(said) => wrong = said,
                }
                sleep(LOOK).await;
            };
            let balanced = timeout(SETTLED, balance()).await;
            assert!(balanced.is_ok(), "the books don't balance, asked at {caller}: {wrong}");
        }
    }

    /// Read elsewhere: the network between the processes goes on meanwhile.
    async fn books(&self) -> Books {
        let databases = self.databases();
        spawn_blocking(move || Books::all(&databases).unwrap()).await.unwrap()
    }

    /// What the ids of all orders are that are paid for.
    pub(crate) async fn paid(&self) -> BTreeSet<Uuid> {
        self.books().await.paid().iter().map(|uid| uid.parse().unwrap()).collect()
    }

    /// Puts so many of a new kind on the shelf, in size `M`. Its name says how many, for
    /// [`settles_with`](Self::settles_with).
    pub(crate) fn shelve(&self, count: i64) -> String {
        let model = format!("Rare {count}");
        shelve(&self.databases(), &model, count.try_into().unwrap()).unwrap();
        model
    }
}
