//! Who decides the configuration of a cluster: a register that its active servers hold together.
//!
//! Each configuration is decided by the voters of the one before it (vertical Paxos: Lamport, Malkhi, Zhou, 2009). So there
//! is one line of configurations, whoever is cut off, and no two parts of a cluster follow different ones. Managers
//! propose; voters promise and accept; a server acts by a configuration only while a majority of its voters has lately
//! confirmed it.
//!
//! Pure: messages come in and go out as values, time is given, and what must be durable before an answer leaves is
//! handed to the caller. It knows no connections and no store, and nothing of records.

mod acceptor;
mod claims;
mod configuration;
mod heard;
mod lease;
mod message;
mod proposer;
mod reach;
mod restart;
#[cfg(test)]
mod tests;
mod timing;

pub use acceptor::{Acceptor, Answer, Vote};
pub use claims::{Arrival, Claim, Claims, Identity, Machine};
pub use configuration::{Ballot, Configuration, Member, Version, Voter};
pub use heard::{Changed, Heard};
pub use lease::{Confirmations, Lease};
pub use message::{Proposal, Question, Reply, Settled, Speaker, pack, unpack};
pub use proposer::{Progress, Proposer};
pub use reach::{Reach, Reports};
pub use restart::Restart;
pub use timing::{Timing, TimingError};
