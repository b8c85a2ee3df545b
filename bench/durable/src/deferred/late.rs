//! How late a delayed call begins.

use std::time::Duration;

use diesel::Connection as _;
use resilience::deferred::{Deferral, Settings, defer};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::running::{Nothing, Running};
use crate::ground::{Database, Ground};
use bench_ground::times::Times;

const CALLS: u32 = 300;
const DELAY: Duration = Duration::from_secs(1);
/// Between one call and the next.
const PAUSE: Duration = Duration::from_millis(20);

/// Counted from the moment at which the delay was over, after the commit.
pub(crate) struct Late {
    pub(crate) rabbitmq: Times,
    pub(crate) ledger_only: Times,
}

pub(crate) async fn measure(ground: &Ground) -> Late {
    let vhost = ground.vhost();
    Late {
        rabbitmq: lateness(&ground.ledger(), Some(vhost.url())).await,
        ledger_only: lateness(&ground.ledger(), None).await,
    }
}

async fn lateness(ledger: &Database, broker: Option<&str>) -> Times {
    let mut running = Running::start(ledger, broker, Settings::new()).await;
    let mut conn = ledger.connect();
    let mut due = Vec::new();
    for number in 0..CALLS {
        let call =
            Deferral::new::<Nothing>(Uuid::now_v7(), &number).expect("a number").after(DELAY);
        // Before it is written down: what the commit takes counts as lateness.
        due.push(Instant::now() + DELAY);
        conn.transaction(|conn| defer(conn, &call)).expect("it is written down");
        running.deferred.nudge();
        sleep(PAUSE).await;
    }
    let mut late = Vec::new();
    for _ in 0..CALLS {
        let (number, at) = running.runs.recv().await.expect("it runs");
        late.push(at.saturating_duration_since(due[number as usize]));
    }
    running.stop().await;
    Times::of(late)
}
