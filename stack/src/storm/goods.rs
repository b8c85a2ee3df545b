//! Made-up users, orders and kinds of items by the thousand, put there past all services.

use anyhow::Result;
use stack_load::bulk::Bulk;
use uuid::Uuid;

use super::part::{Databases, Part};
use super::sql::execute;
use super::users::Crowd;

/// What belongs together, and to nobody else: its tag is a part of every id.
#[derive(Clone, Copy, Debug)]
pub struct Goods {
    bulk: Bulk,
}

impl Goods {
    /// With this tag.
    pub const fn tagged(tag: u32) -> Self {
        Self { bulk: Bulk::tagged(tag) }
    }

    /// With one that nobody has.
    pub fn new() -> Self {
        Self::tagged(Uuid::new_v4().as_fields().0)
    }

    /// An order that was put there.
    pub fn order(self, number: u64) -> Uuid {
        self.bulk.order(number)
    }

    /// The item of that order.
    pub fn item(self, number: u64) -> Uuid {
        self.bulk.item(number)
    }

    /// A user.
    pub fn user(self, number: u64) -> Uuid {
        self.bulk.user(number)
    }

    /// In SQL, whether it is one of these users.
    pub(super) fn is_user(self, column: &str) -> String {
        let (first, last) = (self.user(0), self.user(0xffff_ffff_ffff));
        format!("{column} BETWEEN '{first}' AND '{last}'")
    }

    /// The name of a kind of which there are so many at first.
    pub(super) fn model(self, count: u64, what: &str) -> String {
        format!("Rare {count} {what} of {:08x}", self.bulk.tag())
    }

    /// In SQL, whether it is one of these kinds.
    pub(super) fn is_model(self, column: &str) -> String {
        format!("{column} LIKE 'Rare % of {:08x}'", self.bulk.tag())
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
            self.bulk.tag()
        )
    }

    /// So many may shop, each a [`user`](Self::user) of their own.
    pub fn enrol(self, databases: &Databases, count: u64) -> Result<()> {
        execute(&databases[Part::Store as usize], &self.bulk.users(&(0..count)))
    }

    /// This user has paid for so many orders of this model, each with its [`item`](Self::item) and its
    /// warranty.
    pub fn sell(self, databases: &Databases, owner: Uuid, model: &str, count: u64) -> Result<()> {
        let sold = 0..count;
        let orders = self.bulk.orders(&sold, &format!("'{owner}'"));
        execute(&databases[Part::Order as usize], &orders)?;
        let held =
            self.bulk.held(&sold, &format!("(SELECT id FROM items WHERE model = '{model}')"));
        execute(
            &databases[Part::Warehouse as usize],
            &format!(
                "{held};
                 UPDATE items SET available_count = available_count - {count}
                 WHERE model = '{model}'"
            ),
        )?;
        execute(&databases[Part::Warranty as usize], &self.bulk.warranties(&sold))
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
