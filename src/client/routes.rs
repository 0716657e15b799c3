//! Where requests go: the hash spaces at one moment, and what is known of each server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::clock::is_behind;
use crate::net::Session;
use crate::ring::{HashSpace, OWNERS};
use crate::wire::extension::Route;
use crate::wire::params::Seed;
use crate::wire::{MESSAGE_LIMIT_MIN, NodeAddress};

/// A server as this client sees it.
#[derive(Debug)]
pub struct Node {
    address: NodeAddress,
    session: Arc<Session>,
    /// It has failed to answer, and has not answered since: reads go elsewhere first.
    suspect: AtomicBool,
    /// Somebody looks at it now and then.
    watched: AtomicBool,
    /// The clock of the last write that it has answered: it knows that one after a restart, too.
    written: KnownClock,
    /// The clock that it has told since it was connected.
    told: KnownClock,
}

/// A Lamport clock, if one is known: [`KNOWN`] is set then.
#[derive(Debug, Default)]
struct KnownClock(AtomicU64);

/// Stands above the 32 bits of a clock that is known.
const KNOWN: u64 = 1 << 32;

impl KnownClock {
    #[inline]
    fn get(&self) -> Option<u32> {
        let clock = self.0.load(Ordering::Relaxed);
        if clock & KNOWN == 0 { None } else { u32::try_from(clock & !KNOWN).ok() }
    }

    /// Goes forward. Of several that come together any may stay.
    #[inline]
    fn note(&self, clock: u32) {
        if self.get().is_none_or(|known| is_behind(known, clock)) {
            self.0.store(KNOWN | u64::from(clock), Ordering::Relaxed);
        }
    }

    fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Node {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self {
            address: session.address(),
            session,
            suspect: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            written: KnownClock::default(),
            told: KnownClock::default(),
        }
    }

    /// A Lamport clock that the server has surely passed: no write that is sent to it from now on gets an earlier one.
    /// `None` if none is known.
    #[inline]
    pub fn clock(&self) -> Option<u32> {
        match (self.written.get(), self.told.get()) {
            (Some(written), Some(told)) => Some(if is_behind(written, told) { told } else { written }),
            (written, told) => written.or(told),
        }
    }

    /// The server has answered a write with this clock.
    #[inline]
    pub fn note_write(&self, clock: u32) {
        self.written.note(clock);
    }

    /// The server has told that its clock is this.
    pub(super) fn note_clock(&self, clock: u32) {
        self.told.note(clock);
    }

    /// The server may be started anew: it need not remember a clock that it has only told.
    pub(super) fn forget_clock(&self) {
        self.told.forget();
    }

    /// Who it is.
    pub fn address(&self) -> NodeAddress {
        self.address
    }

    /// Calls to it.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Whether it has failed to answer, and has not answered since.
    #[inline]
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// Becomes suspect; says whether somebody must begin to look at it.
    pub(super) fn suspect(&self) -> bool {
        // In one order with `unwatch`: it is looked at, or begins to be.
        !self.suspect.swap(true, Ordering::SeqCst) && self.watch()
    }

    /// Becomes watched; says whether it was not before.
    fn watch(&self) -> bool {
        !self.watched.swap(true, Ordering::SeqCst)
    }

    /// Whoever looks at it leaves off, unless it has become suspect meanwhile: says whether it may.
    pub(super) fn unwatch(&self) -> bool {
        self.watched.store(false, Ordering::SeqCst);
        !(self.suspect.load(Ordering::SeqCst) && self.watch())
    }

    /// It has answered.
    pub fn trust(&self) {
        self.suspect.store(false, Ordering::Relaxed);
    }
}

/// The hash spaces at one moment, with their servers. Never changed; a new hash space makes a new one.
#[derive(Debug, Default)]
pub struct Routes {
    whs: HashSpace,
    rhs: HashSpace,
    /// In the order of the seeds.
    whs_nodes: Vec<Arc<Node>>,
    rhs_nodes: Vec<Arc<Node>>,
    /// Whether the servers vote.
    votes: bool,
}

