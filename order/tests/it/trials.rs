//! Each of Order's sagas, with everything going wrong that can, once each: on real systems, all of it
//! happens, or nothing does.

use std::convert::Infallible;
use std::fmt::Debug;
use std::time::Duration;

use diesel::PgConnection;
use order::ops::item_of;
use order::sagas;
use order::sagas::give_back::{Bought, Return};
use order::sagas::place::{NewOrder, Place};
use order::sagas::take_back::TakeBack;
use resilience::deferred::Builder;
use resilience::http::Context;
use resilience::saga::{Outcome, Saga, Sagas, Settings, Start, Started};
use resilience::testkit::saga::{Trouble, Wrong, try_everything};
use serde_json::Value;
use service::boot::Base;
use service::testing::{config, until};
use uuid::Uuid;
use warehouse_api::WarehouseClient;
use warranty_api::{Claim, WarrantyClient};

use crate::world::{MODEL, PATIENT, SOON, World};

/// More than are bought.
const PLENTY: i64 = 1000;

/// A World with plenty of items and no Order, and what that runs its sagas with, on its database: who
/// dies is not helped by somebody else.
struct Trials {
    world: World,
    base: Base,
    config: order::Config,
    warehouse: WarehouseClient,
    warranty: WarrantyClient,
}

impl Trials {
    async fn new() -> Self {
        let world = World::start().await;
        world.stock("M", PLENTY);
        world.order.server.begin_stop();
        until(SOON, "Order has ended", async || {
            world.client.get("/manage/health/live").try_send().await.err()
        })
        .await;
        let (items, warranties) = (world.warehouse.proxy.url(), world.warranty.proxy.url());
        let own = [
            ("WAREHOUSE_URL", items.as_str()),
            ("WARRANTY_URL", &warranties),
            ("DATABASE_URL", world.order.url()),
        ];
        let config = config(order::Config::read, &[PATIENT, &own].concat());
        let base = Base::new(config.base.clone());
        let peers = base.peers().unwrap();
        let warehouse = peers.client(&config.warehouse, warehouse_api::FINAL_CODES).unwrap();
        let warranty = peers.client(&config.warranty, warranty_api::FINAL_CODES).unwrap();
        let (warehouse, warranty) =
            (WarehouseClient::new(warehouse), WarrantyClient::new(warranty));
        Self { world, base, config, warehouse, warranty }
    }

    fn build(&self) -> Builder {
        let builder = self.base.deferred(&self.config.deferred);
        // Nobody takes over while it is alive, however crowded the machine is.
        let settings = Settings::new().lease(Duration::from_secs(10));
        sagas::all(builder, &self.warehouse, &self.warranty).saga_settings(settings)
    }

    /// Tries everything, prints how much that was, and that it was that much.
    async fn of<S: Saga>(
        &self,
        at_least: usize,
        input: impl AsyncFn(Uuid) -> S::Input,
        check: impl AsyncFn(Uuid, Option<Outcome<S::Output>>, &Trouble),
    ) where
        S::Output: Debug,
    {
        let tried = try_everything(
            || self.build(),
            async |sagas, id| begun::<S>(sagas, id, &input(id).await).await,
            async |id, outcome, trouble| {
                check(id, outcome, trouble).await;
                self.nothing_is_lost(trouble);
            },
        )
        .await;
        let deaths = tried.iter().filter(|trouble| trouble.death.is_some()).count();
        println!("{}: {} troubles tried, {deaths} deaths among them", S::KIND, tried.len());
        assert!(tried.len() >= at_least, "{} are fewer than {at_least}: {tried:?}", tried.len());
    }

    /// Each item is in stock or somebody's.
    fn nothing_is_lost(&self, trouble: &Trouble) {
        let held = "SELECT count(*) FROM order_item WHERE NOT canceled";
        assert_eq!(self.world.left() + self.world.warehouse.number(held), PLENTY, "{trouble}");
    }

    /// The three effects of an order: its row that says `PAID`, its item, and its warranty.
    fn effects(&self, order: Uuid) -> [bool; 3] {
        let World { order: orders, warehouse, warranty, .. } = &self.world;
        let item = item_of(order);
        let paid =
            format!("SELECT count(*) FROM orders WHERE order_uid = '{order}' AND status = 'PAID'");
        let out = format!(
            "SELECT count(*) FROM order_item WHERE order_item_uid = '{item}' AND NOT canceled"
        );
        let runs = format!(
            "SELECT count(*) FROM warranty
             WHERE item_uid = '{item}' AND status <> 'REMOVED_FROM_WARRANTY'"
        );
        [orders.number(&paid), warehouse.number(&out), warranty.number(&runs)].map(|n| n == 1)
    }

    /// Whether the order has its effects; it has all of them or none.
    #[track_caller]
    fn is_whole(&self, order: Uuid, what: &dyn Debug) -> bool {
        let effects = self.effects(order);
        assert!(effects == [effects[0]; 3], "{effects:?}: {what:?}");
        effects[0]
    }

