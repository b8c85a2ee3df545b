//! What `Idempotency-Key` promises: one effect per key, and the same answer again.
//!
//! A key is remembered per method and path (ids included) with a fingerprint of the fields that the
//! client owns. Two forms:
//!
//! - [`once`], for an effect in this service's own database: the key, the effect and the answer are
//!   one commit, so there is nothing between them that a crash could part.
//! - [`leased`], for an effect that reaches into other systems: the key is taken under a lease
//!   together with an id minted for the attempt. Whoever takes over after a crash goes on under
//!   the same id, which the other systems have seen, or not, so that the effect happens once.
//!
//! 2xx and final refusals are remembered, for 30 days. Anything else gives the key back, so that a
//! retry acts anew; while something is still being undone, it is kept until that is confirmed. So
//! does what [is kept elsewhere](Attempt::keep_elsewhere): an answer that is not the last word.

mod attempt;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, MatchedPath, RawPathParams};
use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::helper_types::AsExprOf;
use diesel::pg::data_types::PgInterval;
use diesel::prelude::*;
use diesel::sql_types::Timestamptz;
use http::HeaderName;
use http::request::Parts;
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::answer::{Answer, Memo};
use crate::db::Db;
use crate::failure::{Failure, code};
use crate::input::check_kind;
use crate::observe::is_visible;

pub use attempt::{Attempt, give_back, leave_as_it_is};
use attempt::{Held, History};

/// Names the retries of one intent.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How often a key is reached for that others take and give back all the while.
const TRIES: u32 = 5;

/// Days for which an answer is remembered.
const RETENTION_DAYS: i32 = 30;

diesel::table! {
    idempotency (method, path, key) {
        method -> Text,
        path -> Text,
        key -> Text,
        fingerprint -> Text,
        state -> Text,
        attempt -> Uuid,
        token -> Uuid,
        lease_until -> Timestamptz,
        waits_for -> Nullable<Text>,
        answer -> Nullable<Jsonb>,
        created_at -> Timestamptz,
    }
}

/// What a request's key is remembered under. A request without a key has an effect each time.
#[derive(Clone, Debug)]
pub struct Key(Option<Scope>);

#[derive(Clone, Debug)]
struct Scope {
    method: String,
    path: String,
    key: String,
}

impl Key {
    /// The key as the client sent it.
    pub fn as_str(&self) -> Option<&str> {
        self.0.as_ref().map(|scope| scope.key.as_str())
    }
}

/// In every route with an effect; checks the type of an unneeded body on the way.
impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        check_kind(parts)?;
        let mut sent = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let (key, more) = (sent.next(), sent.next());
        let Some(key) = key else {
            return Ok(Self(None));
        };
        let text = key.to_str().ok().filter(|_| more.is_none() && is_visible(key, 255));
        let text = text.map(str::to_owned).ok_or_else(|| {
            Failure::invalid("Idempotency-Key", "must be 1 to 255 visible ASCII characters, once")
        })?;
        let path = path(parts, state).await?;
        Ok(Self(Some(Scope { method: parts.method.to_string(), path, key: text })))
    }
}

/// The route with its ids in lower case: however the client writes them, they mean the same.
async fn path<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<String, Failure> {
    let params = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| Failure::bad_request("the path is not valid UTF-8"))?;
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    Ok(params.iter().fold(route.to_owned(), |path, (name, value)| {
        path.replace(&format!("{{{name}}}"), &value.to_ascii_lowercase())
    }))
}

#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = idempotency)]
struct Row {
    fingerprint: String,
    state: String,
    attempt: Uuid,
    lease_until: DateTime<Utc>,
    waits_for: Option<String>,
    answer: Option<serde_json::Value>,
}

type Found = diesel::dsl::Find<idempotency::table, (String, String, String)>;

fn find(scope: &Scope) -> Found {
    let Scope { method, path, key } = scope.clone();
    idempotency::table.find((method, path, key))
}

