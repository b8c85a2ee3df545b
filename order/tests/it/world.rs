//! Order with a Warehouse and a Warranty, each with a database of its own, and a network between
//! them that the test can break.

use std::future::Future;
use std::time::Duration;

use backing::postgres::testing::TestDatabase;
use serde_json::{Value, json};
use service::cli::Shutdown;
use service::migrate::Schema;
use service::testing::network::{HttpProxy, Rule};
use service::testing::{Call, Client, Response, TestServer, assert_envelope, config, sql, until};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use uuid::Uuid;

pub(crate) const ORDERS: &str = "/api/v1/orders";

/// What most orders are for, in size `M`, and how many there are at first.
pub(crate) const MODEL: &str = "Lego 8070";
pub(crate) const STOCK: i64 = 10;

/// Bounds every wait for something that happens in the background.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Times that a crowded machine keeps.
pub(crate) const PATIENT: &[(&str, &str)] = &[
    ("DB_TIMEOUT_MS", "15000"),
    ("REQUEST_BUDGET_MS", "20000"),
    ("WAREHOUSE_TIMEOUT_MS", "8000"),
    ("WARRANTY_TIMEOUT_MS", "8000"),
    // A breaker that opened on the way closes before the test's patience ends.
    ("BREAKER_OPEN_MS", "300"),
];

/// Times for tests in which somebody never answers.
pub(crate) const SHORT: &[(&str, &str)] = &[
    ("DB_TIMEOUT_MS", "15000"),
    ("REQUEST_BUDGET_MS", "5000"),
    ("WAREHOUSE_TIMEOUT_MS", "1000"),
    ("WARRANTY_TIMEOUT_MS", "1000"),
    ("BREAKER_OPEN_MS", "300"),
];

/// One of the services, and how the others get to it.
pub(crate) struct Party {
    pub(crate) client: Client,
    pub(crate) proxy: HttpProxy,
    pub(crate) server: TestServer,
    pub(crate) database_url: String,
}

/// Databases that are dropped all at once: one takes longer than most tests.
pub(crate) struct Databases(pub(crate) Vec<TestDatabase>);

impl Drop for Databases {
    fn drop(&mut self) {
        std::thread::scope(|scope| {
            for database in self.0.drain(..) {
                scope.spawn(move || drop(database));
            }
        });
    }
}

/// A database of the process's cluster.
pub(crate) async fn database(name: &'static str, migrations: &'static Schema) -> TestDatabase {
    let made = move || TestDatabase::new(name, |url| service::migrate::up(url, migrations));
    spawn_blocking(made).await.unwrap()
}

impl Party {
    /// A service with this database.
    pub(crate) async fn start<F, Fut>(url: &str, run: impl FnOnce(&str) -> F) -> Self
    where
        F: FnOnce(TcpListener, Shutdown) -> Fut,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let server = TestServer::start(run(url)).await;
        let proxy = HttpProxy::new(server.url());
        Self { client: server.client(), proxy, server, database_url: url.to_owned() }
    }

    pub(crate) fn url(&self) -> &str {
        &self.database_url
    }

    pub(crate) fn number(&self, expression: &str) -> i64 {
        sql::number(self.url(), expression)
    }

    pub(crate) fn execute(&self, statements: &str) {
        sql::execute(self.url(), statements).unwrap();
    }
}

pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) order: Party,
    pub(crate) warehouse: Party,
    pub(crate) warranty: Party,
    /// Last: those who use them end first.
    #[allow(dead_code, reason = "it is there for its end")]
    pub(crate) databases: Databases,
}

impl World {
    /// With [`STOCK`] items of [`MODEL`] in size `M`.
    pub(crate) async fn start() -> Self {
        Self::with(PATIENT).await
    }

    pub(crate) async fn with(variables: &[(&str, &str)]) -> Self {
        Self::named(order_api::NAME, variables).await
    }

    /// With an Order of another name, by which its metrics are told from those of other tests.
    pub(crate) async fn named(name: &'static str, variables: &[(&str, &str)]) -> Self {
        Self::build(database("order", &order::MIGRATIONS), name, variables).await
    }

    /// With Order's data in this database.
    pub(crate) async fn on(own: TestDatabase, variables: &[(&str, &str)]) -> Self {
        Self::build(std::future::ready(own), order_api::NAME, variables).await
    }

    async fn build(
        own: impl Future<Output = TestDatabase>,
        name: &'static str,
        variables: &[(&str, &str)],
    ) -> Self {
        let (own, items, warranties) = tokio::join!(
            own,
            database("warehouse", &warehouse::MIGRATIONS),
            database("warranty", &warranty::MIGRATIONS),
        );
        let warranty = Party::start(warranties.url(), |url| {
            let own = [PATIENT, &[("DATABASE_URL", url)]].concat();
            let config = config(warranty::Config::read, &own);
            |listener, end| warranty::run(config, listener, end)
        })
        .await;
        let warranty_url = warranty.proxy.url();
        let warehouse = Party::start(items.url(), |url| {
            let own = [("DATABASE_URL", url), ("WARRANTY_URL", warranty_url.as_str())];
            let config = config(warehouse::Config::read, &[PATIENT, &own].concat());
            |listener, end| warehouse::run(config, listener, end)
        })
        .await;
        let warehouse_url = warehouse.proxy.url();
        let order = Party::start(own.url(), |url| {
            let peers = [("WAREHOUSE_URL", &*warehouse_url), ("WARRANTY_URL", &*warranty_url)];
            let own = [variables, &peers, &[("DATABASE_URL", url)]].concat();
            let mut config = config(order::Config::read, &own);
            config.base.name = name;
            |listener, end| order::run(config, listener, end)
        })
        .await;
        let databases = Databases(vec![own, items, warranties]);
        let world = Self { client: order.client.clone(), order, warehouse, warranty, databases };
        world.stock("M", STOCK);
        world
    }

