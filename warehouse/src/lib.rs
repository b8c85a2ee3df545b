//! Warehouse: how many of each item there are, and which order holds which.
//!
//! The pattern room: the other services have the same files in the same places.
//!
//! - [`config`]: what it needs to know;
//! - [`routes`]: HTTP in, HTTP out, one file per resource;
//! - [`ops`]: what it does, with no HTTP in it;
//! - [`models`]: its rows, and every query on them;
//! - [`schema`]: its tables.

pub mod config;
pub mod models;
pub mod ops;
pub mod routes;
pub mod schema;

use std::future::Future;
use std::process::ExitCode;

use diesel_migrations::embed_migrations;
use service::Db;
use service::boot::{self, Base, Site};
use service::cli::{self, Program};
use service::doctor::own::Needs;
use service::migrate::Schema;
use tokio::net::TcpListener;
use warranty_api::WarrantyClient;

pub use config::Config;

/// Its schema.
pub static MIGRATIONS: Schema = Schema::new(embed_migrations!());

/// What its routes work with.
#[derive(Clone, Debug)]
pub struct App {
    db: Db,
    warranty: WarrantyClient,
}

/// Serves until `shutdown` resolves.
///
/// # Errors
/// When the listener fails.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let base = Base::new(config.base);
    let peers = base.peers()?;
    let warranty = peers.client(&config.warranty, warranty_api::FINAL_CODES)?;
    let app = App { db: base.db.clone(), warranty: WarrantyClient::new(warranty) };
    let site = Site {
        routes: routes::table().with_state(app),
        migrations: &MIGRATIONS,
        deferred: None,
        sagas: None,
        page: None,
    };
    boot::serve(base, site, listener, shutdown).await
}

/// Carries out one command of its binary.
pub fn cli(args: &[String]) -> ExitCode {
    let program = Program {
        name: warehouse_api::NAME,
        read: Config::read,
        needs: |config| Needs { base: &config.base, peers: vec![&config.warranty], deferred: None },
        migrations: &MIGRATIONS,
        seed: models::Stock::seed,
        describe: || cli::describe(routes::table()),
        run: |config, listener, shutdown| Box::pin(run(config, listener, shutdown)),
    };
    cli::main(&program, args)
}
