//! A world as a stage: two replicas of each service, and a PostgreSQL and a RabbitMQ of its own.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;

use ::storm::part::{Databases, Part};
use ::storm::stage::{Blow, Harm, Stage, Victim};
use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use service::client::Client;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::world::World;
use crate::world::process::Process;

/// All that may happen to RabbitMQ: some of it twice as often.
const MISHAPS: [Harm; 7] = [
    Harm::Killed,
    Harm::Wiped,
    Harm::QueueDeleted(""),
    Harm::OutOfMemory,
    Harm::Disconnected,
    Harm::Disconnected,
    Harm::Killed,
];

/// It may be broken as a test breaks it. What can't be is a defect, and panics.
pub(super) struct Broken {
    world: Arc<World>,
    databases: Databases,
}

impl Broken {
    pub(super) fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world), databases: world.databases() }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        step: impl FnOnce(&World) -> T + Send + 'static,
    ) -> Result<T> {
        let world = Arc::clone(&self.world);
        spawn_blocking(move || step(&world)).await.context("a step panicked")
    }
}

impl Stage for Broken {
    fn store(&self) -> Client {
        self.world.store()
    }

    fn processes(&self) -> Vec<(Part, Client)> {
        let all = Part::ALL.iter().flat_map(|part| self.world.processes(*part));
        all.map(|process| (process.part(), process.client())).collect()
    }

    fn databases(&self) -> &Databases {
        &self.databases
    }

    fn replicas(&self) -> usize {
        self.world.processes(Part::Store).len()
    }

    fn is_carried(&self, part: Part) -> bool {
        part.defers() && self.world.has_broker()
    }

    fn mishaps(&self) -> &[Harm] {
        if self.world.has_broker() { &MISHAPS } else { &[] }
    }

    async fn strike(&self, blow: Blow) -> Result<u64> {
        match (blow.victim, blow.harm) {
            (Victim::Service(part, number), Harm::Frozen) => {
                self.world.replica(part, number).signal(Signal::SIGSTOP);
            }
            (Victim::Service(part, number), Harm::Stopped) => {
                let ends = move |world: &World| waiting(world.replica(part, number).terminate());
                let status = self.blocking(ends).await?;
                // Before it listens to signals it ends by them.
                let by_signal = status.signal() == Some(Signal::SIGTERM as i32);
                ensure!(status.success() || by_signal, "{part:?} ended with {status}");
            }
            (Victim::Service(part, number), _) => {
                self.blocking(move |world| waiting(world.replica(part, number).kill())).await?;
            }
            (Victim::Postgres, _) => self.blocking(|world| world.postgres().kill()).await?,
            (Victim::Rabbitmq, Harm::Wiped) => self.blocking(|world| world.broker().wipe()).await?,
            (Victim::Rabbitmq, Harm::QueueDeleted(queue)) => {
                let there = self.blocking(move |world| world.delete_queue(queue)).await?;
                return Ok(u64::from(there));
            }
            (Victim::Rabbitmq, Harm::OutOfMemory) => {
                self.blocking(|world| world.broker().set_memory_alarm(true)).await?;
            }
            (Victim::Rabbitmq, Harm::Disconnected) => {
                let closed = self.blocking(|world| world.broker().close_connections()).await?;
                return Ok(u64::from(closed > 0));
            }
            (Victim::Rabbitmq, _) => self.blocking(|world| world.broker().kill()).await?,
        }
        Ok(1)
    }

    async fn mend(&self, blow: Blow) -> Result<()> {
        match (blow.victim, blow.harm) {
            (Victim::Service(part, number), Harm::Frozen) => {
                self.world.replica(part, number).signal(Signal::SIGCONT);
            }
            (Victim::Service(part, number), _) => self.world.replica(part, number).spawn(),
            (Victim::Postgres, _) => self.blocking(|world| world.postgres().start()).await?,
            (Victim::Rabbitmq, Harm::Killed) => {
                self.blocking(|world| world.broker().start()).await?;
            }
            (Victim::Rabbitmq, Harm::OutOfMemory) => {
                self.blocking(|world| world.broker().set_memory_alarm(false)).await?;
            }
            (Victim::Rabbitmq, _) => {}
        }
        Ok(())
    }

    async fn ready(&self) -> Result<()> {
        self.blocking(|world| {
            let all = Part::ALL.iter().flat_map(|part| world.processes(*part));
            waiting(join_all(all.map(Process::ready)));
        })
        .await
    }

    async fn is_drained(&self) -> Result<bool> {
        let queues = self.blocking(World::queues).await?;
        let empty = queues.iter().all(|queue| queue.ready + queue.unacked == 0);
        Ok(empty && !queues.is_empty())
    }
}

/// What a blocking step waits for.
fn waiting<T>(event: impl Future<Output = T>) -> T {
    Handle::current().block_on(event)
}