impl Routes {
    pub(super) fn new(
        whs: HashSpace,
        rhs: HashSpace,
        votes: bool,
        mut node: impl FnMut(NodeAddress) -> Arc<Node>,
    ) -> Self {
        let mut nodes = |space: &HashSpace| space.seed().nodes.iter().map(|(address, _)| node(*address)).collect();
        let (whs_nodes, rhs_nodes) = (nodes(&whs), nodes(&rhs));
        Self { whs, rhs, whs_nodes, rhs_nodes, votes }
    }

    /// The hash space for writing.
    pub fn whs(&self) -> &HashSpace {
        &self.whs
    }

    /// The hash space for reading.
    pub fn rhs(&self) -> &HashSpace {
        &self.rhs
    }

    /// Whether the servers vote, as far as a manager has told.
    pub(super) fn votes(&self) -> bool {
        self.votes
    }

    /// What a write to its [coordinator](Self::coordinator) is to carry: it must not be done when another one may have been asked
    /// since.
    #[inline]
    pub fn route(&self) -> Option<Route> {
        self.votes.then(|| Route { whs: self.whs.clocktime().0 })
    }

    /// Whom to send writes of `hash`.
    #[inline]
    pub fn coordinator(&self, hash: u64) -> Option<&Arc<Node>> {
        self.whs.owners(hash).active_indexes().next().and_then(|index| self.whs_nodes.get(index))
    }

    /// Whom to read `hash` from, in this order: the owners, those under suspicion now last.
    #[inline]
    pub fn readers(&self, hash: u64) -> impl Iterator<Item = &Arc<Node>> {
        // Looked at once: one that becomes suspect on the way must not have a second turn, nor lose its first.
        let mut seen = [None; OWNERS];
        let owners = self.rhs.owners(hash).active_indexes().filter_map(|index| self.rhs_nodes.get(index));
        for (place, node) in seen.iter_mut().zip(owners) {
            *place = Some((node, node.is_suspect()));
        }
        let those = move |suspect| seen.into_iter().flatten().filter(move |seen| seen.1 == suspect).map(|seen| seen.0);
        those(false).chain(those(true))
    }

    /// Whom to read from what a write to `hash` will be compared with: the coordinator of writes, or that of reads
    /// while the former does not have the records yet.
    pub fn arbiter(&self, hash: u64) -> Option<&Arc<Node>> {
        let owners = || self.rhs.owners(hash).active_indexes().filter_map(|index| self.rhs_nodes.get(index));
        let coordinator = self.coordinator(hash)?;
        owners().find(|node| node.address == coordinator.address).or_else(|| owners().next())
    }

    /// A server that must store a record of `hash` and does not take a message of `length` bytes, with its limit.
    pub fn too_large(&self, hash: u64, length: usize) -> Option<(NodeAddress, usize)> {
        if length <= MESSAGE_LIMIT_MIN {
            return None;
        }
        let writers = self.whs.owners(hash).active_indexes().filter_map(|index| self.whs_nodes.get(index));
        let readers = self.rhs.owners(hash).active_indexes().filter_map(|index| self.rhs_nodes.get(index));
        let limits = writers.chain(readers).map(|node| (node.address, node.session.message_limit()));
        limits.filter(|(_, limit)| length > *limit).min_by_key(|(_, limit)| *limit)
    }

    /// Whether a server is active in one of the hash spaces.
    pub(super) fn is_active(&self, address: NodeAddress) -> bool {
        self.whs.is_active(address) || self.rhs.is_active(address)
    }

    /// How many servers have a copy of a key that is written now.
    pub fn copies(&self) -> usize {
        self.whs.active_nodes().take(OWNERS).count()
    }

