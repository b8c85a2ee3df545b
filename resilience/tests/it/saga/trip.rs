//! A saga that reaches into all of the systems.

use diesel::prelude::*;
use diesel::sql_types::Uuid as SqlUuid;
use resilience::deferred::HandlerError;
use resilience::saga::{Committed, Failure, Local, Outcome, Run, Saga, Steps, Stop};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::systems::{Fault, Flight, Hotel, Mail, Pay, Price, Systems};

/// Where the pivot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Pivot {
    /// The trip in the own database is the last thing, and decides.
    Local,
    /// Paying decides, and a mail comes behind it.
    Remote,
    /// The trip in the own database decides, and a mail comes behind it.
    Decide,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Wish {
    pub(super) id: Uuid,
    pub(super) pivot: Pivot,
    /// What the own database says at the end.
    pub(super) end: End,
}

/// What the own database says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum End {
    Yes,
    No,
    Broken,
}

/// Hotel, flight and a price; then the pivot.
pub(super) struct Trip(pub(super) Systems);

impl Saga for Trip {
    const KIND: &'static str = "trip";
    type Input = Wish;
    type Output = u32;

    fn steps(&self) -> Steps {
        Steps::new().and(Hotel(self.0.clone())).and(Flight(self.0.clone()))
    }

    async fn run(&self, run: &mut Run, wish: &Wish) -> Result<Committed<u32>, Stop> {
        let systems = &self.0;
        if systems.fault("before") == Some(Fault::Away) {
            let failure = Failure::none(HandlerError::unavailable("known to be away"));
            return Err(run.abort(failure.with_dependency("hotel")));
        }
        run.step(&Hotel(systems.clone()), wish.id).await?;
        run.step(&Flight(systems.clone()), wish.id).await?;
        let price = run.read(&Price(systems.clone()), ()).await?;
        match wish.pivot {
            Pivot::Local => {}
            Pivot::Remote => {
                run.pivot(&Pay(systems.clone()), wish.id).await?;
                run.forward(&Mail(systems.clone()), wish.id).await?;
            }
            Pivot::Decide => {
                let noted = wish.clone();
                run.decide("note", move |conn| note(conn, &noted)).await?;
                run.forward(&Mail(systems.clone()), wish.id).await?;
            }
        }
        let wish = wish.clone();
        run.commit(move |conn| {
            if wish.pivot != Pivot::Decide {
                note(conn, &wish)?;
            }
            Ok(price)
        })
        .await
    }
}

fn note(conn: &mut PgConnection, wish: &Wish) -> Result<(), Local> {
    match wish.end {
        End::Yes => {}
        End::No => {
            return Err(Local::Refused(Failure::none(HandlerError::permanent("sold out"))));
        }
        End::Broken => drop(diesel::sql_query("SELECT 1 / 0").execute(conn)?),
    }
    diesel::sql_query("INSERT INTO trips (id) VALUES ($1)")
        .bind::<SqlUuid, _>(wish.id)
        .execute(conn)?;
    Ok(())
}

pub(super) fn wish(pivot: Pivot) -> Wish {
    Wish { id: Uuid::new_v4(), pivot, end: End::Yes }
}

pub(super) fn failed(outcome: Outcome<u32>) -> Failure {
    match outcome {
        Outcome::Compensated(failure) => failure,
        other => panic!("it isn't compensated: {other:?}"),
    }
}
