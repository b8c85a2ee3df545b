//! What it costs to write a call down.

use diesel::connection::SimpleConnection as _;
use diesel::sql_types::{Text, Uuid as SqlUuid};
use diesel::{Connection as _, PgConnection, RunQueryDsl as _, sql_query};
use resilience::deferred::{Deferral, defer};
use uuid::Uuid;

use super::running::Nothing;
use crate::ground::{Database, Ground};
use bench_ground::times::{Times, time};

const ROUNDS: usize = 3_000;

/// Each a transaction of its own, on one connection.
pub(crate) struct Accept {
    /// One row with an id, a kind and a payload.
    pub(crate) bare: Times,
    pub(crate) deferred: Times,
}

/// Both in turn: what disturbs one disturbs both.
pub(crate) fn measure(ground: &Ground) -> Accept {
    let ledger = ground.ledger();
    let mut conn = ledger.connect();
    conn.batch_execute(
        "CREATE TABLE bare (id UUID PRIMARY KEY, kind TEXT NOT NULL, payload JSON NOT NULL,
                            created_at TIMESTAMPTZ NOT NULL DEFAULT now())",
    )
    .expect("a table");
    let (mut bare, mut deferred) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(time(|| insert(&mut conn)));
        deferred.push(time(|| write_down(&mut conn)));
    }
    Accept { bare: Times::of(bare), deferred: Times::of(deferred) }
}

/// On each of these ledgers, in turn.
pub(crate) fn deferring(ledgers: &[Database]) -> Vec<Times> {
    let mut conns: Vec<_> = ledgers.iter().map(Database::connect).collect();
    let mut times = vec![Vec::new(); ledgers.len()];
    for _ in 0..ROUNDS / 3 {
        for (conn, times) in conns.iter_mut().zip(&mut times) {
            times.push(time(|| write_down(conn)));
        }
    }
    for conn in &mut conns {
        conn.batch_execute("DELETE FROM deferred WHERE state = 'pending'").expect("it is emptied");
    }
    times.into_iter().map(Times::of).collect()
}

fn insert(conn: &mut PgConnection) {
    let inserted = conn.transaction(|conn| {
        sql_query("INSERT INTO bare (id, kind, payload) VALUES ($1, $2, $3::json)")
            .bind::<SqlUuid, _>(Uuid::now_v7())
            .bind::<Text, _>("no-op")
            .bind::<Text, _>("42")
            .execute(conn)
    });
    assert_eq!(inserted, Ok(1));
}

fn write_down(conn: &mut PgConnection) {
    let call = Deferral::new::<Nothing>(Uuid::now_v7(), &42).expect("a number");
    let deferred = conn.transaction(|conn| defer(conn, &call));
    assert_eq!(deferred, Ok(true));
}
