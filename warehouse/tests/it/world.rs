//! A Warehouse with a database of its own.

use backing::postgres::testing::TestDatabase;
use serde_json::{Value, json};
use service::testing::{Call, Client, TestServer, config, sql};
use uuid::Uuid;
use warehouse::{Config, MIGRATIONS};

pub(crate) const ITEMS: &str = "/api/v1/warehouse";

/// A model that exists in size `M`, and how many there are at first.
pub(crate) const MODEL: &str = "Lego 8070";
pub(crate) const STOCK: i64 = 10;

pub(crate) struct World {
    pub(crate) client: Client,
    /// Before the database: it ends first.
    pub(crate) server: TestServer,
    pub(crate) database: TestDatabase,
}

impl World {
    /// With [`STOCK`] items of [`MODEL`], and a Warranty that nobody serves.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(variables: &[(&str, &str)]) -> Self {
        let database = TestDatabase::new("warehouse", migrate);
        let server = serve(database.url(), variables).await;
        let world = Self { client: server.client(), server, database };
        world.stock(MODEL, "M", STOCK);
        world
    }

    /// Another process on the same database, as it were.
    pub(crate) async fn replica(&self) -> TestServer {
        serve(self.database.url(), &[]).await
    }

    /// Sets how many there are.
    pub(crate) fn stock(&self, model: &str, size: &str, count: i64) {
        self.execute(&format!(
            "INSERT INTO items (model, size, available_count) VALUES ('{model}', '{size}', {count})
             ON CONFLICT (model, size) DO UPDATE SET available_count = {count}"
        ));
    }

    /// How many of [`MODEL`] in size `M` are left.
    pub(crate) fn left(&self) -> i64 {
        let rows = format!("items WHERE model = '{MODEL}' AND size = 'M'");
        self.number(&format!("SELECT available_count FROM {rows}"))
    }

    /// How many items orders hold, or held.
    pub(crate) fn taken(&self) -> i64 {
        self.number("SELECT count(*) FROM order_item")
    }

    pub(crate) fn number(&self, query: &str) -> i64 {
        sql::number(self.database.url(), query)
    }

    pub(crate) fn execute(&self, statements: &str) {
        sql::execute(self.database.url(), statements).expect("a valid statement");
    }

    pub(crate) fn take(&self, body: &Value) -> Call {
        self.client.post(ITEMS).json(body)
    }

    pub(crate) fn get(&self, item: Uuid) -> Call {
        self.client.get(path(item))
    }

    pub(crate) fn give_back(&self, item: Uuid) -> Call {
        self.client.delete(path(item))
    }

    /// The id of an item that is taken.
    pub(crate) async fn taken_item(&self) -> Uuid {
        let item = Uuid::new_v4();
        self.take(&wish(item)).send().await.ok();
        item
    }
}

pub(crate) fn path(item: Uuid) -> String {
    format!("{ITEMS}/{item}")
}

/// A body that takes one [`MODEL`] under this id, for an order of its own.
pub(crate) fn wish(item: Uuid) -> Value {
    json!({"orderUid": item, "model": MODEL, "size": "M", "orderItemUid": item})
}

pub(crate) fn migrate(url: &str) -> anyhow::Result<()> {
    service::migrate::up(url, &MIGRATIONS)
}

/// Times that a crowded machine keeps; tests of the real ones set them back.
const PATIENT: [(&str, &str); 2] = [("DB_TIMEOUT_MS", "15000"), ("REQUEST_BUDGET_MS", "20000")];

pub(crate) async fn serve(database: &str, variables: &[(&str, &str)]) -> TestServer {
    let config = configured(database, variables);
    TestServer::start(|listener, shutdown| warehouse::run(config, listener, shutdown)).await
}

pub(crate) fn configured(database: &str, variables: &[(&str, &str)]) -> Config {
    // Port 9 (discard) has no listener: a Warranty that is down.
    let base = [("DATABASE_URL", database), ("WARRANTY_URL", "http://127.0.0.1:9")];
    config(Config::read, &[&PATIENT, &base[..], variables].concat())
}
