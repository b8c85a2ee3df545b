//! Store: the gateway on a user's behalf.
//!
//! The same rooms as in `warehouse`, but for an `api`: it is the edge. What it does is in
//!
//! - [`degrade`]: reads, with what is known of the others while they are away;
//! - [`purchase`] and [`refund`]: one remote step each, on ids minted here;
//! - [`claims`]: claims on a warranty, decided now or later;
//! - [`admission`]: how much of all that is done at a time, and for one user;
//! - [`dashboard`]: the page that shows operators what happens in all four services.
//!
//! What can't be done at once is a deferred call in Store's own database: a claim that waits, and the
//! undo of a purchase whose outcome is not known.

pub mod admission;
pub mod claims;
pub mod config;
pub mod dashboard;
pub mod degrade;
pub mod models;
pub mod purchase;
pub mod refund;
pub mod routes;
pub mod schema;

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use diesel_migrations::embed_migrations;
use order_api::OrderClient;
use resilience::deferred::Deferred;
use resilience::http::{CallError, ErrorKind};
use service::boot::{self, Base, Site};
use service::cli::{self, Program};
use service::doctor::own::Needs;
use service::failure::code;
use service::migrate::Schema;
use service::{Db, Failure, Result};
use tokio::net::TcpListener;
use uuid::Uuid;
use warehouse_api::WarehouseClient;
use warranty_api::WarrantyClient;

use admission::Admission;
use claims::Claims;
pub use config::Config;
use degrade::Known;
use purchase::UndoPurchase;

/// Its schema.
pub static MIGRATIONS: Schema = Schema::new(embed_migrations!()).with_deferred();

/// 404: there is no such user.
pub const USER_NOT_FOUND: &str = "user_not_found";

/// What its routes work with.
#[derive(Debug)]
pub struct App {
    db: Db,
    deferred: Deferred,
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
    let admission = Admission::new(&config.admission, &base)?;
    let peers = base.peers()?;
    let codes = order_api::FINAL_CODES;
    let reads = peers.class("read", &config.order, config.order.timeout, codes)?;
    let writes = peers.class("write", &config.order, config.order_writes, codes)?;
    let warehouse = peers.client(&config.warehouse, warehouse_api::FINAL_CODES)?;
    let warranty = peers.client(&config.warranty, warranty_api::FINAL_CODES)?;
    let (order, known) = (OrderClient::new(reads, writes), Arc::<Known>::default());
    let later = &config.deferred;
    let runtime = base
        .deferred(later)
        .handler(
            Claims::new(order.clone(), Arc::clone(&known)),
            Claims::settings().breaker(base.kind_breaker::<Claims>(later, claims::TIMEOUT)?),
        )
        .handler(
            UndoPurchase(order.clone()),
            UndoPurchase::settings()
                .breaker(base.kind_breaker::<UndoPurchase>(later, claims::TIMEOUT)?),
        )
        .build()
        .context("AMQP_URL")?;
    let app = Arc::new(App {
        db: base.db.clone(),
        deferred: runtime.handle(),
        order,
        warehouse: WarehouseClient::new(warehouse),
        warranty: WarrantyClient::new(warranty),
        known,
    });
    let others = [&config.order, &config.warehouse, &config.warranty];
    let page = dashboard::page(&base, &app, others)?;
    let site = Site {
        routes: routes::served(admission).with_state(app),
        migrations: &MIGRATIONS,
        deferred: Some(runtime),
        sagas: None,
        page: Some(page),
    };
    boot::serve(base, site, listener, shutdown).await
}

/// Carries out one command of its binary.
pub fn cli(args: &[String]) -> ExitCode {
    let program = Program {
        name: config::NAME,
        read: Config::read,
        needs: |config| Needs {
            base: &config.base,
            peers: vec![&config.order, &config.warehouse, &config.warranty],
            deferred: Some(&config.deferred),
        },
        migrations: &MIGRATIONS,
        seed: models::User::seed,
        describe: || cli::describe(routes::table()),
        run: |config, listener, shutdown| Box::pin(run(config, listener, shutdown)),
    };
    cli::main(&program, args)
}
