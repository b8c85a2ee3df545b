//! Orders and users by the thousand, written past all services: in SQL, for the database of each.
//!
//! They go by numbers.

use std::ops::Range;

use uuid::Uuid;

const ORDERS: u128 = 0x0a00_0000_0000_4000_8000_0000_0000_0000;
const ITEMS: u128 = 0x0b00_0000_0000_4000_8000_0000_0000_0000;
const USERS: u128 = 0x0c00_0000_0000_4000_8000_0000_0000_0000;

/// What belongs together, and to nobody else: its tag is a part of every id.
#[derive(Clone, Copy, Debug)]
pub struct Bulk {
    tag: u32,
}

impl Bulk {
    /// With this tag.
    pub const fn tagged(tag: u32) -> Self {
        Self { tag }
    }

    /// Its tag.
    pub fn tag(self) -> u32 {
        self.tag
    }

    fn base(self, kind: u128) -> u128 {
        kind | u128::from(self.tag) << 80
    }

    pub fn order(self, number: u64) -> Uuid {
        Uuid::from_u128(self.base(ORDERS) + u128::from(number))
    }

    /// Of that order.
    pub fn item(self, number: u64) -> Uuid {
        Uuid::from_u128(self.base(ITEMS) + u128::from(number))
    }

    pub fn user(self, number: u64) -> Uuid {
        Uuid::from_u128(self.base(USERS) + u128::from(number))
    }

    /// In SQL, the id of this `number`.
    fn id(self, kind: u128, number: &str) -> String {
        let head = Uuid::from_u128(self.base(kind)).to_string();
        format!("('{}' || lpad(to_hex({number}), 12, '0'))::uuid", &head[..24])
    }

    /// Of a user, in SQL, by an expression for their number.
    pub fn user_of(self, number: &str) -> String {
        self.id(USERS, number)
    }

    /// For Store: each a [`user`](Self::user).
    pub fn users(self, range: &Range<u64>) -> String {
        format!(
            "INSERT INTO users (name, user_uid)
             SELECT 'user ' || number || ' of {:08x}', {} {}",
            self.tag,
            self.id(USERS, "number"),
            numbers(range),
        )
    }

    /// For Order: each an [`order`](Self::order) that is paid for, of an [`item`](Self::item). Whose it is,
    /// is an SQL expression with its `number`.
    pub fn orders(self, range: &Range<u64>, owner: &str) -> String {
        format!(
            "INSERT INTO orders (item_uid, order_uid, status, user_uid)
             SELECT {}, {}, 'PAID', {owner} {}",
            self.id(ITEMS, "number"),
            self.id(ORDERS, "number"),
            numbers(range),
        )
    }

    /// For Warehouse: what those orders hold. The row of its kind is an SQL expression with its `number`.
    pub fn held(self, range: &Range<u64>, kind: &str) -> String {
        format!(
            "INSERT INTO order_item (order_item_uid, order_uid, item_id) SELECT {}, {}, {kind} {}",
            self.id(ITEMS, "number"),
            self.id(ORDERS, "number"),
            numbers(range),
        )
    }

    /// For Warranty: what those orders hold is under warranty from now on.
    pub fn warranties(self, range: &Range<u64>) -> String {
        format!(
            "INSERT INTO warranty (item_uid, status, warranty_date) SELECT {}, 'ON_WARRANTY', now() {}",
            self.id(ITEMS, "number"),
            numbers(range),
        )
    }
}

fn numbers(range: &Range<u64>) -> String {
    format!("FROM generate_series({}, {} - 1) AS number", range.start, range.end)
}
