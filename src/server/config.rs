//! The settings of a server: resolved and checked.
//!
//! No flag names and no parsing here; the command line makes one of these, tests make their own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::net::{DialPolicy, Limits, NamedNode};
use crate::store;
use crate::wire::NodeAddress;

/// Settings of one server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this server is to the others: the address they dial. With port 0 the port is the one that binding chose.
    pub address: NodeAddress,
    /// Where it listens; the same as `address` unless set otherwise. Its port is that of `address`.
    pub bind: SocketAddr,
    /// Port of the replace stream, on the host of `bind`; 0, or one that is taken, means any free one.
    pub stream_port: u16,
    /// One or two managers, the first being manager 1; they differ.
    pub managers: Vec<NamedNode>,
    /// The store and what belongs to it.
    pub store: store::Options,
    /// Directory of the temporary files of offers.
    pub offer_dir: PathBuf,
    /// Bytes that the temporary files of one replace may take together; `None`: no limit.
    pub offer_limit: Option<u64>,
    /// How often a failed `ReplicateSet` is tried again.
    pub replicate_set_retries: u32,
    /// How often a failed `ReplicateDelete` is tried again.
    pub replicate_delete_retries: u32,
    /// Pause between two `KeepAlive` to a manager; more than zero.
    pub keepalive_interval: Duration,
    /// How to reach the other nodes.
    pub dial: DialPolicy,
    /// Length of one step of a call's time-out; more than zero.
    pub clock_interval: Duration,
    /// File of the binary log.
    pub binary_log: Option<PathBuf>,
    /// Bounds of what connections may take.
    pub limits: Limits,
}
