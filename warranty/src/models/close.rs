//! Which close holds a warranty closed, and which were undone.

use diesel::prelude::*;
use diesel::upsert::excluded;
use uuid::Uuid;

use crate::schema::closes;

/// What is on record of a close with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = closes)]
pub struct Close {
    /// It closed the warranty.
    pub effective: bool,
    /// It was undone.
    pub reopened: bool,
}

impl Close {
    /// Those of an item, each with its name.
    pub fn all(conn: &mut PgConnection, item: Uuid) -> QueryResult<Vec<(String, Self)>> {
        closes::table
            .filter(closes::item_uid.eq(item))
            .select((closes::name, Self::as_select()))
            .order(closes::name)
            .load(conn)
    }
}

/// A close, by its item and name.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The item.
    pub item: Uuid,
    /// The `Idempotency-Key` that it came with.
    pub name: &'a str,
}

impl Named<'_> {
    /// Whether it was undone.
    pub fn is_reopened(self, conn: &mut PgConnection) -> QueryResult<bool> {
        let found: Option<Close> = closes::table
            .find((self.item, self.name))
            .select(Close::as_select())
            .first(conn)
            .optional()?;
        Ok(found.is_some_and(|close| close.reopened))
    }

    /// Notes that it came, and whether it is the one that closed the warranty: once it was, it is.
    /// `used` says whether the warranty had been claimed on by then.
    pub fn record(self, conn: &mut PgConnection, effective: bool, used: bool) -> QueryResult<()> {
        diesel::insert_into(closes::table)
            .values((
                closes::item_uid.eq(self.item),
                closes::name.eq(self.name),
                closes::effective.eq(effective),
                closes::used.eq(used),
                closes::reopened.eq(false),
            ))
            .on_conflict((closes::item_uid, closes::name))
            .do_update()
            .set((
                closes::effective.eq(closes::effective.or(excluded(closes::effective))),
                closes::used.eq(closes::used.or(excluded(closes::used))),
            ))
            .execute(conn)
            .map(drop)
    }

    /// Notes that it is undone, also when it never came.
    pub fn reopen(self, conn: &mut PgConnection) -> QueryResult<()> {
        diesel::insert_into(closes::table)
            .values((
                closes::item_uid.eq(self.item),
                closes::name.eq(self.name),
                closes::effective.eq(false),
                closes::reopened.eq(true),
            ))
            .on_conflict((closes::item_uid, closes::name))
            .do_update()
            .set(closes::reopened.eq(true))
            .execute(conn)
            .map(drop)
    }
}

impl Close {
    /// The name of the close that holds an item's warranty closed, if it has one, and whether the
    /// warranty had been claimed on when it came.
    pub fn in_force(conn: &mut PgConnection, item: Uuid) -> QueryResult<Option<(String, bool)>> {
        closes::table
            .filter(closes::item_uid.eq(item))
            .filter(closes::effective)
            .filter(diesel::dsl::not(closes::reopened))
            .select((closes::name, closes::used))
            .first(conn)
            .optional()
    }
}
