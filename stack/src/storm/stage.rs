//! What a storm needs of a running store: where it is, and somebody who can break it and mend it again.

use std::fmt;

use anyhow::Result;
use service::client::Client;

use super::part::{Databases, Part};

/// Whom something happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// A replica of a service.
    Service(Part, usize),
    /// The database of all of them.
    Postgres,
    /// What carries deferred calls.
    Rabbitmq,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service(part, _) => part.name(),
            Self::Postgres => "postgres",
            Self::Rabbitmq => "rabbitmq",
        })
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// By SIGKILL.
    Killed,
    /// By SIGTERM, as an operator would.
    Stopped,
    /// By SIGSTOP: its connections stay open, and it answers nobody.
    Frozen,
    /// Killed, its data folder deleted, and started.
    Wiped,
    /// This queue, with all that is in it.
    QueueDeleted(&'static str),
    /// It lets nobody publish.
    OutOfMemory,
    /// All its clients are cut off.
    Disconnected,
}

impl Harm {
    /// What it is called.
    pub fn text(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Stopped => "stopped",
            Self::Frozen => "frozen",
            Self::Wiped => "killed and wiped",
            Self::QueueDeleted(_) => "without a queue",
            Self::OutOfMemory => "out of memory",
            Self::Disconnected => "disconnected",
        }
    }

    /// Whether it lasts until it is mended.
    pub fn lasts(self) -> bool {
        matches!(self, Self::Killed | Self::Stopped | Self::Frozen | Self::OutOfMemory)
    }
}

/// What happens to whom.
#[derive(Clone, Copy, Debug)]
pub struct Blow {
    /// Whom.
    pub victim: Victim,
    /// What.
    pub harm: Harm,
}

/// A running store that may be broken.
pub trait Stage: Send + Sync + 'static {
    /// A client of Store: of each replica in turn.
    fn store(&self) -> Client;

    /// A client of every process.
    fn processes(&self) -> Vec<(Part, Client)>;

    /// Where the data is.
    fn databases(&self) -> &Databases;

    /// How many there are of each service.
    fn replicas(&self) -> usize;

    /// Whether RabbitMQ carries what this service does later.
    fn is_carried(&self, part: Part) -> bool;

    /// What may happen to RabbitMQ, in no order: nothing where there is none.
    fn mishaps(&self) -> &[Harm];

    /// Does it. How often it has happened thereby.
    fn strike(&self, blow: Blow) -> impl Future<Output = Result<u64>> + Send;

    /// Ends it. What was killed is on its way then, and need not be ready.
    fn mend(&self, blow: Blow) -> impl Future<Output = Result<()>> + Send;

    /// Returns when everything is ready.
    fn ready(&self) -> impl Future<Output = Result<()>> + Send;

    /// Whether nothing waits in RabbitMQ, where that can be told.
    fn is_drained(&self) -> impl Future<Output = Result<bool>> + Send;
}
