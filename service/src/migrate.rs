//! Bringing a database's schema up to date, or back.

use std::collections::BTreeSet;

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::migration::{Migration, MigrationSource, Result as MigrationResult};
use diesel::pg::Pg;
use diesel::sql_types::{Bool, Text};
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use resilience::{deferred, saga};

use crate::db::with_connect_timeout;

/// What the plumbing keeps in each service's database: idempotency keys and tombstones.
const PLUMBING: EmbeddedMigrations = embed_migrations!("migrations");

/// Two replicas that start at once must not both migrate. The number is arbitrary, and ours.
const LOCK: i64 = 0x7265_7369_6c69;

/// The schema of a service: its own migrations with those of the plumbing, as one source. A version
/// is unique over all of them.
pub struct Schema {
    own: EmbeddedMigrations,
    defers: bool,
    sagas: bool,
}

impl Schema {
    /// Its own tables, and those of the plumbing.
    pub const fn new(own: EmbeddedMigrations) -> Self {
        Self { own, defers: false, sagas: false }
    }

    /// With the ledger of deferred calls.
    #[must_use]
    pub const fn with_deferred(self) -> Self {
        Self { defers: true, ..self }
    }

    /// With the journal of sagas, which stands beside the ledger of deferred calls.
    #[must_use]
    pub const fn with_sagas(self) -> Self {
        Self { sagas: true, ..self.with_deferred() }
    }
}

impl MigrationSource<Pg> for &Schema {
    fn migrations(&self) -> MigrationResult<Vec<Box<dyn Migration<Pg>>>> {
        let mut all = MigrationSource::<Pg>::migrations(&PLUMBING)?;
        if self.defers {
            all.extend(MigrationSource::<Pg>::migrations(&deferred::MIGRATIONS)?);
        }
        if self.sagas {
            all.extend(MigrationSource::<Pg>::migrations(&saga::MIGRATIONS)?);
        }
        all.extend(MigrationSource::<Pg>::migrations(&self.own)?);
        Ok(all)
    }
}

/// Applies what is missing. Does nothing on a database that is up to date.
///
/// # Errors
/// When the database can't be reached or refuses a migration.
pub fn up(url: &str, schema: &Schema) -> anyhow::Result<()> {
    locked(url, |conn| {
        let applied = conn.run_pending_migrations(schema).map_err(|e| anyhow::anyhow!(e))?;
        for version in applied {
            tracing::info!(%version, "migrated");
        }
        Ok(())
    })
}

/// How a database's schema compares to the one that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Migrations that are still to be applied.
    pub missing: usize,
    /// Migrations that a newer build has applied.
    pub unknown: usize,
}

/// Compares, and changes nothing: neither is the table of migrations made, nor is anybody waited for.
///
/// # Errors
/// When the database refuses.
pub fn compare(conn: &mut PgConnection, schema: &Schema) -> anyhow::Result<Difference> {
    let wanted = schema.migrations().map_err(|e| anyhow::anyhow!(e))?;
    let wanted: BTreeSet<String> =
        wanted.iter().map(|migration| migration.name().version().to_string()).collect();
    let is_there = sql::<Bool>("to_regclass('__diesel_schema_migrations') IS NOT NULL");
    let applied: Vec<String> = if diesel::select(is_there).get_result(conn)? {
        sql_query("SELECT version FROM __diesel_schema_migrations").load::<Applied>(conn)?
    } else {
        Vec::new()
    }
    .into_iter()
    .map(|applied| applied.version)
    .collect();
    let known = applied.iter().filter(|version| wanted.contains(*version)).count();
    Ok(Difference { missing: wanted.len() - known, unknown: applied.len() - known })
}

#[derive(QueryableByName)]
struct Applied {
    #[diesel(sql_type = Text)]
    version: String,
}

/// Takes everything back, data included.
///
/// # Errors
/// When the database can't be reached or refuses.
pub fn down(url: &str, schema: &Schema) -> anyhow::Result<()> {
    locked(url, |conn| {
        conn.revert_all_migrations(schema).map_err(|e| anyhow::anyhow!(e))?;
        Ok(())
    })
}

fn locked<T>(
    url: &str,
    work: impl FnOnce(&mut PgConnection) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut conn = PgConnection::establish(&with_connect_timeout(url))?;
    // Released with the connection, also when this process dies.
    // A holder that hangs is an error here, not a start that waits for good.
    conn.batch_execute(&format!("SET lock_timeout = '10s'; SELECT pg_advisory_lock({LOCK})"))?;
    work(&mut conn)
}
