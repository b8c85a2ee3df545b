//! This machine: what runs, and what a start would meet.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use backing::Error;
use backing::postgres::Cluster;
use backing::rabbitmq::Node;
use futures_util::future::join_all;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use service::doctor::visit::Credential;
use service::doctor::{Cause, Finding, own, without_news};
use service::migrate::Schema;
use service::probe::Probe;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use url::Url;

use super::{all, visit};
use crate::config::{Broker, Config};
use crate::control::{self, Answer, Request};
use crate::names::{Name, Service};
use crate::parts::check_port;
use crate::state::{self, Paths};
use crate::status::{PartState, PartStatus, Status};
use crate::tokens::{self, Kind};

const LAUNCHER: &str = "launcher";

/// The running launcher answers at once.
const ANSWER: Duration = Duration::from_secs(2);

/// Bytes that a database and logs should find: below the first somebody should know, below the second
/// PostgreSQL is about to stop.
const ROOM: u64 = 2 << 30;
const NO_ROOM: u64 = 256 << 20;

pub(super) async fn look() -> Vec<Finding> {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => return vec![Finding::error(LAUNCHER, format!("{error:#}"))],
    };
    let paths = Paths::new(config.folder.clone());
    let asked = paths.clone();
    let status = timeout(ANSWER, spawn_blocking(move || control::ask(&asked, &Request::Status)));
    let folder = paths.folder().display();
    let mut findings = match status.await {
        Ok(Ok(Ok(Some(Answer::Status(status))))) => {
            let mut findings = vec![Finding::ok(LAUNCHER, format!("it runs, in {folder}"))];
            findings.extend(running(&config, &paths, &status).await);
            findings
        }
        Ok(Ok(Ok(None))) => {
            let said = format!("it does not run in {folder}; cargo run starts everything");
            let mut findings = vec![Finding::ok(LAUNCHER, said)];
            findings.extend(stopped(&config, &paths).await);
            findings
        }
        Ok(Ok(Ok(Some(_))) | Err(_)) => {
            vec![Finding::error(LAUNCHER, format!("it answered something else in {folder}"))]
        }
        Ok(Ok(Err(error))) => vec![Finding::error(LAUNCHER, format!("{error:#}"))],
        Err(_) => vec![Finding::error(
            LAUNCHER,
            format!(
                "it doesn't answer within {} s: it hangs, or is stopped; kill it (its pid is in {folder}/lock), \
                 and start again",
                ANSWER.as_secs()
            ),
        )],
    };
    findings.extend(files(&paths));
    findings
}

/// What the launcher runs.
async fn running(config: &Config, paths: &Paths, status: &Status) -> Vec<Finding> {
    let part = |name: Name| status.parts.iter().find(|part| part.name == name);
    let [token, management] = [Kind::Service, Kind::Management].map(|kind| {
        let token = tokens::minted(kind, paths).ok().flatten()?;
        Some(Credential::new(&token, kind.file(paths).display().to_string()))
    });
    let visits = Service::ALL.into_iter().filter_map(|service| {
        let part = part(service.name()).filter(|part| part.state == PartState::Running)?;
        let probe = Probe::new(Url::parse(part.url.as_deref()?).ok()?);
        let (name, log) = (service.name(), part.log.as_deref().unwrap_or(Path::new("its log")));
        let remedy = format!(
            "see {}, and start it anew: cargo run -- stop {name} --kill, start {name}",
            log.display()
        );
        Some(visit(service, probe, remedy, token.clone(), management.clone()))
    });
    let databases = Service::ALL.into_iter().filter_map(|service| {
        let url = part(service.name())?.database.clone()?;
        Some((service, url))
    });
    let (servers, databases, services) = tokio::join!(
        servers(config, status),
        join_all(databases.map(|(service, url)| database(service, url))),
        all(visits),
    );
    let mut findings = servers;
    let databases = without_news(databases, &findings);
    let mut known = findings.clone();
    known.extend(databases.iter().cloned());
    let down = status.parts.iter().filter(|part| part.state == PartState::Stopped);
    findings.extend(down.filter(|part| !is_server(part.name)).map(down_part));
    findings.extend(databases);
    findings.extend(without_news(services, &known));
    findings
}

/// PostgreSQL and RabbitMQ, as far as they are the launcher's, or given by an address.
async fn servers(config: &Config, status: &Status) -> Vec<Finding> {
    let part = |name: Name| status.parts.iter().find(|part| part.name == name);
    let postgres = async {
        let part = part(Name::Postgres)?;
        match (part.state, &part.url) {
            (PartState::Running, Some(url)) => Some(own::server(url.clone()).await),
            (PartState::Stopped, _) => Some(down_part(part).because(Cause::Database)),
            _ => None,
        }
    };
    let rabbitmq = async {
        let part = part(Name::Rabbitmq)?;
        match (part.state, &part.url, &config.broker) {
            (PartState::Stopped, _, _) => Some(down_part(part).because(Cause::Broker)),
            (PartState::Running, Some(url), _) | (_, _, Broker::Given(url)) => {
                own::broker(Some(url)).await
            }
            _ => Some(Finding::ok(
                Name::Rabbitmq.as_str(),
                "absent: deferred calls run from the databases alone",
            )),
        }
    };
    let (postgres, rabbitmq) = tokio::join!(postgres, rabbitmq);
    postgres.into_iter().chain(rabbitmq).collect()
}