fn fingerprint(content: &impl Serialize) -> Result<String, Failure> {
    let bytes = serde_json::to_vec(content).map_err(Failure::internal)?;
    Ok(Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")))
}

/// Carries `op` out once per key, in the transaction that `conn` is in. Without a key, `op` alone.
///
/// # Errors
/// What `op` returns; 422 `idempotency_key_reused`.
pub fn once(
    conn: &mut PgConnection,
    key: &Key,
    content: &impl Serialize,
    op: impl FnOnce(&mut PgConnection) -> Result<Answer, Failure>,
) -> Result<Answer, Failure> {
    let Some(scope) = &key.0 else {
        return conn.transaction(op);
    };
    let fingerprint = fingerprint(content)?;
    conn.transaction(|conn| {
        // Someone else with the same key is waited for here, until their commit.
        if !take(conn, scope, &fingerprint, Uuid::new_v4(), Uuid::new_v4(), Duration::ZERO)? {
            let row = find(scope).select(Row::as_select()).first(conn).optional()?;
            // Forgotten between the two statements.
            return row.map_or_else(|| Err(in_progress()), |row| remembered(row, &fingerprint));
        }
        // A savepoint: a refusal takes the effect back, and is remembered all the same.
        let outcome = conn.transaction(op);
        let Some(memo) = Memo::of(&outcome)? else {
            return outcome.map(Ok);
        };
        diesel::update(find(scope)).set(done(&memo)?).execute(conn)?;
        Ok(outcome)
    })?
}

/// What a key that is known already says. The outer error undoes the transaction, the inner is the
/// remembered refusal.
fn remembered(row: Row, fingerprint: &str) -> Result<Result<Answer, Failure>, Failure> {
    if row.fingerprint != fingerprint {
        return Err(reused());
    }
    match row.answer {
        Some(answer) => {
            let memo: Memo = serde_json::from_value(answer).map_err(Failure::internal)?;
            Ok(memo.replay())
        }
        None => Err(in_progress()),
    }
}

fn reused() -> Failure {
    Failure::key_reused("this Idempotency-Key was used for another request")
}

fn in_progress() -> Failure {
    Failure::conflict(
        code::IDEMPOTENCY_IN_PROGRESS,
        "a request with this Idempotency-Key is being carried out",
    )
}

#[derive(AsChangeset)]
#[diesel(table_name = idempotency)]
struct Done {
    state: &'static str,
    answer: serde_json::Value,
}

fn done(memo: &Memo) -> Result<Done, Failure> {
    let answer = serde_json::to_value(memo).map_err(Failure::internal)?;
    Ok(Done { state: "done", answer })
}

/// True when the key was unknown and is ours now.
fn take(
    conn: &mut PgConnection,
    scope: &Scope,
    fingerprint: &str,
    attempt: Uuid,
    token: Uuid,
    lease: Duration,
) -> QueryResult<bool> {
    use idempotency as i;
    diesel::insert_into(i::table)
        .values((
            i::method.eq(&scope.method),
            i::path.eq(&scope.path),
            i::key.eq(&scope.key),
            i::fingerprint.eq(fingerprint),
            i::state.eq("running"),
            i::attempt.eq(attempt),
            i::token.eq(token),
            i::lease_until.eq(until(lease)),
        ))
        .on_conflict_do_nothing()
        .execute(conn)
        .map(|rows| rows == 1)
}

type Until = diesel::helper_types::Add<AsExprOf<now, Timestamptz>, PgInterval>;

/// By the database's clock: replicas' clocks differ.
fn until(length: Duration) -> Until {
    let micros = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
    now.into_sql::<Timestamptz>() + PgInterval::from_microseconds(micros)
}

/// Carries `op` out under a lease on the key. Without a key, `op` alone.
///
/// # Errors
/// What `op` returns; 422 `idempotency_key_reused`, 409 `idempotency_in_progress`, 503
/// `rollback_pending` while an earlier attempt is being undone.
pub async fn leased<F, Fut>(
    db: &Db,
    key: Key,
    content: &impl Serialize,
    op: F,
) -> Result<Answer, Failure>
where
    F: FnOnce(Attempt) -> Fut,
    Fut: Future<Output = Result<Answer, Failure>>,
{
    let Some(scope) = key.0 else {
        return op(Attempt::unnamed()).await;
    };
    let fingerprint = fingerprint(content)?;
    let lease = db.lease();
    let sent = fingerprint.clone();
    let begun = db.transaction(move |conn| Ok(begin(conn, scope, &sent, lease))).await?;
    let attempt = match begun? {
        Begun::Replay(memo) => return memo.replay(),
        Begun::Attempt { scope, id, token, history } => Attempt {
            id,
            history,
            handed_over: Arc::default(),
            kept_elsewhere: Arc::default(),
            found_by_id: Arc::default(),
            held: Some(Held { db: db.clone(), scope, token, fingerprint }),
        },
    };
    let outcome = op(attempt.clone()).await;
    attempt.settle(&outcome).await;
    outcome
}

enum Begun {
    Replay(Memo),
    Attempt { scope: Scope, id: Uuid, token: Uuid, history: History },
}

fn begin(
    conn: &mut PgConnection,
    scope: Scope,
    fingerprint: &str,
    lease: Duration,
) -> Result<Begun, Failure> {
    let (id, token) = (Uuid::new_v4(), Uuid::new_v4());
    // A key that is given back between the two statements is free: it is tried again.
    let mut found = None;
    for _ in 0..TRIES {
        if take(conn, &scope, fingerprint, id, token, lease)? {
            return Ok(Begun::Attempt { scope, id, token, history: History::Fresh });
        }
        found = find(&scope).select(Row::as_select()).for_update().first(conn).optional()?;
        if found.is_some() {
            break;
        }
    }
    let Some(row) = found else {
        return Err(in_progress());
    };
    if row.fingerprint != fingerprint {
        return Err(reused());
    }
    if let Some(answer) = row.answer {
        return Ok(Begun::Replay(serde_json::from_value(answer).map_err(Failure::internal)?));
    }
    let undoing = row.state == "undoing";
    let current: DateTime<Utc> = diesel::select(now.into_sql::<Timestamptz>()).get_result(conn)?;
    if row.lease_until > current {
        return Err(if undoing { still_undoing(row.waits_for) } else { in_progress() });
    }
    let history = if undoing { History::Undoing } else { History::TakenOver };
    diesel::update(find(&scope))
        .set((idempotency::token.eq(token), idempotency::lease_until.eq(until(lease))))
        .execute(conn)?;
    Ok(Begun::Attempt { scope, id: row.attempt, token, history })
}

fn still_undoing(waits_for: Option<String>) -> Failure {
    let failure = Failure::unavailable(
        code::ROLLBACK_PENDING,
        "an earlier attempt is still being rolled back; repeat the request later",
    );
    match waits_for {
        Some(name) => failure.with_dependency(name),
        None => failure,
    }
}

/// Forgets keys whose time is over; returns how many.
///
/// # Errors
/// What the database says.
pub fn purge(conn: &mut PgConnection) -> QueryResult<usize> {
    diesel::sql_query(
        "DELETE FROM idempotency WHERE created_at < now() - make_interval(days => $1)",
    )
    .bind::<diesel::sql_types::Integer, _>(RETENTION_DAYS)
    .execute(conn)
}
