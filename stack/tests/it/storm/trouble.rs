//! What happens to everybody, each in a rhythm of their own.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::outage::Away;
use crate::world::dice::Dice;
use crate::world::process::Process;
use crate::world::{Part, World};

/// The queues that deferred calls wait in.
const QUEUES: [&str; 4] =
    ["store.v1.claim", "store.v1.undo-purchase", "order.v1.saga.undo", "order.v1.saga.resume"];

/// How often what has happened.
#[derive(Default)]
pub(super) struct Tally {
    kills: Mutex<BTreeMap<&'static str, u64>>,
    others: Mutex<BTreeMap<&'static str, u64>>,
    repaired: Mutex<Option<Instant>>,
}

impl Tally {
    fn killed(&self, whom: &'static str) {
        *self.kills.lock().unwrap().entry(whom).or_default() += 1;
    }

    fn happened(&self, what: &'static str) {
        *self.others.lock().unwrap().entry(what).or_default() += 1;
    }

    fn repaired(&self) {
        *self.repaired.lock().unwrap() = Some(Instant::now());
    }

    /// Since when everything is there again, if not ready yet.
    pub(super) fn last_repair(&self) -> Instant {
        self.repaired.lock().unwrap().expect("something was killed")
    }

    pub(super) fn print(&self, seed: u64, length: Duration) {
        let (kills, others) = (self.kills.lock().unwrap(), self.others.lock().unwrap());
        eprintln!("| CHAOS_SEED | {seed} |\n|---|---|");
        eprintln!("| storm | {} s |", length.as_secs());
        eprintln!("| kills | {} |", kills.values().sum::<u64>());
        for (whom, count) in kills.iter() {
            eprintln!("| … of {whom} | {count} |");
        }
        for (what, count) in others.iter() {
            eprintln!("| {what} | {count} |");
        }
    }
}

/// What happens to a service.
const AWAY: [Away; 5] = [Away::Killed, Away::Stopped, Away::Killed, Away::Frozen, Away::Killed];

/// What happens to RabbitMQ.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    Killed,
    Wiped,
    QueueDeleted,
    OutOfMemory,
    Disconnected,
}

impl Mishap {
    const ALL: [Self; 7] = [
        Self::Killed,
        Self::Wiped,
        Self::QueueDeleted,
        Self::OutOfMemory,
        Self::Disconnected,
        Self::Disconnected,
        Self::Killed,
    ];
}

/// Until the end; then everything is there again, if not ready yet.
pub(super) async fn rage(world: &Arc<World>, seed: u64, end: Instant, tally: &Arc<Tally>) {
    let services = Part::ALL.map(|part| trouble_services(world, part, seed, end, tally));
    let postgres = kill_postgres(world, seed, end, tally);
    let rabbitmq = async {
        if world.has_broker() {
            trouble_rabbitmq(world, seed, end, tally).await;
        }
    };
    tokio::join!(join_all(services), postgres, rabbitmq);
}

/// One replica, or all of them at once, at any moment: while they start, too.
async fn trouble_services(world: &World, part: Part, seed: u64, end: Instant, tally: &Tally) {
    let mut dice = Dice::of(seed, part.name());
    let replicas = world.processes(part).len();
    let mut deck = Vec::new();
    loop {
        sleep(dice.millis(200, 4000)).await;
        if Instant::now() >= end {
            return;
        }
        if deck.is_empty() {
            deck = dice.shuffled(&AWAY);
        }
        let (all, one) = (dice.once_in(3), dice.below(replicas));
        let struck = if all { 0..replicas } else { one..one + 1 };
        let struck = || struck.clone().map(|number| world.replica(part, number));
        match deck.pop().unwrap() {
            Away::Killed => {
                for process in struck() {
                    process.kill().await;
                    tally.killed(part.name());
                }
                sleep(dice.millis(0, 1200)).await;
                struck().for_each(Process::spawn);
            }
            Away::Stopped => {
                for status in join_all(struck().map(Process::terminate)).await {
                    // Before it listens to signals it ends by them.
                    let ended = status.success() || status.signal() == Some(Signal::SIGTERM as i32);
                    assert!(ended, "{part:?} ended with {status}");
                    tally.happened("services stopped");
                }
                sleep(dice.millis(0, 1200)).await;
                struck().for_each(Process::spawn);
            }
            Away::Frozen => {
                for process in struck() {
                    process.signal(Signal::SIGSTOP);
                    tally.happened("services frozen");
                }
                // Longer than others wait for them, or longer than their leases.
                let (least, most) = dice.one_of(&[(300, 1500), (300, 1500), (2500, 4500)]);
                sleep(dice.millis(least, most)).await;
                struck().for_each(|process| process.signal(Signal::SIGCONT));
            }
        }
        tally.repaired();
    }
}

async fn kill_postgres(world: &Arc<World>, seed: u64, end: Instant, tally: &Tally) {
    let mut dice = Dice::of(seed, "postgres");
    loop {
        sleep(dice.millis(2000, 12_000)).await;
        if Instant::now() >= end {
            return;
        }
        blocking(world, |world| world.postgres().kill()).await;
        tally.killed("postgres");
        sleep(dice.millis(0, 1200)).await;
        blocking(world, |world| world.postgres().start()).await;
        tally.repaired();
    }
}

/// In any order, but all of it before anything comes again.
async fn trouble_rabbitmq(world: &Arc<World>, seed: u64, end: Instant, tally: &Tally) {
    let mut dice = Dice::of(seed, "rabbitmq");
    let mut deck = Vec::new();
    loop {
        sleep(dice.millis(300, 2000)).await;
        if Instant::now() >= end {
            return;
        }
        if deck.is_empty() {
            deck = dice.shuffled(&Mishap::ALL);
        }
        match deck.pop().unwrap() {
            Mishap::Killed => {
                blocking(world, |world| world.broker().kill()).await;
                tally.killed("rabbitmq");
                sleep(dice.millis(0, 1200)).await;
                blocking(world, |world| world.broker().start()).await;
            }
            Mishap::Wiped => {
                tally.killed("rabbitmq");
                tally.happened("data folder deleted");
                blocking(world, |world| world.broker().wipe()).await;
            }
            Mishap::QueueDeleted => {
                let queue = dice.one_of(&QUEUES);
                let there = blocking(world, move |world| world.delete_queue(queue)).await;
                if there {
                    tally.happened("queue deleted");
                }
            }
            Mishap::OutOfMemory => {
                blocking(world, |world| world.broker().set_memory_alarm(true)).await;
                tally.happened("memory alarm");
                sleep(dice.millis(300, 3000)).await;
                blocking(world, |world| world.broker().set_memory_alarm(false)).await;
            }
            Mishap::Disconnected => {
                // In the middle of confirms: messages are published all the time.
                for _ in 0..3 {
                    if blocking(world, |world| world.broker().close_connections()).await > 0 {
                        tally.happened("connections closed");
                    }
                    sleep(dice.millis(50, 600)).await;
                }
            }
        }
        tally.repaired();
    }
}

async fn blocking<T: Send + 'static>(
    world: &Arc<World>,
    step: impl FnOnce(&World) -> T + Send + 'static,
) -> T {
    let world = Arc::clone(world);
    spawn_blocking(move || step(&world)).await.unwrap()
}
