//! The surroundings of a replace: what it uses of its server, its settings, why it fails.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::late::{LateWrites, Watch, Written};
use super::progress::Counters;
use crate::clock::Clock;
use crate::env::Env;
use crate::net::Peers;
use crate::ring::HashSpace;
use crate::server::stream::{Offers, SILENCE};
use crate::store::{self, Store};
use crate::wire::NodeAddress;
use crate::wire::extension::Fence;
use crate::wire::params::Seed;

/// Time after which every server knows a hash space that a manager has sent to all of them.
const SETTLE: Duration = Duration::from_secs(1);
/// Tombstones are not swept for this long after a sign of a replace: one must outlive the record it hides, which may
/// be in a stream that is offered several times before it arrives.
pub(crate) const TOMBSTONE_LEASE: Duration = Duration::from_mins(5);

/// Whether what another server sends may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fenced {
    /// Under this fencing token of the store.
    Admitted(u64),
    /// Before long: the configuration by which the sender acts is on its way, or this server is just being admitted.
    Pending,
    /// The sender acts by an earlier configuration.
    Refused,
}

/// The parts of its server that a replace uses.
pub trait Host: Send + Sync + 'static {
    /// The records.
    fn store(&self) -> &Store;
    /// Cluster connections.
    fn peers(&self) -> &Arc<Peers>;
    /// The machine that it runs on.
    fn env(&self) -> &Env;
    /// The server's clock.
    fn clock(&self) -> &Clock;
    /// Whether `node` is a manager of this server now.
    fn is_manager(&self, node: NodeAddress) -> bool;
    /// Who this server is.
    fn address(&self) -> NodeAddress;
    /// Where the server notes the keys that are written.
    fn late_writes(&self) -> &LateWrites;
    /// What copies carry that are sent now.
    fn fence(&self) -> Option<Fence>;
    /// Whether copies may be stored that carry `fence`.
    fn fenced(&self, fence: Option<Fence>) -> Fenced;
    /// whs and rhs as they stand.
    fn spaces(&self) -> (Arc<HashSpace>, Arc<HashSpace>);
    /// Takes `seed`, from `manager`, as whs unless the one held is newer; says whether it did.
    fn take_whs(&self, seed: &Seed, manager: NodeAddress) -> bool;
    /// Takes `seed`, from `manager`, as rhs unless the one held is newer; says whether it did.
    fn take_rhs(&self, seed: &Seed, manager: NodeAddress) -> bool;
}

/// Settings of a replace.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `-f`: where temporary files of offers are.
    pub offer_dir: PathBuf,
    /// `-M`: bytes that temporary files may take together; 0 for no limit but that of two streams for each target.
    pub file_limit: u64,
    /// Largest record accepted from a stream, in bytes.
    pub record_limit: usize,
    /// Time to connect to an offerer's stream port.
    pub connect_timeout: Duration,
    /// Time without progress after which the other side of a stream is given up.
    pub silence: Duration,
    /// Time after which all servers have learned what a manager tells them.
    pub settle: Duration,
}

impl Settings {
    /// The protocol's times, with these limits.
    pub fn new(offer_dir: PathBuf, file_limit: u64, record_limit: usize, connect_timeout: Duration) -> Self {
        Self { offer_dir, file_limit, record_limit, connect_timeout, silence: SILENCE, settle: SETTLE }
    }
}

/// Why a copy or a deletion did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0} streams or batches of deletions were not stored by their targets")]
    Undelivered(usize),
    #[error("a record is too large for server {0}: its limit is {1}")]
    TooLarge(NodeAddress, usize),
    #[error("the hash space has changed meanwhile")]
    Void,
    #[error("cancelled")]
    Cancelled,
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("temporary file in {0}: {1}")]
    File(PathBuf, io::Error),
}

/// State that all parts of a replace share.
pub(super) struct Context {
    pub(super) host: Arc<dyn Host>,
    pub(super) settings: Settings,
    pub(super) offers: Arc<Offers>,
    /// Where targets fetch their streams.
    pub(super) stream_address: NodeAddress,
    pub(super) progress: Counters,
}

impl Context {
    pub(super) fn file_failure(&self, error: io::Error) -> Failure {
        Failure::File(self.settings.offer_dir.clone(), error)
    }
}

/// The time in which some servers may not know yet what a manager has sent to all of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settling {
    pub(super) until: Instant,
    pub(super) watch: Watch,
}

impl Settling {
    /// Waits until it is over; returns what was written meanwhile.
    pub(super) async fn wait(self, context: &Context) -> Written {
        tokio::time::sleep_until(self.until).await;
        context.host.late_writes().take(self.watch)
    }
}
