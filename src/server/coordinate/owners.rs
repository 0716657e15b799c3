//! Who has a write, and who must get it when the hash spaces have changed meanwhile. Sends nothing.
//!
//! A write has succeeded when all who own its key *now* have it, by whs and by rhs. Whom it was sent to at first says the
//! hash spaces of that moment. An owner of these may have refused it, since it knew later ones by which it owned the key
//! for reading only; others may have become owners.

use std::sync::Arc;

use crate::server::spaces::{Spaces, Target};
use crate::wire::NodeAddress;

/// How often the owners of a write are worked out anew. A manager changes the hash spaces a few times for one event; a
/// write that meets more of them has failed.
const CHANGES: u8 = 8;

/// The owners that a write was sent to. Each has a place, which stays its own.
pub(super) struct Owners {
    /// By these it was decided who they are.
    spaces: Arc<Spaces>,
    /// The nodes by their places; empty as long as they are the targets of `spaces`.
    nodes: Vec<NodeAddress>,
    changes: u8,
}

/// A set of places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places(pub(super) u64);

impl Places {
    /// Places there can be: the targets of the first hash spaces, and of each change.
    pub(super) const LIMIT: u32 = 48;

    /// This place alone; none beyond the limit.
    pub(super) fn one(place: u32) -> Self {
        Self(if place < Self::LIMIT { 1 << place } else { 0 })
    }

    fn has(self, place: usize) -> bool {
        u32::try_from(place).is_ok_and(|place| self.0 & Self::one(place).0 != 0)
    }
}

/// What a look at the present hash spaces has shown.
#[derive(Debug)]
pub(super) enum Look {
    /// All owners have the write.
    Complete,
    /// These do not: to be sent to, each with its place.
    Lacking(Vec<(u32, Target)>),
    /// These do not, and it cannot be sent to them any more.
    Failed(Vec<NodeAddress>),
}

impl Owners {
    /// The targets of `spaces`, placed as they come.
    pub(super) fn new(spaces: Arc<Spaces>) -> Self {
        Self { spaces, nodes: Vec::new(), changes: 0 }
    }

    /// The hash spaces by which the write was sent last.
    pub(super) fn spaces(&self) -> &Arc<Spaces> {
        &self.spaces
    }

    /// Whether they have been worked out anew.
    pub(super) fn have_changed(&self) -> bool {
        self.changes > 0
    }

    /// Compares the owners by `present` with those that have the write, when nothing that was sent is open any more. A
    /// server that is no more active, or was given up in between, sends nothing: others may have replaced the record
    /// since, and its copy would pass for the later one.
    pub(super) fn look(&mut self, present: Arc<Spaces>, own: NodeAddress, hash: u64, have: Places) -> Look {
        if present.have_the_owners_of(&self.spaces) {
            return Look::Complete;
        }
        if self.nodes.is_empty() {
            let nodes = &mut self.nodes;
            self.spaces.targets(own, hash, |target| nodes.push(target.session.address()));
        }
        let mut lacking = Vec::new();
        present.targets(own, hash, |target| {
            let node = target.session.address();
            let place = self.nodes.iter().position(|known| *known == node);
            // What it took before it was admitted anew it holds no more.
            let same = present.admission(node) == self.spaces.admission(node);
            if !same || !place.is_some_and(|place| have.has(place)) {
                lacking.push(target);
            }
        });
        if lacking.is_empty() {
            self.spaces = present;
            return Look::Complete;
        }
        let may_send = present.is_active(own) && present.joins() == self.spaces.joins();
        let places: Option<Vec<_>> = lacking.iter().map(|target| self.place(target.session.address())).collect();
        match places {
            Some(places) if may_send && self.changes < CHANGES => {
                self.changes += 1;
                self.spaces = present;
                Look::Lacking(places.into_iter().zip(lacking).collect())
            }
            _ => Look::Failed(lacking.iter().map(|target| target.session.address()).collect()),
        }
    }

