//! The settings of a server: resolved and checked.
//!
//! No flag names and no parsing here; the command line makes one of these, tests make their own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
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

impl Config {
    /// The settings of the server `address` with the defaults of its flags, but for the temporary files of offers, which
    /// lie beside the store.
    pub fn new(address: NodeAddress, managers: Vec<NamedNode>, store: store::Options) -> Self {
        Self {
            address,
            bind: address.socket(),
            stream_port: 19900,
            managers,
            offer_dir: store.path.parent().map(Path::to_path_buf).unwrap_or_default(),
            store,
            offer_limit: None,
            replicate_set_retries: 20,
            replicate_delete_retries: 20,
            keepalive_interval: Duration::from_secs(2),
            dial: DialPolicy { timeout: Duration::from_secs(1), retry_limit: 4 },
            clock_interval: Duration::from_secs(8),
            binary_log: None,
            limits: Limits::default(),
        }
    }
}
