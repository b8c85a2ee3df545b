//! What the launcher knows of a drill.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use tokio::task::JoinSet;

use crate::parts::Part;
use crate::terminal::say;

/// What ran when somebody began to break things on purpose.
#[derive(Debug, Default)]
pub(crate) struct Drilled(Mutex<Option<Vec<Arc<Part>>>>);

impl Drilled {
    /// # Errors
    /// When somebody else is at it.
    pub(crate) fn begin<'a>(&self, parts: impl Iterator<Item = &'a Arc<Part>>) -> Result<()> {
        let running = parts.filter(|part| part.process().is_some()).cloned().collect();
        let mut drilled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if drilled.is_some() {
            bail!("a drill is going on already");
        }
        *drilled = Some(running);
        Ok(())
    }

    /// Returns when whatever ran before runs again.
    pub(crate) async fn end(&self) {
        let drilled = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut starting = JoinSet::new();
        for part in drilled.unwrap_or_default() {
            starting.spawn(async move {
                if let Err(error) = part.start().await {
                    say(&format!("{error:#}"));
                }
            });
        }
        starting.join_all().await;
    }
}
