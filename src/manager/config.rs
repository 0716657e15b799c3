//! The settings of a manager, resolved and checked.
//!
//! No flag names and no parsing here; the command line makes one of these, tests make their own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::net::{DialPolicy, Limits, NamedNode};
use crate::register::Timing;
use crate::wire::NodeAddress;

/// Settings of one manager.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this manager is to the others: the address they dial. With port 0 the port is the one that binding chose.
    pub address: NodeAddress,
    /// Where it listens; the same as `address` unless told otherwise. Its port is that of `address`.
    pub bind: SocketAddr,
    /// The other manager, if there are two; differs from `address`.
    pub partner: Option<NamedNode>,
    /// Attach, detach and replace without being asked.
    pub auto_replace: bool,
    /// How long the set of servers must be unchanged before an automatic replace starts.
    pub replace_delay: Duration,
    /// Pause between two `KeepAlive` to a node; more than zero.
    pub keepalive_interval: Duration,
    /// How to reach the other nodes.
    pub dial: DialPolicy,
    /// Length of one step of a call's time-out; more than zero.
    pub clock_interval: Duration,
    /// Whether servers that can are to vote on every change of the cluster, and need leases to act.
    pub votes: bool,
    /// How long these leases last, and after how long a silence a node of a cluster that votes is lost.
    pub timing: Timing,
    /// File of the binary log.
    pub binary_log: Option<PathBuf>,
    /// Bounds of what connections may take.
    pub limits: Limits,
}
