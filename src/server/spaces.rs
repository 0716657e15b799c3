//! The hash spaces as a server uses them: who gets a copy of a write, and who must have it.
//!
//! Pure but for the sessions that it hands out. When hash spaces change, `shared` and `membership` decide.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::permit::Permit;
use crate::net::{Peers, Session};
use crate::register::Member;
use crate::ring::HashSpace;
use crate::wire::NodeAddress;
use crate::wire::extension::{Fence, Route};
use crate::wire::method::{ErrorCode, REPLICATE_BY_RHS};
use crate::wire::params::Seed;

/// The two hash spaces as they stand together, with the sessions of their nodes.
#[derive(Debug, Clone)]
pub(super) struct Spaces {
    /// For writing: Set, Delete.
    pub(super) whs: Arc<HashSpace>,
    /// For reading: Get.
    pub(super) rhs: Arc<HashSpace>,
    /// That of the configuration that they belong to; zero before the first.
    pub(super) counter: u64,
    /// Until when this server may act by them.
    pub(super) permit: Arc<Permit>,
    /// The admission of each server, where servers vote; see [`Member::admitted`].
    admitted: BTreeMap<NodeAddress, u64>,
    place: Place,
    /// Of every node but this server.
    sessions: BTreeMap<NodeAddress, Arc<Session>>,
    /// See [`Spaces::joins`].
    joins: u32,
}

/// How this server stands by a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// What it holds counts; or nothing does, since it owns nothing.
    Settled,
    /// It was admitted by the configuration of this number, and what it holds from before still has to be put aside.
    Joining(u64),
    /// Its store is not the one that is the member, or was replaced by an older copy.
    Foreign,
}

/// A server that must get a copy of a write.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) session: Arc<Session>,
    /// It is an owner in rhs only: it answers reads until rhs is whs.
    pub(super) by_rhs: bool,
    /// Under which configuration it is sent the copy, if servers vote.
    pub(super) fence: Option<Fence>,
}

impl Target {
    /// The flags of its `ReplicateSet` or `ReplicateDelete`.
    pub(super) fn flags(&self) -> u32 {
        if self.by_rhs { REPLICATE_BY_RHS } else { 0 }
    }
}

impl Default for Spaces {
    /// None, as long as nobody has sent any.
    fn default() -> Self {
        let permit = Arc::new(Permit::unlimited());
        Self {
            whs: Arc::default(),
            rhs: Arc::default(),
            counter: 0,
            permit,
            admitted: BTreeMap::new(),
            place: Place::Settled,
            sessions: BTreeMap::new(),
            joins: 0,
        }
    }
}

impl Spaces {
    /// The hash spaces of the server `own`, with a session of `peers` for each of the other nodes.
    pub(super) fn new(
        whs: Arc<HashSpace>,
        rhs: Arc<HashSpace>,
        (counter, permit): (u64, Arc<Permit>),
        own: NodeAddress,
        peers: &Arc<Peers>,
    ) -> Self {
        let nodes = whs.seed().nodes.iter().chain(&rhs.seed().nodes).map(|(node, _)| *node);
        let sessions = nodes.filter(|node| *node != own).map(|node| (node, peers.session(node))).collect();
        let (admitted, place) = (BTreeMap::new(), Place::Settled);
        Self { whs, rhs, counter, permit, admitted, place, sessions, joins: 0 }
    }

    /// These with the servers of their configuration. `own` has the store `store`; what is there belongs to the admission that
    /// `has` says.
    pub(super) fn with_members(
        mut self,
        members: &BTreeMap<NodeAddress, Member>,
        own: NodeAddress,
        store: u64,
        has: impl Fn(u64) -> bool,
    ) -> Self {
        self.place = match members.get(&own) {
            Some(member) if member.store != store => Place::Foreign,
            Some(member) if !has(member.admitted) => {
                // Nobody is made an owner for reading before it has joined.
                if self.rhs.is_active(own) { Place::Foreign } else { Place::Joining(member.admitted) }
            }
            _ => Place::Settled,
        };
        self.admitted = members.iter().map(|(node, member)| (*node, member.admitted)).collect();
        self
    }

    /// These, once what this server held before its admission is put aside.
    pub(super) fn joined(&self) -> Self {
        Self { place: Place::Settled, ..self.clone() }
    }

    /// How this server stands by them.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Whether this server may store by them, and answer for what it holds.
    #[inline]
    pub(super) fn may_store(&self) -> bool {
        self.place == Place::Settled
    }

    /// The admission of a server; zero if there was none.
    pub(super) fn admission(&self, node: NodeAddress) -> u64 {
        self.admitted.get(&node).copied().unwrap_or(0)
    }

