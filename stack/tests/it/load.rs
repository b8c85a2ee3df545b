//! What users by the thousand ask for, in a world that has it.

use stack_load::Shot;

use crate::world::World;
use crate::world::bulk::{order, user};
use crate::world::shop::{ALEX, SIZE};

/// Users who buy, each with a few orders.
const USERS: u64 = 2000;

/// Orders that are looked at.
const ORDERS: u64 = 500;

/// A world with these users and orders, and enough on the shelf for all; and what its users ask for,
/// in turn: a purchase, and three reads.
pub(crate) fn mix(world: &World) -> Vec<Shot> {
    world.enrol(USERS);
    world.sell(ORDERS);
    let model = world.shelve(10_000_000);
    let wish = format!(r#"{{"model":"{model}","size":"{SIZE}"}}"#);
    let store = "/api/v1/store";
    let shots = (0..USERS).flat_map(|number| {
        let (buyer, seen) = (user(number), order(number % ORDERS));
        [
            Shot::post(&format!("{store}/{buyer}/purchase"), &wish),
            Shot::get(&format!("{store}/{ALEX}/{seen}")),
            Shot::get(&format!("{store}/{buyer}/orders?limit=10")),
            Shot::get(&format!("{store}/{ALEX}/{}", order((number * 7 + 1) % ORDERS))),
        ]
    });
    shots.collect()
}
