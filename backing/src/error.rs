//! What can go wrong with a private server.

use std::io;
use std::path::PathBuf;

/// A server that can be run privately: what its messages name, and who it runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Software {
    /// Its name, for people.
    pub name: &'static str,
    /// The programs that are looked for.
    pub programs: &'static str,
    /// Debian's package.
    pub package: &'static str,
    /// The variable that points to the folder of its programs.
    pub variable: &'static str,
    /// What the names of its temporary folders begin with.
    pub(crate) prefix: &'static str,
    /// Whom root runs it as: the first one that exists.
    pub(crate) users: [&'static str; 2],
}

/// Why a private server could not be had. Each `Display` is one line for a person.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No server programs on this machine.
    #[error(
        "{}'s server programs ({}) were not found; install them, on Debian and Ubuntu: \
         apt-get install {} (or point {} at their folder)", .0.name, .0.programs, .0.package, .0.variable
    )]
    NotInstalled(Software),
    /// The variable for the programs' folder is set, and wrong.
    #[error(
        "{} must be the folder of {}'s {}, and {} is not",
        .software.variable, .software.name, .software.programs, .folder.display()
    )]
    WrongBindir {
        /// The server.
        software: Software,
        /// What the variable says.
        folder: PathBuf,
    },
    /// Running as root, and there is nobody to drop to.
    #[error(
        "{} must not run as root, and there is no user `{}` or `{}` to run it as",
        .0.name, .0.users[0], .0.users[1]
    )]
    NoAccount(Software),
    /// A folder that this server must not touch.
    #[error("{} belongs to another user, or others may write to it; remove it, or run as its owner", .0.display())]
    Foreign(PathBuf),
    /// The user that the server runs as can't work in any folder that was tried.
    #[error("user {user} can reach neither {} nor a folder under the system's temporary ones", .folder.display())]
    Unreachable {
        /// The user that the server would run as.
        user: String,
        /// The folder that was asked for.
        folder: PathBuf,
    },
    /// Something else listens on the port.
    #[error("port {0} is taken")]
    PortTaken(u16),
    /// One of the server's programs failed.
    #[error("{program} failed: {said}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The last that it said.
        said: String,
    },
    /// The server did not accept connections in time.
    #[error("{name} was not ready within {seconds} s")]
    NotReady {
        /// The server's name.
        name: &'static str,
        /// For how long it was waited.
        seconds: u64,
    },
    /// The operating system refused.
    #[error("could not {doing}")]
    Io {
        /// What was tried.
        doing: String,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// No connection to the running PostgreSQL.
    #[error("could not connect to the private PostgreSQL")]
    Connect(#[from] diesel::ConnectionError),
    /// PostgreSQL refused a statement.
    #[error("the private PostgreSQL refused a statement")]
    Query(#[from] diesel::result::Error),
}

/// `result.map_err(failed_to(|| "do this"))`
pub(crate) fn failed_to<S: Into<String>>(
    doing: impl FnOnce() -> S,
) -> impl FnOnce(io::Error) -> Error {
    |source| Error::Io { doing: doing().into(), source }
}
