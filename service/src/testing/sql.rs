//! A look behind the routes: statements on a test's database. They block.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::BigInt;

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

fn connect(url: &str) -> PgConnection {
    PgConnection::establish(url).unwrap_or_else(|error| panic!("test database: {error}"))
}

/// Carries statements out.
///
/// # Errors
/// What the database says: for tests of its constraints.
///
/// # Panics
/// When it can't be reached.
pub fn execute(url: &str, statements: &str) -> QueryResult<()> {
    connect(url).batch_execute(statements)
}

/// The one number that an expression of SQL has, such as `(SELECT count(*) FROM t)`.
///
/// # Panics
/// When it can't be had.
pub fn number(url: &str, expression: &str) -> i64 {
    let query = diesel::sql_query(format!("SELECT ({expression})::bigint AS number"));
    let found: QueryResult<Number> = query.get_result(&mut connect(url));
    found.unwrap_or_else(|error| panic!("{expression}: {error}")).number
}
