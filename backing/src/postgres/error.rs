//! What can go wrong with a private cluster.

use std::io;
use std::path::PathBuf;

/// Why a private cluster could not be had. Each `Display` is one line for a person.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No server programs on this machine.
    #[error(
        "PostgreSQL's server programs (initdb, postgres) were not found; install them, on Debian and Ubuntu: \
         apt-get install postgresql (or point PG_BINDIR at their folder)"
    )]
    NotInstalled,
    /// `PG_BINDIR` is set, and wrong.
    #[error("PG_BINDIR must be the folder of PostgreSQL's initdb and postgres, and {} is not", .0.display())]
    WrongBindir(PathBuf),
    /// Running as root, and there is nobody to drop to.
    #[error(
        "PostgreSQL must not run as root, and there is no user `postgres` or `nobody` to run it as"
    )]
    NoAccount,
    /// A folder that this cluster must not touch.
    #[error("{} belongs to another user, or others may write to it; remove it, or run as its owner", .0.display())]
    Foreign(PathBuf),
    /// The user that PostgreSQL runs as can't work in any folder that was tried.
    #[error("user {user} can reach neither {} nor a folder under the system's temporary ones", .folder.display())]
    Unreachable {
        /// The user that PostgreSQL would run as.
        user: String,
        /// The folder that was asked for.
        folder: PathBuf,
    },
    /// Something else listens on the port.
    #[error("port {0} is taken")]
    PortTaken(u16),
    /// A program of PostgreSQL's failed.
    #[error("{program} failed: {said}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The last that it said.
        said: String,
    },
    /// The server did not accept connections in time.
    #[error("PostgreSQL was not ready within {0} s")]
    NotReady(u64),
    /// The operating system refused.
    #[error("could not {doing}")]
    Io {
        /// What was tried.
        doing: String,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// No connection to the running server.
    #[error("could not connect to the private PostgreSQL")]
    Connect(#[from] diesel::ConnectionError),
    /// The server refused a statement.
    #[error("the private PostgreSQL refused a statement")]
    Query(#[from] diesel::result::Error),
}

/// `result.map_err(failed_to(|| "do this"))`
pub(crate) fn failed_to<S: Into<String>>(
    doing: impl FnOnce() -> S,
) -> impl FnOnce(io::Error) -> ClusterError {
    |source| ClusterError::Io { doing: doing().into(), source }
}
