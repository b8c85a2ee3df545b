//! Made-up users, orders and kinds of items by the thousand, put there past all services.

use anyhow::Result;
use uuid::Uuid;

use super::part::{Databases, Part};
use super::sql::execute;
use super::users::Crowd;

const ORDERS: u128 = 0x0a00_0000_0000_4000_8000_0000_0000_0000;
const ITEMS: u128 = 0x0b00_0000_0000_4000_8000_0000_0000_0000;
const USERS: u128 = 0x0c00_0000_0000_4000_8000_0000_0000_0000;

/// What belongs together, and to nobody else: its tag is a part of every id.
#[derive(Clone, Copy, Debug)]
pub struct Goods {
    tag: u32,
}

impl Goods {
    /// With this tag.
    pub const fn tagged(tag: u32) -> Self {
        Self { tag }
    }

    /// With one that nobody has.
    pub fn new() -> Self {
        Self::tagged(Uuid::new_v4().as_fields().0)
    }

    fn base(self, kind: u128) -> u128 {
        kind | u128::from(self.tag) << 80
    }

    /// An order that was put there.
    pub fn order(self, number: u64) -> Uuid {
        Uuid::from_u128(self.base(ORDERS) + u128::from(number))
    }

    /// The item of that order.
    pub fn item(self, number: u64) -> Uuid {
        Uuid::from_u128(self.base(ITEMS) + u128::from(number))
    }

    /// A user.
    pub fn user(self, number: u64) -> Uuid {
        Uuid::from_u128(self.base(USERS) + u128::from(number))
    }

    /// In SQL, whether it is one of these users.
    pub(super) fn is_user(self, column: &str) -> String {
        let (first, last) = (self.user(0), self.user(0xffff_ffff_ffff));
        format!("{column} BETWEEN '{first}' AND '{last}'")
    }

    /// The name of a kind of which there are so many at first.
    pub(super) fn model(self, count: u64, what: &str) -> String {
        format!("Rare {count} {what} of {:08x}", self.tag)
    }

    /// In SQL, whether it is one of these kinds.
    pub(super) fn is_model(self, column: &str) -> String {
        format!("{column} LIKE 'Rare % of {:08x}'", self.tag)
    }

    /// What stays of it.
    pub(super) fn left(self, crowd: Crowd) -> String {
        let [users, orders] =
            [self.user(0), self.order(0)].map(|uid| uid.to_string()[..13].to_owned());
        format!(
            "{} made-up users ({users}…), what they bought, {} orders ({orders}…) to claim on, and kinds \
             of items named `Rare … of {:08x}`",
            crowd.users(),
            crowd.claimants,
            self.tag
        )
    }

    /// In SQL, the id of its `number`.
    fn id(self, kind: u128) -> String {
        let head = Uuid::from_u128(self.base(kind)).to_string();
        format!("('{}' || lpad(to_hex(number), 12, '0'))::uuid", &head[..24])
    }

    /// So many may shop, each a [`user`](Self::user) of their own.
    pub fn enrol(self, databases: &Databases, count: u64) -> Result<()> {
        let (user, tag) = (self.id(USERS), self.tag);
        execute(
            &databases[Part::Store as usize],
            &format!(
                "INSERT INTO users (name, user_uid)
                 SELECT 'user ' || number || ' of {tag:08x}', {user}
                 FROM generate_series(0, {count} - 1) AS number"
            ),
        )
    }

    /// This user has paid for so many orders of this model, each with its [`item`](Self::item) and its
    /// warranty.
    pub fn sell(self, databases: &Databases, owner: Uuid, model: &str, count: u64) -> Result<()> {
        let numbers = format!("FROM generate_series(0, {count} - 1) AS number");
        let (order, item) = (self.id(ORDERS), self.id(ITEMS));
        execute(
            &databases[Part::Order as usize],
            &format!(
                "INSERT INTO orders (item_uid, order_uid, status, user_uid)
                 SELECT {item}, {order}, 'PAID', '{owner}' {numbers}"
            ),
        )?;
        execute(
            &databases[Part::Warehouse as usize],
            &format!(
                "INSERT INTO order_item (order_item_uid, order_uid, item_id)
                 SELECT {item}, {order}, (SELECT id FROM items WHERE model = '{model}') {numbers};
                 UPDATE items SET available_count = available_count - {count}
                 WHERE model = '{model}'"
            ),
        )?;
        execute(
            &databases[Part::Warranty as usize],
            &format!(
                "INSERT INTO warranty (item_uid, status, warranty_date)
                 SELECT {item}, 'ON_WARRANTY', now() {numbers}"
            ),
        )
    }
}

impl Default for Goods {
    fn default() -> Self {
        Self::new()
    }
}

/// Puts so many of a new kind on the shelf, in size `M`.
pub fn shelve(databases: &Databases, model: &str, count: u64) -> Result<()> {
    execute(
        &databases[Part::Warehouse as usize],
        &format!(
            "INSERT INTO items (model, size, available_count) VALUES ('{model}', 'M', {count})"
        ),
    )
}
