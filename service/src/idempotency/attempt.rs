//! One attempt to carry a key's operation out, fenced by the key's row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel::dsl::{exists, now, select};
use diesel::prelude::*;
use diesel::sql_types::Timestamptz;
use uuid::Uuid;

use super::{Found, Scope, done, find, idempotency, in_progress, take, until};
use crate::answer::{Answer, Memo};
use crate::db::Db;
use crate::failure::Failure;

/// What went before under an attempt's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum History {
    /// Nothing.
    Fresh,
    /// Somebody acted, and went silent.
    TakenOver,
    /// Somebody was undoing, and went silent.
    Undoing,
}

/// One attempt to carry a key's operation out. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub(super) id: Uuid,
    pub(super) history: History,
    /// Whether somebody else settles the key: whoever undoes the attempt, or has remembered its
    /// answer already.
    pub(super) handed_over: Arc<AtomicBool>,
    /// Whether its outcome is known without the key.
    pub(super) kept_elsewhere: Arc<AtomicBool>,
    /// Whether its outcome is known by its id alone.
    pub(super) found_by_id: Arc<AtomicBool>,
    pub(super) held: Option<Held>,
}

#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) db: Db,
    pub(super) scope: Scope,
    pub(super) token: Uuid,
    pub(super) fingerprint: String,
}

impl Attempt {
    /// An attempt without a key: nothing is remembered.
    pub(super) fn unnamed() -> Self {
        Self {
            id: Uuid::new_v4(),
            history: History::Fresh,
            handed_over: Arc::default(),
            kept_elsewhere: Arc::default(),
            found_by_id: Arc::default(),
            held: None,
        }
    }

    fn lease(&self) -> Duration {
        self.held.as_ref().map_or(Duration::ZERO, |held| held.db.lease())
    }

    /// The id minted for the attempt, the same for whoever takes it over.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Whether there is a key: without one nothing is remembered, and nobody takes over.
    pub fn has_key(&self) -> bool {
        self.held.is_some()
    }

    /// True when a crash left this attempt while it was being undone: that must be finished, and
    /// the attempt [renewed](Attempt::renew), before anything is done.
    pub fn is_undoing(&self) -> bool {
        self.history == History::Undoing
    }

    /// True when somebody else has acted under this attempt's id before, and went silent: what a
    /// call under it now had no effect of may have been done then.
    pub fn is_taken_over(&self) -> bool {
        self.history == History::TakenOver
    }

    /// Notes that this attempt is undone by what is written down in the transaction that `conn` is
    /// in, whatever becomes of this process: from here on nobody goes on under its id. Whoever carries
    /// the undo out [gives the key back](give_back). False when somebody else has taken over.
    ///
    /// # Errors
    /// What the database says.
    pub fn leave_undoing(&self, conn: &mut PgConnection, waits_for: &str) -> QueryResult<bool> {
        self.handed_over.store(true, Ordering::Release);
        let Some(Held { scope, token, .. }) = &self.held else {
            return Ok(true);
        };
        diesel::update(mine(scope, *token))
            .set((
                idempotency::state.eq("undoing"),
                idempotency::waits_for.eq(waits_for),
                idempotency::lease_until.eq(until(self.lease())),
            ))
            .execute(conn)
            .map(|rows| rows == 1)
    }

    /// Remembers the answer in the transaction that `conn` is in, so that there is nothing between
    /// that and what else it writes. False when somebody else has taken over.
    ///
    /// # Errors
    /// What the database says; 500 when the answer can't be written down.
    pub fn remember(&self, conn: &mut PgConnection, answer: &Answer) -> Result<bool, Failure> {
        let Some(Held { scope, token, .. }) = &self.held else {
            return Ok(true);
        };
        let rows = diesel::update(mine(scope, *token)).set(done(&Memo::success(answer)?)?);
        if rows.execute(conn)? == 1 {
            return Ok(true);
        }
        // Where the key was given back, nobody goes on under this attempt's id.
        let other = find(scope).filter(idempotency::attempt.eq(self.id));
        Ok(!select(exists(other)).get_result::<bool>(conn)?)
    }

    /// Leaves the key as it is: its answer [is remembered](Attempt::remember), or nobody knows, and
    /// who comes with it when its lease is over is to find out.
    pub fn leave(&self) {
        self.handed_over.store(true, Ordering::Release);
    }

    /// The outcome is kept under an id that follows from the key, and may still change: the key is
    /// given back, whatever is answered, and who comes with it again is to look there.
    pub fn keep_elsewhere(&self) {
        self.kept_elsewhere.store(true, Ordering::Release);
    }

    /// What became of it is found under its id alone: whoever comes with the key next goes on under
    /// the same id, at once.
    pub fn go_on(&self) {
        self.found_by_id.store(true, Ordering::Release);
    }

