//! Other systems, which may refuse, lose answers and hang, and what sagas do in them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::sql_types::{Text, Uuid as SqlUuid};
use resilience::breaker::{Breaker, Permit};
use resilience::deferred::{Attempt, HandlerError};
use resilience::saga::{Action, Failure, Step};
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use crate::deferred::Connections;

/// What happens to a call to a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It says no.
    Refused,
    /// Nobody is there.
    Away,
    /// It never arrives, and nobody knows.
    Lost,
    /// It has its effect, and nobody knows.
    AnswerLost,
    /// It arrives when the test [lets it](Systems::let_through), and nobody waits for it.
    Late,
    /// It waits until the test [lets it through](Systems::let_through).
    Held,
    /// It never answers.
    Hangs,
    /// The code panics.
    Panics,
    /// It is refused for good.
    Impossible,
}

/// The other systems. What they hold is in the database, and outlives the process.
#[derive(Clone)]
pub(super) struct Systems {
    pool: Connections,
    faults: Arc<Mutex<HashMap<String, Vec<Fault>>>>,
    always: Arc<Mutex<HashMap<String, Fault>>>,
    breakers: Arc<Mutex<HashMap<String, Breaker>>>,
    gate: Arc<Notify>,
    asked: Arc<Mutex<HashMap<String, usize>>>,
}

impl Systems {
    pub(super) fn new(url: &str) -> Self {
        // They don't take their connections from those who call them, and are patient.
        let pool = Pool::builder()
            .max_size(8)
            .min_idle(Some(0))
            .connection_timeout(Duration::from_secs(30))
            .error_handler(Box::new(diesel::r2d2::NopErrorHandler))
            .build_unchecked(ConnectionManager::new(url));
        let (faults, always) = (Arc::default(), Arc::default());
        let (breakers, gate, asked) = (Arc::default(), Arc::default(), Arc::default());
        Self { pool, faults, always, breakers, gate, asked }
    }

    /// The next call of this name: `hotel`, or `undo hotel`.
    pub(super) fn once(&self, name: &str, fault: Fault) {
        self.faults.lock().unwrap().entry(name.to_owned()).or_default().push(fault);
    }

    /// Every call of this name, from now on.
    pub(super) fn always(&self, name: &str, fault: Fault) {
        self.always.lock().unwrap().insert(name.to_owned(), fault);
    }

    pub(super) fn heal(&self) {
        self.always.lock().unwrap().clear();
        self.faults.lock().unwrap().clear();
    }

    /// What is [late](Fault::Late) arrives now.
    pub(super) fn let_through(&self) {
        self.gate.notify_waiters();
    }

    /// What has been [held](Fault::Held) for longest goes on.
    pub(super) fn let_through_one(&self) {
        self.gate.notify_one();
    }

    /// What is done and undone in this system goes through this breaker.
    pub(super) fn protect(&self, system: &str, breaker: &Breaker) {
        self.breakers.lock().unwrap().insert(system.to_owned(), breaker.clone());
    }

