//! Since when each item is under warranty, and in which state.

use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::pg::data_types::PgInterval;
use diesel::prelude::*;
use diesel::sql_types::Timestamptz;
use uuid::Uuid;
use warranty_api::{Status, Warranty};

use super::State;
use crate::config::Period;
use crate::schema::warranty;

/// Microseconds of a day.
const DAY: i64 = 24 * 60 * 60 * 1_000_000;

/// The warranty of an item.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = warranty)]
pub struct Row {
    /// The reason of the last claim.
    pub comment: Option<String>,
    /// The item.
    pub item_uid: Uuid,
    /// Its state.
    pub status: State,
    /// When it began.
    pub warranty_date: DateTime<Utc>,
}

impl Row {
    /// That of one item.
    pub fn find(conn: &mut PgConnection, item: Uuid) -> QueryResult<Option<Self>> {
        warranty::table
            .filter(warranty::item_uid.eq(item))
            .select(Self::as_select())
            .first(conn)
            .optional()
    }

    /// That of one item, and whether it began within the period: by the database's clock, as those
    /// of replicas differ.
    pub fn find_with_age(
        conn: &mut PgConnection,
        item: Uuid,
        Period(days): Period,
    ) -> QueryResult<Option<(Self, bool)>> {
        // An interval of days would be longer or shorter where clocks change between them.
        let period = PgInterval::from_microseconds(i64::from(days) * DAY);
        let begin = now.into_sql::<Timestamptz>() - period;
        warranty::table
            .filter(warranty::item_uid.eq(item))
            .select((Self::as_select(), warranty::warranty_date.gt(begin)))
            .first(conn)
            .optional()
    }

    /// Those of `items` that have one, in their order.
    pub fn list(conn: &mut PgConnection, items: &[Uuid]) -> QueryResult<Vec<Self>> {
        let mut found: Vec<Self> = warranty::table
            .filter(warranty::item_uid.eq_any(items))
            .select(Self::as_select())
            .load(conn)?;
        found.sort_by_cached_key(|row| items.iter().position(|item| *item == row.item_uid));
        Ok(found)
    }

    /// Starts one now, unless there is one.
    pub fn start(conn: &mut PgConnection, item: Uuid) -> QueryResult<()> {
        diesel::insert_into(warranty::table)
            .values((
                warranty::item_uid.eq(item),
                warranty::status.eq(State(Status::OnWarranty)),
                warranty::warranty_date.eq(now),
            ))
            .on_conflict_do_nothing()
            .execute(conn)
            .map(drop)
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.status.0 == Status::RemovedFromWarranty
    }

    /// Whether it was claimed on.
    pub fn is_used(&self) -> bool {
        self.status.0 == Status::UseWarranty
    }

    /// Closes it; its date and comment stay.
    pub fn close(conn: &mut PgConnection, item: Uuid) -> QueryResult<()> {
        diesel::update(warranty::table.filter(warranty::item_uid.eq(item)))
            .set(warranty::status.eq(State(Status::RemovedFromWarranty)))
            .execute(conn)
            .map(drop)
    }

    /// Notes that it was claimed on, and why.
    pub fn use_up(conn: &mut PgConnection, item: Uuid, reason: &str) -> QueryResult<()> {
        diesel::update(warranty::table.filter(warranty::item_uid.eq(item)))
            .set((warranty::status.eq(State(Status::UseWarranty)), warranty::comment.eq(reason)))
            .execute(conn)
            .map(drop)
    }

    /// Makes it what it was.
    pub fn restore(
        conn: &mut PgConnection,
        item: Uuid,
        status: Status,
        date: DateTime<Utc>,
        comment: Option<&str>,
    ) -> QueryResult<()> {
        diesel::update(warranty::table.filter(warranty::item_uid.eq(item)))
            .set((
                warranty::status.eq(State(status)),
                warranty::warranty_date.eq(date),
                // `None` is written, not left out.
                warranty::comment.eq(comment),
            ))
            .execute(conn)
            .map(drop)
    }

    /// As others see it.
    pub fn into_warranty(self) -> Warranty {
        Warranty {
            item_uid: self.item_uid,
            warranty_date: self.warranty_date,
            status: self.status.0,
            comment: self.comment,
        }
    }
}
