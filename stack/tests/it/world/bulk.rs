//! Orders and users by the thousand, past all services.

use storm::goods::Goods;
use uuid::Uuid;

use super::World;
use super::shop::ALEX;

/// A world has no others.
const GOODS: Goods = Goods::tagged(0);

pub(crate) fn order(number: u64) -> Uuid {
    GOODS.order(number)
}

pub(crate) fn user(number: u64) -> Uuid {
    GOODS.user(number)
}

impl World {
    /// So many may shop, each a [`user`] of their own.
    pub(crate) fn enrol(&self, count: u64) {
        GOODS.enrol(&self.databases(), count).unwrap();
    }

    /// [`ALEX`] has paid for so many orders, each with its item and its warranty.
    pub(crate) fn sell(&self, count: u64) {
        // Half of the shelf, so that a claim finds something to replace its item with.
        let model = self.shelve(i64::try_from(count).unwrap() * 2);
        GOODS.sell(&self.databases(), ALEX, &model, count).unwrap();
    }
}