    /// These with the hash spaces that are given in place of those held.
    ///
    /// A version never goes back: what was written under a later one would be looked for in the wrong places.
    pub(super) fn changed(&self, whs: Option<Seed>, rhs: Option<Seed>, own: NodeAddress, peers: &Arc<Peers>) -> Self {
        let take = |held: &Arc<HashSpace>, seed: Option<Seed>| {
            let Some(seed) = seed else { return held.clone() };
            let is_older = held.is_ready() && seed.clocktime.is_before(held.clocktime());
            assert!(
                !is_older,
                "a hash space of {} is replaced by an older one of {}",
                held.clocktime(),
                seed.clocktime
            );
            Arc::new(HashSpace::new(seed))
        };
        let place = (self.counter, self.permit.clone());
        Self::new(take(&self.whs, whs), take(&self.rhs, rhs), place, own, peers).following(self, own)
    }

    /// These as those that come after `before`.
    pub(super) fn following(mut self, before: &Self, own: NodeAddress) -> Self {
        let anew = self.admission(own) != 0 && self.admission(own) != before.admission(own);
        let joined = self.whs.is_active(own) && (anew || !before.whs.is_active(own));
        self.joins = before.joins.saturating_add(u32::from(joined));
        self
    }

    /// How often this server has become active in whs, or was admitted. What it had begun before the last time counts no more:
    /// others may have replaced it while this server was given up.
    pub(super) fn joins(&self) -> u32 {
        self.joins
    }

    /// Whether there is no other server.
    pub(super) fn is_alone(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether each key has the same owners as in `other`.
    #[inline]
    pub(super) fn have_the_owners_of(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || (self.whs.clocktime() == other.whs.clocktime() && self.rhs.clocktime() == other.rhs.clocktime())
    }

    /// Says of the nodes whose limit is known how long a message they take, in bytes.
    pub(super) fn set_message_limits(&self, limits: &BTreeMap<NodeAddress, usize>) {
        for (node, session) in &self.sessions {
            if let Some(limit) = limits.get(node) {
                session.set_message_limit(*limit);
            }
        }
    }

    /// What copies carry that are sent by these.
    pub(super) fn fence(&self) -> Option<Fence> {
        self.permit.is_limited().then_some(Fence { version: self.counter })
    }

    /// Whether a copy that carries `fence` may be stored: its coordinator acts by these, or nobody votes.
    #[inline]
    pub(super) fn admits(&self, fence: Option<Fence>) -> bool {
        !self.permit.is_limited() || (fence == self.fence() && self.may_store())
    }

    /// Whether `server` coordinates a write that a client has sent by `route`.
    ///
    /// Where servers vote, that must be the hash space for writing of these. A write that was sent by an earlier one may be late, and
    /// its client have asked another coordinator since; one that was sent by a later one is for whoever acts by that.
    #[inline]
    pub(super) fn takes(&self, server: NodeAddress, hash: u64, route: Option<Route>) -> bool {
        let is_late = |route: Route| self.permit.is_limited() && route.whs != self.whs.clocktime().0;
        self.whs.owners(hash).coordinator() == Some(server) && !route.is_some_and(is_late)
    }

    /// Whether it may be stored before long: its coordinator acts by these or later ones.
    pub(super) fn may_admit(&self, fence: Option<Fence>) -> bool {
        self.admits(fence) || fence.is_some_and(|fence| fence.version >= self.counter)
    }

    /// The store's fencing token for what is written by these.
    #[inline]
    pub(super) fn token(&self) -> u64 {
        self.fence().map_or(0, |fence| fence.version)
    }

    /// Calls to nodes that are active here and no more in `after` fail at once, instead of at their time-out; and all calls if
    /// it is `own` that was given up.
    pub(super) fn fail_calls_to_lost(&self, own: NodeAddress, after: &Self) {
        let lost = |node: NodeAddress| self.is_active(node) && !after.is_active(node);
        for (node, session) in &self.sessions {
            if lost(*node) || lost(own) {
                session.fail_calls(ErrorCode::NodeLost);
            }
        }
    }

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
                each(Target { session: session.clone(), by_rhs, fence: self.fence() });
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

    /// `node` as it must have a write to `hash`, if it must: it may have been lost since, or own the key in rhs only.
    pub(super) fn target(&self, node: NodeAddress, hash: u64) -> Option<Target> {
        let by_rhs = !self.whs.owners(hash).is_active_owner(node);
        if by_rhs && !self.rhs.owners(hash).is_active_owner(node) {
            return None;
        }
        Some(Target { session: self.sessions.get(&node)?.clone(), by_rhs, fence: self.fence() })
    }
}

/// The effect of a change of hash spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpacesChange {
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

    fn peers() -> Arc<Peers> {
        Peers::new(
            &crate::env::Env::real(),
            None,
            DialPolicy { timeout: Duration::from_secs(1), retry_limit: 0 },
            Limits::default(),
        )
    }

