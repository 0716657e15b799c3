//! Bounds of connections, and how nodes are reached.

use std::time::Duration;

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