    /// The place of a node, a new one if it has none; `None` if there are no more.
    fn place(&mut self, node: NodeAddress) -> Option<u32> {
        let place = self.nodes.iter().position(|other| *other == node).unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        });
        u32::try_from(place).ok().filter(|place| *place < Places::LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ClockTime;
    use crate::net::{DialPolicy, Limits, Peers};
    use crate::register::Member;
    use crate::ring::HashSpace;
    use crate::wire::params::Seed;

    const ALL: Places = Places(u64::MAX);

    fn node(number: u16) -> NodeAddress {
        NodeAddress::new(std::net::SocketAddr::from(([10, 0, 0, 1], number)))
    }

    fn seed(clocktime: u64, nodes: &[(u16, bool)]) -> Seed {
        let nodes = nodes.iter().map(|(number, active)| (node(*number), *active)).collect();
        Seed { nodes, clocktime: ClockTime(clocktime) }
    }

    /// Hash spaces of node 1, one after the other.
    struct Spring(Arc<Peers>, Arc<Spaces>);

    impl Spring {
        fn new() -> Self {
            let dial = DialPolicy { timeout: Duration::from_secs(1), retry_limit: 0 };
            Self(Peers::new(&crate::env::Env::real(), None, dial, Limits::default()), Arc::default())
        }

        fn next(&mut self, whs: Option<Seed>, rhs: Option<Seed>) -> Arc<Spaces> {
            self.1 = Arc::new(self.1.changed(whs, rhs, node(1), &self.0));
            self.1.clone()
        }
    }

    const OLD: &[(u16, bool)] = &[(1, true), (2, true), (3, true)];
    const NEW: &[(u16, bool)] = &[(1, true), (2, true), (3, true), (4, true)];

    /// A hash that `wanted` holds for.
    fn hash(wanted: impl Fn(u64) -> bool) -> u64 {
        (0..2000u64).map(|index| index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).find(|hash| wanted(*hash)).unwrap()
    }

    /// A hash that node 1 coordinates, and that 4 is to own in the place of 3.
    fn moving() -> u64 {
        let (old, new) = (HashSpace::new(seed(1, OLD)), HashSpace::new(seed(2, NEW)));
        hash(|hash| {
            [&old, &new].iter().all(|space| space.owners(hash).coordinator() == Some(node(1)))
                && !new.owners(hash).is_active_owner(node(3))
        })
    }

    fn place_of(owners: &Owners, wanted: NodeAddress, hash: u64) -> u32 {
        let mut nodes = Vec::new();
        owners.spaces().targets(node(1), hash, |target| nodes.push(target.session.address()));
        u32::try_from(nodes.iter().position(|node| *node == wanted).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn nothing_is_lacking_while_the_hash_spaces_stay() {
        let mut spring = Spring::new();
        let spaces = spring.next(Some(seed(1, OLD)), Some(seed(1, OLD)));
        let mut owners = Owners::new(spaces.clone());
        assert!(matches!(owners.look(spaces, node(1), 7, Places(0)), Look::Complete));
    }

    #[tokio::test]
    async fn new_owners_and_owners_for_reading_that_have_refused_are_sent_to() {
        let mut spring = Spring::new();
        let hash = moving();
        let mut owners = Owners::new(spring.next(Some(seed(1, OLD)), Some(seed(1, OLD))));
        // Node 3 knows the next hash space already, and does not take it as an owner for writing.
        let (third, second) = (place_of(&owners, node(3), hash), place_of(&owners, node(2), hash));
        let mut have = Places::one(second);
        let present = spring.next(Some(seed(2, NEW)), None);
        let Look::Lacking(lacking) = owners.look(present.clone(), node(1), hash, have) else { panic!("complete") };
        let found: Vec<_> = lacking.iter().map(|(_, target)| (target.session.address(), target.by_rhs)).collect();
        assert_eq!(found, [(node(4), false), (node(3), true)]);
        assert_eq!((lacking[1].0, lacking[0].0), (third, 2), "a node keeps its place");
        assert!(owners.have_changed());
        for (place, _) in lacking {
            have.0 |= Places::one(place).0;
        }
        assert!(matches!(owners.look(present, node(1), hash, have), Look::Complete));
        // What follows takes nothing away.
        assert!(matches!(owners.look(spring.next(None, Some(seed(2, NEW))), node(1), hash, have), Look::Complete));
    }

    #[tokio::test]
    async fn who_is_lost_is_not_missed() {
        let mut spring = Spring::new();
        let mut owners = Owners::new(spring.next(Some(seed(1, OLD)), Some(seed(1, OLD))));
        let faulty = seed(2, &[(1, true), (2, true), (3, false)]);
        let present = spring.next(Some(faulty.clone()), Some(faulty));
        let have = Places::one(place_of(&owners, node(2), 7));
        assert!(matches!(owners.look(present, node(1), 7, have), Look::Complete));
    }

    /// What it took before counts no more.
    #[tokio::test]
    async fn an_owner_that_was_admitted_anew_is_sent_to_again() {
        let mut spring = Spring::new();
        let admitted = |spaces: Arc<Spaces>, counter| {
            let members = [(node(1), 0), (node(2), 0), (node(3), counter)];
            let members = members.map(|(node, admitted)| (node, Member { store: admitted, admitted }));
            Arc::new(Spaces::clone(&spaces).with_members(&members.into(), node(1), 0, |_| true))
        };
        let before = admitted(spring.next(Some(seed(1, OLD)), Some(seed(1, OLD))), 3);
        let mut owners = Owners::new(before);
        let (third, second) = (place_of(&owners, node(3), 7), place_of(&owners, node(2), 7));
        let have = Places(Places::one(second).0 | Places::one(third).0);
        let present = admitted(spring.next(Some(seed(5, OLD)), None), 5);
        let Look::Lacking(lacking) = owners.look(present.clone(), node(1), 7, have) else { panic!("complete") };
        assert_eq!(lacking.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [third]);
        assert!(matches!(owners.look(present, node(1), 7, have), Look::Complete));
    }

    #[tokio::test]
    async fn a_server_that_was_given_up_sends_nothing_though_it_is_back() {
        for back in [false, true] {
            let mut spring = Spring::new();
            let hash = moving();
            let mut owners = Owners::new(spring.next(Some(seed(1, OLD)), Some(seed(1, OLD))));
            let without = seed(2, &[(1, false), (2, true), (3, true), (4, true)]);
            let mut present = spring.next(Some(without.clone()), Some(without));
            if back {
                present = spring.next(Some(seed(3, NEW)), None);
            }
            let look = owners.look(present, node(1), hash, Places(0b11));
            assert!(matches!(&look, Look::Failed(nodes) if nodes[..] == [node(4)]), "{look:?}");
        }
    }

    #[tokio::test]
    async fn a_write_that_meets_change_after_change_fails() {
        let mut spring = Spring::new();
        let mut owners = Owners::new(spring.next(Some(seed(1, OLD)), Some(seed(1, OLD))));
        let mut looks = Vec::new();
        for change in 0..=CHANGES {
            // Whoever was sent to is replaced by others.
            let first = 10 * u16::from(change) + 10;
            let nodes = [(1, true), (first, true), (first + 1, true)];
            let next = seed(u64::from(change) + 2, &nodes);
            let present = spring.next(Some(next.clone()), Some(next));
            looks.push(owners.look(present, node(1), 7, ALL));
        }
        assert!(looks.iter().take(usize::from(CHANGES)).all(|look| matches!(look, Look::Lacking(_))), "{looks:?}");
        assert!(matches!(looks.last(), Some(Look::Failed(_))), "{looks:?}");
    }
}