    /// A new attempt under a new id, after the earlier one is known to be undone. Its undo may have
    /// given the key back.
    ///
    /// # Errors
    /// 409 `idempotency_in_progress` when somebody else has taken over; 503 when the database can't
    /// be reached.
    pub async fn renew(&mut self) -> Result<(), Failure> {
        let (id, lease) = (Uuid::new_v4(), self.lease());
        if let Some(Held { db, scope, token, fingerprint }) = self.held.clone() {
            let renewed = db.transaction(move |conn| {
                let rows = diesel::update(mine(&scope, token))
                    .set((
                        idempotency::state.eq("running"),
                        idempotency::attempt.eq(id),
                        idempotency::waits_for.eq(None::<String>),
                        idempotency::lease_until.eq(until(lease)),
                    ))
                    .execute(conn)?;
                Ok(rows == 1 || take(conn, &scope, &fingerprint, id, token, lease)?)
            });
            if !renewed.await? {
                return Err(in_progress());
            }
        }
        self.id = id;
        self.history = History::Fresh;
        self.handed_over.store(false, Ordering::Release);
        self.found_by_id.store(false, Ordering::Release);
        Ok(())
    }

    /// Remembers the outcome, or gives the key back. An answer that can't be written down now is
    /// found again by whoever takes over, under the same id.
    pub(super) async fn settle(&self, outcome: &Result<Answer, Failure>) {
        if self.handed_over.load(Ordering::Acquire) {
            // It is being undone, and is given back when that is done.
            return;
        }
        let memo = if self.is_kept_elsewhere() { Ok(None) } else { Memo::of(outcome) };
        let settled = match memo.and_then(|memo| memo.as_ref().map(done).transpose()) {
            Ok(Some(done)) => {
                self.fenced(move |conn, row| diesel::update(row).set(done).execute(conn)).await
            }
            Err(failure) => Err(failure),
            Ok(None) if self.is_kept_elsewhere() => self.give_back().await,
            // Its id may have had an effect: the next one goes on under it, at once.
            Ok(None)
                if self.history != History::Fresh || self.found_by_id.load(Ordering::Acquire) =>
            {
                self.let_go().await
            }
            Ok(None) => self.give_back().await,
        };
        if let Err(error) = settled {
            tracing::warn!(%error, "an Idempotency-Key keeps its lease until that ends");
        }
    }

    fn is_kept_elsewhere(&self) -> bool {
        self.kept_elsewhere.load(Ordering::Acquire)
    }

    async fn give_back(&self) -> Result<(), Failure> {
        self.fenced(|conn, row| diesel::delete(row).execute(conn)).await
    }

    async fn let_go(&self) -> Result<(), Failure> {
        self.fenced(|conn, row| {
            diesel::update(row)
                .set(idempotency::lease_until.eq(now.into_sql::<Timestamptz>()))
                .execute(conn)
        })
        .await
    }

    async fn fenced<F>(&self, write: F) -> Result<(), Failure>
    where
        F: FnOnce(&mut PgConnection, Mine) -> QueryResult<usize> + Send + 'static,
    {
        let Some(held) = self.held.clone() else {
            return Ok(());
        };
        let Held { db, scope, token, .. } = held;
        let rows = db.run(move |conn| Ok(write(conn, mine(&scope, token))?)).await?;
        if rows == 0 { Err(in_progress()) } else { Ok(()) }
    }
}

/// Gives back the key of an attempt that is undone, in the transaction that `conn` is in. Does
/// nothing where there is none, or where it repeats an answer.
///
/// # Errors
/// What the database says.
pub fn give_back(conn: &mut PgConnection, attempt: Uuid) -> QueryResult<()> {
    let of_attempt = idempotency::table.filter(idempotency::attempt.eq(attempt));
    diesel::delete(of_attempt.filter(idempotency::state.ne("done"))).execute(conn).map(drop)
}

/// The attempt is not undone after all, in the transaction that `conn` is in: whoever comes with its
/// key goes on under its id, and finds out what has become of it. Does nothing where it isn't being
/// undone.
///
/// # Errors
/// What the database says.
pub fn leave_as_it_is(conn: &mut PgConnection, attempt: Uuid) -> QueryResult<()> {
    let of_attempt = idempotency::table.filter(idempotency::attempt.eq(attempt));
    diesel::update(of_attempt.filter(idempotency::state.eq("undoing")))
        .set((
            idempotency::state.eq("running"),
            idempotency::waits_for.eq(None::<String>),
            idempotency::lease_until.eq(now.into_sql::<Timestamptz>()),
        ))
        .execute(conn)
        .map(drop)
}

/// The key's row, as long as it is this holder's.
fn mine(scope: &Scope, token: Uuid) -> Mine {
    find(scope).filter(idempotency::token.eq(token)).filter(idempotency::state.ne("done"))
}

type Mine = diesel::dsl::Filter<
    diesel::dsl::Filter<Found, diesel::dsl::Eq<idempotency::token, Uuid>>,
    diesel::dsl::NotEq<idempotency::state, &'static str>,
>;
