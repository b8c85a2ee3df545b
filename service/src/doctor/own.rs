//! What a service needs, looked at before it starts or beside it: with its own variables.

use std::io::ErrorKind;
use std::time::Duration;

use diesel::dsl::sql;
use diesel::sql_types::Text;
use diesel::{Connection, ConnectionError, PgConnection, RunQueryDsl};
use futures_util::future::join_all;
use http::StatusCode;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use url::Position;

use super::visit::{Credential, Visit};
use super::{Cause, Finding, LIMIT, POSTGRES, RABBITMQ};
use crate::access::{Callers, SERVICE_TOKENS};
use crate::config::BaseConfig;
use crate::db::with_connect_timeout;
use crate::deferred::DeferredConfig;
use crate::identity;
use crate::migrate::{self, Schema};
use crate::peer::PeerConfig;
use crate::probe::{Probe, reachable};

/// A database that takes longer to be looked at hangs.
const DATABASE: Duration = Duration::from_secs(6);

/// What a service of this configuration needs.
#[derive(Debug)]
pub struct Needs<'a> {
    /// What all services need.
    pub base: &'a BaseConfig,
    /// The services that it calls.
    pub peers: Vec<&'a PeerConfig>,
    /// How it defers calls, where it does.
    pub deferred: Option<&'a DeferredConfig>,
}

/// Looks at all of it.
pub async fn look(needs: &Needs<'_>, schema: &'static Schema) -> Vec<Finding> {
    let Needs { base, peers, deferred } = needs;
    let peers = join_all(peers.iter().map(async |peer| visit(base, peer).make().await));
    let url = base.database_url.as_str().to_owned();
    let (port, database, broker, keys, peers) = tokio::join!(
        port(base),
        database(base.name, url, schema, base.migrate),
        broker(deferred.and_then(DeferredConfig::amqp_url)),
        keys(base),
        peers
    );
    let mut findings =
        vec![Finding::ok(base.name, "its configuration can be read"), port, database];
    findings.extend(broker);
    findings.extend(keys);
    findings.extend(peers.into_iter().flatten());
    findings
}

fn visit(base: &BaseConfig, peer: &PeerConfig) -> Visit {
    let variable = format!("{}_URL", peer.name.to_ascii_uppercase());
    let tokens = base.access.service.as_ref();
    Visit {
        name: peer.name,
        // Whom a service calls is a service's.
        callers: Callers::Services,
        probe: Probe::new(peer.url.clone()),
        remedy: format!("{variable} says that it is there"),
        service: tokens.and_then(|tokens| Credential::first(tokens, SERVICE_TOKENS)),
        management: None,
        operator: false,
    }
}

/// The keys that users' tokens are signed by, where somebody publishes them.
async fn keys(base: &BaseConfig) -> Option<Finding> {
    let url = base.access.identity.as_ref()?.published()?;
    let mut host = url.clone();
    host.set_path("");
    let probe = Probe::new(host);
    let target = &url[Position::BeforePath..Position::AfterQuery];
    let why = match probe.get(target, None).await {
        Ok(heard) if heard.status != StatusCode::OK => format!("answers {}", heard.status.as_u16()),
        Ok(heard) => match identity::usable_keys(&heard.body) {
            0 => "has no key that can be used".to_owned(),
            count => {
                let said = format!("{probe} has {count} keys that users' tokens may be signed by");
                return Some(Finding::ok(base.name, said));
            }
        },
        Err(unheard) => format!("can't be asked: {unheard}"),
    };
    let said = format!("{probe} {why}: look at USER_JWKS_URL; until it has one, no user gets in");
    Some(Finding::error(base.name, said))
}

/// Whether it could listen there, or does.
async fn port(base: &BaseConfig) -> Finding {
    let (name, address) = (base.name, base.address);
    let Err(error) = TcpListener::bind(address).await else {
        return Finding::ok(name, format!("it can listen on {address}"));
    };
    if error.kind() != ErrorKind::AddrInUse {
        return Finding::error(name, format!("it can't listen on {address} (BIND, PORT): {error}"));
    }
    let heard = Probe::to(reachable(address)).get("/manage/health", None).await;
    match heard.ok().and_then(|heard| super::visit::whose(&heard)) {
        Some(found) if found == name => {
            Finding::ok(name, format!("{address} is taken by {name}: it runs already"))
        }
        Some(found) => Finding::error(
            name,
            format!("{address} is taken by {found}: PORT and BIND choose another"),
        ),
        None => Finding::error(
            name,
            format!("{address} is taken by somebody else: PORT and BIND choose another"),
        ),
    }
}

