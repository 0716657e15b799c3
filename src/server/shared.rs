//! State that all parts of a server share: hash spaces, clock, counters, store and connections, behind methods.
//!
//! Knows no message layouts. Guards of its locks never leave a method, so that no lock is held while another part
//! runs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use tokio::sync::Semaphore;

use super::admission::Admission;
use super::config::Config;
use super::copies::Copies;
use super::joined::Joined;
use super::key_order::{Job, KeyOrder};
use super::last_spaces::LastSpaces;
use super::majority::Majority;
use super::marks::Marks;
use super::permit::Permit;
use super::replace::{LateWrites, Replace};
use super::spaces::{Place, Spaces, SpacesChange};
use super::submission::Submission;
use super::unsettled::Unsettled;
use super::votes::Votes;
use crate::binlog::Binlog;
use crate::clock::Clock;
use crate::env::{Env, Seldom};
use crate::net::Peers;
use crate::register::{Claims, Configuration, Reach, Version};
use crate::ring::HashSpace;
use crate::rules::Rule;
use crate::store::Store;
use crate::time::Moment;
use crate::wire::method::{Method, Role};
use crate::wire::params::{NODE_LIMIT, Seed};
use crate::wire::{Extension, Init, NODE_MARGIN, NodeAddress};

/// Votes that may wait for the disk: those of two managers.
const VOTES: usize = 2;
/// Writes that may wait while a newly attached server learns the clocks of the others.
const HELD_LIMIT: usize = 16_384;

/// Requests served, for `GetStatus`.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) gets: AtomicU64,
    pub(super) sets: AtomicU64,
    pub(super) deletes: AtomicU64,
}

/// The state that every part of a server can reach.
pub(super) struct Shared {
    pub(super) config: Config,
    /// Who this server is, with the port that binding chose.
    pub(super) address: NodeAddress,
    pub(super) clock: Arc<Clock>,
    pub(super) store: Store,
    /// The last hash spaces, across a restart.
    pub(super) last_spaces: LastSpaces,
    /// This server's part in the register.
    pub(super) votes: Votes,
    /// Which members answer.
    pub(super) reach: Mutex<Reach>,
    /// Which machine each other server is.
    pub(super) claims: Mutex<Claims>,
    /// What was logged lately, of which node.
    pub(super) said: Mutex<Seldom<(NodeAddress, &'static str)>>,
    /// Whether what its store holds belongs to its present admission.
    pub(super) joined: Joined,
    /// Bytes that a value read from the disk is expected to take.
    pub(super) miss_weight: AtomicUsize,
    /// The longest message from a node that other servers take, in bytes, as managers have sent it.
    message_limits: Mutex<BTreeMap<NodeAddress, usize>>,
    /// Cluster connections, and all that are accepted.
    pub(super) peers: Arc<Peers>,
    /// Connections as a client of other servers: to read their clocks and records.
    pub(super) clients: Arc<Peers>,
    pub(super) counters: Counters,
    pub(super) binary_log: Binlog,
    pub(super) started: Moment,
    pub(super) env: Env,
    /// Whether it is in the log that this server may not act.
    pub(super) majority: Majority,
    /// For the votes that wait for the disk.
    pub(super) voting: Arc<Semaphore>,
    /// Admission at the store's read pool and at its write pool.
    pub(super) reads: Admission,
    pub(super) writes: Admission,
    /// Admission at counting the records, which may have to merge them first.
    pub(super) counts: Admission,
    /// Where every write is noted for a replace.
    pub(super) late_writes: LateWrites,
    /// Set when the server has started; the server owns it, which reaches this.
    pub(super) replace: OnceLock<Weak<Replace>>,
    /// Which keys have a write at the write pool.
    pub(super) key_order: KeyOrder,
    /// Which keys have a write that is not known to be on all owners.
    pub(super) marks: Arc<Marks>,
    /// Those of them whose write has ended.
    pub(super) unsettled: Arc<Unsettled>,
    /// Copies of writes that others coordinate, which may be on some owners only.
    pub(super) copies: Copies,
    spaces: RwLock<Arc<Spaces>>,
    /// Set while the clocks of the other servers are being asked for: no write is coordinated before.
    learning: AtomicBool,
    held: Mutex<Vec<Submission>>,
    /// Hash spaces that a manager has not sent since it was connected, each by the method that requests it.
    pub(super) not_received: Mutex<HashSet<(NodeAddress, Method)>>,
    /// When it was last said that a peer's time is far from ours, in unix seconds.
    pub(super) warned_of_skew: AtomicU32,
    /// Nodes that could not be reached when last tried: logged once, not at every try.
    unreachable: Mutex<BTreeSet<NodeAddress>>,
}

impl Shared {
    pub(super) fn new(
        env: &Env,
        config: Config,
        address: NodeAddress,
        clock: Arc<Clock>,
        store: Store,
        binary_log: Binlog,
        (votes, joined): (Votes, Joined),
    ) -> Self {
        let init = Init { address, role: Role::Server };
        let peers = |init| Peers::new(env, init, config.dial.clone(), config.limits.clone());
        let (peers, clients) = (peers(Some(init)), peers(None));
        // The rest of the places is for streams and for the deletions of a replace, which queue without a permit.
        let jobs = (store.queue_capacity() - store.queue_capacity() / 8).max(1);
        Self {
            majority: Majority::default(),
            voting: Arc::new(Semaphore::new(VOTES)),
            reads: Admission::new(jobs),
            writes: Admission::new(jobs),
            counts: Admission::new(1),
            config,
            address,
            clock,
            last_spaces: LastSpaces::open(&store),
            votes,
            reach: Mutex::default(),
            claims: Mutex::default(),
            said: Mutex::default(),
            joined,
            store,
            miss_weight: AtomicUsize::new(0),
            message_limits: Mutex::default(),
            peers,
            clients,
            counters: Counters::default(),
            binary_log,
            started: env.time().now(),
            env: env.clone(),
            late_writes: LateWrites::default(),
            replace: OnceLock::new(),
            key_order: KeyOrder::default(),
            marks: Arc::default(),
            unsettled: Arc::default(),
            copies: Copies::default(),
            spaces: RwLock::default(),
            learning: AtomicBool::new(false),
            held: Mutex::default(),
            not_received: Mutex::default(),
            warned_of_skew: AtomicU32::new(0),
            unreachable: Mutex::default(),
        }
    }

