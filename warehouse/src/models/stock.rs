//! How many of each kind there are.

use diesel::prelude::*;

use crate::schema::items;

/// A kind of item: a model in a size.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = items)]
pub struct Stock {
    /// Its row.
    pub id: i32,
    /// How many are left.
    pub available_count: i32,
    /// The model.
    pub model: String,
    /// The size.
    pub size: String,
}

impl Stock {
    /// By model **and** size: the same model in another size is another thing.
    pub fn find(conn: &mut PgConnection, model: &str, size: &str) -> QueryResult<Option<Self>> {
        items::table
            .filter(items::model.eq(model))
            .filter(items::size.eq(size))
            .select(Self::as_select())
            .first(conn)
            .optional()
    }

    /// Takes `count`; false when there are fewer.
    pub fn take(conn: &mut PgConnection, id: i32, count: i32) -> QueryResult<bool> {
        diesel::update(items::table.find(id))
            .filter(items::available_count.ge(count))
            .set(items::available_count.eq(items::available_count - count))
            .execute(conn)
            .map(|rows| rows == 1)
    }

    /// Puts `count` back.
    pub fn put_back(conn: &mut PgConnection, id: i32, count: i32) -> QueryResult<()> {
        diesel::update(items::table.find(id))
            .set(items::available_count.eq(items::available_count + count))
            .execute(conn)
            .map(drop)
    }

    /// Adds a kind, unless it is there already; returns whether it was added.
    pub fn add(conn: &mut PgConnection, model: &str, size: &str, count: i32) -> QueryResult<bool> {
        diesel::insert_into(items::table)
            .values((
                items::model.eq(model),
                items::size.eq(size),
                items::available_count.eq(count),
            ))
            .on_conflict_do_nothing()
            .execute(conn)
            .map(|rows| rows == 1)
    }

    /// The demonstration data; returns how many rows were added.
    pub fn seed(conn: &mut PgConnection) -> QueryResult<usize> {
        let mut added = 0;
        for (model, size) in [("Lego 8070", "M"), ("Lego 42070", "L"), ("Lego 8880", "L")] {
            added += usize::from(Self::add(conn, model, size, 10_000)?);
        }
        Ok(added)
    }
}
