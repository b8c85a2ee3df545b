//! Users who buy, and those of them who claim on it, or give it back. Each keeps a record of what they
//! were told, and of what that makes of their purchase and their refund.

use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::dice::Dice;
use super::part::Part;
use super::promises::Promise;
use super::stage::Stage;
use super::users::{self, Heard};
use super::{Scene, now, shop};

/// What somebody knows of their purchase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purchase {
    Unknown,
    /// 201.
    Bought(Uuid),
    /// There is none, or none left.
    Refused,
    /// It is as if they had never asked.
    RolledBack,
    /// It will be.
    Pending,
}

/// What somebody knows of their refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refund {
    Unknown,
    /// They never asked for one, or it did not happen.
    No,
    /// 204.
    Done,
    /// `refund_pending`: it will happen.
    Pending,
}

/// What a shopper was told. Times are in microseconds since the epoch, by the machine's clock.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) user: Uuid,
    /// What it was bought under.
    pub(super) key: String,
    pub(super) model: String,
    pub(super) purchase: Purchase,
    pub(super) refund: Refund,
    /// Whether they want to give it back.
    pub(super) returns: bool,
    /// When they were told that nothing is left of the purchase.
    pub(super) never_bought: Vec<i64>,
    /// When they were told that all is as it was before they wanted to give it back.
    pub(super) never_refunded: Vec<i64>,
    /// They were told the same when one before had not been answered at all.
    pub(super) in_doubt: bool,
}

pub(super) async fn shop<S: Stage>(scene: Arc<Scene<S>>, number: u64, mut dice: Dice) -> Heard {
    let mut heard = Heard::default();
    let stock = &scene.stock;
    let model = match dice.below(16) {
        0 => &stock.nothing,
        1 | 2 => &stock.scarce.0,
        _ => &stock.plenty.0,
    };
    let mut record = Record {
        user: scene.goods.user(number),
        key: format!("purchase-{number}"),
        model: model.clone(),
        purchase: Purchase::Unknown,
        refund: Refund::No,
        returns: false,
        never_bought: Vec::new(),
        never_refunded: Vec::new(),
        in_doubt: false,
    };
    buy(&scene, &mut dice, &mut heard, &mut record).await;
    look(&scene, &mut heard, &record).await;
    if let Purchase::Bought(order) = record.purchase {
        let claims;
        (claims, record.returns) = match dice.below(5) {
            0 => (false, false),
            1 => (true, false),
            2 => (true, true),
            _ => (false, true),
        };
        // Nothing is there to replace the last of its kind with.
        if claims && record.model != stock.scarce.0 {
            users::claim(&scene, record.user, order, &mut dice, &mut heard).await;
        }
        if record.returns {
            refund(&scene, &mut dice, &mut heard, &mut record, order).await;
        }
    }
    heard.shopping = Some(record);
    scene.board.left();
    heard
}

/// Looks at their orders, once: that needs nobody but Store and Order, and has what they have bought.
async fn look<S: Stage>(scene: &Scene<S>, heard: &mut Heard, record: &Record) {
    let answer = shop::list(&scene.stage.store(), record.user).try_send().await;
    heard.note(scene, "list", &answer);
    let Ok(answer) = answer else { return };
    let body = answer.json();
    let fine = match (answer.status, record.purchase) {
        (200, Purchase::Bought(order)) => body.as_array().is_some_and(|all| {
            let bought =
                |one: &Value| one["orderUid"] == order.to_string() && one["status"] == "PAID";
            all.iter().any(bought)
        }),
        (200, _) => body.is_array(),
        (429 | 503, _) => {
            let others = [Part::Warehouse, Part::Warranty].map(Part::name);
            body["dependency"].as_str().is_none_or(|blamed| !others.contains(&blamed))
        }
        _ => false,
    };
    if !fine {
        heard.broke(Promise::Seen, format!("a list, {record:?}: {answer:?}"));
    }
}

