//! Who may buy.

use diesel::dsl::{exists, select};
use diesel::prelude::*;
use uuid::{Uuid, uuid};

use crate::schema::users;

/// The user of the demonstration data.
const ALEX: Uuid = uuid!("6d2cb5a0-943c-4b96-9aa6-89eac7bdfd2b");

/// A user.
#[derive(Clone, Copy, Debug)]
pub struct User;

impl User {
    /// Whether there is such a user.
    pub fn exists(conn: &mut PgConnection, uid: Uuid) -> QueryResult<bool> {
        select(exists(users::table.filter(users::user_uid.eq(uid)))).get_result(conn)
    }

    /// Adds a user, unless there is one of that name or id; returns whether it was added.
    pub fn add(conn: &mut PgConnection, name: &str, uid: Uuid) -> QueryResult<bool> {
        diesel::insert_into(users::table)
            .values((users::name.eq(name), users::user_uid.eq(uid)))
            .on_conflict_do_nothing()
            .execute(conn)
            .map(|rows| rows == 1)
    }

    /// The demonstration data; returns how many rows were added.
    pub fn seed(conn: &mut PgConnection) -> QueryResult<usize> {
        Self::add(conn, "Alex", ALEX).map(usize::from)
    }
}
