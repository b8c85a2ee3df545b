//! The running store as a stage: its launcher breaks it, so that it knows what it has broken.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::future::join_all;
use serde_json::Value;
use service::client::Client;
use storm::part::{Databases, Part};
use storm::shop;
use storm::stage::{Blow, Harm, Stage, Victim};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::control::{self, Answer, Request};
use crate::names::Name;
use crate::state::{LOOK, Paths};
use crate::status::{PartState, PartStatus, Status};

/// A store in which everything runs.
#[derive(Debug)]
pub(super) struct Launched {
    paths: Paths,
    clients: [Client; 4],
    databases: Databases,
    /// All that runs.
    parts: Vec<Name>,
    /// Whose deferred calls go by RabbitMQ.
    carried: [bool; 4],
    mishaps: &'static [Harm],
}

/// How long a service that is well may look as if it weren't: RabbitMQ may only just be there.
const WELL: Duration = Duration::from_secs(3);

fn name(part: Part) -> Name {
    match part {
        Part::Store => Name::Store,
        Part::Order => Name::Order,
        Part::Warehouse => Name::Warehouse,
        Part::Warranty => Name::Warranty,
    }
}

impl Launched {
    /// # Errors
    /// When something of it is down, or isn't the launcher's to break.
    pub(super) async fn find(paths: &Paths) -> Result<Self> {
        let Some(Answer::Status(status)) = control::ask(paths, &Request::Status)? else {
            bail!("the launcher says nothing of what runs");
        };
        let stopped = |part: &&PartStatus| part.state == PartState::Stopped;
        if let Some(part) = status.parts.iter().find(stopped) {
            bail!("{0} is not running; start it with: cargo run -- start {0}", part.name);
        }
        let state = |name: Name| {
            let part = status.parts.iter().find(|part| part.name == name);
            part.map_or(PartState::Absent, |part| part.state)
        };
        if state(Name::Postgres) == PartState::Absent {
            bail!(
                "the databases are somebody's: a drill is for a store with a PostgreSQL of its own"
            );
        }
        let mishaps: &[Harm] = match state(Name::Rabbitmq) {
            PartState::Absent => &[],
            _ => &[Harm::Killed, Harm::Frozen, Harm::Killed],
        };
        let mut found = Self {
            paths: paths.clone(),
            clients: each(&status, |part| part.url.as_deref().map(Client::new))?,
            databases: each(&status, |part| part.database.clone())?,
            parts: status
                .parts
                .iter()
                .filter(|part| part.state == PartState::Running)
                .map(|part| part.name)
                .collect(),
            carried: [false; 4],
            mishaps,
        };
        for part in Part::ALL {
            found.carried[part as usize] = found.is_well(part).await?;
        }
        let answer = shop::list(&found.store(), Uuid::new_v4()).try_send().await;
        if answer.context("Store doesn't answer")?.status == 401 {
            bail!("Store asks users who they are (USER_JWT_…), and made-up ones can't prove it");
        }
        Ok(found)
    }

    /// Whether it has RabbitMQ.
    ///
    /// # Errors
    /// When it can't do its work: what is broken already is nobody's to break further.
    async fn is_well(&self, part: Part) -> Result<bool> {
        let end = Instant::now() + WELL;
        let (name, client) = (name(part), &self.clients[part as usize]);
        loop {
            let health = timeout(WELL, client.get("/manage/health").try_send()).await;
            let health = match health {
                Err(_) => bail!(
                    "{name} says nothing, as if it were frozen; it goes on with: cargo run -- start {name}"
                ),
                Ok(Err(_)) => Value::Null,
                Ok(Ok(answer)) => answer.json(),
            };
            let broker = &health["components"]["broker"]["status"];
            if health["status"] == "Work" && broker != "Down" {
                return Ok(broker == "Work");
            }
            if Instant::now() + LOOK * 10 > end {
                bail!("{name} is not well; what is wrong says: cargo run -- doctor");
            }
            sleep(LOOK * 10).await;
        }
    }

    /// Has the launcher do it.
    async fn order(&self, request: Request) -> Result<()> {
        let paths = self.paths.clone();
        match spawn_blocking(move || control::ask(&paths, &request)).await?? {
            Some(Answer::Done { .. }) => Ok(()),
            Some(Answer::Failed { message }) => bail!(message),
            Some(Answer::Status(_)) => bail!("the launcher answered something else"),
            None => bail!("the launcher has ended"),
        }
    }
}

/// What there is of each service, by [`Part`].
fn each<T>(status: &Status, what: impl Fn(&PartStatus) -> Option<T>) -> Result<[T; 4]> {
    let found = Part::ALL
        .iter()
        .filter_map(|part| what(status.parts.iter().find(|known| known.name == name(*part))?));
    let found: Vec<T> = found.collect();
    found.try_into().ok().context("the launcher doesn't know of all services")
}

impl Stage for Launched {
    fn store(&self) -> Client {
        self.clients[Part::Store as usize].clone()
    }

    fn processes(&self) -> Vec<(Part, Client)> {
        Part::ALL.into_iter().zip(self.clients.iter().cloned()).collect()
    }

    fn databases(&self) -> &Databases {
        &self.databases
    }

    fn replicas(&self) -> usize {
        1
    }

    fn is_carried(&self, part: Part) -> bool {
        self.carried[part as usize]
    }

    fn mishaps(&self) -> &[Harm] {
        self.mishaps
    }

    async fn strike(&self, blow: Blow) -> Result<u64> {
        let how = match blow.harm {
            Harm::Frozen => control::Blow::Freeze,
            Harm::Killed => control::Blow::Kill,
            _ => control::Blow::Stop,
        };
        self.order(Request::Strike { part: of(blow.victim), how }).await?;
        Ok(1)
    }

    async fn mend(&self, blow: Blow) -> Result<()> {
        self.order(Request::Start { part: of(blow.victim) }).await
    }

    async fn ready(&self) -> Result<()> {
        // Whatever failed to start before.
        let starts = self.parts.iter().map(|part| self.order(Request::Start { part: *part }));
        join_all(starts).await.into_iter().collect()
    }

    /// Nobody is asked: what has ended in the ledger needs no message any more.
    async fn is_drained(&self) -> Result<bool> {
        Ok(true)
    }
}

fn of(victim: Victim) -> Name {
    match victim {
        Victim::Service(part, _) => name(part),
        Victim::Postgres => Name::Postgres,
        Victim::Rabbitmq => Name::Rabbitmq,
    }
}
