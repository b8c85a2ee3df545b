//! Store: the gateway on a user's behalf.
//!
//! The same rooms as in `warehouse`, but for an `api`: it is the edge. What it does is in
//!
//! - [`degrade`]: reads, with what is known of the others while they are away;
//! - [`purchase`] and [`refund`]: one remote step each, on ids minted here;
//! - [`claims`]: claims on a warranty.

pub mod claims;
pub mod config;
pub mod degrade;
pub mod models;
pub mod purchase;
pub mod refund;
pub mod routes;
pub mod schema;

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use diesel_migrations::embed_migrations;
use order_api::OrderClient;
use resilience::http::{CallError, ErrorKind};
use resilience::rollback::Backlog;
use service::boot::{self, Base, Site};
use service::cli::{self, Program};
use service::failure::code;
use service::migrate::Schema;
use service::{Db, Failure, Result};
use tokio::net::TcpListener;
use uuid::Uuid;
use warehouse_api::WarehouseClient;
use warranty_api::WarrantyClient;

pub use config::Config;
use degrade::Known;

/// Its schema.
pub static MIGRATIONS: Schema = Schema::new(embed_migrations!()).with_deferred();

/// 404: there is no such user.
pub const USER_NOT_FOUND: &str = "user_not_found";

/// What its routes work with.
#[derive(Clone, Debug)]
pub struct App {
    db: Db,
    backlog: Backlog,
    order: OrderClient,
    warehouse: WarehouseClient,
    warranty: WarrantyClient,
    known: Arc<Known>,
}

impl App {
    /// 404 unless there is such a user.
    async fn check_user(&self, user: Uuid) -> Result<()> {
        if self.db.run(move |conn| Ok(models::User::exists(conn, user)?)).await? {
            return Ok(());
        }
        Err(Failure::not_found(USER_NOT_FOUND, format!("there is no user {user}")))
    }
}

/// 503 `rolled_back` for a call that is known to have had no effect. A business answer stays what
/// it is, and so does time that was too short.
fn nothing_done(error: CallError) -> Failure {
    let message = match (error.kind(), error.refusal().and_then(|said| said.message.as_deref())) {
        // Order has said so itself.
        (ErrorKind::Downstream(_), Some(message)) => message.to_owned(),
        _ => format!("nothing was done: {error}"),
    };
    let failure = Failure::from(error);
    if failure.code() == code::DEPENDENCY_UNAVAILABLE {
        failure.recoded(code::ROLLED_BACK, message)
    } else {
        failure
    }
}

/// 503 with the system that is the cause.
fn with_cause(code: &'static str, message: String, error: &CallError) -> Failure {
    Failure::unavailable(code, message)
        .with_dependency(error.dependency())
        .with_retry_after(error.retry_after())
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
    let codes = order_api::FINAL_CODES;
    let reads = peers.class("read", &config.order, config.order.timeout, codes)?;
    let writes = peers.class("write", &config.order, config.order_writes, codes)?;
    let warehouse = peers.client(&config.warehouse, warehouse_api::FINAL_CODES)?;
    let warranty = peers.client(&config.warranty, warranty_api::FINAL_CODES)?;
    let app = App {
        db: base.db.clone(),
        backlog: base.backlog.clone(),
        order: OrderClient::new(reads, writes),
        warehouse: WarehouseClient::new(warehouse),
        warranty: WarrantyClient::new(warranty),
        known: Arc::default(),
    };
    let site =
        Site { routes: routes::table().with_state(app), migrations: &MIGRATIONS, defers: true };
    boot::serve(base, site, listener, shutdown).await
}

/// Carries out one command of its binary.
pub fn cli(args: &[String]) -> ExitCode {
    let program = Program {
        name: config::NAME,
        read: Config::read,
        base: |config| &config.base,
        migrations: &MIGRATIONS,
        seed: models::User::seed,
        describe: || cli::describe(routes::table()),
        run: |config, listener, shutdown| Box::pin(run(config, listener, shutdown)),
    };
    cli::main(&program, args)
}
