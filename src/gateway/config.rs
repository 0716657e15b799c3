//! The settings of a gateway: resolved and checked.
//!
//! No flag names and no parsing here; the command line makes one of these, tests make their own.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::item::Rules;
use crate::net::NamedNode;

/// Settings of one gateway.
#[derive(Debug, Clone)]
pub struct Config {
    /// One or two managers of the cluster.
    pub managers: Vec<NamedNode>,
    /// Where it listens; each port takes both protocols.
    pub listen: Vec<Listen>,
    /// A Unix socket to listen on as well.
    pub unix: Option<PathBuf>,
    /// The layout of values, and how long one may be.
    pub rules: Rules,
    /// Stands in front of every key in the cluster.
    pub key_prefix: Vec<u8>,
    /// A set is answered before its replicas have it.
    pub async_set: bool,
    /// Likewise a deletion.
    pub async_delete: bool,
    /// How long a read is tried.
    pub get_limit: Duration,
    /// How long a write is tried.
    pub set_limit: Duration,
    /// How long a deletion is tried.
    pub delete_limit: Duration,
    /// Failed calls after which the managers are asked for new hash spaces.
    pub renew_threshold: u32,
    /// One try to connect to a node.
    pub connect_timeout: Duration,
    /// One call to a server.
    pub call_timeout: Duration,
    /// Pause between two looks at the managers.
    pub keepalive_interval: Duration,
    /// Whether `flush_all` is obeyed.
    pub allow_flush: bool,
    /// Bounds of what clients may take.
    pub limits: Limits,
    /// File of the binary log.
    pub binary_log: Option<PathBuf>,
}

/// Where a gateway listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// At this port of every address: of IPv4 alone where the kernel has no IPv6.
    Everywhere(u16),
    /// At this port of every IPv6 address.
    Ipv6Only(u16),
    /// At one address; `[::]` is every one, of both kinds.
    At(SocketAddr),
}

impl Listen {
    /// The port.
    pub fn port(self) -> u16 {
        match self {
            Self::Everywhere(port) | Self::Ipv6Only(port) => port,
            Self::At(address) => address.port(),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere(port) => write!(f, "*:{port}"),
            Self::Ipv6Only(port) => write!(f, "[::]:{port}"),
            Self::At(address) => write!(f, "{address}"),
        }
    }
}

/// Bounds of what clients may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once.
    pub connections: usize,
    /// Requests of one connection that wait for their answers before no more are read from it.
    pub in_flight: usize,
    /// Bytes that such requests may keep, and that their answers are expected to take, before no more are read.
    pub in_flight_bytes: usize,
    /// Bytes of answers that wait for one client to take them before no more requests are read from it.
    pub unread_answers: usize,
    /// Bytes of requests and answers of all connections.
    pub memory: usize,
    /// How long a connection may go without completing a request it has begun, or taking any of its answers.
    pub stalled: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            in_flight: 1024,
            in_flight_bytes: 16 << 20,
            unread_answers: 1 << 20,
            memory: 512 << 20,
            stalled: Duration::from_mins(1),
        }
    }
}