    /// How many servers are under suspicion.
    pub fn suspects(&self) -> usize {
        let mut suspects: Vec<_> = self.nodes().filter(|node| node.is_suspect()).map(|node| node.address).collect();
        suspects.sort_unstable();
        suspects.dedup();
        suspects.len()
    }

    /// Every server, those in both hash spaces twice.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.whs_nodes.iter().chain(&self.rhs_nodes)
    }

    /// The hash spaces with those of `whs` and `rhs` that are newer and can be used, if any is.
    pub(super) fn newer(&self, whs: Seed, rhs: Seed) -> Option<(HashSpace, HashSpace)> {
        let newer = |held: &HashSpace, seed: &Seed| {
            seed.has_active() && (!held.is_ready() || held.clocktime().is_before(seed.clocktime))
        };
        let take = |held: &HashSpace, seed: Seed| newer(held, &seed).then(|| HashSpace::new(seed));
        match (take(&self.whs, whs), take(&self.rhs, rhs)) {
            (None, None) => None,
            (whs, rhs) => Some((whs.unwrap_or_else(|| self.whs.clone()), rhs.unwrap_or_else(|| self.rhs.clone()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU16;

    use super::*;
    use crate::clock::ClockTime;
    use crate::net::{DialPolicy, Limits, Peers};

    fn node() -> Node {
        static LAST: AtomicU16 = AtomicU16::new(1);
        let port = LAST.fetch_add(1, Ordering::Relaxed);
        let policy = DialPolicy { timeout: std::time::Duration::ZERO, retry_limit: 0 };
        let address = NodeAddress::new(([127, 0, 0, 1], port).into());
        Node::new(Peers::new(&crate::env::Env::real(), None, policy, Limits::default()).session(address))
    }

    #[tokio::test]
    async fn each_reader_has_one_turn() {
        let nodes: Vec<_> = (0..3).map(|_| Arc::new(node())).collect();
        let seed =
            Seed { nodes: nodes.iter().map(|node| (node.address(), true)).collect(), clocktime: ClockTime::new(9, 1) };
        let find = |address| nodes.iter().find(|node| node.address() == address).expect("a node").clone();
        let routes = Routes::new(HashSpace::new(seed.clone()), HashSpace::new(seed), false, find);
        let order: Vec<_> = routes.readers(7).map(|node| node.address()).collect();
        assert_eq!(order.len(), 3);
        // The first fails while the second is yet to be asked, and one that had failed answers again.
        find(order[2]).suspect();
        let mut turns = Vec::new();
        for node in routes.readers(7) {
            turns.push(node.address());
            node.suspect();
            find(order[2]).trust();
        }
        assert_eq!(turns, order);
        let again: Vec<_> = routes.readers(7).map(|node| node.address()).collect();
        assert_eq!(again[0], order[2]);
    }

    #[tokio::test]
    async fn the_clock_of_a_server_goes_forward_and_what_it_has_only_told_is_forgotten() {
        let node = node();
        assert_eq!(node.clock(), None);
        for (said, known) in [(0, 0), (7, 7), (5, 7), (5000, 5000), (u32::MAX, u32::MAX), (3, 3)] {
            node.note_clock(said);
            assert_eq!(node.clock(), Some(known), "after {said}");
        }
        node.forget_clock();
        assert_eq!(node.clock(), None);
        for (written, told, known) in [(5, 9, 9), (12, 10, 12), (11, 13, 13)] {
            node.note_write(written);
            node.note_clock(told);
            assert_eq!(node.clock(), Some(known));
        }
        node.forget_clock();
        assert_eq!(node.clock(), Some(12));
    }

    #[tokio::test]
    async fn a_suspect_is_looked_at_by_one() {
        let node = node();
        assert!(node.suspect() && !node.suspect());
        node.trust();
        assert!(!node.suspect(), "whoever looks at it is still there");
        assert!(!node.unwatch(), "it is suspect again");
        node.trust();
        assert!(node.unwatch() && node.suspect());
    }
}
