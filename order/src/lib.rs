//! Order: who bought what, and the two sagas that make it so in Warehouse and Warranty as well.
//!
//! The same rooms as in `warehouse`, and [`sagas`]: placing an order and returning one, each read
//! from top to bottom with its undos beside its steps.

pub mod config;
pub mod models;
pub mod ops;
pub mod routes;
pub mod sagas;
pub mod schema;

use std::future::Future;
use std::process::ExitCode;

use diesel_migrations::embed_migrations;
use resilience::rollback::Backlog;
use service::Db;
use service::boot::{self, Base, Site};
use service::cli::{self, Program};
use service::lifecycle::Lifecycle;
use service::migrate::Schema;
use tokio::net::TcpListener;
use warehouse_api::WarehouseClient;
use warranty_api::WarrantyClient;

pub use config::Config;

/// Its schema.
pub static MIGRATIONS: Schema = Schema::new(embed_migrations!());

/// What its routes work with.
#[derive(Clone, Debug)]
pub struct App {
    db: Db,
    lifecycle: Lifecycle,
    backlog: Backlog,
    warehouse: WarehouseClient,
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
    let warehouse = peers.client(&config.warehouse, warehouse_api::FINAL_CODES)?;
    let warranty = peers.client(&config.warranty, warranty_api::FINAL_CODES)?;
    let app = App {
        db: base.db.clone(),
        lifecycle: base.lifecycle.clone(),
        backlog: base.backlog.clone(),
        warehouse: WarehouseClient::new(warehouse),
        warranty: WarrantyClient::new(warranty),
    };
    let site =
        Site { routes: routes::table().with_state(app), migrations: &MIGRATIONS, deferred: None };
    boot::serve(base, site, listener, shutdown).await
}

/// Carries out one command of its binary.
pub fn cli(args: &[String]) -> ExitCode {
    let program = Program {
        name: order_api::NAME,
        read: Config::read,
        base: |config| &config.base,
        migrations: &MIGRATIONS,
        // There is nothing to begin with: orders come from purchases.
        seed: |_| Ok(0),
        describe: || cli::describe(routes::table()),
        run: |config, listener, shutdown| Box::pin(run(config, listener, shutdown)),
    };
    cli::main(&program, args)
}
