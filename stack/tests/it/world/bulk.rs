//! Orders and users by the thousand, past all services.

use stack_load::bulk;
pub(crate) use stack_load::bulk::{item, order, user};

use super::shop::ALEX;
use super::{Part, World};

impl World {
    /// So many may shop, each a [`user`] of their own.
    pub(crate) fn enrol(&self, count: u64) {
        self.execute(Part::Store, &bulk::users(&(0..count)));
    }

    /// [`ALEX`] has paid for so many orders, each with its [`item`] and its warranty.
    pub(crate) fn sell(&self, count: u64) {
        // Half of the shelf, so that a claim finds something to replace its item with.
        let model = self.shelve(i64::try_from(count).unwrap() * 2);
        let sold = 0..count;
        self.execute(Part::Order, &bulk::orders(&sold, &format!("'{ALEX}'")));
        let kind = format!("(SELECT id FROM items WHERE model = '{model}')");
        self.execute(
            Part::Warehouse,
            &format!(
                "{};
                 UPDATE items SET available_count = available_count - {count}
                 WHERE model = '{model}'",
                bulk::held(&sold, &kind),
            ),
        );
        self.execute(Part::Warranty, &bulk::warranties(&sold));
    }
}