/// How often somebody asks before they leave without knowing: most never do.
fn patience(dice: &mut Dice) -> usize {
    if dice.once_in(3) { 1 + dice.below(3) } else { usize::MAX }
}

/// Buys under a key, and asks again under it; some do after they were told, too.
async fn buy<S: Stage>(scene: &Scene<S>, dice: &mut Dice, heard: &mut Heard, record: &mut Record) {
    let (patience, doubts) = (patience(dice), dice.once_in(3));
    for asked in 1.. {
        let call = shop::buy(&scene.stage.store(), record.user, &record.model);
        let answer = call.key(&record.key).try_send().await;
        let (code, at) = (heard.note(scene, "purchase", &answer), now());
        let told = match answer {
            Err(_) => Purchase::Unknown,
            Ok(answer) => match (answer.status, code.as_str()) {
                (201, _) => {
                    heard.expect(shop::bought(&answer)).map_or(Purchase::Unknown, Purchase::Bought)
                }
                (404, "item_not_found") | (409, "sold_out") => Purchase::Refused,
                (503, "rolled_back") => Purchase::RolledBack,
                (503, "rollback_pending") => Purchase::Pending,
                (409, "idempotency_in_progress") | (429 | 503, _) => Purchase::Unknown,
                _ => {
                    heard.broke(Promise::Contract, format!("a purchase, {record:?}: {answer:?}"));
                    return;
                }
            },
        };
        if let Purchase::Bought(_) = record.purchase {
            // Whoever was told so may have nothing else said to them, but that nobody can say.
            let same = told == record.purchase || told == Purchase::Unknown;
            if !same {
                heard.broke(Promise::OneWord, format!("{record:?}, then {told:?}"));
            }
            if told == record.purchase {
                return;
            }
        } else {
            if told == Purchase::RolledBack {
                record.never_bought.push(at);
            }
            record.purchase = told;
            let over = match told {
                Purchase::Bought(_) => !doubts,
                Purchase::Refused => true,
                _ => asked >= patience,
            };
            if over {
                return;
            }
        }
        users::again(dice, asked).await;
    }
}

/// Gives it back, and asks again until that is done; some do under a key, some after they were told.
async fn refund<S: Stage>(
    scene: &Scene<S>,
    dice: &mut Dice,
    heard: &mut Heard,
    record: &mut Record,
    order: Uuid,
) {
    let (patience, named, mut doubts) = (patience(dice), dice.once_in(2), dice.once_in(4));
    // Whether one was never answered: it may not even have begun when the next one is.
    let mut lost = false;
    // Whether each answer so far says that nothing was done.
    let mut as_before = true;
    for asked in 1.. {
        let call = shop::refund(&scene.stage.store(), record.user, order);
        let call = if named { call.key("refund") } else { call };
        let answer = call.try_send().await;
        let (code, at) = (heard.note(scene, "refund", &answer), now());
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        let told = match (status, code.as_str()) {
            (204, _) => Refund::Done,
            (503, "refund_pending") => Refund::Pending,
            (503, "rolled_back" | "rollback_pending") => Refund::No,
            (0 | 429 | 503, _) | (409, "idempotency_in_progress") => Refund::Unknown,
            _ => {
                heard.broke(Promise::Contract, format!("a refund, {record:?}: {answer:?}"));
                return;
            }
        };
        lost |= status == 0;
        if code == "rolled_back" && as_before {
            record.never_refunded.push(at);
        }
        as_before &= code == "rolled_back";
        record.in_doubt |= told == Refund::No && lost;
        record.refund = match (record.refund, told) {
            (Refund::Done, _) | (_, Refund::Done) => Refund::Done,
            (Refund::Pending, _) | (_, Refund::Pending) => Refund::Pending,
            // True also of those before, if they were answered.
            (_, Refund::No) if !lost => Refund::No,
            _ => Refund::Unknown,
        };
        if (told == Refund::Done && !doubts) || (record.refund != Refund::Done && asked >= patience)
        {
            return;
        }
        doubts &= told != Refund::Done;
        users::again(dice, asked).await;
    }
}
