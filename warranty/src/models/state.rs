//! The state of a warranty, as its column holds it.

use std::io::Write;

use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::Text;
use warranty_api::Status;

/// A [`Status`] in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub struct State(pub Status);

impl State {
    /// The name that the contract and the column share.
    pub fn name(self) -> &'static str {
        match self.0 {
            Status::OnWarranty => "ON_WARRANTY",
            Status::UseWarranty => "USE_WARRANTY",
            Status::RemovedFromWarranty => "REMOVED_FROM_WARRANTY",
        }
    }

    /// The state of this name.
    pub fn of(name: &str) -> Option<Self> {
        [Status::OnWarranty, Status::UseWarranty, Status::RemovedFromWarranty]
            .map(Self)
            .into_iter()
            .find(|state| state.name() == name)
    }
}

impl ToSql<Text, Pg> for State {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(self.name().as_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<Text, Pg> for State {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let name = std::str::from_utf8(value.as_bytes())?;
        Self::of(name).ok_or_else(|| format!("no such state: {name}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_column_and_the_contract_use_the_same_names() {
        for status in [Status::OnWarranty, Status::UseWarranty, Status::RemovedFromWarranty] {
            let state = State(status);
            assert_eq!(serde_json::to_value(status).unwrap(), state.name());
            assert_eq!(State::of(state.name()), Some(state));
        }
        assert_eq!(State::of("on_warranty"), None);
    }
}
