//! What the parts of a server share: hash spaces, clock, counters, store and connections, behind methods.
//!
//! Knows no message layouts. Guards of its locks never leave a method, so that no lock is held while another part
//! runs.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;

use super::Config;
use super::coordinate::Submission;
use super::memory::Memory;
use super::order::{Job, Order};
use super::replace::{LateWrites, Replace};
use super::turns::Turns;
use crate::binlog::Binlog;
use crate::clock::Clock;
use crate::net::{Peers, Session};
use crate::ring::HashSpace;
use crate::store::Store;
use crate::wire::NodeAddress;
use crate::wire::method::{ErrorCode, Method, REPLICATE_BY_RHS};
use crate::wire::params::{NODE_LIMIT, Seed};

/// Writes that may wait while a newly attached server learns the clocks of the others.
const HELD_LIMIT: usize = 16_384;

/// The two hash spaces as they stand together, with the sessions of their nodes.
#[derive(Debug, Default)]
pub(super) struct Spaces {
    /// For writing: Set, Delete.
    pub(super) whs: Arc<HashSpace>,
    /// For reading: Get.
    pub(super) rhs: Arc<HashSpace>,
    sessions: HashMap<NodeAddress, Arc<Session>>,
}

/// A server that must get a copy of a write.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) session: Arc<Session>,
    /// It is an owner in rhs only: its failure does not make the write fail.
    pub(super) by_rhs: bool,
}

impl Target {
    /// The flags of its `ReplicateSet` or `ReplicateDelete`.
    pub(super) fn flags(&self) -> u32 {
        if self.by_rhs { REPLICATE_BY_RHS } else { 0 }
    }
}

impl Spaces {
    /// Whether `node` is in either hash space, active or not.
    pub(super) fn contains(&self, node: NodeAddress) -> bool {
        self.whs.contains(node) || self.rhs.contains(node)
    }

    /// Whether `node` is active in either.
    pub(super) fn is_active(&self, node: NodeAddress) -> bool {
        self.whs.is_active(node) || self.rhs.is_active(node)
    }

    /// Calls `each` with every server but `own` that must get a copy of a write to `hash` (protocol, section 7, step 2).
    pub(super) fn targets(&self, own: NodeAddress, hash: u64, mut each: impl FnMut(Target)) {
        let writers = self.whs.owners(hash);
        let mut found = |node: NodeAddress, by_rhs| {
            if let Some(session) = self.sessions.get(&node) {
                each(Target { session: session.clone(), by_rhs });
            }
        };
        for node in writers.active().filter(|node| *node != own) {
            found(node, false);
        }
        if self.whs.clocktime() != self.rhs.clocktime() {
            let only_readers = self.rhs.owners(hash).active();
            for node in only_readers.filter(|node| *node != own && !writers.is_active_owner(*node)) {
                found(node, true);
            }
        }
    }

    /// Whether `own`, which coordinates `hash`, may not have its record yet: it is being copied.
    #[inline]
    pub(super) fn is_arriving(&self, own: NodeAddress, hash: u64) -> bool {
        self.whs.clocktime() != self.rhs.clocktime()
            && self.rhs.owners(hash).coordinator().is_some()
            && !self.rhs.owners(hash).is_active_owner(own)
    }

    /// Whether `target` must still get a copy of a write to `hash`: it may have been lost since.
    pub(super) fn requires(&self, target: NodeAddress, by_rhs: bool, hash: u64) -> bool {
        let space = if by_rhs { &self.rhs } else { &self.whs };
        space.owners(hash).is_active_owner(target)
    }
}

/// Requests served, for `GetStatus`.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) gets: AtomicU64,
    pub(super) sets: AtomicU64,
    pub(super) deletes: AtomicU64,
}

