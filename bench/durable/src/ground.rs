//! What everything stands on.

use backing::rabbitmq::testing::{TestBroker, TestVhost};
pub(crate) use bench_ground::Database;
use bench_ground::Postgres;
use diesel_migrations::MigrationHarness as _;
use resilience::{deferred, saga};

pub(crate) struct Ground {
    postgres: Postgres,
    broker: TestBroker,
}

impl Ground {
    pub(crate) fn new() -> Self {
        Self { postgres: Postgres::start(), broker: TestBroker::dedicated() }
    }

    /// An empty one.
    pub(crate) fn database(&self) -> Database {
        self.postgres.database()
    }

    /// An empty ledger, in a database of its own.
    pub(crate) fn ledger(&self) -> Database {
        let database = self.database();
        let mut conn = database.connect();
        conn.run_pending_migrations(deferred::MIGRATIONS).expect("the schema");
        database
    }

    /// An empty journal, beside a ledger.
    pub(crate) fn journal(&self) -> Database {
        let ledger = self.ledger();
        let mut conn = ledger.connect();
        conn.run_pending_migrations(saga::MIGRATIONS).expect("the schema");
        ledger
    }

    pub(crate) fn vhost(&self) -> TestVhost {
        self.broker.vhost()
    }
}
