//! A Warranty with a database of its own.

use backing::postgres::testing::TestDatabase;
use serde_json::{Value, json};
use service::testing::{Call, Client, TestServer, config, sql};
use uuid::Uuid;
use warranty::{Config, MIGRATIONS};

pub(crate) const WARRANTIES: &str = "/api/v1/warranty";

pub(crate) struct World {
    pub(crate) client: Client,
    /// Before the database: it ends first.
    pub(crate) server: TestServer,
    pub(crate) database: TestDatabase,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(variables: &[(&str, &str)]) -> Self {
        let database = TestDatabase::new("warranty", migrate);
        let server = serve(database.url(), variables).await;
        Self { client: server.client(), server, database }
    }

    /// Another process on the same database, as it were.
    pub(crate) async fn replica(&self) -> TestServer {
        serve(self.database.url(), &[]).await
    }

    pub(crate) fn number(&self, query: &str) -> i64 {
        sql::number(self.database.url(), query)
    }

    pub(crate) fn execute(&self, statements: &str) {
        sql::execute(self.database.url(), statements).expect("a valid statement");
    }

    /// Lets the warranty of an item have begun this long ago, in PostgreSQL's words.
    pub(crate) fn age(&self, item: Uuid, age: &str) {
        self.execute(&format!(
            "UPDATE warranty SET warranty_date = now() - interval '{age}' WHERE item_uid = '{item}'"
        ));
    }

    pub(crate) fn begin(&self, item: Uuid) -> Call {
        self.client.post(path(item))
    }

    pub(crate) fn close(&self, item: Uuid) -> Call {
        self.client.delete(path(item))
    }

    /// Makes it what it was, undoing the close of this name.
    pub(crate) fn restore(&self, before: &Value, close: Option<&str>) -> Call {
        let mut body = before.clone();
        body["closedBy"] = json!(close);
        let item = before["itemUid"].as_str().expect("a warranty");
        self.client.post(format!("{WARRANTIES}/{item}")).json(&body)
    }

    pub(crate) fn claim(&self, item: Uuid, reason: &str, available: i64) -> Call {
        let body = json!({"reason": reason, "availableCount": available});
        self.client.post(format!("{}/warranty", path(item))).json(&body)
    }

    /// What is decided on a claim.
    pub(crate) async fn decision(&self, item: Uuid, available: i64) -> String {
        let decided = self.claim(item, "broken", available).send().await.ok();
        decided["decision"].as_str().expect("a decision").to_owned()
    }

    pub(crate) async fn of(&self, item: Uuid) -> Value {
        self.client.get(path(item)).send().await.ok()
    }

    pub(crate) async fn status(&self, item: Uuid) -> String {
        self.of(item).await["status"].as_str().expect("a status").to_owned()
    }

    /// The id of an item whose warranty runs.
    pub(crate) async fn begun(&self) -> Uuid {
        let item = Uuid::new_v4();
        self.begin(item).send().await.no_content();
        item
    }

    /// The id of an item whose warranty was claimed on.
    pub(crate) async fn used(&self) -> Uuid {
        let item = self.begun().await;
        assert_eq!(self.decision(item, 1).await, "RETURN");
        item
    }
}

pub(crate) fn path(item: Uuid) -> String {
    format!("{WARRANTIES}/{item}")
}

pub(crate) fn migrate(url: &str) -> anyhow::Result<()> {
    service::migrate::up(url, &MIGRATIONS)
}

/// Times that a crowded machine keeps; tests of the real ones set them back.
const PATIENT: [(&str, &str); 2] = [("DB_TIMEOUT_MS", "15000"), ("REQUEST_BUDGET_MS", "20000")];

pub(crate) async fn serve(database: &str, variables: &[(&str, &str)]) -> TestServer {
    let config = configured(database, variables);
    TestServer::start(|listener, shutdown| warranty::run(config, listener, shutdown)).await
}

pub(crate) fn configured(database: &str, variables: &[(&str, &str)]) -> Config {
    config(Config::read, &[&PATIENT, &[("DATABASE_URL", database)][..], variables].concat())
}
