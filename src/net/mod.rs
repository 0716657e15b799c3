//! Connections: sockets to messages and back, sessions to nodes, listeners.
//!
//! Knows frames but not what any method means: requests go to a [`Service`], responses to whoever waits for them.
//! All requests that one read has brought are handled in one go on the network thread, and answered with one write.

pub(crate) mod budget;
mod connection;
pub(crate) mod control;
pub(crate) mod driver;
pub(crate) mod hosts;
mod link;
mod listener;
mod named;
pub(crate) mod output;
mod peers;
pub(crate) mod registry;
mod session;
pub(crate) mod task;

use std::sync::Arc;
use std::time::Duration;

pub use link::{InFlight, Link, LinkKind, Reply};
pub use listener::accept;
pub(crate) use listener::accept_each;
pub(crate) use named::names_one_host;
pub use named::{Moved, NamedNode};
pub use peers::Peers;
pub use session::{Answer, OFFER_STEPS, OnReply, Outgoing, STEPS, Session};

use crate::wire::method::Role;
use crate::wire::{NodeAddress, Request};

/// What a role does with what arrives.
pub trait Service: Send + Sync + 'static {
    /// Handles the requests that one read has brought, in order.
    ///
    /// Answers go to `out` when they are known at once, else through a [`Reply`]. Runs on a network thread: it must
    /// not block, but for a write to a log of which another thread is there to take its place (`life/reserve`). A panic
    /// ends this connection only.
    fn handle(&self, link: &Arc<Link>, requests: &mut dyn Iterator<Item = Request<'_>>, out: &mut Vec<u8>);

    /// A connection to this node stands: the node has said what it is, or this side has dialled as a client.
    fn bound(&self, _session: &Arc<Session>, _role: Option<Role>) {}

    /// Whether to dial this node again when its last connection drops. An address is only a claim of whoever connected.
    fn keeps(&self, _address: NodeAddress) -> bool {
        true
    }

    /// All tries to reach this node have failed; its pending calls have failed with error 2.
    fn lost(&self, _address: NodeAddress) {}
}

/// Bounds of what connections may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest message, in bytes.
    pub message: usize,
    /// Client connections open at once. Nodes have some more to themselves, so that no crowd of clients shuts them out.
    pub connections: usize,
    /// Bytes of incomplete messages that all connections together may hold.
    pub partial_total: usize,
    /// Requests of one client connection that wait for their answers before no more are read from it.
    pub in_flight: usize,
    /// Bytes of such requests, as far as they are kept until answered, before no more are read from it.
    pub in_flight_bytes: usize,
    /// The same for all connections together; one that has nothing under way may still send a request.
    pub in_flight_total: usize,
    /// Bytes of answers that wait for one client to take them before no more requests are read from it.
    pub unread_answers: usize,
    /// Bytes that may wait to be sent on one connection before it is closed.
    pub backlog: usize,
    /// Calls to one node that wait for their answers.
    pub pending_calls: usize,
    /// How long an accepted connection may go without completing a message it owes, or taking any of its answers.
    pub stalled: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: crate::wire::MESSAGE_LIMIT,
            connections: 10_000,
            partial_total: 512 << 20,
            in_flight: 256,
            in_flight_bytes: 16 << 20,
            in_flight_total: 512 << 20,
            unread_answers: 1 << 20,
            backlog: 256 << 20,
            pending_calls: 1 << 17,
            stalled: Duration::from_mins(1),
        }
    }
}

/// How to reach nodes.
#[derive(Debug, Clone)]
pub struct DialPolicy {
    /// `-Ys`: time for one try.
    pub timeout: Duration,
    /// `-Yn`: tries beyond the first before the node counts as lost.
    pub retry_limit: u32,
}

#[cfg(test)]
mod tests;
