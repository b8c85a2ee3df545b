//! A statement that is parsed and planned once per connection.
//!
//! Diesel never keeps an [`sql_query`](diesel::sql_query) prepared, as its text may be another each
//! time. For what is written down call by call, parsing and planning would cost as much as writing.
//!
//! For inserts, where nothing is to be chosen, and for what looks one row up by its primary key. Anything
//! else is planned each time: a plan that was good when the ledger was empty would be kept while it fills.
//! So it may be with a primary key where a table was emptied and vacuumed, until PostgreSQL analyzes it
//! anew: who gives us connections can forbid that, which the documents tell.

use std::marker::PhantomData;

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::serialize::ToSql;
use diesel::sql_types::{HasSqlType, Untyped};

/// A text that is always the same, with its values.
#[must_use = "it is not carried out yet"]
pub(crate) struct Statement<B> {
    text: &'static str,
    values: B,
}

/// The values before it, and one more.
pub(crate) struct Bound<B, ST, V> {
    before: B,
    value: V,
    _type: PhantomData<ST>,
}

/// The text names its values as `$1` and so on, in the order in which they are bound.
pub(crate) fn statement(text: &'static str) -> Statement<()> {
    Statement { text, values: () }
}

impl<B> Statement<B> {
    pub(crate) fn bind<ST, V>(self, value: V) -> Statement<Bound<B, ST, V>> {
        let Self { text, values: before } = self;
        Statement { text, values: Bound { before, value, _type: PhantomData } }
    }
}

impl<B, ST, V> QueryFragment<Pg> for Bound<B, ST, V>
where
    B: QueryFragment<Pg>,
    Pg: HasSqlType<ST>,
    V: ToSql<ST, Pg>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.before.walk_ast(out.reborrow())?;
        out.push_sql(" ");
        out.push_bind_param(&self.value)
    }
}

impl<B: QueryFragment<Pg>> QueryFragment<Pg> for Statement<B> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(self.text);
        // Diesel writes `$1` and so on for what is bound. The text has them where they belong.
        out.push_sql(" --");
        self.values.walk_ast(out)
    }
}

/// Found again by its text and the types of its values.
impl<B> QueryId for Statement<B> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<B> Query for Statement<B> {
    type SqlType = Untyped;
}

impl<B> RunQueryDsl<PgConnection> for Statement<B> {}