/// A service's database: whether it can be connected to, and has the schema. `migrates`: the next start
/// brings that up to date.
pub async fn database(
    name: &'static str,
    url: String,
    schema: &'static Schema,
    migrates: bool,
) -> Finding {
    const REMEDY: &str = "look at PostgreSQL and DATABASE_URL";
    match looked_at(move || compare(&url, schema), REMEDY).await {
        Ok((version, difference)) => compared(name, &version, &difference, migrates),
        Err(why) => Finding::error(name, format!("its database {why}")).because(Cause::Database),
    }
}

fn compared(
    name: &'static str,
    version: &str,
    difference: &migrate::Difference,
    migrates: bool,
) -> Finding {
    let database = format!("its database (PostgreSQL {version})");
    match *difference {
        migrate::Difference { missing: 0, unknown: 0 } => {
            Finding::ok(name, format!("{database} has its schema"))
        }
        migrate::Difference { missing: 0, unknown } => Finding::warning(
            name,
            format!(
                "{database} has {unknown} migrations of a newer build: this one is older than what ran"
            ),
        ),
        migrate::Difference { missing, .. } if migrates => Finding::warning(
            name,
            format!("{database} lacks {missing} migrations: its next start applies them"),
        ),
        migrate::Difference { missing, .. } => Finding::error(
            name,
            format!("{database} lacks {missing} migrations: run `{name} migrate`"),
        ),
    }
}

/// A PostgreSQL that many databases are in: whether it can be connected to.
pub async fn server(url: String) -> Finding {
    match looked_at(move || connect(&url), "its log says more").await {
        Ok((_, version)) => {
            Finding::ok(POSTGRES, format!("PostgreSQL {version} can be connected to"))
        }
        Err(why) => Finding::error(POSTGRES, format!("it {why}")).because(Cause::Database),
    }
}

/// What was found in a database, or why nothing was.
async fn looked_at<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, String> + Send + 'static,
    remedy: &str,
) -> Result<T, String> {
    match timeout(DATABASE, spawn_blocking(look)).await {
        Ok(Ok(looked)) => looked.map_err(|why| format!("can't be used: {why}; {remedy}")),
        Ok(Err(_)) => Err("could not be looked at: a defect".to_owned()),
        Err(_) => {
            let seconds = DATABASE.as_secs();
            Err(format!("doesn't answer within {seconds} s: it hangs, or is stopped"))
        }
    }
}

/// What libpq can't read it quotes, and that may be part of a password.
const UNREADABLE: &str =
    "libpq can't read its address: what stands for itself in a password is percent-encoded";

fn connect(url: &str) -> Result<(PgConnection, String), String> {
    let conn = PgConnection::establish(&with_connect_timeout(url));
    let mut conn = conn.map_err(|error| match error {
        ConnectionError::BadConnection(text) if !text.contains("invalid") => said(url, &text),
        _ => UNREADABLE.to_owned(),
    })?;
    let version = diesel::select(sql::<Text>("current_setting('server_version')"));
    let version: String = version.get_result(&mut conn).map_err(|e| said(url, &e.to_string()))?;
    let version = version.split(' ').next().unwrap_or_default().to_owned();
    Ok((conn, version))
}

fn compare(url: &str, schema: &Schema) -> Result<(String, migrate::Difference), String> {
    let (mut conn, version) = connect(url)?;
    let difference = migrate::compare(&mut conn, schema).map_err(|e| said(url, &e.to_string()))?;
    Ok((version, difference))
}

/// What a server has said, as one piece, without the password, which it isn't told in clear.
fn said(url: &str, text: &str) -> String {
    match password(url) {
        Some(password) if !password.is_empty() => text.trim().replace(password, "***"),
        _ => text.trim().to_owned(),
    }
}

/// As it is written.
fn password(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    user.split_once(':').map(|(_, password)| password)
}

/// The broker, where there is to be one.
pub async fn broker(address: Option<&str>) -> Option<Finding> {
    let reached = timeout(LIMIT, resilience::deferred::rabbitmq::reach(address?)).await;
    let why = match reached {
        Ok(Ok(())) => return Some(Finding::ok(RABBITMQ, "it can be connected to")),
        Ok(Err(why)) => format!("it can't be used: {why}; look at RabbitMQ and AMQP_URL"),
        Err(_) => "it takes connections and doesn't answer: it hangs, or is stopped".to_owned(),
    };
    Some(Finding::error(RABBITMQ, why).because(Cause::Broker))
}
