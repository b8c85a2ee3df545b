//! The names of the parts, and the services that this one program can be.

use std::fmt;
use std::io::{self, Read as _};
use std::process::ExitCode;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What the launcher runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Name {
    Store,
    Order,
    Warehouse,
    Warranty,
    Postgres,
    Rabbitmq,
}

/// A service: what its variables start with, and where it listens by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    Store,
    Order,
    Warehouse,
    Warranty,
}

impl Service {
    pub(crate) const ALL: [Self; 4] = [Self::Store, Self::Order, Self::Warehouse, Self::Warranty];

    pub(crate) fn name(self) -> Name {
        match self {
            Self::Store => Name::Store,
            Self::Order => Name::Order,
            Self::Warehouse => Name::Warehouse,
            Self::Warranty => Name::Warranty,
        }
    }

    pub(crate) fn default_port(self) -> u16 {
        match self {
            Self::Store => 8480,
            Self::Order => 8380,
            Self::Warehouse => 8280,
            Self::Warranty => 8180,
        }
    }

    /// The variable of this service with this ending: `STORE_PORT`.
    pub(crate) fn variable(self, ending: &str) -> String {
        format!("{}_{ending}", self.name().as_str().to_uppercase())
    }

    /// Runs the service's own command line in this process.
    ///
    /// `held` waits for a byte on standard input first: the launcher sends it once it has written
    /// down that this process exists. The end of the input instead means that it was killed before
    /// that, and nobody would ever stop this process.
    pub(crate) fn run(self, args: &[String], held: bool) -> ExitCode {
        if held && io::stdin().read_exact(&mut [0]).is_err() {
            return ExitCode::FAILURE;
        }
        match self {
            Self::Store => store::cli(args),
            Self::Order => order::cli(args),
            Self::Warehouse => warehouse::cli(args),
            Self::Warranty => warranty::cli(args),
        }
    }
}

impl Name {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Order => "order",
            Self::Warehouse => "warehouse",
            Self::Warranty => "warranty",
            Self::Postgres => "postgres",
            Self::Rabbitmq => "rabbitmq",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad`, not `write_str`: the tables align it.
        f.pad(self.as_str())
    }
}
