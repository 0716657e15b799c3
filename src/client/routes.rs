//! Where requests go: the hash spaces at one moment, and what is known of each server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::net::Session;
use crate::ring::HashSpace;
use crate::wire::NodeAddress;
use crate::wire::params::Seed;

/// A server as this client sees it.
#[derive(Debug)]
pub struct Node {
    address: NodeAddress,
    session: Arc<Session>,
    /// It has failed to answer, and has not answered since: reads go elsewhere first.
    suspect: AtomicBool,
}

impl Node {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self { address: session.address(), session, suspect: AtomicBool::new(false) }
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

    /// Becomes suspect; says whether it was not before.
    pub(super) fn suspect(&self) -> bool {
        !self.suspect.swap(true, Ordering::Relaxed)
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
}

impl Routes {
    pub(super) fn new(whs: HashSpace, rhs: HashSpace, mut node: impl FnMut(NodeAddress) -> Arc<Node>) -> Self {
        let mut nodes = |space: &HashSpace| space.seed().nodes.iter().map(|(address, _)| node(*address)).collect();
        let (whs_nodes, rhs_nodes) = (nodes(&whs), nodes(&rhs));
        Self { whs, rhs, whs_nodes, rhs_nodes }
    }

    /// The hash space for writing.
    pub fn whs(&self) -> &HashSpace {
        &self.whs
    }

    /// The hash space for reading.
    pub fn rhs(&self) -> &HashSpace {
        &self.rhs
    }

    /// Whom to send writes of `hash`.
    #[inline]
    pub fn coordinator(&self, hash: u64) -> Option<&Arc<Node>> {
        self.whs.owners(hash).active_indexes().next().and_then(|index| self.whs_nodes.get(index))
    }

    /// Whom to read `hash` from, in this order: the owners, those under suspicion last.
    #[inline]
    pub fn readers(&self, hash: u64) -> impl Iterator<Item = &Arc<Node>> {
        let owners = move || self.rhs.owners(hash).active_indexes().filter_map(|index| self.rhs_nodes.get(index));
        owners().filter(|node| !node.is_suspect()).chain(owners().filter(|node| node.is_suspect()))
    }

    /// Whom to read from what a write to `hash` will be compared with: the coordinator of writes, or that of reads
    /// while the former does not have the records yet.
    pub fn arbiter(&self, hash: u64) -> Option<&Arc<Node>> {
        let owners = || self.rhs.owners(hash).active_indexes().filter_map(|index| self.rhs_nodes.get(index));
        let coordinator = self.coordinator(hash)?;
        owners().find(|node| node.address == coordinator.address).or_else(|| owners().next())
    }

    /// Whether a server is active in one of the hash spaces.
    pub(super) fn is_active(&self, address: NodeAddress) -> bool {
        self.whs.is_active(address) || self.rhs.is_active(address)
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
