//! Orders and users by the thousand, written past all services: in SQL, for the database of each.
//!
//! They go by numbers.

use std::ops::Range;

use uuid::Uuid;

const ORDERS: u128 = 0x0a00_0000_0000_4000_8000_0000_0000_0000;
const ITEMS: u128 = 0x0b00_0000_0000_4000_8000_0000_0000_0000;
const USERS: u128 = 0x0c00_0000_0000_4000_8000_0000_0000_0000;

pub fn order(number: u64) -> Uuid {
    Uuid::from_u128(ORDERS + u128::from(number))
}

pub fn item(number: u64) -> Uuid {
    Uuid::from_u128(ITEMS + u128::from(number))
}

pub fn user(number: u64) -> Uuid {
    Uuid::from_u128(USERS + u128::from(number))
}

/// In SQL, the id of this `number`.
fn id(base: u128, number: &str) -> String {
    let head = Uuid::from_u128(base).to_string();
    format!("('{}' || lpad(to_hex({number}), 12, '0'))::uuid", &head[..24])
}

fn numbers(range: &Range<u64>) -> String {
    format!("FROM generate_series({}, {} - 1) AS number", range.start, range.end)
}

/// Of a user, in SQL, by an expression for their number.
pub fn user_of(number: &str) -> String {
    id(USERS, number)
}

/// For Store: each a [`user`].
pub fn users(range: &Range<u64>) -> String {
    format!(
        "INSERT INTO users (name, user_uid) SELECT 'user ' || number, {} {}",
        id(USERS, "number"),
        numbers(range),
    )
}

/// For Order: each an [`order`] that is paid for, of an [`item`]. Whose it is, is an SQL expression with
/// its `number`.
pub fn orders(range: &Range<u64>, owner: &str) -> String {
    format!(
        "INSERT INTO orders (item_uid, order_uid, status, user_uid)
         SELECT {}, {}, 'PAID', {owner} {}",
        id(ITEMS, "number"),
        id(ORDERS, "number"),
        numbers(range),
    )
}

/// For Warehouse: what those orders hold. The row of its kind is an SQL expression with its `number`.
pub fn held(range: &Range<u64>, kind: &str) -> String {
    format!(
        "INSERT INTO order_item (order_item_uid, order_uid, item_id) SELECT {}, {}, {kind} {}",
        id(ITEMS, "number"),
        id(ORDERS, "number"),
        numbers(range),
    )
}

/// For Warranty: what those orders hold is under warranty from now on.
pub fn warranties(range: &Range<u64>) -> String {
    format!(
        "INSERT INTO warranty (item_uid, status, warranty_date) SELECT {}, 'ON_WARRANTY', now() {}",
        id(ITEMS, "number"),
        numbers(range),
    )
}
