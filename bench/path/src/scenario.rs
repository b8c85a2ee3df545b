//! What is asked.

use stack_load::Shot;

use crate::shop::{BULK, BUYERS, KINDS, LENGTHS, READERS, Shop, buyer};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    Health,
    Order,
    /// Of so many orders: by its place in [`LENGTHS`].
    List(usize),
    Purchase,
    Refund,
    Claim,
}

/// More than anybody answers in a second.
const MOST: f64 = 6_000.0;

impl Scenario {
    pub(crate) const ALL: [Self; 8] = [
        Self::Health,
        Self::Order,
        Self::List(0),
        Self::List(1),
        Self::List(2),
        Self::Purchase,
        Self::Refund,
        Self::Claim,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Order => "order",
            Self::List(0) => "list-1",
            Self::List(1) => "list-20",
            Self::List(_) => "list-100",
            Self::Purchase => "purchase",
            Self::Refund => "refund",
            Self::Claim => "claim",
        }
    }

    pub(crate) fn title(self) -> String {
        match self {
            Self::Health => "Health".to_owned(),
            Self::Order => "One order".to_owned(),
            Self::List(0) => "A list of 1 order".to_owned(),
            Self::List(number) => format!("A list of {} orders", LENGTHS[number]),
            Self::Purchase => "A purchase".to_owned(),
            Self::Refund => "A refund".to_owned(),
            Self::Claim => "A claim".to_owned(),
        }
    }

    /// Whether the limit for reads holds for it.
    pub(crate) fn is_read(self) -> bool {
        matches!(self, Self::Order | Self::List(_))
    }

    /// Whether asking for the same again would be something else.
    pub(crate) fn is_once(self) -> bool {
        matches!(self, Self::Refund | Self::Claim)
    }

    /// What is asked for in turn: enough for so many seconds.
    pub(crate) fn shots(self, shop: &mut Shop, seconds: f64) -> Vec<Shot> {
        const STORE: &str = "/api/v1/store";
        match self {
            Self::Health => vec![Shot::get("/manage/health")],
            Self::Order => {
                let orders: u64 = LENGTHS.iter().map(|length| length * READERS).sum();
                let (longest, last) = (LENGTHS[2], READERS * LENGTHS[2]);
                let order = |number: u64| {
                    // Of those who have many.
                    let user = BULK.user(READERS * 2 + number / longest);
                    let order = BULK.order(orders - last + number);
                    Shot::get(&format!("{STORE}/{user}/{order}"))
                };
                // Neighbours are of different users.
                (0..last).map(|number| order(number * 101 % last)).collect()
            }
            Self::List(length) => {
                let first = READERS * length as u64;
                let users = (first..first + READERS).map(|number| BULK.user(number));
                users.map(|user| Shot::get(&format!("{STORE}/{user}/orders?limit=100"))).collect()
            }
            Self::Purchase => {
                let wish = |number: u64| {
                    let (user, kind) = (BULK.user(buyer(number)), number % KINDS);
                    let wish = format!(r#"{{"model":"Brick {kind}","size":"M"}}"#);
                    Shot::post(&format!("{STORE}/{user}/purchase"), &wish)
                };
                (0..BUYERS).map(wish).collect()
            }
            Self::Refund => {
                Self::each(shop, seconds, |path| Shot::delete(&format!("{path}/refund")))
            }
            Self::Claim => Self::each(shop, seconds, |path| {
                Shot::post(&format!("{path}/warranty"), r#"{"reason":"a brick is missing"}"#)
            }),
        }
    }

    /// For each of as many orders as can be asked for.
    fn each(shop: &mut Shop, seconds: f64, shot: impl Fn(String) -> Shot) -> Vec<Shot> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "some thousands"
        )]
        let count = (MOST * seconds) as u64;
        let path = |number: u64| {
            let (user, order) = (BULK.user(buyer(number)), BULK.order(number));
            format!("/api/v1/store/{user}/{order}")
        };
        shop.stock_up(count).map(|number| shot(path(number))).collect()
    }
}