fn is_server(name: Name) -> bool {
    matches!(name, Name::Postgres | Name::Rabbitmq)
}

/// A part that is down, and what its start would meet.
fn down_part(part: &PartStatus) -> Finding {
    let name = part.name;
    let port = part.url.as_deref().and_then(|url| Url::parse(url).ok()?.port());
    match port.map(|port| check_port(name, port)) {
        Some(Err(error)) => {
            Finding::error(name.as_str(), format!("it is not running, and {error}"))
        }
        _ => Finding::error(
            name.as_str(),
            format!("it is not running; start it with: cargo run -- start {name}"),
        ),
    }
}

fn schema(service: Service) -> &'static Schema {
    match service {
        Service::Store => &store::MIGRATIONS,
        Service::Order => &order::MIGRATIONS,
        Service::Warehouse => &warehouse::MIGRATIONS,
        Service::Warranty => &warranty::MIGRATIONS,
    }
}

/// The launcher migrates at each start.
async fn database(service: Service, url: String) -> Finding {
    own::database(service.name().as_str(), url, schema(service), true).await
}

/// What a start would meet.
async fn stopped(config: &Config, paths: &Paths) -> Vec<Finding> {
    let left = state::running(paths);
    let mut findings: Vec<Finding> = left
        .iter()
        .map(|process| {
            Finding::warning(
                process.name.as_str(),
                format!(
                    "pid {} is left by a launcher that was killed: the next start ends it",
                    process.pid
                ),
            )
        })
        .collect();
    let ports = Service::ALL.map(Service::name).into_iter().zip(config.ports);
    let servers = [(Name::Postgres, config.postgres_port), (Name::Rabbitmq, config.rabbitmq_port)];
    let servers = servers.into_iter().filter_map(|(name, port)| Some((name, port?)));
    for (name, port) in ports.chain(servers) {
        // What is left gives its port back.
        if port == 0 || left.iter().any(|process| process.name == name) {
            continue;
        }
        findings.push(match check_port(name, port) {
            Ok(()) => Finding::ok(name.as_str(), format!("its port {port} is free")),
            Err(error) => Finding::error(name.as_str(), error.to_string()),
        });
    }
    match &config.databases {
        Some(urls) => {
            let databases = Service::ALL.into_iter().zip(urls);
            let databases = databases.map(|(service, url)| database(service, url.clone()));
            findings.extend(join_all(databases).await);
        }
        None => findings.push(programs(Name::Postgres, Cluster::check(&paths.cluster()))),
    }
    findings.extend(match &config.broker {
        Broker::Private => Some(programs(Name::Rabbitmq, Node::check(&paths.node()))),
        Broker::Given(url) => own::broker(Some(url)).await,
        Broker::Unwanted => None,
    });
    findings
}

fn programs(name: Name, found: Result<std::path::PathBuf, Error>) -> Finding {
    let thing = name.as_str();
    match found {
        Ok(folder) => Finding::ok(thing, format!("its programs are in {}", folder.display())),
        Err(error @ Error::NotInstalled(_)) if name == Name::Rabbitmq => Finding::warning(
            thing,
            format!("{error}; without it deferred calls run from the databases alone"),
        ),
        Err(error) => Finding::error(thing, error.to_string()),
    }
}

/// The launcher's folder: whether it can be written, has room, and keeps its secrets.
fn files(paths: &Paths) -> Vec<Finding> {
    let folder = paths.folder();
    let shown = folder.display();
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let mut findings = Vec::new();
    if !there.is_dir() || access(there, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        findings.push(Finding::error(
            LAUNCHER,
            format!(
                "{} can't be written to by this user; STACK_DIR names another folder",
                there.display()
            ),
        ));
    }
    let room =
        statvfs(there).map_or(u64::MAX, |disk| disk.blocks_available() * disk.fragment_size());
    let free = format!("{} MiB are free for {shown}", room >> 20);
    findings.push(match room {
        0..NO_ROOM => Finding::error(LAUNCHER, format!("{free}: make room, or PostgreSQL stops")),
        NO_ROOM..ROOM => Finding::warning(LAUNCHER, format!("{free}: soon there is no room")),
        _ => Finding::ok(LAUNCHER, free),
    });
    for file in paths.secrets() {
        let mode = fs::metadata(&file).map_or(0, |file| file.permissions().mode());
        if mode & 0o077 != 0 {
            findings.push(Finding::error(
                LAUNCHER,
                format!("others can use {0}: chmod 600 {0}", file.display()),
            ));
        }
    }
    findings
}
