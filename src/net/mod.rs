//! Connections: sockets to messages and back, sessions to nodes, listeners.
//!
//! Knows frames but not what any method means: requests go to a [`Service`], responses to whoever waits for them.
//! All requests that one read has brought are handled in one go on the network thread, and answered with one write.

pub(crate) mod budget;
mod connection;
pub(crate) mod control;
pub(crate) mod driver;
pub(crate) mod hosts;
mod limits;
mod link;
mod listener;
mod named;
pub(crate) mod output;
mod peers;
pub(crate) mod registry;
mod service;
mod session;
pub(crate) mod task;

pub use limits::{DialPolicy, Limits};
pub use link::{InFlight, Link, LinkKind, Reply};
pub use listener::accept;
pub(crate) use listener::accept_each;
pub(crate) use named::names_one_host;
pub use named::{Moved, NamedNode};
pub use peers::Peers;
pub use service::{Admission, Service};
pub(crate) use session::OFFER_STEPS;
pub use session::{Answer, OnReply, Outgoing, STEPS, Session};

#[cfg(test)]
mod tests;