/// What every part of a server can reach.
pub(super) struct Shared {
    pub(super) config: Config,
    /// Who this server is, with the port that binding chose.
    pub(super) address: NodeAddress,
    pub(super) clock: Arc<Clock>,
    pub(super) store: Store,
    /// The last hash spaces, across a restart.
    pub(super) memory: Memory,
    /// Bytes that a value read from the disk is expected to take.
    pub(super) miss_weight: AtomicUsize,
    /// Cluster connections, and all that are accepted.
    pub(super) peers: Arc<Peers>,
    /// Connections as a client of other servers: to read their clocks and records.
    pub(super) clients: Arc<Peers>,
    pub(super) counters: Counters,
    pub(super) binary_log: Binlog,
    pub(super) started: Instant,
    /// Callbacks come from threads of the store, too.
    pub(super) runtime: Handle,
    /// Turns at the store's read pool and at its write pool.
    pub(super) reads: Turns,
    pub(super) writes: Turns,
    /// Turns at counting the records, which may have to merge them first.
    pub(super) counts: Turns,
    /// Where every write is noted for a replace.
    pub(super) late_writes: LateWrites,
    /// Set when the server has started; the server owns it, which reaches this.
    pub(super) replace: OnceLock<Weak<Replace>>,
    /// Which keys have a write at the write pool.
    pub(super) order: Order,
    spaces: RwLock<Arc<Spaces>>,
    /// Set while the clocks of the other servers are being asked for: no write is coordinated before.
    learning: AtomicBool,
    held: Mutex<Vec<Submission>>,
    /// Managers that have not yet told a hash space since they were connected, and which.
    pub(super) untold: Mutex<HashSet<(NodeAddress, Method)>>,
    /// Nodes that could not be reached when last tried: said once in the log, not at every try.
    unreachable: Mutex<HashSet<NodeAddress>>,
}

impl Shared {
    pub(super) fn new(
        config: Config,
        address: NodeAddress,
        clock: Arc<Clock>,
        store: Store,
        peers: Arc<Peers>,
        clients: Arc<Peers>,
        binary_log: Binlog,
    ) -> Self {
        // The rest of the places is for streams and for the deletions of a replace, which queue without a turn.
        let jobs = (store.queue_capacity() - store.queue_capacity() / 8).max(1);
        Self {
            reads: Turns::new(jobs),
            writes: Turns::new(jobs),
            counts: Turns::new(1),
            config,
            address,
            clock,
            memory: Memory::open(&store),
            store,
            miss_weight: AtomicUsize::new(0),
            peers,
            clients,
            counters: Counters::default(),
            binary_log,
            started: Instant::now(),
            runtime: Handle::current(),
            late_writes: LateWrites::default(),
            replace: OnceLock::new(),
            order: Order::default(),
            spaces: RwLock::default(),
            learning: AtomicBool::new(false),
            held: Mutex::default(),
            untold: Mutex::default(),
            unreachable: Mutex::default(),
        }
    }

    /// The hash spaces as they stand.
    #[inline]
    pub(super) fn spaces(&self) -> Arc<Spaces> {
        self.spaces.read().clone()
    }

    /// Takes new hash spaces where `take` gives them; says whether this server has become active in whs by that.
    ///
    /// Calls to nodes that are not active any more fail at once, instead of at their time-out.
    pub(super) fn change_spaces(&self, take: impl FnOnce(&Spaces) -> (Option<Seed>, Option<Seed>)) -> Change {
        let (before, after) = {
            let mut spaces = self.spaces.write();
            let (whs, rhs) = take(&spaces);
            if whs.is_none() && rhs.is_none() {
                return Change { taken: false, joined: false };
            }
            let whs = whs.map_or_else(|| spaces.whs.clone(), |seed| Arc::new(HashSpace::new(seed)));
            let rhs = rhs.map_or_else(|| spaces.rhs.clone(), |seed| Arc::new(HashSpace::new(seed)));
            let sessions = whs
                .seed()
                .nodes
                .iter()
                .chain(&rhs.seed().nodes)
                .map(|(node, _)| *node)
                .filter(|node| *node != self.address)
                .map(|node| (node, self.peers.session(node)))
                .collect();
            let after = Arc::new(Spaces { whs, rhs, sessions });
            let joined = after.whs.is_active(self.address) && !spaces.whs.is_active(self.address);
            if joined {
                // Under the lock: no write sees the new whs without seeing this.
                self.learning.store(true, Ordering::Release);
            }
            (std::mem::replace(&mut *spaces, after.clone()), after)
        };
        for (node, session) in &before.sessions {
            let was_active = before.whs.is_active(*node) || before.rhs.is_active(*node);
            if was_active && !after.whs.is_active(*node) && !after.rhs.is_active(*node) {
                session.fail_calls(ErrorCode::NodeLost);
            }
        }
        let joined = after.whs.is_active(self.address) && !before.whs.is_active(self.address);
        Change { taken: true, joined }
    }

    /// Whether writes must wait for the clocks of the other servers.
    #[inline]
    pub(super) fn is_learning(&self) -> bool {
        self.learning.load(Ordering::Acquire)
    }

    /// A value of this length, the longest of several, has been read from the disk: those read next may be as long.
    pub(super) fn note_read_length(&self, length: usize) {
        let expected = self.miss_weight.load(Ordering::Relaxed);
        // It falls slowly: long values among short ones are what takes memory.
        self.miss_weight.store(length.max(expected - expected / 16), Ordering::Relaxed);
    }

