//! Using a cluster as an application does: routing by the hash space, retries, deadlines.
//!
//! [`Cluster`] gets, sets and deletes; [`Caller`] asks one node anything a client may ask. [`Router`] is what both
//! [`Cluster`] and a gateway stand on: it follows the hash spaces and carries one operation through to its end.
//! Everything ends within the time that [`Options`] give.

mod admin;
mod caller;
mod cluster;
mod inspect;
mod known;
mod operations;
mod originals;
mod router;
mod routes;
mod tries;
pub mod verdict;

use std::time::Duration;

pub use admin::Overview;
pub use caller::{Caller, steps};
pub use cluster::{Cluster, Value};
pub use inspect::Status;
pub use operations::{Found, RawKey, Swapped, Tried, delete_flags, set_length};
pub use router::Router;
pub use routes::{Node, Routes};

use crate::wire::NodeAddress;
use crate::wire::method::ErrorCode;

/// How long things may take.
#[derive(Debug, Clone)]
pub struct Options {
    /// One try to connect.
    pub connect_timeout: Duration,
    /// One call, from when its connection stands.
    pub call_timeout: Duration,
    /// How long a read waits for one server before it asks the next one as well; doubled in each round.
    pub read_patience: Duration,
    /// One operation on the cluster with all its retries; the last call may exceed it.
    pub deadline: Duration,
    /// Failed calls after which the managers are asked for new hash spaces, whatever becomes of the operations.
    pub renew_threshold: u32,
    /// Pause between two looks at the managers, which tell of new hash spaces by themselves, too.
    pub follow_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            call_timeout: Duration::from_secs(3),
            read_patience: Duration::from_millis(500),
            deadline: Duration::from_secs(5),
            renew_threshold: 4,
            follow_interval: Duration::from_secs(2),
        }
    }
}

/// Why an operation on the cluster failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// None of the managers has answered; the last one's error.
    #[error("manager {0}: {1}")]
    Manager(NodeAddress, ErrorCode),
    /// The name of the manager stands for no address, as far as this machine can find out.
    #[error("manager {0}: its name cannot be resolved")]
    Name(String),
    /// No server is attached, or none of those that own the key is active.
    #[error("no active server for this key")]
    NoServer,
    /// The servers asked have failed; the last one's error.
    #[error("server {0}: {1}")]
    Server(NodeAddress, ErrorCode),
    /// The write is on some owners of the key, not on all.
    #[error("server {0}: not written to every replica")]
    Partial(NodeAddress),
    /// A write was sent, but whether it was done cannot be known.
    #[error("server {0}: {1}; whether it was done is not known")]
    Doubtful(NodeAddress, ErrorCode),
    /// A value is larger than a server that must store it takes: its limit, in bytes of a message.
    #[error("too large for server {0}: its limit is {1}")]
    TooLarge(NodeAddress, usize),
    /// A node has answered what the protocol does not allow.
    #[error("{0}: answer not understood")]
    Answer(NodeAddress),
}

impl Error {
    /// The error code that a gateway of 2010 would have ended with.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Manager(_, code) | Self::Server(_, code) | Self::Doubtful(_, code) => *code,
            Self::Name(_) => ErrorCode::NodeLost,
            Self::NoServer => ErrorCode::Server,
            Self::Partial(_) | Self::Answer(_) => ErrorCode::Unknown,
            // As a server answers what it does not take.
            Self::TooLarge(..) => ErrorCode::Protocol,
        }
    }
}
