//! Users, one after the other at a steady rate: those who claim on what they have, each with an order
//! of their own, so that a second decision would be a refusal; and those who shop.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use service::testing::{Response, assert_envelope};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use super::shoppers::{self, Record};
use crate::world::World;
use crate::world::bulk::order;
use crate::world::dice::Dice;
use crate::world::shop::{ALEX, Promise as _};

/// Users a second.
const RATE: u32 = 20;

/// One of so many shops, the others claim.
const SHOPS: u64 = 4;

/// How many come, of both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowd {
    pub(super) claimants: u64,
    pub(super) shoppers: u64,
}

impl Crowd {
    pub(super) fn of(length: Duration) -> Self {
        let all = u64::from(RATE) * length.as_secs();
        let shoppers = all / SHOPS;
        Self { claimants: all - shoppers, shoppers }
    }
}

/// What somebody was promised of a claim.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) order: Uuid,
    pub(super) claim: Uuid,
    pub(super) decided: bool,
}

/// What a user has heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    promise: Option<Told>,
    pub(super) shopping: Option<Record>,
    /// How often, by what it was.
    words: BTreeMap<String, u64>,
}

impl Heard {
    /// Counts an answer; gives back its code, where it has one.
    pub(super) fn note(&mut self, what: &str, answer: &io::Result<Response>) -> String {
        let code = |answer: &Response| {
            let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
            assert_envelope(answer, answer.status, &code);
            code
        };
        let (status, code) = match answer {
            Err(_) => ("no answer".to_owned(), String::new()),
            Ok(answer) if answer.status < 300 => (answer.status.to_string(), String::new()),
            Ok(answer) => (answer.status.to_string(), code(answer)),
        };
        let word = format!("{what}: {status} {code}");
        *self.words.entry(word.trim_end().to_owned()).or_default() += 1;
        code
    }
}

/// Those who are told something in the end, or have left.
#[derive(Default)]
pub(super) struct Users {
    waiting: JoinSet<Heard>,
    /// When the last one came.
    last: Option<Instant>,
    told: Vec<Told>,
    shopped: Vec<Record>,
    words: BTreeMap<String, u64>,
}

/// One after the other at a steady rate, whatever happens.
pub(super) async fn come(world: &Arc<World>, seed: u64, crowd: Crowd, scarce: &str) -> Users {
    let mut users = Users::default();
    let mut pace = interval(Duration::from_secs(1) / RATE);
    // Who is late doesn't make the next one late.
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..crowd.claimants + crowd.shoppers {
        pace.tick().await;
        let (dice, world) = (Dice::of(seed, &format!("user {number}")), Arc::clone(world));
        let (shopper, before) = (number / SHOPS, number.div_ceil(SHOPS));
        if number % SHOPS == 0 {
            users.waiting.spawn(shoppers::shop(world, shopper, scarce.to_owned(), dice));
        } else {
            users.waiting.spawn(claimant(world, number - before, dice));
        }
        users.last = Some(Instant::now());
    }
    users
}

/// Waits until they ask again: longer each time, or those who wait are a storm of their own.
pub(super) async fn again(dice: &mut Dice, asked: usize) {
    sleep(dice.millis(50, 500) * u32::try_from(asked.min(10)).unwrap()).await;
}

async fn claimant(world: Arc<World>, number: u64, mut dice: Dice) -> Heard {
    let mut heard = Heard::default();
    claim(&world, ALEX, order(number), &mut dice, &mut heard).await;
    heard
}

/// Claims, and asks again under the same key while there is no promise: most of them, that is.
pub(super) async fn claim(
    world: &World,
    user: Uuid,
    order: Uuid,
    dice: &mut Dice,
    heard: &mut Heard,
) {
    let (leaves, doubts) = (dice.once_in(4), dice.once_in(4));
    for asked in 1.. {
        let answer = world.claim_as(user, order).key("claim").try_send().await;
        let code = heard.note("claim", &answer);
        if let Ok(answer) = answer {
            let told = match answer.status {
                200 => {
                    let body = answer.ok();
                    assert_eq!(body["decision"], "RETURN", "{order} is decided twice: {body}");
                    let claim = body["claimUid"].as_str().unwrap().parse().unwrap();
                    Some(Told { order, claim, decided: true })
                }
                202 => Some(Told { order, claim: answer.queued(order), decided: false }),
                409 => {
                    assert_eq!(code, "idempotency_in_progress", "{order}: {answer:?}");
                    None
                }
                status => {
                    assert!(matches!(status, 429 | 503), "{order}: {answer:?}");
                    None
                }
            };
            if let (Some(before), Some(now)) = (heard.promise, told) {
                assert_eq!(before.claim, now.claim, "one key is one claim: {before:?}, {now:?}");
                assert!(now.decided || !before.decided, "taken back: {before:?}, {now:?}");
            }
            let first = heard.promise.is_none();
            heard.promise = told.or(heard.promise);
            if told.is_some() && !(first && doubts) {
                return;
            }
        }
        if leaves && heard.promise.is_none() {
            return;
        }
        again(dice, asked).await;
    }
}

impl Users {
    /// Waits until nobody waits any more.
    pub(super) async fn leave(&mut self) {
        while let Some(heard) = self.waiting.join_next().await {
            let heard = heard.unwrap();
            self.told.extend(heard.promise);
            self.shopped.extend(heard.shopping);
            for (word, count) in heard.words {
                *self.words.entry(word).or_default() += count;
            }
        }
    }

    pub(super) fn last(&self) -> Instant {
        self.last.expect("somebody claims")
    }

    /// What is promised of claims.
    pub(super) fn told(&self) -> &[Told] {
        &self.told
    }

    /// What those who shopped know.
    pub(super) fn shopped(&self) -> &[Record] {
        &self.shopped
    }

    pub(super) fn left(&self) -> String {
        format!("{} users wait; those who left heard {:?}", self.waiting.len(), self.words)
    }

    pub(super) fn words(&self) -> &BTreeMap<String, u64> {
        &self.words
    }
}
