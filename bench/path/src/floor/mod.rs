//! What is possible: what Store answers, by the same SQL on the same four databases, in one process and
//! one handler, without a hop.
//!
//! It calls the services' own operations, so that the SQL is the same. It has as many connections to
//! each database as a service has, and as many threads for its requests as its services have. What is
//! left out is what hops take: HTTP between services, breakers, deadlines; logs and metrics; and what is
//! written down so that a crash between two databases leaves nothing half done.

mod effects;
mod reads;

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::{Connection as _, PgConnection};
use service::{Failure, Result};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// As many as a service has.
const CONNECTIONS: u32 = 8;

pub(crate) struct Floor {
    store: Source,
    order: Source,
    warehouse: Source,
    warranty: Source,
    /// As many as there are connections: nobody waits for one with a thread in hand.
    places: Semaphore,
}

struct Source(Pool<ConnectionManager<PgConnection>>);

impl Source {
    /// Of the database that this variable names.
    fn of(variable: &str) -> Self {
        let url = std::env::var(variable).expect("its address");
        let pool = Pool::builder().max_size(CONNECTIONS).test_on_check_out(false);
        Self(pool.build(ConnectionManager::new(url)).expect("a pool"))
    }

    fn ask<T>(&self, work: impl FnOnce(&mut PgConnection) -> Result<T>) -> Result<T> {
        work(&mut *self.0.get().map_err(Failure::internal)?)
    }

    fn transaction<T>(&self, work: impl FnOnce(&mut PgConnection) -> Result<T>) -> Result<T> {
        self.ask(|conn| conn.transaction(work))
    }
}

/// Serves until it is killed.
pub(crate) fn serve() {
    let floor = Arc::new(Floor {
        store: Source::of("STORE_DATABASE_URL"),
        order: Source::of("ORDER_DATABASE_URL"),
        warehouse: Source::of("WAREHOUSE_DATABASE_URL"),
        warranty: Source::of("WARRANTY_DATABASE_URL"),
        places: Semaphore::new(CONNECTIONS as usize),
    });
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).expect("a port");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("its port");
        let store = "/api/v1/store/{user}";
        let routes = Router::new()
            .route("/manage/health", get(reads::health))
            .route("/manage/health/ready", get(reads::health))
            .route(&format!("{store}/orders"), get(reads::list))
            .route(&format!("{store}/{{order}}"), get(reads::get))
            .route(&format!("{store}/purchase"), post(effects::purchase))
            .route(&format!("{store}/{{order}}/refund"), delete(effects::refund))
            .route(&format!("{store}/{{order}}/warranty"), post(effects::claim))
            .with_state(floor);
        axum::serve(listener, routes).await.expect("it serves");
    });
}

impl Floor {
    /// On a thread that may block, from the first statement to the last.
    async fn run<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T, StatusCode> {
        let floor = Arc::clone(&self);
        let _place = self.places.acquire().await;
        match tokio::task::spawn_blocking(move || work(&floor)).await {
            Ok(Ok(done)) => Ok(done),
            failed => {
                eprintln!("{:?}", failed.map(|done| done.err()));
                Err(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}
