//! Users, one after the other at a steady rate: those who claim on what they have, each with an order
//! of their own, so that a second decision would be a refusal; and those who shop.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use service::client::Response;
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use super::dice::Dice;
use super::promises::Promise;
use super::shoppers::{self, Record};
use super::stage::Stage;
use super::{Scene, Stop, shop};

/// One of so many shops, the others claim.
const SHOPS: u64 = 4;

/// How many come, of both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowd {
    pub(super) claimants: u64,
    pub(super) shoppers: u64,
}

impl Crowd {
    pub(super) fn of(length: Duration, rate: u32) -> Self {
        let all = u64::from(rate) * length.as_secs();
        let shoppers = all.div_ceil(SHOPS);
        Self { claimants: all - shoppers, shoppers }
    }

    /// Whose the orders are that are claimed on.
    pub(super) fn owner(self) -> u64 {
        self.shoppers
    }

    /// Who comes when it is over.
    pub(super) fn late(self) -> u64 {
        self.shoppers + 1
    }

    /// All of them.
    pub(super) fn users(self) -> u64 {
        self.shoppers + 2
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
    /// What should never have been said to them.
    pub(super) broken: Vec<(Promise, String)>,
}

impl Heard {
    /// Counts an answer; gives back its code, where it has one.
    pub(super) fn note<S>(
        &mut self,
        scene: &Scene<S>,
        what: &str,
        answer: &io::Result<Response>,
    ) -> String {
        let (status, code) = match answer {
            Err(_) => ("no answer".to_owned(), String::new()),
            Ok(answer) if answer.status < 300 => (answer.status.to_string(), String::new()),
            Ok(answer) => {
                let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
                if let Err(wrong) = answer.envelope(answer.status, &code) {
                    self.broke(Promise::Contract, format!("{wrong}: {answer:?}"));
                }
                (answer.status.to_string(), code)
            }
        };
        scene.board.heard(format!("{what}: {status} {code}").trim_end());
        code
    }

    pub(super) fn broke(&mut self, promise: Promise, how: String) {
        self.broken.push((promise, how));
    }

    /// What there is in an answer of the contract.
    pub(super) fn expect<T>(&mut self, found: Result<T, String>) -> Option<T> {
        found.map_err(|how| self.broke(Promise::Contract, how)).ok()
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
    pub(super) broken: Vec<(Promise, String)>,
}

/// One after the other at a steady rate, whatever happens.
pub(super) async fn come<S: Stage>(
    scene: &Arc<Scene<S>>,
    seed: u64,
    rate: u32,
    stop: &Stop,
) -> Users {
    let mut users = Users::default();
    let begin = Instant::now();
    for number in 0..scene.crowd.claimants + scene.crowd.shoppers {
        // Who is late doesn't make the next one late.
        let due = begin + Duration::from_secs(1) * u32::try_from(number).unwrap_or(u32::MAX) / rate;
        if !stop.sleep(due.saturating_duration_since(Instant::now())).await {
            break;
        }
        let (dice, scene) = (Dice::of(seed, &format!("user {number}")), Arc::clone(scene));
        let (shopper, before) = (number / SHOPS, number.div_ceil(SHOPS));
        scene.board.came();
        if number % SHOPS == 0 {
            users.waiting.spawn(shoppers::shop(scene, shopper, dice));
        } else {
            users.waiting.spawn(claimant(scene, number - before, dice));
        }
        users.last = Some(Instant::now());
    }
    users
}

/// Waits until they ask again: longer each time, or those who wait are a storm of their own.
pub(super) async fn again(dice: &mut Dice, asked: usize) {
    sleep(dice.millis((50, 500)) * u32::try_from(asked.min(10)).unwrap_or(10)).await;
}

async fn claimant<S: Stage>(scene: Arc<Scene<S>>, number: u64, mut dice: Dice) -> Heard {
    let mut heard = Heard::default();
    let owner = scene.goods.user(scene.crowd.owner());
    claim(&scene, owner, scene.goods.order(number), &mut dice, &mut heard).await;
    scene.board.left();
    heard
}

/// Claims, and asks again under the same key while there is no promise: most of them, that is.
pub(super) async fn claim<S: Stage>(
    scene: &Scene<S>,
    user: Uuid,
    order: Uuid,
    dice: &mut Dice,
    heard: &mut Heard,
) {
    let (leaves, doubts) = (dice.once_in(4), dice.once_in(4));
    for asked in 1.. {
        let answer = shop::claim(&scene.stage.store(), user, order).key("claim").try_send().await;
        let code = heard.note(scene, "claim", &answer);
        if let Ok(answer) = answer {
            let told = match (answer.status, code.as_str()) {
                (200, _) => heard.expect(decided(&answer, order)),
                (202, _) => heard.expect(shop::queued(&answer, order)).map(|claim| Told {
                    order,
                    claim,
                    decided: false,
                }),
                (409, "idempotency_in_progress") | (429 | 503, _) => None,
                _ => {
                    heard.broke(Promise::Contract, format!("a claim on {order}: {answer:?}"));
                    return;
                }
            };
            if told.is_some_and(|told| told.decided) && answer.json()["decision"] != "RETURN" {
                heard.broke(Promise::Claimed, format!("{order} is decided twice: {answer:?}"));
            }
            if let (Some(before), Some(now)) = (heard.promise, told) {
                let same = before.claim == now.claim && (now.decided || !before.decided);
                if !same {
                    heard.broke(Promise::OneWord, format!("{before:?}, then {now:?}"));
                }
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

fn decided(answer: &Response, order: Uuid) -> Result<Told, String> {
    let claim = answer.json()["claimUid"].as_str().and_then(|uid| uid.parse().ok());
    let claim = claim.ok_or_else(|| format!("a decision without its claim: {answer:?}"))?;
    Ok(Told { order, claim, decided: true })
}

impl Users {
    /// Waits until nobody waits any more.
    pub(super) async fn leave(&mut self) -> anyhow::Result<()> {
        while let Some(heard) = self.waiting.join_next().await {
            let heard = heard?;
            self.told.extend(heard.promise);
            self.shopped.extend(heard.shopping);
            self.broken.extend(heard.broken);
        }
        Ok(())
    }

    pub(super) fn last(&self) -> Option<Instant> {
        self.last
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
        format!("{} users waited", self.waiting.len())
    }
}
