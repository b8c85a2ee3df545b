//! Without a broker: rows are claimed straight from the ledger.

use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::database::DatabaseError;
use super::kind::{Kind, Place};
use super::ledger::{self, Row};
use super::shared::{Broker, Shared};

/// How long it looks away at the most.
const POLL: Duration = Duration::from_millis(500);

/// The most rows that are claimed at a time.
const BATCH: usize = 100;

/// What a broker was given longer ago than this is taken back when it is away, or there is none any
/// more.
const GRACE: Duration = Duration::from_secs(1);

/// Carries out what is due of one kind, as long as no broker does.
pub(super) async fn run(shared: Arc<Shared>, kind: Arc<Kind>) {
    let mut broker = shared.broker.subscribe();
    loop {
        select! {
            biased;
            () = shared.stop.cancelled() => return,
            // The sender is in `shared`.
            _ = broker.wait_for(|broker| *broker != Broker::Work) => {}
        }
        select! {
            biased;
            () = shared.stop.cancelled() => return,
            _ = broker.wait_for(|broker| *broker == Broker::Work) => {}
            () = round(&shared, &kind) => {}
        }
    }
}

/// Claims what there is room for, and waits where there was less.
async fn round(shared: &Arc<Shared>, kind: &Arc<Kind>) {
    let slots = kind.slots.take(BATCH).await;
    let places = match kind.admit(slots) {
        Ok(places) => places,
        Err(rejection) => return pause(kind, rejection.retry_after()).await,
    };
    let since = Instant::now();
    // In a task, for a claim that was sent is carried out: who cuts this off must not lose it. A
    // shutdown waits for it, as for what runs.
    let claim = claim(Arc::clone(shared), Arc::clone(kind), places, since);
    match shared.running.spawn(claim).await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(wait))) => pause(kind, wait).await,
        Ok(Err(error)) => {
            let error = error.cause();
            tracing::debug!(kind = kind.name, error, "no deferred calls can be claimed");
            sleep(POLL).await;
        }
        Err(_) => sleep(POLL).await,
    }
}

/// Waits until something may have changed.
async fn pause(kind: &Kind, wait: Duration) {
    select! {
        () = kind.wake.notified() => {}
        () = sleep(wait.min(POLL)) => {}
    }
}

/// Claims a row for each place at the most, and begins them. When fewer were there, how long until
/// the next is due.
async fn claim(
    shared: Arc<Shared>,
    kind: Arc<Kind>,
    places: Vec<Place>,
    since: Instant,
) -> Result<Option<Duration>, DatabaseError> {
    let (name, lease) = (kind.name, kind.settings.lease);
    let limit = places.len();
    // Away it may be for this process alone, which may also have been given none. The others would
    // publish again what is taken back, so no more of it is than there are places for.
    let no_broker = shared.broker() != Broker::Work;
    let claimed = shared.door.run(move |conn| {
        let count = i64::try_from(limit).unwrap_or(i64::MAX);
        if no_broker {
            ledger::recall(conn, name, GRACE, 0, count)?;
        }
        let rows = ledger::claim_due(conn, name, count, Uuid::new_v4(), lease)?;
        let next = if rows.len() < limit {
            Some(ledger::next_due(conn, &[name])?.unwrap_or(POLL))
        } else {
            None
        };
        Ok((rows, next))
    });
    let (rows, next): (Vec<Row>, _) = match claimed.await {
        Ok(claimed) => claimed,
        Err(error) => {
            places.into_iter().for_each(Place::unused);
            return Err(error);
        }
    };
    let mut places = places.into_iter();
    for (row, place) in rows.into_iter().zip(places.by_ref()) {
        let (carrier, kind) = (Arc::clone(&shared), Arc::clone(&kind));
        shared.running.spawn(async move { carrier.carry(&kind, row, place, since).await });
    }
    places.for_each(Place::unused);
    Ok(next)
}