    /// Keeps a write until the clocks are known; gives it back if they are known by now, or too many wait.
    pub(super) fn hold(&self, write: Submission) -> Result<(), Submission> {
        let mut held = self.held.lock();
        if self.is_learning() && held.len() < HELD_LIMIT {
            held.push(write);
            Ok(())
        } else {
            Err(write)
        }
    }

    /// The clocks are known: returns the writes that have waited.
    pub(super) fn learned(&self) -> Job {
        let mut held = self.held.lock();
        // First, so that no write which comes now overtakes those.
        let job = self.order.begin(std::mem::take(&mut held));
        self.learning.store(false, Ordering::Release);
        job
    }

    /// A connection to `node` stands.
    pub(super) fn note_reachable(&self, node: NodeAddress) {
        if self.unreachable.lock().remove(&node) {
            tracing::info!(peer = %node, "node reachable again");
        }
    }

    /// All tries to reach `node` have failed.
    pub(super) fn note_unreachable(&self, node: NodeAddress) {
        let mut unreachable = self.unreachable.lock();
        if unreachable.len() < NODE_LIMIT && unreachable.insert(node) {
            tracing::warn!(peer = %node, "node unreachable");
        }
    }

    /// Whether `node` is one of our managers.
    pub(super) fn is_manager(&self, node: NodeAddress) -> bool {
        self.config.managers.contains(&node)
    }
}

/// What [`Shared::change_spaces`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// At least one hash space was taken.
    pub(super) taken: bool,
    /// This server was not active in whs before and is now.
    pub(super) joined: bool,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ClockTime;
    use crate::net::{DialPolicy, Limits};

    fn node(number: u16) -> NodeAddress {
        NodeAddress::new(std::net::SocketAddr::from(([10, 0, 0, 1], number)))
    }

    fn space(clocktime: u64, nodes: &[(u16, bool)]) -> Arc<HashSpace> {
        let nodes = nodes.iter().map(|(number, active)| (node(*number), *active)).collect();
        Arc::new(HashSpace::new(Seed { nodes, clocktime: ClockTime(clocktime) }))
    }

    fn spaces(whs: Arc<HashSpace>, rhs: Arc<HashSpace>) -> Spaces {
        let peers = Peers::new(None, DialPolicy { timeout: Duration::from_secs(1), retry_limit: 0 }, Limits::default());
        let nodes = whs.seed().nodes.iter().chain(&rhs.seed().nodes);
        let sessions = nodes.map(|(node, _)| (*node, peers.session(*node))).collect();
        Spaces { whs, rhs, sessions }
    }

    fn targets(spaces: &Spaces, own: NodeAddress, hash: u64) -> Vec<(NodeAddress, bool)> {
        let mut found = Vec::new();
        spaces.targets(own, hash, |target| found.push((target.session.address(), target.by_rhs)));
        found
    }

    #[tokio::test]
    async fn a_write_goes_to_the_other_writers_and_while_the_spaces_differ_to_the_readers_too() {
        let old = space(1, &[(1, true), (2, true), (3, true)]);
        let new = space(2, &[(1, true), (2, true), (3, true), (4, true), (5, true), (6, true)]);
        let settled = spaces(old.clone(), old.clone());
        let moving = spaces(new.clone(), old.clone());
        for hash in (0..200u64).map(|index| index.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let own = old.owners(hash).coordinator().unwrap();
            let found = targets(&settled, own, hash);
            assert_eq!((found.len(), found.iter().all(|(_, by_rhs)| !by_rhs)), (2, true));

            let own = new.owners(hash).coordinator().unwrap();
            let found = targets(&moving, own, hash);
            let writers: Vec<_> = found.iter().filter(|(_, by_rhs)| !by_rhs).map(|(node, _)| *node).collect();
            assert_eq!(writers, new.owners(hash).active().skip(1).collect::<Vec<_>>());
            for reader in old.owners(hash).active().filter(|node| *node != own && !writers.contains(node)) {
                assert!(found.contains(&(reader, true)));
            }
            assert!(found.iter().all(|(node, _)| *node != own));
        }
    }

    #[tokio::test]
    async fn a_faulty_server_gets_no_copy_and_is_not_required() {
        let whs = space(2, &[(1, true), (2, false), (3, true)]);
        let spaces = spaces(whs.clone(), whs);
        let found = targets(&spaces, node(1), 7);
        assert_eq!(found, [(node(3), false)]);
        assert!(!spaces.requires(node(2), false, 7));
        assert!(spaces.requires(node(3), false, 7));
    }
}
