//! A look behind the routes. It blocks.

use anyhow::{Context as _, Result};
use diesel::connection::SimpleConnection as _;
use diesel::sql_types::Text;
use diesel::{Connection as _, PgConnection, QueryableByName, RunQueryDsl as _};

#[derive(QueryableByName)]
struct Cells {
    #[diesel(sql_type = Text)]
    a: String,
    #[diesel(sql_type = Text)]
    b: String,
    #[diesel(sql_type = Text)]
    c: String,
}

/// Three columns of text: `a`, `b` and `c`.
pub type Row = [String; 3];

pub(super) fn connect(url: &str) -> Result<PgConnection> {
    PgConnection::establish(url).context("could not reach a database")
}

/// All rows of a question.
pub fn rows(url: &str, select: &str) -> Result<Vec<Row>> {
    read(&mut connect(url)?, select)
}

pub(super) fn read(connection: &mut PgConnection, select: &str) -> Result<Vec<Row>> {
    let cells: Vec<Cells> =
        diesel::sql_query(select).load(connection).with_context(|| select.to_owned())?;
    Ok(cells.into_iter().map(|Cells { a, b, c }| [a, b, c]).collect())
}

/// Carries statements out.
pub(super) fn execute(url: &str, statements: &str) -> Result<()> {
    connect(url)?.batch_execute(statements).with_context(|| statements.to_owned())
}

/// The one number that an expression has.
pub(super) fn number(url: &str, expression: &str) -> Result<i64> {
    let found = rows(url, &format!("SELECT ({expression})::bigint::text AS a, '' AS b, '' AS c"))?;
    let [number, ..] = found.first().context("no number")?;
    number.parse().with_context(|| expression.to_owned())
}
