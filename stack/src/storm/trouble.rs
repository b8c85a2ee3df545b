//! What happens to everybody, each in a rhythm of their own.

use anyhow::Result;
use futures_util::future::join_all;

use super::dice::Dice;
use super::part::Part;
use super::stage::{Blow, Harm, Stage, Victim};
use super::{Scene, Stop};

/// The queues that deferred calls wait in.
const QUEUES: [&str; 4] =
    ["store.v1.claim", "store.v1.undo-purchase", "order.v1.saga.undo", "order.v1.saga.resume"];

/// What happens to a service.
const AWAY: [Harm; 5] = [Harm::Killed, Harm::Stopped, Harm::Killed, Harm::Frozen, Harm::Killed];

/// From one to the next, and how long it lasts, in milliseconds: the least and the most.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two blows to one service.
    pub services: (usize, usize),
    /// To PostgreSQL.
    pub postgres: (usize, usize),
    /// To RabbitMQ.
    pub rabbitmq: (usize, usize),
    /// How long what was killed or stopped stays away.
    pub away: (usize, usize),
    /// How long what is frozen stays so, any of these.
    pub frozen: [(usize, usize); 3],
}

impl Pace {
    /// No rest for anybody.
    pub const STORM: Self = Self {
        services: (200, 4000),
        postgres: (2000, 12_000),
        rabbitmq: (300, 2000),
        away: (0, 1200),
        // Longer than others wait for them, or longer than their leases.
        frozen: [(300, 1500), (300, 1500), (2500, 4500)],
    };

    /// So that somebody who watches can follow, and breakers close in between.
    pub const DRILL: Self = Self {
        services: (3000, 16_000),
        postgres: (12_000, 40_000),
        rabbitmq: (5000, 20_000),
        away: (300, 3000),
        frozen: [(500, 2000), (500, 2000), (2500, 4500)],
    };
}

/// Until the end; then everything is there again, if not ready yet.
pub(super) async fn rage<S: Stage>(
    scene: &Scene<S>,
    seed: u64,
    pace: Pace,
    stop: &Stop,
) -> Result<()> {
    let services = Part::ALL.map(|part| trouble_services(scene, part, seed, pace, stop));
    let postgres = kill_postgres(scene, seed, pace, stop);
    let rabbitmq = trouble_rabbitmq(scene, seed, pace, stop);
    // All of them to their end: what one has broken, it mends.
    let (services, postgres, rabbitmq) = tokio::join!(join_all(services), postgres, rabbitmq);
    services.into_iter().chain([postgres, rabbitmq]).collect()
}

/// One replica, or all of them at once, at any moment: while they start, too.
async fn trouble_services<S: Stage>(
    scene: &Scene<S>,
    part: Part,
    seed: u64,
    pace: Pace,
    stop: &Stop,
) -> Result<()> {
    let mut dice = Dice::of(seed, part.name());
    let replicas = scene.stage.replicas();
    let mut deck = Vec::new();
    while stop.sleep(dice.millis(pace.services)).await {
        if deck.is_empty() {
            deck = dice.shuffled(&AWAY);
        }
        let (all, one) = (dice.once_in(3), dice.below(replicas));
        let struck = if all { 0..replicas } else { one..one + 1 };
        let Some(harm) = deck.pop() else { continue };
        let lasts = match harm {
            Harm::Frozen => dice.one_of(&pace.frozen),
            _ => pace.away,
        };
        let lasts = dice.millis(lasts);
        let blows: Vec<_> =
            struck.map(|number| Blow { victim: Victim::Service(part, number), harm }).collect();
        let struck = join_all(blows.iter().map(|blow| strike(scene, *blow))).await;
        stop.sleep(lasts).await;
        for blow in blows {
            mend(scene, blow).await;
        }
        struck.into_iter().collect::<Result<()>>()?;
    }
    Ok(())
}

async fn kill_postgres<S: Stage>(
    scene: &Scene<S>,
    seed: u64,
    pace: Pace,
    stop: &Stop,
) -> Result<()> {
    let mut dice = Dice::of(seed, "postgres");
    while stop.sleep(dice.millis(pace.postgres)).await {
        let blow = Blow { victim: Victim::Postgres, harm: Harm::Killed };
        let struck = strike(scene, blow).await;
        stop.sleep(dice.millis(pace.away)).await;
        mend(scene, blow).await;
        struck?;
    }
    Ok(())
}

/// In any order, but all of it before anything comes again.
async fn trouble_rabbitmq<S: Stage>(
    scene: &Scene<S>,
    seed: u64,
    pace: Pace,
    stop: &Stop,
) -> Result<()> {
    let mut dice = Dice::of(seed, "rabbitmq");
    let mut deck = Vec::new();
    if scene.stage.mishaps().is_empty() {
        return Ok(());
    }
    while stop.sleep(dice.millis(pace.rabbitmq)).await {
        if deck.is_empty() {
            deck = dice.shuffled(scene.stage.mishaps());
        }
        let Some(mut harm) = deck.pop() else { continue };
        let mut times = 1;
        let mut lasts = pace.away;
        match &mut harm {
            Harm::QueueDeleted(queue) => *queue = dice.one_of(&QUEUES),
            Harm::OutOfMemory => lasts = (300, 3000),
            // In the middle of confirms: messages are published all the time.
            Harm::Disconnected => (times, lasts) = (3, (50, 600)),
            _ => {}
        }
        let blow = Blow { victim: Victim::Rabbitmq, harm };
        for _ in 0..times {
            let struck = strike(scene, blow).await;
            if harm.lasts() || times > 1 {
                stop.sleep(dice.millis(lasts)).await;
            }
            mend(scene, blow).await;
            struck?;
        }
    }
    Ok(())
}

async fn strike<S: Stage>(scene: &Scene<S>, blow: Blow) -> Result<()> {
    let times = scene.stage.strike(blow).await?;
    if times > 0 {
        scene.board.struck(blow, times);
    }
    Ok(())
}

/// What can't be mended now is once more at the end, or is seen not to be ready then.
async fn mend<S: Stage>(scene: &Scene<S>, blow: Blow) {
    if let Err(error) = scene.stage.mend(blow).await {
        scene.board.troubled(format!("{error:#}"));
    }
    scene.board.mended(blow);
}
