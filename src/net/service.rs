//! A role, as connections see it: whom requests go to, and who hears of nodes that come and go.

use std::net::SocketAddr;
use std::sync::Arc;

use super::link::Link;
use super::session::Session;
use crate::wire::method::Role;
use crate::wire::{Init, NodeAddress, Request};

/// What becomes of a connection whose peer has said which node it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is one of the node's connections.
    Welcome,
    /// Its requests are handled, but it carries no calls to the node until `Link::admit`.
    Unproven,
    /// It is closed.
    Refused,
}

/// A role as the receiver of requests and of changes in connections.
pub trait Service: Send + Sync + 'static {
    /// Handles the requests that one read has brought, in order.
    ///
    /// Answers go to `out` when they are known at once, else through a [`Reply`](super::Reply). Runs on a network thread: it must
    /// not block, but for a write to a log of which another thread is there to take its place (`life/reserve`). A panic
    /// ends this connection only.
    fn handle(&self, link: &Arc<Link>, requests: &mut dyn Iterator<Item = Request<'_>>, out: &mut Vec<u8>);

    /// A connection from `peer` has been accepted, whose other end says that it is this node.
    fn admission(&self, _init: &Init, _peer: SocketAddr) -> Admission {
        Admission::Welcome
    }

    /// A connection to this node stands: the node has said what it is, or this side has dialled as a client.
    fn bound(&self, _session: &Arc<Session>, _role: Option<Role>) {}

    /// Whether to dial this node again when its last connection drops. An address is only a claim of whoever connected.
    fn keeps(&self, _address: NodeAddress) -> bool {
        true
    }

    /// All tries to reach this node have failed; its pending calls have failed with error 2. `_refused`: its machine is there,
    /// and nobody listens.
    fn lost(&self, _address: NodeAddress, _refused: bool) {}
}
