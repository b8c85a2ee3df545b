//! The commands.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::control::{self, Answer, Request};
use crate::names::{Name, Service};
use crate::state::Paths;
use crate::status::Status;
use crate::terminal::say;
use crate::{deferred, doctor, drill, explain, launcher, sagas};

/// Runs the whole store: PostgreSQL, RabbitMQ where it is installed, and the four services, each in a
/// process of its own.
///
/// Without a command it starts everything and stays in the foreground; Ctrl-C stops it again.
/// The other commands talk to that launcher from another terminal.
#[derive(Debug, Parser)]
#[command(name = "stack", version, after_help = VARIABLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    /// Start it locked: services and operators need tokens, which are minted and kept in files
    #[arg(long)]
    locked: bool,
    /// End with whoever has started it: with standard input
    #[arg(long, hide = true)]
    attached: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

const VARIABLES: &str = "\
Variables:
  STORE_PORT, ORDER_PORT, WAREHOUSE_PORT, WARRANTY_PORT
                  where the services listen [default: 8480, 8380, 8280, 8180; 0: any free port]
  POSTGRES_PORT   where the private PostgreSQL listens [default: where it did last time, or any]
  RABBITMQ_PORT   where the private RabbitMQ listens [default: likewise]
  STORE_DATABASE_URL, ORDER_DATABASE_URL, WAREHOUSE_DATABASE_URL, WARRANTY_DATABASE_URL
                  existing databases instead of a private PostgreSQL: all four, or none
  AMQP_URL        an existing RabbitMQ instead of a private one, or: none
  PG_BINDIR       the folder of initdb and postgres [default: looked for]
  RABBITMQ_BINDIR the folder of rabbitmq-server and rabbitmqctl [default: looked for]
  STACK_DIR       where data, logs and state are kept [default: .stack in the workspace]";

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a part that is down; returns when it is ready
    Start { part: Name },
    /// Stops a part as an operator would, with SIGTERM; returns when its process is gone
    Stop {
        part: Name,
        /// Crash it instead: SIGKILL
        #[arg(long)]
        kill: bool,
    },
    /// Freezes a part: its connections stay open, and it answers nobody until it is started or stopped
    Freeze { part: Name },
    /// Says what runs, and where
    Status {
        /// For programs: {"locked", "parts": [{"name", "state", "pid", "url", "database", "log"}]}
        #[arg(long)]
        json: bool,
    },
    /// Lists, shows, retries and discards the calls that Store and Order make later
    Deferred {
        #[command(subcommand)]
        command: Option<deferred::Command>,
    },
    /// Lists, shows and retries Order's sagas: what becomes of purchases and refunds
    Sagas {
        #[command(subcommand)]
        command: Option<sagas::Command>,
    },
    /// Tells what became of an order across the four services, and what is still to happen
    Explain(explain::Command),
    /// Shows the promises kept: users buy, claim and give back while parts are killed and frozen
    ///
    /// On the running store, or on one of its own where none runs. Its users and what they buy are made
    /// up. Ends with 1 unless every promise was tried, and held.
    Drill(drill::Options),
    /// Says what is wrong, a line each, and ends with 1 where something is
    ///
    /// Without addresses: with this machine, whether the launcher runs or not. With addresses: with a
    /// deployed store, or those of its services that are given. Tokens come from files, or else from
    /// `SERVICE_TOKENS` and `MANAGEMENT_TOKENS`.
    Doctor(doctor::Options),
    /// Runs one service in this process, by its own command line
    Service {
        name: Service,
        /// Wait for a byte on standard input first
        #[arg(long, hide = true)]
        held: bool,
        /// Passed on: serve, migrate, seed, …
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

impl Cli {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let config = match self.command {
            // Before the configuration: that is the launcher's, not the service's.
            Some(Command::Service { name, held, args }) => return Ok(name.run(&args, held)),
            // What is wrong with the configuration is what it says.
            Some(Command::Doctor(options)) => return options.run(),
            _ => Config::from_env()?,
        };
        let paths = Paths::new(config.folder.clone());
        match self.command {
            None => return launcher::run(config, paths, self.locked, self.attached),
            Some(Command::Start { part }) => order(&paths, &Request::Start { part })?,
            Some(Command::Stop { part, kill }) => order(&paths, &Request::Stop { part, kill })?,
            Some(Command::Freeze { part }) => order(&paths, &Request::Freeze { part })?,
            Some(Command::Drill(options)) => return options.run(&paths),
            Some(Command::Status { json }) => {
                let status = match control::ask(&paths, &Request::Status)? {
                    Some(Answer::Status(status)) => status,
                    Some(Answer::Failed { message } | Answer::Done { message }) => bail!(message),
                    None => Status::offline(&config, &paths),
                };
                if json {
                    let json = serde_json::to_string_pretty(&status);
                    say(&json.context("could not write JSON")?);
                } else {
                    say(status.to_string().trim_end());
                }
            }
            Some(Command::Deferred { command }) => command.unwrap_or_default().run(&paths)?,
            Some(Command::Sagas { command }) => command.unwrap_or_default().run(&paths)?,
            Some(Command::Explain(command)) => command.run(&paths)?,
            Some(Command::Service { .. } | Command::Doctor(_)) => {}
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Has the running launcher do it.
fn order(paths: &Paths, request: &Request) -> Result<()> {
    match control::ask(paths, request)? {
        Some(Answer::Done { message }) => say(&message),
        Some(Answer::Failed { message }) => bail!(message),
        Some(Answer::Status(_)) => bail!("the launcher answered something else"),
        None => bail!(
            "no launcher is running in {}; start everything with: cargo run",
            paths.folder().display()
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn only_a_start_is_locked() {
        assert!(Cli::try_parse_from(["stack", "--locked"]).unwrap().locked);
        assert!(Cli::try_parse_from(["stack", "--locked", "status"]).is_err());
    }

    #[test]
    fn unknown_part_gets_the_list_of_parts() {
        let error = Cli::try_parse_from(["stack", "stop", "shop"]).unwrap_err().to_string();
        assert!(error.contains("store, order, warehouse, warranty, postgres"), "{error}");
    }

    #[test]
    fn service_gets_its_arguments_unread() {
        let cli = Cli::try_parse_from(["stack", "service", "store", "serve", "--help"]).unwrap();
        let Some(Command::Service { args, held: false, .. }) = cli.command else {
            panic!("{cli:?}")
        };
        assert_eq!(args, ["serve", "--help"]);
    }
}
