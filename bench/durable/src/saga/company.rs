//! A system over HTTP, whose effects are rows of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use diesel::connection::SimpleConnection as _;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::sql_types::{Bool, Uuid as SqlUuid};
use diesel::{PgConnection, RunQueryDsl as _, sql_query};
use resilience::http::{CallError, Client, Context, Transport, TransportConfig};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::ground::Ground;

type Connections = Pool<ConnectionManager<PgConnection>>;

/// It holds things, each under an id, until they are given back.
#[derive(Clone, Debug)]
pub(crate) struct Company {
    client: Client,
    books: Connections,
    hang: Arc<Hang>,
}

/// Whether whoever asks it waits for ever, and how many do.
#[derive(Debug, Default)]
struct Hang {
    hangs: AtomicBool,
    waiting: AtomicU32,
}

impl Company {
    pub(crate) async fn new(ground: &Ground, name: &str) -> Self {
        let database = ground.database();
        database
            .connect()
            .batch_execute("CREATE TABLE effects (id UUID PRIMARY KEY, held BOOLEAN NOT NULL)")
            .expect("a table");
        let books = database.pool();
        let routes = Router::new()
            .route("/effects/{id}", post(take).delete(give_back))
            .with_state(books.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let transport = Transport::new(TransportConfig::default()).expect("a transport");
        let client = Client::builder(name, url.parse().expect("a URL")).build(&transport);
        Self { client, books, hang: Arc::default() }
    }

    pub(crate) async fn take(&self, cx: &Context, id: Uuid) -> Result<(), CallError> {
        if self.hang.hangs.load(Ordering::Relaxed) {
            self.hang.waiting.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
        let request = self.client.post(format!("/effects/{id}"));
        request.expect(StatusCode::CREATED).execute(cx).await
    }

    pub(crate) async fn give_back(&self, cx: &Context, id: Uuid) -> Result<(), CallError> {
        let request = self.client.delete(format!("/effects/{id}"));
        request.expect(StatusCode::NO_CONTENT).execute(cx).await
    }

    /// Whoever takes something waits for ever from now on, or never more.
    pub(crate) fn hang(&self, hangs: bool) {
        self.hang.waiting.store(0, Ordering::Relaxed);
        self.hang.hangs.store(hangs, Ordering::Relaxed);
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.hang.waiting.load(Ordering::Relaxed)
    }

    /// What is held.
    pub(crate) fn holds(&self) -> i64 {
        let mut conn = self.books.get().expect("a connection");
        let held = diesel::dsl::sql::<diesel::sql_types::BigInt>(
            "(SELECT count(*) FROM effects WHERE held)",
        );
        diesel::select(held).get_result(&mut conn).expect("a count")
    }
}

async fn take(State(books): State<Connections>, Path(id): Path<Uuid>) -> StatusCode {
    let taken = "INSERT INTO effects VALUES ($1, $2) ON CONFLICT DO NOTHING";
    write(books, taken, id, true, StatusCode::CREATED).await
}

async fn give_back(State(books): State<Connections>, Path(id): Path<Uuid>) -> StatusCode {
    let given = "INSERT INTO effects VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET held = false";
    write(books, given, id, false, StatusCode::NO_CONTENT).await
}

async fn write(
    books: Connections,
    statement: &'static str,
    id: Uuid,
    held: bool,
    well: StatusCode,
) -> StatusCode {
    let written = spawn_blocking(move || {
        let mut conn = books.get().ok()?;
        let write = sql_query(statement).bind::<SqlUuid, _>(id).bind::<Bool, _>(held);
        write.execute(&mut conn).ok()
    });
    match written.await {
        Ok(Some(_)) => well,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
