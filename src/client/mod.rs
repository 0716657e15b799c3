//! Using a cluster as an application does: routing by the hash space, retries, deadlines.
//!
//! [`Cluster`] gets, sets and deletes; [`Caller`] asks one node anything a client may ask. Everything ends within the
//! time that [`Options`] give.

mod caller;
mod cluster;
mod inspect;

use std::time::Duration;

pub use caller::Caller;
pub use cluster::{Cluster, Value};
pub use inspect::Status;

use crate::wire::NodeAddress;
use crate::wire::method::ErrorCode;

/// How long things may take.
#[derive(Debug, Clone)]
pub struct Options {
    /// One try to connect.
    pub connect_timeout: Duration,
    /// One call, from when its connection stands.
    pub call_timeout: Duration,
    /// One operation on the cluster with all its retries; the last call may exceed it.
    pub deadline: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            call_timeout: Duration::from_secs(3),
            deadline: Duration::from_secs(5),
        }
    }
}

/// Why an operation on the cluster failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// None of the managers has answered; the last one's error.
    #[error("manager {0}: {1}")]
    Manager(NodeAddress, ErrorCode),
    /// No server is attached, or none of those that own the key is active.
    #[error("no active server for this key")]
    NoServer,
    /// The servers asked have failed; the last one's error.
    #[error("server {0}: {1}")]
    Server(NodeAddress, ErrorCode),
    /// The write is on some owners of the key, not on all.
    #[error("server {0}: not written to every replica")]
    Partial(NodeAddress),
    /// A node has answered what the protocol does not allow.
    #[error("{0}: answer not understood")]
    Answer(NodeAddress),
}
