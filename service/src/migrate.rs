//! Bringing a database's schema up to date, or back.

use crate::db::with_connect_timeout;
use diesel::connection::SimpleConnection;
use diesel::migration::{Migration, MigrationSource, Result as MigrationResult};
use diesel::pg::Pg;
use diesel::{Connection, PgConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use resilience::{deferred, saga};

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
