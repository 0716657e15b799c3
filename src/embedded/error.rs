//! Why a cluster cannot be had, or not be changed.

use std::path::PathBuf;

use super::SERVERS_MAX;

/// Why a cluster cannot be started or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A cluster has at least one server and at most [`SERVERS_MAX`]; so many it would have.
    #[error("a cluster of {0} servers: from 1 to {SERVERS_MAX} it may have")]
    TooMany(usize),
    /// The folder of the stores cannot be made.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder, or where a temporary one should have been.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The folder has a store already: of another cluster, on other ports.
    #[error("{}: already exists; a cluster needs a folder without stores", .0.display())]
    Exists(PathBuf),
    /// A part of the cluster cannot be started.
    #[error("cannot start {what}: {source}")]
    Start {
        /// The part.
        what: &'static str,
        /// Its reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A server could not be stopped in order, since its disk does not answer.
    #[error("cannot stop a server: {0}")]
    Stop(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is no server with this number to be stopped, or it has been; or none to be started, or it runs.
    #[error("server {0} cannot be stopped or started: there is none with this number, or it has been already")]
    NoServer(usize),
    /// The nodes have not done this within half a minute.
    #[error("waited for half a minute until {0}")]
    Late(String),
    /// The cluster has ended.
    #[error("the cluster has ended")]
    Ended,
}

impl Error {
    pub(super) fn start(what: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Start { what, source: Box::new(source) }
    }
}
