//! Store in front of the systems that Order's tests have, with a network between all of them that
//! the test can break.

use backing::postgres::testing::TestDatabase;
use serde_json::{Value, json};
use service::testing::network::{Proxy, Rule};
use service::testing::{Call, Client, Response, config, sql};
use tokio::time::timeout;
use uuid::Uuid;

use crate::systems::{self, Party, uid};

pub(crate) use service::testing::PATIENT;

pub(crate) use crate::systems::{MODEL, SOON, STOCK, assert_blames, wish};

pub(crate) const STORE: &str = "/api/v1/store";

/// Times for tests in which somebody never answers; for Order as well.
pub(crate) const SHORT: &[(&str, &str)] = &[
    ("DB_TIMEOUT_MS", "15000"),
    ("REQUEST_BUDGET_MS", "5000"),
    ("ORDER_TIMEOUT_MS", "1000"),
    ("ORDER_WRITE_TIMEOUT_MS", "3500"),
    ("WAREHOUSE_TIMEOUT_MS", "1000"),
    ("WARRANTY_TIMEOUT_MS", "1000"),
    ("BREAKER_OPEN_MS", "300"),
];

pub(crate) struct World {
    pub(crate) client: Client,
    /// `Alex`, who buys.
    pub(crate) user: Uuid,
    pub(crate) store: Party,
    /// Order, Warehouse and Warranty.
    pub(crate) behind: systems::World,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(PATIENT).await
    }

    pub(crate) async fn with(variables: &[(&str, &str)]) -> Self {
        Self::named(store::config::NAME, order_api::NAME, variables).await
    }

    /// With a Store and an Order of other names, by which their metrics are told from those of
    /// other tests.
    pub(crate) async fn named(
        store_name: &'static str,
        order_name: &'static str,
        variables: &[(&str, &str)],
    ) -> Self {
        let own = systems::database("store", &store::MIGRATIONS);
        Self::build(own, store_name, order_name, variables).await
    }

    /// With Store's data in this database.
    pub(crate) async fn on(own: TestDatabase, variables: &[(&str, &str)]) -> Self {
        let own = std::future::ready(own);
        Self::build(own, store::config::NAME, order_api::NAME, variables).await
    }

    /// With a network between Store and its database that the test can break.
    pub(crate) async fn far_from_its_data() -> (Self, Proxy) {
        let own = systems::database("store", &store::MIGRATIONS).await;
        let (before, rest) = own.url().split_once('@').unwrap();
        let (upstream, database) = rest.split_once('/').unwrap();
        let proxy = Proxy::new(upstream);
        let url = format!("{before}@{}/{database}", proxy.address());
        let world = Self::on(own, &[PATIENT, &[("DATABASE_URL", &url)]].concat()).await;
        (world, proxy)
    }

    async fn build(
        own: impl Future<Output = TestDatabase>,
        store_name: &'static str,
        order_name: &'static str,
        variables: &[(&str, &str)],
    ) -> Self {
        let (own, mut behind) = tokio::join!(own, systems::World::named(order_name, variables));
        let peers = [
            ("ORDER_URL", behind.order.proxy.url()),
            ("WAREHOUSE_URL", behind.warehouse.proxy.url()),
            ("WARRANTY_URL", behind.warranty.proxy.url()),
        ];
        let peers = peers.each_ref().map(|(name, url)| (*name, url.as_str()));
        let store = Party::start(own.url(), |url| {
            let own = [&peers[..], &[("DATABASE_URL", url)], variables].concat();
            let mut config = config(store::Config::read, &own);
            config.base.name = store_name;
            |listener, end| store::run(config, listener, end)
        })
        .await;
        behind.databases.0.push(own);
        let mut world = Self { client: store.client.clone(), user: Uuid::nil(), store, behind };
        world.user = world.new_user("Alex");
        world
    }

    /// The id of a new user.
    pub(crate) fn new_user(&self, name: &str) -> Uuid {
        let user = Uuid::new_v4();
        let insert = format!("INSERT INTO users (name, user_uid) VALUES ('{name}', '{user}')");
        sql::execute(self.store.url(), &insert).unwrap();
        user
    }

    pub(crate) fn purchase_by(&self, user: Uuid, body: &Value) -> Call {
        self.client.post(format!("{STORE}/{user}/purchase")).json(body)
    }

    /// One [`MODEL`] for the user.
    pub(crate) fn purchase(&self) -> Call {
        self.purchase_by(self.user, &wish())
    }

    /// The id of an order that the user has bought.
    pub(crate) async fn bought(&self) -> Uuid {
        bought(&self.purchase().send().await)
    }

    pub(crate) fn get(&self, order: Uuid) -> Call {
        self.client.get(format!("{STORE}/{}/{order}", self.user))
    }

    pub(crate) fn list(&self) -> Call {
        self.client.get(format!("{STORE}/{}/orders", self.user))
    }

    pub(crate) fn refund(&self, order: Uuid) -> Call {
        self.client.delete(format!("{STORE}/{}/{order}/refund", self.user))
    }

    pub(crate) fn claim(&self, order: Uuid, reason: &str) -> Call {
        let target = format!("{STORE}/{}/{order}/warranty", self.user);
        self.client.post(target).json(&json!({"reason": reason}))
    }

    pub(crate) fn claims(&self, order: Uuid) -> Call {
        self.client.get(format!("{STORE}/{}/{order}/warranty", self.user))
    }

    /// Every route of an order.
    pub(crate) fn all_on(&self, user: Uuid, order: Uuid) -> [Call; 4] {
        let target = format!("{STORE}/{user}/{order}");
        [
            self.client.get(&target),
            self.client.delete(format!("{target}/refund")),
            self.client.post(format!("{target}/warranty")).json(&json!({"reason": "broken"})),
            self.client.get(format!("{target}/warranty")),
        ]
    }

    /// How many requests the other systems have seen.
    pub(crate) fn asked(&self) -> usize {
        let behind = &self.behind;
        [&behind.order, &behind.warehouse, &behind.warranty]
            .map(|p| p.proxy.count("*"))
            .iter()
            .sum()
    }

    /// The methods of the requests to other systems that name one of these ids in their target.
    pub(crate) fn asked_about(&self, ids: &[Uuid]) -> Vec<String> {
        let ids: Vec<_> = ids.iter().map(Uuid::to_string).collect();
        let behind = &self.behind;
        let seen = [&behind.warehouse, &behind.warranty, &behind.order].map(|p| p.proxy.seen());
        let about =
            seen.concat().into_iter().filter(|s| ids.iter().any(|id| s.target.contains(id)));
        about.map(|seen| seen.method).collect()
    }

    pub(crate) async fn breakers(&self, client: &Client) -> Vec<(String, String)> {
        let health = client.get("/manage/health").send().await.ok();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let found = health["components"]["dependencies"].as_array().unwrap().iter();
        found.map(|one| (text(&one["name"]), text(&one["state"]))).collect()
    }

    /// Nothing is left of any purchase, and nothing is shown of one.
    pub(crate) async fn nothing_was_bought(&self) {
        assert_eq!((self.behind.effects(), self.behind.left()), ((0, 0, 0), STOCK));
        let list = self.list().send().await;
        assert_eq!(list.header("x-total-count"), Some("0"));
        assert_eq!(list.ok(), json!([]));
    }
}

/// Waits until a request has met with this.
pub(crate) async fn met(rule: &Rule) {
    timeout(SOON, rule.until_hits(1)).await.expect("a request meets with it");
}

/// Waits until a request that met with this was carried out.
pub(crate) async fn served(rule: &Rule) {
    timeout(SOON, rule.until_served(1)).await.expect("a request is carried out");
}

/// The order of a purchase that must be 201.
#[track_caller]
pub(crate) fn bought(answer: &Response) -> Uuid {
    assert_eq!(answer.status, 201, "{answer:?}");
    uid(&answer.json()["orderUid"])
}
