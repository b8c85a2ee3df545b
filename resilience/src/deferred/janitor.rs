//! What somebody has to look after: leases that ran out, and what ended long ago.

use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::database::DatabaseError;
use super::ledger;
use super::shared::Shared;

/// How often it looks for leases that ran out.
const TICK: Duration = Duration::from_secs(1);

/// How often it looks for what ended long ago.
const SWEEP: Duration = Duration::from_mins(1);

/// How often what the ledger holds is counted for the metrics.
#[cfg(feature = "metrics")]
const SAMPLE: Duration = Duration::from_secs(5);

/// Rows per statement: none locks many of them for long.
const BATCH: i64 = 1000;

/// Looks after the ledger until it is told to stop. Every replica does; they skip each other's rows.
pub(super) async fn run(shared: Arc<Shared>, retention: Duration) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut swept: Option<Instant> = None;
    #[cfg(feature = "metrics")]
    let (mut sampled, mut seen) = (None::<Instant>, std::collections::BTreeSet::new());
    loop {
        select! {
            biased;
            () = shared.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if let Err(error) = reconcile(&shared).await {
            let error = error.cause();
            tracing::debug!(error, "the ledger of deferred calls is out of reach");
            continue;
        }
        #[cfg(feature = "metrics")]
        if sampled.is_none_or(|sampled| sampled.elapsed() >= SAMPLE)
            && let Ok(snapshot) = shared.snapshot().await
        {
            super::counts::publish(&snapshot, &mut seen);
            sampled = Some(Instant::now());
        }
        if swept.is_none_or(|swept| swept.elapsed() >= SWEEP) && sweep(&shared, retention).await {
            swept = Some(Instant::now());
        }
    }
}

/// Takes back what nobody is at any more.
async fn reconcile(shared: &Shared) -> Result<(), DatabaseError> {
    let taken = shared.door.run(move |conn| ledger::reclaim(conn, BATCH));
    let taken = taken.await?;
    if taken > 0 {
        tracing::warn!(taken, "deferred calls were taken back from whoever had them");
        shared.nudge();
    }
    Ok(())
}

/// Deletes what was done or discarded long ago. Whether there is nothing left to delete.
async fn sweep(shared: &Shared, retention: Duration) -> bool {
    let swept = shared.door.run(move |conn| ledger::delete_ended(conn, retention, BATCH)).await;
    swept.is_ok_and(|more| !more)
}