    /// The hash spaces of a server that is in neither, but asks as each of the nodes.
    fn spaces(whs: Arc<HashSpace>, rhs: Arc<HashSpace>) -> Spaces {
        Spaces::new(whs, rhs, (0, Arc::new(Permit::unlimited())), node(0), &peers())
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
        assert!(spaces.target(node(2), 7).is_none());
        assert!(spaces.target(node(3), 7).is_some_and(|target| !target.by_rhs));
    }

    #[tokio::test]
    async fn who_owns_a_key_for_reading_only_must_have_its_writes_until_reading_follows() {
        let old = space(1, &[(1, true), (2, true), (3, true)]);
        let new = space(2, &[(1, true), (2, true), (3, true), (4, true)]);
        let moving = spaces(new.clone(), old.clone());
        let hash = (0..200u64)
            .map(|index| index.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .find(|hash| !new.owners(*hash).is_active_owner(node(3)))
            .unwrap();
        assert!(moving.target(node(3), hash).is_some_and(|target| target.by_rhs));
        assert!(moving.target(node(4), hash).is_some_and(|target| !target.by_rhs));
        assert!(spaces(new.clone(), new).target(node(3), hash).is_none());
    }

    #[tokio::test]
    async fn a_server_that_was_given_up_and_is_taken_back_has_joined() {
        let peers = peers();
        let seed = |clocktime, active| Some(space(clocktime, &[(1, active), (2, true)]).seed().clone());
        let first = Spaces::default().changed(seed(1, true), seed(1, true), node(1), &peers);
        let fault = first.changed(seed(2, false), seed(2, false), node(1), &peers);
        let back = fault.changed(seed(3, true), None, node(1), &peers);
        assert_eq!([&first, &fault, &back].map(Spaces::joins), [1, 1, 2]);
        assert!(!fault.have_the_owners_of(&first) && !back.have_the_owners_of(&fault));
        let again = back.changed(seed(3, true), None, node(1), &peers);
        assert!(again.have_the_owners_of(&back) && again.joins() == 2);
    }

    /// A configuration with these members, by store and admission, as the server 3 with the store 30 sees it.
    fn admitting(rhs: Arc<HashSpace>, members: &[(u16, u64, u64)], has: u64) -> Spaces {
        let whs = space(6, &[(1, true), (2, true), (3, true)]);
        let members =
            members.iter().map(|(port, store, admitted)| (node(*port), Member { store: *store, admitted: *admitted }));
        let place = (6, Arc::new(Permit::unlimited()));
        let has = |admitted| admitted == 0 || admitted == has;
        Spaces::new(whs, rhs, place, node(3), &peers()).with_members(&members.collect(), node(3), 30, has)
    }

    #[tokio::test]
    async fn who_is_admitted_stores_once_what_it_held_is_put_aside() {
        let without = || space(5, &[(1, true), (2, true), (3, false)]);
        let joining = admitting(without(), &[(1, 10, 0), (3, 30, 6)], 0);
        assert_eq!((joining.place(), joining.may_store()), (Place::Joining(6), false));
        assert!(joining.joined().may_store());
        assert!(admitting(without(), &[(3, 30, 6)], 6).may_store(), "after a restart");
        assert!(admitting(without(), &[(3, 30, 0)], 0).may_store(), "it was there before there were votes");
        assert!(admitting(without(), &[(1, 10, 0)], 0).may_store(), "it owns nothing");
        assert_eq!(admitting(without(), &[(3, 31, 0)], 0).place(), Place::Foreign, "with another disk");
        // It was an owner for reading already when this copy of its store was made, or it would have joined.
        let reading = space(6, &[(1, true), (2, true), (3, true)]);
        assert_eq!(admitting(reading, &[(3, 30, 6)], 4).place(), Place::Foreign);
    }

    #[tokio::test]
    async fn who_was_given_up_and_is_back_has_joined_though_it_heard_of_neither() {
        let without = || space(5, &[(1, true), (2, true), (3, false)]);
        let first = admitting(without(), &[(3, 30, 4)], 4).following(&Spaces::default(), node(3));
        let same = admitting(without(), &[(3, 30, 4)], 4).following(&first, node(3));
        let anew = admitting(without(), &[(3, 30, 6)], 4).following(&same, node(3));
        assert_eq!([&first, &same, &anew].map(Spaces::joins), [1, 1, 2]);
        // A cluster that goes back to votes takes nobody in anew.
        let founded = admitting(without(), &[(3, 30, 0)], 4).following(&anew, node(3));
        assert_eq!(founded.joins(), 2);
    }

    #[tokio::test]
    #[should_panic(expected = "is replaced by an older one")]
    async fn no_version_goes_back() {
        let held = spaces(space(2, &[(1, true)]), space(2, &[(1, true)]));
        let older = space(1, &[(1, true), (2, true)]).seed().clone();
        held.changed(Some(older), None, node(1), &peers());
    }
}