    /// Another process on the same databases, as it were.
    pub(crate) async fn replica(&self) -> TestServer {
        let (warehouse, warranty) = (self.warehouse.proxy.url(), self.warranty.proxy.url());
        let own = [
            ("WAREHOUSE_URL", warehouse.as_str()),
            ("WARRANTY_URL", &warranty),
            ("DATABASE_URL", self.order.url()),
        ];
        let config = config(order::Config::read, &[PATIENT, &own].concat());
        TestServer::start(|listener, end| order::run(config, listener, end)).await
    }

    /// Sets how many of [`MODEL`] there are in this size.
    pub(crate) fn stock(&self, size: &str, count: i64) {
        self.warehouse.execute(&format!(
            "INSERT INTO items (model, size, available_count) VALUES ('{MODEL}', '{size}', {count})
             ON CONFLICT (model, size) DO UPDATE SET available_count = {count}"
        ));
    }

    /// How many of [`MODEL`] in size `M` are left.
    pub(crate) fn left(&self) -> i64 {
        self.warehouse.number("SELECT available_count FROM items WHERE size = 'M'")
    }

    /// Orders, items that are out, and warranties that run: all three effects of a purchase.
    pub(crate) fn effects(&self) -> (i64, i64, i64) {
        (
            self.order.number("SELECT count(*) FROM orders WHERE status = 'PAID'"),
            self.warehouse.number("SELECT count(*) FROM order_item WHERE NOT canceled"),
            self.warranty
                .number("SELECT count(*) FROM warranty WHERE status <> 'REMOVED_FROM_WARRANTY'"),
        )
    }

    /// Sagas that have not ended.
    pub(crate) fn open_sagas(&self) -> i64 {
        self.order.number("SELECT count(*) FROM saga WHERE ended_at IS NULL")
    }

    /// Waits until nothing is left of anything that was begun.
    pub(crate) async fn is_as_before(&self) {
        until(SOON, "everything is as it was", async || {
            (self.effects() == (0, 0, 0) && self.left() == STOCK).then_some(())
        })
        .await;
    }

    pub(crate) fn place(&self, user: Uuid, body: &Value) -> Call {
        self.client.post(format!("{ORDERS}/{user}")).json(body)
    }

    /// The id of an order that this user has placed.
    pub(crate) async fn placed(&self, user: Uuid) -> Uuid {
        uid(&self.place(user, &wish()).send().await.ok()["orderUid"])
    }

    pub(crate) fn get(&self, user: Uuid, order: Uuid) -> Call {
        self.client.get(format!("{ORDERS}/{user}/{order}"))
    }

    pub(crate) fn list(&self, user: Uuid) -> Call {
        self.client.get(format!("{ORDERS}/{user}"))
    }

    pub(crate) fn give_back(&self, order: Uuid) -> Call {
        self.client.delete(format!("{ORDERS}/{order}"))
    }

    pub(crate) fn claim(&self, order: Uuid, reason: &str) -> Call {
        self.client.post(format!("{ORDERS}/{order}/warranty")).json(&json!({"reason": reason}))
    }

    pub(crate) async fn item_of(&self, user: Uuid, order: Uuid) -> Uuid {
        uid(&self.get(user, order).send().await.ok()["itemUid"])
    }

    /// All there is to know about the warranty of an item.
    pub(crate) async fn warranty_of(&self, item: Uuid) -> Value {
        self.warranty.client.get(format!("/api/v1/warranty/{item}")).send().await.ok()
    }
}

/// Waits until a request that was held has gone through after all.
pub(crate) async fn served(held: &Rule) {
    timeout(SOON, held.until_served(1)).await.expect("it goes through after all");
}

/// A body that orders one [`MODEL`].
pub(crate) fn wish() -> Value {
    json!({"model": MODEL, "size": "M"})
}

/// The same under an id of the caller's.
pub(crate) fn wish_as(order: Uuid) -> Value {
    json!({"model": MODEL, "size": "M", "orderUid": order})
}

pub(crate) fn uid(value: &Value) -> Uuid {
    value.as_str().unwrap_or_else(|| panic!("{value} is no id")).parse().unwrap()
}

/// A 503 that another system is the cause of.
#[track_caller]
pub(crate) fn assert_blames(answer: &Response, code: &str, dependency: &str) {
    assert_envelope(answer, 503, code);
    assert_eq!(answer.header("x-failed-dependency"), Some(dependency), "{answer:?}");
    assert_eq!(answer.json()["dependency"], dependency, "{answer:?}");
}
