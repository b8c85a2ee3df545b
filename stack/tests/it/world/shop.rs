//! What a user does at Store, and the answers that the contract promises.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use service::testing::{Call, Response, assert_envelope, until};
use storm::shop;
pub(crate) use storm::shop::SIZE;
use uuid::{Uuid, uuid};

use super::{Part, RECOVERY, World};

pub(crate) const ALEX: Uuid = uuid!("6d2cb5a0-943c-4b96-9aa6-89eac7bdfd2b");
pub(crate) const MODEL: &str = "Lego 8070";

/// Every answer comes within this: a promise.
const LIMIT: Duration = Duration::from_secs(2);

/// A user, at one Store or at all of them in turn.
impl World {
    pub(crate) fn buy(&self) -> Call {
        self.buy_as(ALEX, MODEL)
    }

    pub(crate) fn buy_as(&self, user: Uuid, model: &str) -> Call {
        shop::buy(&self.store(), user, model)
    }

    pub(crate) fn list(&self) -> Call {
        self.list_of(ALEX)
    }

    pub(crate) fn list_of(&self, user: Uuid) -> Call {
        shop::list(&self.store(), user)
    }

    pub(crate) fn get(&self, order: Uuid) -> Call {
        self.store().get(path(order))
    }

    pub(crate) fn claim(&self, order: Uuid) -> Call {
        self.claim_as(ALEX, order)
    }

    pub(crate) fn claim_as(&self, user: Uuid, order: Uuid) -> Call {
        shop::claim(&self.store(), user, order)
    }

    pub(crate) fn claims(&self, order: Uuid) -> Call {
        self.claims_of(ALEX, order)
    }

    pub(crate) fn claims_of(&self, user: Uuid, order: Uuid) -> Call {
        shop::claims(&self.store(), user, order)
    }

    pub(crate) fn refund(&self, order: Uuid) -> Call {
        self.refund_as(ALEX, order)
    }

    pub(crate) fn refund_as(&self, user: Uuid, order: Uuid) -> Call {
        shop::refund(&self.store(), user, order)
    }

    /// What 3b tells of a claim, once that is its last word.
    pub(crate) async fn settled_claim(&self, limit: Duration, order: Uuid, claim: Uuid) -> Value {
        until(limit, "the claim is settled", async || {
            let list = self.claims(order).try_send().await.ok()?;
            let list = (list.status == 200).then(|| list.ok())?;
            let mut all = list.as_array().unwrap().iter();
            let found = all.find(|one| one["claimUid"] == claim.to_string()).cloned().unwrap();
            (found["status"] != "QUEUED").then_some(found)
        })
        .await
    }

    /// Waits until Store owes nobody anything: every deferred call is done.
    pub(crate) async fn owes_nothing(&self) {
        let open = "SELECT count(*) FROM deferred WHERE state <> 'done'";
        until(RECOVERY * 2, "nothing is deferred any more", async || {
            (self.number(Part::Store, open) == 0).then_some(())
        })
        .await;
    }

    /// An order that is paid for. On a crowded machine a purchase may run out of its time.
    pub(crate) async fn bought(&self) -> Uuid {
        until(RECOVERY, "a purchase", async || {
            let answer = self.buy().send().await;
            (answer.status != 503).then(|| answer.bought())
        })
        .await
    }

    pub(crate) async fn bought_many(&self, count: usize) -> Vec<Uuid> {
        let mut orders = Vec::with_capacity(count);
        for _ in 0..count {
            orders.push(self.bought().await);
        }
        orders
    }

    /// How many of a kind are on the shelf.
    pub(crate) fn left(&self, model: &str) -> i64 {
        let found = format!("SELECT available_count FROM items WHERE model = '{model}'");
        self.number(Part::Warehouse, &found)
    }

    /// Somebody else than [`ALEX`].
    pub(crate) fn another_user(&self) -> Uuid {
        let user = Uuid::new_v4();
        let insert = format!("INSERT INTO users (name, user_uid) VALUES ('{user}', '{user}')");
        self.execute(Part::Store, &insert);
        user
    }

    /// Everything a user does works, at every Store, within the promised time from `healed` on;
    /// returns the orders that were bought to see that, and what became of `refunded` is settled.
    pub(crate) async fn works_again(&self, healed: Instant) -> Vec<Uuid> {
        let mut bought = Vec::new();
        for _ in self.processes(Part::Store) {
            let left = || RECOVERY.saturating_sub(healed.elapsed());
            let order = until(left(), "a purchase works again", async || {
                let answer = self.buy().send().await;
                (answer.status == 201).then(|| answer.bought())
            });
            let order = order.await;
            until(left(), "reads are whole again", async || {
                let whole =
                    |answer: Response| answer.status == 200 && !answer.text().contains("degraded");
                let both = whole(self.get(order).send().await) && whole(self.list().send().await);
                both.then_some(())
            })
            .await;
            until(left(), "a claim works again", async || {
                (self.claim(order).send().await.status == 200).then_some(())
            })
            .await;
            let refunded = self.bought().await;
            until(left(), "a refund works again", async || {
                (self.refund(refunded).send().await.status == 204).then_some(())
            })
            .await;
            bought.push(order);
        }
        bought
    }
}

pub(crate) fn path(order: Uuid) -> String {
    shop::path(ALEX, order)
}

/// What an answer should be.
pub(crate) trait Promise {
    /// 201 as promised: the order's id.
    fn bought(self) -> Uuid;

    /// 503 with this code that blames this part.
    fn blames(&self, code: &str, part: Part);

    /// 202 as promised, for a claim on this order: the claim's id.
    fn queued(&self, order: Uuid) -> Uuid;
}

impl Promise for Response {
    #[track_caller]
    fn bought(self) -> Uuid {
        shop::bought(&self).unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    #[track_caller]
    fn blames(&self, code: &str, part: Part) {
        assert_envelope(self, 503, code);
        assert_eq!(self.header("x-failed-dependency"), Some(part.name()), "{self:?}");
        // Each hop explains; none repeats what another has said.
        let message = self.json()["message"].as_str().unwrap().to_owned();
        let said: Vec<_> = message.split("; ").flat_map(|part| part.split(": ")).collect();
        let different: HashSet<_> = said.iter().collect();
        assert_eq!(said.len(), different.len(), "{self:?}");
    }

    #[track_caller]
    fn queued(&self, order: Uuid) -> Uuid {
        shop::queued(self, order).unwrap_or_else(|wrong| panic!("{wrong}"))
    }
}

/// Sends, and expects the answer within the promised time.
pub(crate) async fn prompt(call: Call) -> Response {
    within(LIMIT, call).await
}

pub(crate) async fn within(limit: Duration, call: Call) -> Response {
    let begin = Instant::now();
    let answer = call.send().await;
    let took = begin.elapsed();
    assert!(took <= limit, "{took:?} is more than {limit:?}: {answer:?}");
    answer
}

/// An element of a list of orders.
pub(crate) fn element(list: &Value, order: Uuid) -> Value {
    let all = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    let mut found = all.iter().filter(|element| element["orderUid"] == order.to_string());
    found.next().cloned().unwrap_or_else(|| panic!("{order} is not in {list}"))
}
