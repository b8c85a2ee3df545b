//! Order: who bought what, and the sagas that make it so in Warehouse and Warranty as well.
//!
//! The same rooms as in `warehouse`, and [`sagas`]: placing an order, taking one back and returning
//! one, each read from top to bottom with its undos beside its steps.

pub mod config;
pub mod models;
pub mod ops;
pub mod routes;
pub mod sagas;
pub mod schema;

use std::future::Future;
use std::process::ExitCode;

use anyhow::Context as _;
use diesel_migrations::embed_migrations;
use resilience::saga::{Sagas, Settings};
use service::Db;
use service::boot::{self, Base, Site};
use service::cli::{self, Program};
use service::doctor::own::Needs;
use service::migrate::Schema;
use tokio::net::TcpListener;
use warehouse_api::WarehouseClient;
use warranty_api::WarrantyClient;

pub use config::Config;

/// Its schema.
pub static MIGRATIONS: Schema = Schema::new(embed_migrations!()).with_sagas();

/// What its routes work with.
#[derive(Clone, Debug)]
pub struct App {
    db: Db,
    sagas: Sagas,
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
    let (warehouse, warranty) = (WarehouseClient::new(warehouse), WarrantyClient::new(warranty));
    // Longer than any call: it is the call that ends, and says how.
    let longest = config.warehouse.timeout.max(config.warranty.timeout);
    let runtime = sagas::all(base.deferred(&config.deferred), &warehouse, &warranty)
        // What answers with defects for a few minutes is no operator's affair yet.
        .saga_settings(Settings::new().timeout(longest * 2).attempts(200))
        .build()
        .context("AMQP_URL")?;
    let sagas = runtime.sagas();
    let app = App { db: base.db.clone(), sagas: sagas.clone(), warehouse, warranty };
    let site = Site {
        routes: routes::table().with_state(app),
        migrations: &MIGRATIONS,
        deferred: Some(runtime),
        sagas: Some(sagas),
        page: None,
    };
    boot::serve(base, site, listener, shutdown).await
}

/// Carries out one command of its binary.
pub fn cli(args: &[String]) -> ExitCode {
    let program = Program {
        name: order_api::NAME,
        read: Config::read,
        needs: |config| Needs {
            base: &config.base,
            peers: vec![&config.warehouse, &config.warranty],
            deferred: Some(&config.deferred),
        },
        migrations: &MIGRATIONS,
        // There is nothing to begin with: orders come from purchases.
        seed: |_| Ok(0),
        describe: || cli::describe(routes::table()),
        run: |config, listener, shutdown| Box::pin(run(config, listener, shutdown)),
    };
    cli::main(&program, args)
}
