//! Orders and users by the thousand, past all services.

use uuid::Uuid;

use super::shop::ALEX;
use super::{Part, World};

const ORDERS: u128 = 0x0a00_0000_0000_4000_8000_0000_0000_0000;
const ITEMS: u128 = 0x0b00_0000_0000_4000_8000_0000_0000_0000;
const USERS: u128 = 0x0c00_0000_0000_4000_8000_0000_0000_0000;

pub(crate) fn order(number: u64) -> Uuid {
    Uuid::from_u128(ORDERS + u128::from(number))
}

pub(crate) fn item(number: u64) -> Uuid {
    Uuid::from_u128(ITEMS + u128::from(number))
}

pub(crate) fn user(number: u64) -> Uuid {
    Uuid::from_u128(USERS + u128::from(number))
}

/// In SQL, the id of its `number`.
fn id(base: u128) -> String {
    let head = Uuid::from_u128(base).to_string();
    format!("('{}' || lpad(to_hex(number), 12, '0'))::uuid", &head[..24])
}

impl World {
    /// So many may shop, each a [`user`] of their own.
    pub(crate) fn enrol(&self, count: u64) {
        let user = id(USERS);
        self.execute(
            Part::Store,
            &format!(
                "INSERT INTO users (name, user_uid)
                 SELECT 'user ' || number, {user} FROM generate_series(0, {count} - 1) AS number"
            ),
        );
    }

    /// [`ALEX`] has paid for so many orders, each with its [`item`] and its warranty.
    pub(crate) fn sell(&self, count: u64) {
        // Half of the shelf, so that a claim finds something to replace its item with.
        let model = self.shelve(i64::try_from(count).unwrap() * 2);
        let numbers = format!("FROM generate_series(0, {count} - 1) AS number");
        let (order, item) = (id(ORDERS), id(ITEMS));
        self.execute(
            Part::Order,
            &format!(
                "INSERT INTO orders (item_uid, order_uid, status, user_uid)
                 SELECT {item}, {order}, 'PAID', '{ALEX}' {numbers}"
            ),
        );
        self.execute(
            Part::Warehouse,
            &format!(
                "INSERT INTO order_item (order_item_uid, order_uid, item_id)
                 SELECT {item}, {order}, (SELECT id FROM items WHERE model = '{model}') {numbers};
                 UPDATE items SET available_count = available_count - {count}
                 WHERE model = '{model}'"
            ),
        );
        self.execute(
            Part::Warranty,
            &format!(
                "INSERT INTO warranty (item_uid, status, warranty_date)
                 SELECT {item}, 'ON_WARRANTY', now() {numbers}"
            ),
        );
    }
}
