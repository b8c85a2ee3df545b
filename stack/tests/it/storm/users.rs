//! Users, each with an order of their own, so that a second decision would be a refusal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use service::testing::assert_envelope;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use super::RATE;
use crate::world::World;
use crate::world::bulk::order;
use crate::world::dice::Dice;
use crate::world::shop::Promise as _;

/// What somebody was promised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) order: Uuid,
    pub(super) claim: Uuid,
    pub(super) decided: bool,
}

/// What a user has heard.
#[derive(Debug, Default)]
struct Heard {
    promise: Option<Told>,
    /// How often, by what it was.
    words: BTreeMap<String, u64>,
}

/// Those who are told something in the end, or have left.
#[derive(Default)]
pub(super) struct Users {
    waiting: JoinSet<Heard>,
    /// When the last one came.
    last: Option<Instant>,
    told: Vec<Told>,
    words: BTreeMap<String, u64>,
}

/// One after the other at a steady rate, whatever happens.
pub(super) async fn claim(world: &Arc<World>, seed: u64, count: u64) -> Users {
    let mut users = Users::default();
    let mut pace = interval(Duration::from_secs(1) / RATE);
    // Who is late doesn't make the next one late.
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..count {
        pace.tick().await;
        let dice = Dice::of(seed, &format!("user {number}"));
        users.waiting.spawn(user(Arc::clone(world), number, dice));
        users.last = Some(Instant::now());
    }
    users
}

/// Claims, and asks again under the same key while there is no promise: most of them, that is.
async fn user(world: Arc<World>, number: u64, mut dice: Dice) -> Heard {
    let (order, key) = (order(number), format!("claim-{number}"));
    let (leaves, doubts) = (dice.once_in(4), dice.once_in(4));
    let mut heard = Heard::default();
    loop {
        let answer = world.claim(order).key(&key).try_send().await;
        let word = answer.as_ref().map_or("no answer".to_owned(), |answer| match answer.status {
            200 | 202 => answer.status.to_string(),
            status => format!("{status} {}", answer.json()["code"].as_str().unwrap_or_default()),
        });
        *heard.words.entry(word).or_default() += 1;
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
                    assert_envelope(&answer, 409, "idempotency_in_progress");
                    None
                }
                status => {
                    assert!(matches!(status, 429 | 503), "{order}: {answer:?}");
                    assert_envelope(&answer, status, answer.json()["code"].as_str().unwrap());
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
                return heard;
            }
        }
        if leaves && heard.promise.is_none() {
            return heard;
        }
        sleep(dice.millis(50, 500)).await;
    }
}

impl Users {
    /// Waits until nobody waits any more.
    pub(super) async fn leave(&mut self) {
        while let Some(heard) = self.waiting.join_next().await {
            let heard = heard.unwrap();
            self.told.extend(heard.promise);
            for (word, count) in heard.words {
                *self.words.entry(word).or_default() += count;
            }
        }
    }

    pub(super) fn last(&self) -> Instant {
        self.last.expect("somebody claims")
    }

    pub(super) fn told(&self) -> &[Told] {
        &self.told
    }

    pub(super) fn left(&self) -> String {
        format!("{} users wait; those who left heard {:?}", self.waiting.len(), self.words)
    }

    pub(super) fn words(&self) -> &BTreeMap<String, u64> {
        &self.words
    }
}
