//! What the launcher knows of a drill.

use std::sync::Arc;

use anyhow::{Result, bail};
use storm::part::Databases;
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::task::{JoinSet, spawn_blocking};

use crate::parts::Part;
use crate::terminal::say;

/// What ran when somebody began to break things on purpose.
#[derive(Debug, Default)]
pub(crate) struct Drilled(RwLock<Option<Vec<Arc<Part>>>>);

/// While it lasts, the drill is not over.
#[derive(Debug)]
pub(crate) struct Going<'a> {
    _held: RwLockReadGuard<'a, Option<Vec<Arc<Part>>>>,
}

impl Drilled {
    /// # Errors
    /// When somebody else is at it.
    pub(crate) async fn begin<'a>(&self, parts: impl Iterator<Item = &'a Arc<Part>>) -> Result<()> {
        let running = parts.filter(|part| part.process().is_some()).cloned().collect();
        let mut drilled = self.0.write().await;
        if drilled.is_some() {
            bail!("a drill is going on already");
        }
        *drilled = Some(running);
        Ok(())
    }

    /// Held by each blow: one that comes late must not hit what is mended already.
    ///
    /// # Errors
    /// When the drill is over.
    pub(crate) async fn going(&self) -> Result<Going<'_>> {
        let held = self.0.read().await;
        if held.is_none() {
            bail!("the drill is over");
        }
        Ok(Going { _held: held })
    }

    /// Returns when whatever ran before runs again, and nothing in the databases watches it any more.
    pub(crate) async fn end(&self, databases: Databases) {
        // After whatever blow is being dealt.
        let mut drilled = self.0.write().await;
        let mut starting = JoinSet::new();
        for part in drilled.take().unwrap_or_default() {
            starting.spawn(async move {
                if let Err(error) = part.start().await {
                    say(&format!("{error:#}"));
                }
            });
        }
        starting.join_all().await;
        // The drill has done so itself, unless it was killed.
        let forgotten = spawn_blocking(move || storm::forget(&databases)).await;
        if let Err(error) = forgotten.map_err(anyhow::Error::from).flatten() {
            let why = format!("{error:#}").trim().replace('\n', "; ");
            say(&format!("the drill's schemas stay in the databases: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn databases() -> Databases {
        std::array::from_fn(|_| "postgres://nobody@127.0.0.1:1/none".to_owned())
    }

    #[tokio::test]
    async fn a_blow_that_comes_after_the_drill_is_refused_and_one_that_is_dealt_comes_first() {
        let drilled = Arc::new(Drilled::default());
        assert!(drilled.going().await.is_err());
        drilled.begin([].into_iter()).await.unwrap();
        let blow = drilled.going().await.unwrap();
        let ended = {
            let drilled = Arc::clone(&drilled);
            tokio::spawn(async move { drilled.end(databases()).await })
        };
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!ended.is_finished());
        drop(blow);
        ended.await.unwrap();
        assert!(drilled.going().await.is_err());
        drilled.begin([].into_iter()).await.unwrap();
    }
}
