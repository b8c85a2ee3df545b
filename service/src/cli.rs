//! The commands of a service's own binary.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use diesel::{Connection, PgConnection, QueryResult};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use utoipa_axum::router::OpenApiRouter;

use crate::config::{BaseConfig, ConfigError, Reader};
use crate::doctor::own::Needs;
use crate::doctor::{self, Finding};
use crate::migrate::{self, Schema};
use crate::{openapi, probe, telemetry};

/// Resolves when the process should end.
pub type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A service that serves, until it ends.
pub type Serving = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// What a service's binary is made of.
pub struct Program<C> {
    /// The service's name.
    pub name: &'static str,
    /// Reads its configuration.
    pub read: fn(&mut Reader) -> Option<C>,
    /// What it takes to start.
    pub needs: fn(&C) -> Needs<'_>,
    /// Its schema.
    pub migrations: &'static Schema,
    /// Writes the demonstration data, where it isn't there yet.
    pub seed: fn(&mut PgConnection) -> QueryResult<usize>,
    /// Its routes, for their description alone.
    pub describe: fn() -> serde_json::Result<serde_json::Value>,
    /// Serves.
    pub run: fn(C, TcpListener, Shutdown) -> Serving,
}

/// The description of a table of routes whose state is still open.
///
/// # Errors
/// When it isn't JSON: a defect.
pub fn describe<S: Clone + Send + Sync + 'static>(
    routes: OpenApiRouter<S>,
) -> serde_json::Result<serde_json::Value> {
    openapi::complete(routes.into_openapi())
}

const USAGE: &str = "\
  serve     serve requests until SIGTERM (the default)
  migrate   bring the database's schema up to date
  revert    take the schema back, data included
  seed      write the demonstration data, where it is missing
  health    succeed if the service on PORT is ready: for a container's health check
  doctor    say what is wrong, a line each: with its variables, its database, its RabbitMQ, and the others
  openapi   print the OpenAPI document
The configuration is read from environment variables, over the TOML file named by CONFIG_PATH.";

/// Carries out one command; `args` are those behind the program's name.
pub fn main<C>(program: &Program<C>, args: &[String]) -> ExitCode {
    let command = args.first().map_or("serve", String::as_str);
    let known = ["serve", "migrate", "revert", "seed", "health", "doctor", "openapi"];
    let known = known.contains(&command);
    if !known || args.len() > 1 {
        let asked_for_help = matches!(command, "help" | "--help" | "-h");
        let text = format!("usage: {} [command]\n{USAGE}", program.name);
        if asked_for_help {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        eprintln!("{text}");
        return ExitCode::from(2);
    }
    match run(program, command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}: {error:#}", program.name);
            ExitCode::FAILURE
        }
    }
}

fn run<C>(program: &Program<C>, command: &str) -> anyhow::Result<ExitCode> {
    if command == "openapi" {
        println!("{:#}", (program.describe)()?);
        return Ok(ExitCode::SUCCESS);
    }
    let config = Reader::from_env().and_then(|mut reader| {
        let config = (program.read)(&mut reader);
        reader.finish(config)
    });
    if command == "doctor" {
        return diagnose(program, config);
    }
    let config = config?;
    let base: &BaseConfig = (program.needs)(&config).base;
    let url = base.database_url.clone();
    let traces = telemetry::init(program.name, command == "serve")?;
    let done = match command {
        "migrate" => migrate::up(url.as_str(), program.migrations),
        "revert" => migrate::down(url.as_str(), program.migrations),
        "health" => health(base.address),
        "seed" => {
            let rows = (program.seed)(&mut PgConnection::establish(url.as_str())?)?;
            tracing::info!(service = program.name, rows, "seeded");
            Ok(())
        }
        _ => serve(program, config),
    };
    traces.end();
    done.map(|()| ExitCode::SUCCESS)
}

/// Says what is wrong. Standard output has nothing else.
fn diagnose<C>(program: &Program<C>, config: Result<C, ConfigError>) -> anyhow::Result<ExitCode> {
    let findings = match config {
        Ok(config) => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            let needs = (program.needs)(&config);
            let findings = runtime.block_on(doctor::own::look(&needs, program.migrations));
            // What hangs is not waited for.
            runtime.shutdown_background();
            findings
        }
        Err(error) => {
            let problems = error.problems().iter();
            problems.map(|problem| Finding::error(program.name, problem)).collect()
        }
    };
    Ok(doctor::report(&findings))
}

/// Asks the service that listens there, on this machine.
fn health(address: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    anyhow::ensure!(
        runtime.block_on(probe::ready(address)),
        "the service on {address} isn't ready"
    );
    Ok(())
}

fn serve<C>(program: &Program<C>, config: C) -> anyhow::Result<()> {
    let base = (program.needs)(&config).base;
    let address = base.address;
    // Two workers serve thousands of requests a second; more would cost memory in small containers.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(base.pool_size as usize + 4)
        .thread_stack_size(1024 * 1024)
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|e| anyhow::anyhow!("can't listen on {address} (BIND, PORT): {e}"))?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        (program.run)(config, listener, Box::pin(shutdown)).await
    });
    // A database that hangs must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}
