//! What Warranty does: connection in, result out, no HTTP.
//!
//! Everything that writes takes the item's lock first, so that a call and its undo, or a claim and
//! a close, see each other.

use diesel::PgConnection;
use service::{Failure, Result, tombstone};
use uuid::Uuid;
use warranty_api::{
    Decided, Decision, Restore, Status, StockedClaim, WARRANTY_NOT_FOUND, Warranty,
};

use crate::config::Period;
use crate::models::{Close, Named, Row};

/// 404: no warranty of this item.
fn unknown(item: Uuid) -> Failure {
    Failure::not_found(WARRANTY_NOT_FOUND, format!("there is no warranty of item {item}"))
}

/// The warranty of one item.
///
/// # Errors
/// 404 `warranty_not_found`.
pub fn get(conn: &mut PgConnection, item: Uuid) -> Result<Warranty> {
    Row::find(conn, item)?.map(Row::into_warranty).ok_or_else(|| unknown(item))
}

/// Those of `items` that have one, in their order.
///
/// # Errors
/// What the database says.
pub fn list(conn: &mut PgConnection, items: &[Uuid]) -> Result<Vec<Warranty>> {
    Ok(Row::list(conn, items)?.into_iter().map(Row::into_warranty).collect())
}

/// Starts the period. Where there is one, in whatever state, nothing changes. Must run in a
/// transaction.
///
/// # Errors
/// 409 `already_undone` for an item whose start was undone.
pub fn start(conn: &mut PgConnection, item: Uuid) -> Result<()> {
    lock_unless_undone(conn, item)?;
    Ok(Row::start(conn, item)?)
}

fn lock_unless_undone(conn: &mut PgConnection, item: Uuid) -> Result<()> {
    tombstone::lock(conn, item)?;
    if tombstone::stands(conn, item)? {
        return Err(Failure::already_undone(item));
    }
    Ok(())
}

/// Closes the warranty, once however often it is repeated. Must run in a transaction.
///
/// A close that has a `name` and was [undone](restore) does nothing. With `compensate` this undoes
/// a start whose outcome is unknown: an item never seen is no error, and a tombstone refuses the
/// start from now on.
///
/// # Errors
/// 404 `warranty_not_found`.
pub fn close(
    conn: &mut PgConnection,
    item: Uuid,
    name: Option<&str>,
    compensate: bool,
) -> Result<()> {
    tombstone::lock(conn, item)?;
    if compensate {
        tombstone::place(conn, item)?;
    }
    let row = match Row::find(conn, item)? {
        Some(row) => row,
        None if compensate => return Ok(()),
        None => return Err(unknown(item)),
    };
    let named = name.map(|name| Named { item, name });
    if let Some(close) = named {
        // The undo of a start holds whatever its name did before.
        if !compensate && close.is_reopened(conn)? {
            return Ok(());
        }
        close.record(conn, !row.is_closed(), row.is_used())?;
    }
    if !row.is_closed() {
        Row::close(conn, item)?;
    }
    Ok(())
}

/// Undoes a close: the warranty is exactly what it was `before`. Must run in a transaction.
///
/// The close that `before` names does nothing from now on, also where it has not come yet. What
/// another close with a name holds closed stays closed; what one without holds, anybody may re-open.
///
/// # Errors
/// 404 `warranty_not_found`, 409 `already_undone` for an item whose start was undone.
pub fn restore(conn: &mut PgConnection, item: Uuid, before: &Restore) -> Result<()> {
    lock_unless_undone(conn, item)?;
    let row = Row::find(conn, item)?.ok_or_else(|| unknown(item))?;
    let in_force = if row.is_closed() { Close::in_force(conn, item)? } else { None };
    let named = before.closed_by.as_deref().map(|name| Named { item, name });
    // One that was undone before isn't what holds it closed now.
    let meant = match named {
        Some(close) if close.is_reopened(conn)? => false,
        Some(close) => in_force.as_ref().is_none_or(|(name, _)| name == close.name),
        None => true,
    };
    if let Some(close) = named {
        close.reopen(conn)?;
    }
    if !row.is_closed() || !meant {
        return Ok(());
    }
    let mut used = false;
    if let Some((name, claimed_on)) = &in_force {
        Named { item, name }.reopen(conn)?;
        used = *claimed_on;
    }
    let Restore { status, warranty_date, comment, .. } = before;
    // A claim that came between the caller's look and its close is not taken back with it.
    if used && *status == Status::OnWarranty {
        let comment = row.comment.as_deref();
        return Ok(Row::restore(conn, item, Status::UseWarranty, *warranty_date, comment)?);
    }
    Ok(Row::restore(conn, item, *status, *warranty_date, comment.as_deref())?)
}

/// Decides a claim. Must run in a transaction.
///
/// # Errors
/// 404 `warranty_not_found`.
pub fn claim(
    conn: &mut PgConnection,
    item: Uuid,
    period: Period,
    claim: &StockedClaim,
) -> Result<Decided> {
    tombstone::lock(conn, item)?;
    let found = Row::find_with_age(conn, item, period)?;
    let (row, within) = found.ok_or_else(|| unknown(item))?;
    let decision = decide(row.status.0, within, claim.available_count);
    // A refusal leaves no trace: a closed warranty must be re-opened exactly as it was.
    if decision != Decision::Refused {
        Row::use_up(conn, item, &claim.reason)?;
    }
    Ok(Decided { warranty_date: row.warranty_date, decision })
}

fn decide(status: Status, within: bool, available: i32) -> Decision {
    match status {
        Status::OnWarranty if within && available > 0 => Decision::Return,
        Status::OnWarranty if within => Decision::Fixing,
        _ => Decision::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_running_warranty_within_its_period_is_honoured() {
        for (status, within, available, decision) in [
            (Status::OnWarranty, true, 1, Decision::Return),
            (Status::OnWarranty, true, 0, Decision::Fixing),
            (Status::OnWarranty, false, 1, Decision::Refused),
            (Status::UseWarranty, true, 1, Decision::Refused),
            (Status::RemovedFromWarranty, true, 1, Decision::Refused),
        ] {
            assert_eq!(decide(status, within, available), decision, "{status:?} {within}");
        }
    }
}