    /// How many orders there are with this id, and of them how many are refunded.
    fn rows(&self, order: Uuid) -> (i64, i64) {
        let all = format!("SELECT count(*) FROM orders WHERE order_uid = '{order}'");
        let refunded = format!("{all} AND status = 'CANCELED'");
        (self.world.order.number(&all), self.world.order.number(&refunded))
    }

    /// A saga that nothing happens to.
    async fn done<S: Saga>(&self, input: &S::Input)
    where
        S::Output: Debug,
    {
        let sagas = self.build().build().unwrap().sagas();
        let outcome = begun::<S>(&sagas, Uuid::new_v4(), input).await;
        assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    }

    /// An order whose warranty is used already, and says why.
    async fn bought(&self) -> Uuid {
        let order = wanted(Uuid::new_v4());
        self.done::<Place>(&order).await;
        let (key, claim) = (order.uid.to_string(), Claim { reason: "broken,\nbadly".to_owned() });
        let item = item_of(order.uid);
        self.warehouse.claim(&Context::new(), item, &key, &claim).await.unwrap();
        order.uid
    }
}

fn wanted(uid: Uuid) -> NewOrder {
    NewOrder { uid, user: Uuid::nil(), model: MODEL.to_owned(), size: "M".to_owned() }
}

async fn begun<S: Saga>(sagas: &Sagas, id: Uuid, input: &S::Input) -> Outcome<S::Output> {
    let nothing = |_: &mut PgConnection| Ok::<_, Infallible>(());
    match sagas.run(Start::<S>::new(id, input).unwrap(), None, nothing).await.unwrap() {
        Started::Begun(outcome) => outcome,
        Started::Known(known) => panic!("{known:?} was there before"),
    }
}

/// What is said is so.
#[track_caller]
fn is_true<T: Debug>(outcome: Option<&Outcome<T>>, happened: bool, trouble: &Trouble) {
    match outcome {
        Some(Outcome::Committed(_) | Outcome::Completing(_)) => {
            assert!(happened, "{trouble}: {outcome:?}");
        }
        Some(Outcome::Compensated(_) | Outcome::Compensating { .. }) => {
            assert!(!happened, "{trouble}: {outcome:?}");
        }
        Some(Outcome::Unknown) | None => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_an_order_is_placed_whole_or_not_at_all() {
    let trials = Trials::new().await;
    // Another id than the saga's.
    let order = |saga: Uuid| Uuid::new_v5(&saga, b"order");
    let input = async |id| wanted(order(id));
    let check = async |id: Uuid, outcome: Option<Outcome<()>>, trouble: &Trouble| {
        let placed = trials.is_whole(order(id), trouble);
        is_true(outcome.as_ref(), placed, trouble);
        if let Some((_, wrong)) = &trouble.action {
            assert_eq!(placed, *wrong == Wrong::Twice, "{trouble}");
        }
    };
    trials.of::<Place>(80, input, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_an_order_is_returned_or_everything_is_exactly_as_it_was() {
    let trials = Trials::new().await;
    let before = tokio::sync::Mutex::new((Uuid::nil(), Value::Null));
    let input = async |_| {
        let order = trials.bought().await;
        *before.lock().await = (order, trials.world.warranty_of(item_of(order)).await);
        Bought { order, item: item_of(order) }
    };
    let check = async |_, outcome: Option<Outcome<()>>, trouble: &Trouble| {
        let (order, warranty) = before.lock().await.clone();
        let kept = trials.is_whole(order, trouble);
        is_true(outcome.as_ref(), !kept, trouble);
        assert_eq!(trials.rows(order), (1, i64::from(!kept)), "{trouble}");
        if kept {
            let now = trials.world.warranty_of(item_of(order)).await;
            assert_eq!(now, warranty, "{trouble}");
            // What was undone is over: the next return works.
            trials.done::<Return>(&Bought { order, item: item_of(order) }).await;
            assert!(!trials.is_whole(order, trouble), "{trouble}");
        }
        // The pivot is where it turns: what isn't known of it goes forward. Who dies may not come to it.
        if let (Some((name, wrong)), None) = (&trouble.action, trouble.death) {
            let goes_forward = match wrong {
                Wrong::Twice => true,
                Wrong::Refused => false,
                _ => name == "give-back",
            };
            assert_eq!(kept, !goes_forward, "{trouble}");
        }
    };
    trials.of::<Return>(90, input, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_an_order_that_is_taken_back_leaves_nothing() {
    let trials = Trials::new().await;
    let order = tokio::sync::Mutex::new(Uuid::nil());
    let input = async |_| {
        let bought = trials.bought().await;
        *order.lock().await = bought;
        bought
    };
    let check = async |_, outcome: Option<Outcome<()>>, trouble: &Trouble| {
        let order = *order.lock().await;
        let there = trials.is_whole(order, trouble);
        is_true(outcome.as_ref(), !there, trouble);
        // Nothing of it can fail for good: only who dies before it is decided leaves it alone.
        assert!(!there || trouble.death.is_some(), "{trouble}");
        assert_eq!(trials.rows(order), (i64::from(there), 0), "{trouble}");
    };
    trials.of::<TakeBack>(90, input, check).await;
}