    /// The hash spaces as they stand.
    #[inline]
    pub(super) fn spaces(&self) -> Arc<Spaces> {
        self.spaces.read().clone()
    }

    /// Takes the hash spaces that `take` gives in place of those held; whoever changes them waits for the others.
    pub(super) fn change_spaces(&self, take: impl FnOnce(&Spaces) -> (Option<Seed>, Option<Seed>)) -> SpacesChange {
        let spaces = self.spaces.write();
        let (whs, rhs) = take(&spaces);
        if whs.is_none() && rhs.is_none() {
            return SpacesChange { taken: false, joined: false };
        }
        let after = spaces.changed(whs, rhs, self.address, &self.peers);
        self.put_spaces(spaces, after)
    }

    /// Goes over to the hash spaces of a configuration and the permit to act by it, unless a later one has come first.
    pub(super) fn set_configuration(&self, configuration: Configuration, permit: Arc<Permit>) -> SpacesChange {
        let version = configuration.version();
        let Configuration { counter, whs, rhs, members, .. } = configuration;
        let [whs, rhs] = [whs, rhs].map(|seed| Arc::new(HashSpace::new(seed)));
        let spaces = self.spaces.write();
        let held = Version { counter: spaces.counter, clocktime: spaces.whs.clocktime() };
        if counter == 0 || spaces.counter > 0 && !version.is_after(held) {
            return SpacesChange { taken: false, joined: false };
        }
        // Without votes the managers may have sent later ones since it came into force.
        let later = |held: &Arc<HashSpace>, new: Arc<HashSpace>| {
            let stays = !permit.is_limited() && held.is_ready() && new.clocktime().is_before(held.clocktime());
            if stays { held.clone() } else { new }
        };
        let (whs, rhs) = (later(&spaces.whs, whs), later(&spaces.rhs, rhs));
        let after = Spaces::new(whs, rhs, (counter, permit), self.address, &self.peers);
        let has = |admitted| self.joined.has(admitted) || !self.env.rules().follow(Rule::Admission);
        let after = after.with_members(&members, self.address, self.store.id(), has);
        let after = after.following(&spaces, self.address);
        self.put_spaces(spaces, after)
    }

    fn put_spaces(&self, mut spaces: RwLockWriteGuard<'_, Arc<Spaces>>, after: Spaces) -> SpacesChange {
        let after = Arc::new(after);
        after.set_message_limits(&self.message_limits.lock());
        let joined = after.joins() != spaces.joins();
        if joined {
            // Under the lock: no write sees the new whs without seeing this.
            self.learning.store(true, Ordering::Release);
        }
        // Under the lock: nothing is stored by the old ones once anybody sees these.
        self.store.set_token(after.token());
        let before = std::mem::replace(&mut *spaces, after.clone());
        drop(spaces);
        before.fail_calls_to_lost(self.address, &after);
        SpacesChange { taken: true, joined }
    }

    /// What this server held before it was admitted counts as absent from now on, and it may store.
    pub(super) fn note_joined(&self, admitted: u64) {
        let mut spaces = self.spaces.write();
        if spaces.place() == Place::Joining(admitted) {
            *spaces = Arc::new(spaces.joined());
        }
    }

    /// Takes from a manager how long a message each server accepts.
    pub(super) fn note_message_limits(&self, extension: &Extension) {
        let from_nodes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(NODE_MARGIN);
        // Under the lock of the spaces: sessions of those that come next have the new limits, too.
        let spaces = self.spaces.read();
        let mut limits = self.message_limits.lock();
        // Another manager may have sent other servers.
        if limits.len() > NODE_LIMIT {
            limits.clear();
        }
        let received = extension.message_limits.iter().take(NODE_LIMIT);
        limits.extend(received.map(|(server, limit)| (*server, from_nodes(*limit))));
        spaces.set_message_limits(&limits);
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
    pub(super) fn hold(&self, write: Submission) -> Option<Submission> {
        let mut held = self.held.lock();
        if self.is_learning() && held.len() < HELD_LIMIT {
            held.push(write);
            None
        } else {
            Some(write)
        }
    }

    /// The clocks are known: returns the writes that have waited.
    pub(super) fn learned(&self) -> Job {
        let mut held = self.held.lock();
        // First, so that no write which comes now overtakes those.
        let job = self.key_order.begin(std::mem::take(&mut held));
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

    /// Whether `node` is one of our managers: the address that the name of one stands for now. One that was a manager's
    /// until its name was given to another machine is none any more.
    pub(super) fn is_manager(&self, node: NodeAddress) -> bool {
        self.config.managers.iter().any(|manager| manager.is(node))
    }

    /// Forgets what was noted of a manager that is none any more.
    pub(super) fn forget_manager(&self, node: NodeAddress) {
        self.not_received.lock().retain(|(manager, _)| *manager != node);
        self.unreachable.lock().remove(&node);
    }
}