    fn permit(&self, system: &str) -> Result<Option<Permit<'static>>, HandlerError> {
        let found = self.breakers.lock().unwrap().get(system).cloned();
        let permit = found.map(|breaker| breaker.acquire_owned()).transpose();
        permit.map_err(|rejection| HandlerError::unavailable(rejection.to_string()))
    }

    /// How often it was called.
    pub(super) fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().get(name).copied().unwrap_or_default()
    }

    pub(super) fn fault(&self, name: &str) -> Option<Fault> {
        *self.asked.lock().unwrap().entry(name.to_owned()).or_default() += 1;
        let mut faults = self.faults.lock().unwrap();
        let next = faults.get_mut(name).filter(|faults| !faults.is_empty());
        let next = next.map(|faults| faults.remove(0));
        next.or_else(|| self.always.lock().unwrap().get(name).copied())
    }

    async fn with(&self, system: &str, id: Uuid, sql: &'static str) -> usize {
        let (pool, system) = (self.pool.clone(), system.to_owned());
        let worked = tokio::task::spawn_blocking(move || {
            let query = diesel::sql_query(sql).bind::<Text, _>(system).bind::<SqlUuid, _>(id);
            query.execute(&mut pool.get().unwrap()).unwrap()
        });
        worked.await.unwrap()
    }

    /// The effect, once; refused when it was undone before.
    async fn have(&self, system: &str, id: Uuid) -> Result<(), Failure> {
        let had = self.with(
            system,
            id,
            "INSERT INTO effects (system, id, undone) VALUES ($1, $2, false)
             ON CONFLICT (system, id) DO UPDATE SET times = effects.times + 1
             WHERE NOT effects.undone",
        );
        if had.await == 0 {
            return Err(Failure::none(HandlerError::permanent("already undone")));
        }
        Ok(())
    }

    async fn act(&self, system: &'static str, id: Uuid) -> Result<(), Failure> {
        let permit = self.permit(system).map_err(Failure::none)?;
        let result = self.call(system, id).await;
        settle(permit, result.as_ref().err().map(Failure::error));
        result
    }

    async fn undo(&self, system: &'static str, id: Uuid) -> Result<(), HandlerError> {
        let permit = self.permit(system)?;
        let result = self.call_back(system, id).await;
        settle(permit, result.as_ref().err());
        result
    }

    async fn call(&self, system: &'static str, id: Uuid) -> Result<(), Failure> {
        let unknown = |why: &str| Failure::unknown(HandlerError::unavailable(why));
        match self.fault(system) {
            None => return self.have(system, id).await,
            Some(Fault::Refused) => {
                return Err(Failure::none(HandlerError::permanent(format!("{system} says no"))));
            }
            Some(Fault::Away) => {
                let error = HandlerError::unavailable(format!("{system} is away"));
                return Err(Failure::none(error).with_dependency(system));
            }
            Some(Fault::AnswerLost) => self.have(system, id).await?,
            Some(Fault::Late) => {
                let systems = self.clone();
                let gate = Arc::clone(&self.gate);
                let (armed, is_armed) = oneshot::channel();
                tokio::spawn(async move {
                    let mut through = std::pin::pin!(gate.notified());
                    through.as_mut().enable();
                    armed.send(()).unwrap();
                    through.await;
                    let _ = systems.have(system, id).await;
                });
                is_armed.await.unwrap();
            }
            Some(Fault::Held) => {
                self.gate.notified().await;
                return self.have(system, id).await;
            }
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Panics) => panic!("as it was told to"),
            Some(Fault::Lost | Fault::Impossible) => {}
        }
        Err(unknown("the answer was lost").with_dependency(system))
    }

    async fn call_back(&self, system: &'static str, id: Uuid) -> Result<(), HandlerError> {
        match self.fault(&format!("undo {system}")) {
            None | Some(Fault::AnswerLost) => {}
            Some(Fault::Impossible | Fault::Refused) => {
                return Err(HandlerError::permanent(format!("{system} can't undo that")));
            }
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Held) => self.gate.notified().await,
            Some(Fault::Panics) => panic!("as it was told to"),
            Some(_) => return Err(HandlerError::unavailable(format!("{system} is away"))),
        }
        self.with(
            system,
            id,
            "WITH noted AS (INSERT INTO undos (system, id) VALUES ($1, $2))
             INSERT INTO effects (system, id, undone) VALUES ($1, $2, true)
             ON CONFLICT (system, id) DO UPDATE SET undone = true",
        )
        .await;
        Ok(())
    }
}

/// Who says no has answered.
fn settle(permit: Option<Permit<'static>>, error: Option<&HandlerError>) {
    match (permit, error) {
        (None, _) => {}
        (Some(permit), None | Some(HandlerError::Permanent { .. })) => permit.success(),
        (Some(permit), Some(error)) => permit.failure(error.reason().to_owned()),
    }
}

/// One of the systems, as the saga's steps know it. What it is asked for is named by the saga.
macro_rules! system {
    ($type:ident, $name:literal) => {
        #[derive(Clone)]
        pub(super) struct $type(pub(super) Systems);

        impl Action for $type {
            const NAME: &'static str = $name;
            type Input = Uuid;
            type Output = Uuid;

            async fn act(&self, attempt: Attempt<Uuid>) -> Result<Uuid, Failure> {
                self.0.act($name, attempt.payload).await?;
                Ok(attempt.payload)
            }
        }

        impl Step for $type {
            async fn undo(&self, attempt: Attempt<Uuid>) -> Result<(), HandlerError> {
                self.0.undo($name, attempt.payload).await
            }
        }
    };
}

system!(Hotel, "hotel");
system!(Flight, "flight");
system!(Pay, "pay");
system!(Mail, "mail");

/// A question, which changes nothing: how often it was asked.
#[derive(Clone)]
pub(super) struct Price(pub(super) Systems);

impl Action for Price {
    const NAME: &'static str = "price";
    type Input = ();
    type Output = u32;

    async fn act(&self, _: Attempt<()>) -> Result<u32, Failure> {
        match self.0.fault("price") {
            None => Ok(42),
            Some(_) => Err(Failure::none(HandlerError::unavailable("nobody knows the price"))),
        }
    }
}
