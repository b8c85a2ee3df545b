//! Ids whose effect was undone.
//!
//! A call and its undo may arrive in either order, or at the same time. Both take the lock of the
//! id first, so that one of them sees what the other did: the undo finds the effect and takes it
//! back, or leaves a tombstone that the late call finds.

use chrono::{DateTime, Utc};
use diesel::dsl::{exists, select};
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use uuid::Uuid;

diesel::table! {
    tombstones (id) {
        id -> Uuid,
        created_at -> Timestamptz,
    }
}

#[diesel::declare_sql_function]
extern "SQL" {
    /// It returns nothing, which has no type here: it is not to be read.
    fn pg_advisory_xact_lock(number: BigInt) -> BigInt;
}

/// Holds off everyone else who works on this id, until the transaction ends.
///
/// # Errors
/// What the database says.
pub fn lock(conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
    // Half of the id is enough: a collision costs a wait, never a wrong result.
    #[expect(clippy::cast_possible_truncation, reason = "a lock's number has 64 bits")]
    let number = (id.as_u128() ^ (id.as_u128() >> 64)) as u64;
    select(pg_advisory_xact_lock(number.cast_signed())).execute(conn).map(drop)
}

/// Whether the id was undone.
///
/// # Errors
/// What the database says.
pub fn stands(conn: &mut PgConnection, id: Uuid) -> QueryResult<bool> {
    select(exists(tombstones::table.find(id))).get_result(conn)
}

/// Since when the id is undone, if it is.
///
/// # Errors
/// What the database says.
pub fn since(conn: &mut PgConnection, id: Uuid) -> QueryResult<Option<DateTime<Utc>>> {
    tombstones::table.find(id).select(tombstones::created_at).first(conn).optional()
}

/// Marks the id as undone, for good.
///
/// # Errors
/// What the database says.
pub fn place(conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
    diesel::insert_into(tombstones::table)
        .values(tombstones::id.eq(id))
        .on_conflict_do_nothing()
        .execute(conn)
        .map(drop)
}
