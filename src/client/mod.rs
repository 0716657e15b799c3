//! A client of a cluster: reads, writes, swaps and deletes keys on the servers that hold them.
//!
//! ```
//! use kumo_server::client::{Client, Swapped};
//! # use kumo_server::embedded;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let cluster = embedded::Cluster::start(2).await?;
//! # let managers = [cluster.manager()];
//! // let managers = ["mgr1", "mgr2"];
//! let client = Client::connect(managers).await?;
//!
//! let written = client.set(b"greeting", b"hello").await?;
//! assert_eq!(client.get(b"greeting").await?.unwrap().data, b"hello");
//!
//! // Only if nobody else has written since.
//! let swapped = client.cas(b"greeting", Some(written), b"goodbye").await?;
//! assert!(matches!(swapped, Swapped::At(_)));
//! let swapped = client.cas(b"greeting", Some(written), b"too late").await?;
//! assert_eq!(swapped, Swapped::Mismatch);
//!
//! assert!(client.delete(b"greeting").await?);
//! assert_eq!(client.get(b"greeting").await?, None);
//! # Ok(())
//! # }
//! ```
//!
//! # Promises
//!
//! A write that has returned `Ok` is on every active server that holds a copy of its key, and stays; reads and writes of one
//! key happen in one order that all clients see. [`promises`], which is `docs/consistency.md`, has the precise words, and the
//! cases in which a network that is cut breaks them.
//!
//! A write that has returned an error may have been done or not. [`Error::may_be_done`] tells the errors after which it
//! certainly was not.
//!
//! # Time
//!
//! Every operation ends: with a result, or with an error when [`Options::deadline`] is over, five seconds unless set. Until
//! then failed calls are repeated, on other servers where that helps, and hash spaces are renewed.
//!
//! # Memcached clients
//!
//! A gateway shows the same keys to memcached clients, and both may work on them: see [`Value::meta`].

mod admin;
mod application;
mod caller;
mod changes;
mod doubt;
mod inspect;
mod known;
mod managers;
mod operations;
mod originals;
mod router;
mod routes;
mod tries;
#[doc(hidden)]
pub mod verdict;
mod writes;

use std::time::Duration;

pub use application::{Client, Value};
pub use changes::{Changes, Placement};
pub use writes::Swapped;

#[doc = include_str!("../../docs/consistency.md")]
pub mod promises {}

#[doc(inline)]
pub use crate::clock::ClockTime;
#[doc(inline)]
pub use crate::wire::NodeAddress;
#[doc(inline)]
pub use crate::wire::method::ErrorCode;

// For the other roles and the tools: asking single nodes, and the parts of an operation.
#[doc(hidden)]
pub use admin::Overview;
#[doc(hidden)]
pub use caller::{Caller, steps};
#[doc(hidden)]
pub use inspect::Status;
#[doc(hidden)]
pub use operations::{Found, RawKey, Tried, delete_flags, set_length};
#[doc(hidden)]
pub use router::Router;
#[doc(hidden)]
pub use routes::{Node, Routes};
#[doc(hidden)]
pub use writes::Stored;

/// How long things may take. [`Options::default`] suits servers in one building.
#[derive(Debug, Clone)]
pub struct Options {
    /// One try to connect; 1 second unless set.
    pub connect_timeout: Duration,
    /// One call, from when its connection stands; 3 seconds unless set. It is measured in steps of 50 milliseconds.
    pub call_timeout: Duration,
    /// How long a read waits for one server before it asks the next one as well, doubled in each round of tries; half a
    /// second unless set.
    pub read_patience: Duration,
    /// One operation with all its tries; 5 seconds unless set. A call that is under way then may still take its
    /// [`call_timeout`](Self::call_timeout).
    pub deadline: Duration,
    /// So many failed calls make the client ask the managers for new hash spaces at once; 4 unless set.
    pub renew_threshold: u32,
    /// Pause between two questions to the managers, which tell of new hash spaces by themselves, too; 2 seconds unless set.
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

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A manager was named in a way that is neither `host` nor `host:port`: the text, and the reason.
    #[error("manager '{0}': {1}")]
    Malformed(String, String),
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
    /// Whether the write that ended so may have been done, on some servers at least, or may still be done. If not, it was
    /// refused or never sent.
    pub fn may_be_done(&self) -> bool {
        matches!(self, Self::Partial(_) | Self::Doubtful(..) | Self::Answer(_))
    }

    /// The error code that a gateway of 2010 would have ended with.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Manager(_, code) | Self::Server(_, code) | Self::Doubtful(_, code) => *code,
            Self::Malformed(..) | Self::Name(_) => ErrorCode::NodeLost,
            Self::NoServer => ErrorCode::Server,
            Self::Partial(_) | Self::Answer(_) => ErrorCode::Unknown,
            // As a server answers what it does not take.
            Self::TooLarge(..) => ErrorCode::Protocol,
        }
    }
}
