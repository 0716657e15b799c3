//! A configuration: both hash spaces, who the servers are, and who votes for the next one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::timing::Timing;
use crate::clock::ClockTime;
use crate::ring::HashSpace;
use crate::wire::NodeAddress;
use crate::wire::params::{NODE_LIMIT, Seed};

/// The counter of a configuration that an operator has put in force without its voters is the next multiple of this: far
/// beyond any that those who did not take part may have reached.
const FORCED: u64 = 1_000_000;

/// A place in the line of configurations.
///
/// Two that have the same counter are the same, unless an operator has put one in force without its voters, in each of two
/// parts of a cluster: then the clocktimes differ, and the later one is followed when the parts meet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// One more than that of the configuration before.
    pub counter: u64,
    /// That of the hash space for writing.
    pub clocktime: ClockTime,
}

impl Version {
    /// Whether this is later in the line than `other`.
    pub fn is_after(self, other: Self) -> bool {
        (self.counter, self.clocktime.0) > (other.counter, other.clocktime.0)
    }
}

/// Who votes. A server is known by its store: one that lost its disk is another. A manager is known by one start: it keeps
/// nothing, and must not vote twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Voter {
    /// The server with this store.
    Server(u64),
    /// The manager that drew this number when it started.
    Manager(u64),
}

/// A server of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The id of its store.
    pub store: u64,
    /// The counter of the configuration that admitted it: what it has held from before counts as absent until the others have
    /// sent it. Zero if nobody could: it was there before there were votes, or some range had no owner for reading then. What
    /// it brought counts.
    pub admitted: u64,
}

/// Orders the proposals for one place in the line. No two proposers make equal ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ballot {
    /// Raised by a proposer that met a higher one.
    pub round: u64,
    /// The number that the proposer drew when it started.
    pub proposer: u64,
}

/// Both hash spaces, with all that their servers have to agree on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// See [`Version::counter`]; zero if there is no configuration.
    pub counter: u64,
    /// The hash space for writing.
    pub whs: Seed,
    /// The hash space for reading.
    pub rhs: Seed,
    /// The servers that are active in either.
    pub members: BTreeMap<NodeAddress, Member>,
    /// Who decides the next one.
    pub voters: BTreeSet<Voter>,
    /// An operator has put it in force: its own voters have decided on it, all of them, since those of the one before are
    /// lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// How long leases last under it, and after how long a silence a node is lost.
    #[serde(default)]
    pub timing: Timing,
}

impl Configuration {
    /// Its place in the line.
    pub fn version(&self) -> Version {
        Version { counter: self.counter, clocktime: self.whs.clocktime }
    }

    /// Whether `next` can be what follows in the line.
    pub fn precedes(&self, next: &Self) -> bool {
        if next.forced { next.counter > self.counter } else { self.counter.checked_add(1) == Some(next.counter) }
    }

    /// How many voters are a majority.
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Whether `voters` are a majority of those that vote here.
    pub fn is_majority<'v>(&self, voters: impl IntoIterator<Item = &'v Voter>) -> bool {
        !self.voters.is_empty()
            && voters.into_iter().filter(|voter| self.voters.contains(voter)).count() >= self.majority()
    }

    /// Who decides whether `next` follows: the voters. A cluster that has none yet, as one of earlier programs, is taken
    /// over by its servers, a majority of those that are active for writing in `next`; each must hold its hash spaces. On one
    /// that an operator forces all of its own voters decide.
    pub fn electors(&self, next: &Self) -> BTreeSet<Voter> {
        if next.forced {
            next.voters.clone()
        } else if self.voters.is_empty() {
            next.voters.iter().copied().filter(|voter| matches!(voter, Voter::Server(_))).collect()
        } else {
            self.voters.clone()
        }
    }

    /// Whether it can have come from a node that follows the rules: what is decided on it must not fail.
    pub fn is_sound(&self) -> bool {
        let active = |seed: &Seed| seed.nodes.iter().filter(|(_, active)| *active).map(|(node, _)| *node).collect();
        let nodes = |seed: &Seed| seed.nodes.iter().map(|(node, _)| *node).collect::<BTreeSet<_>>();
        let whole = |seed: &Seed| seed.nodes.len() <= NODE_LIMIT && nodes(seed).len() == seed.nodes.len();
        let (writers, readers): (BTreeSet<_>, BTreeSet<_>) = (active(&self.whs), active(&self.rhs));
        let members: BTreeSet<_> = self.members.keys().copied().collect();
        let stores: BTreeSet<_> = self.members.values().map(|member| member.store).collect();
        let known = |voter: &Voter| match voter {
            Voter::Server(store) => stores.contains(store),
            Voter::Manager(_) => true,
        };
        let voted = members == &writers | &readers && stores.len() == members.len() && self.voters.iter().all(known);
        let sound = whole(&self.whs) && whole(&self.rhs) && self.timing.is_sound();
        sound && (voted || self.voters.is_empty() && self.members.is_empty())
    }

    /// The configuration that follows this one with these hash spaces, when not every server or manager takes part in
    /// votes: its servers act by it without leases, as those of earlier programs.
    pub fn without_votes(&self, whs: Seed, rhs: Seed) -> Option<Self> {
        Some(Self { counter: self.counter.checked_add(1)?, whs, rhs, ..Self::default() })
    }

    /// Whether `node` is a server of it, active or in fault.
    pub fn contains(&self, node: NodeAddress) -> bool {
        self.whs.nodes.iter().chain(&self.rhs.nodes).any(|(known, _)| *known == node)
    }

    /// Whether its servers vote, and need leases.
    pub fn is_voted(&self) -> bool {
        !self.voters.is_empty()
    }

    /// The configuration that follows this one with these hash spaces.
    ///
    /// `stores` are the stores of the servers that are active in them; `None` if one is not known. A server keeps its
    /// admission as long as it is active in one of the hash spaces without a break and keeps its store. The voters are
    /// the servers that are active for writing, with one of `managers` if their number is even: so there is no tie. The
    /// timing stays.
    pub fn next(
        &self,
        whs: Seed,
        rhs: Seed,
        stores: &BTreeMap<NodeAddress, u64>,
        managers: &BTreeSet<u64>,
    ) -> Option<Self> {
        let counter = self.counter.checked_add(1)?;
        let active = |seed: &Seed| -> BTreeSet<NodeAddress> {
            seed.nodes.iter().filter(|(_, active)| *active).map(|(node, _)| *node).collect()
        };
        let readers = HashSpace::new(rhs.clone());
        let are_covered = readers.points().iter().all(|point| readers.owners(*point).coordinator().is_some());
        let can_be_sent = self.is_voted() && readers.is_ready() && are_covered;
        let mut members = BTreeMap::new();
        for node in active(&whs).union(&active(&rhs)) {
            let store = *stores.get(node)?;
            let admitted = self.members.get(node).filter(|member| member.store == store).map(|member| member.admitted);
            // Who is to be read from at once has to have the records.
            let new = if can_be_sent && !readers.is_active(*node) { counter } else { 0 };
            members.insert(*node, Member { store, admitted: admitted.unwrap_or(new) });
        }
        let stores = active(&whs).into_iter().filter_map(|node| members.get(&node)).map(|member| member.store);
        let mut voters: BTreeSet<Voter> = stores.map(Voter::Server).collect();
        if voters.len().is_multiple_of(2) {
            // The one that votes already goes on: it is known to be there.
            let present = managers.iter().find(|start| self.voters.contains(&Voter::Manager(**start)));
            voters.extend(present.or(managers.first()).map(|start| Voter::Manager(*start)));
        }
        Some(Self { counter, whs, rhs, members, voters, forced: false, timing: self.timing })
    }

    /// The configuration that an operator puts in force with these hash spaces, without the votes of those that are not
    /// active in them any more; see [`Self::next`].
    pub fn forced(
        &self,
        whs: Seed,
        rhs: Seed,
        stores: &BTreeMap<NodeAddress, u64>,
        managers: &BTreeSet<u64>,
    ) -> Option<Self> {
        let counter = (self.counter / FORCED).checked_add(1)?.checked_mul(FORCED)?;
        Some(Self { counter, forced: true, ..self.next(whs, rhs, stores, managers)? })
    }

    /// Whether a configuration was forced between `earlier` and this one, which is later.
    pub fn is_forced_since(&self, earlier: &Self) -> bool {
        self.counter / FORCED > earlier.counter / FORCED || self.counter == earlier.counter
    }

    /// The stores of servers that lose a right with `next`, which they might go on to use as long as they do not hear of
    /// it: coordinating writes of some keys, or answering reads of some. Without their store they lose all they have. If
    /// leases become shorter, all do: of those that last longer no voter needs to know from then on.
    pub fn losers(&self, next: &Self) -> BTreeSet<u64> {
        let spaces = [(&self.whs, &next.whs), (&self.rhs, &next.rhs)];
        let [whs, rhs] = spaces.map(|(old, new)| (HashSpace::new(old.clone()), HashSpace::new(new.clone())));
        let mut losers = BTreeSet::new();
        for point in whs.0.points().iter().chain(whs.1.points()) {
            losers.extend(
                whs.0.owners(*point).coordinator().filter(|node| whs.1.owners(*point).coordinator() != Some(*node)),
            );
        }
        for point in rhs.0.points().iter().chain(rhs.1.points()) {
            let (old, new) = (rhs.0.owners(*point), rhs.1.owners(*point));
            losers.extend(old.active().filter(|node| !new.active().any(|owner| owner == *node)));
        }
        let replaced =
            |node: &NodeAddress, member: &Member| next.members.get(node).is_none_or(|new| new.store != member.store);
        let shorter = next.timing.lease() < self.timing.lease();
        let is_one = |node: &NodeAddress, member: &Member| shorter || losers.contains(node) || replaced(node, member);
        let members = self.members.iter().filter(|(node, member)| is_one(node, member));
        members.map(|(_, member)| member.store).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeAddress {
        NodeAddress::new(([127, 0, 0, number], 19800).into())
    }

    fn seed(clocktime: u64, nodes: &[(u8, bool)]) -> Seed {
        let nodes = nodes.iter().map(|(number, active)| (node(*number), *active)).collect();
        Seed { nodes, clocktime: ClockTime(clocktime) }
    }

    fn next(before: &Configuration, whs: &Seed, rhs: &Seed) -> Configuration {
        let stores = (1..=5).map(|number| (node(number), u64::from(number))).collect();
        before.next(whs.clone(), rhs.clone(), &stores, &BTreeSet::new()).unwrap()
    }

    fn admissions(configuration: &Configuration) -> Vec<u64> {
        configuration.members.values().map(|member| member.admitted).collect()
    }

    #[test]
    fn who_comes_back_is_admitted_anew_and_founders_bring_what_they_have() {
        let (all, two) = (&[(1, true), (2, true), (3, true)], &[(1, true), (2, true), (3, false)]);
        // Votes begin while one is being copied to.
        let first = next(&Configuration::default(), &seed(2, all), &seed(1, two));
        assert_eq!(admissions(&first), [0, 0, 0]);
        let second = next(&first, &seed(2, all), &seed(2, all));
        let without = next(&second, &seed(3, two), &seed(3, two));
        assert_eq!(admissions(&without), [0, 0]);
        let back = next(&without, &seed(4, all), &seed(3, two));
        assert_eq!((admissions(&back), back.counter), (vec![0, 0, 4], 4));
        assert_eq!(admissions(&next(&back, &seed(4, all), &seed(4, all))), [0, 0, 4], "it stays admitted");
        assert!(back.is_sound());
        // Without votes in between, what everybody has counts again.
        let unvoted = back.without_votes(seed(4, all), seed(3, two)).unwrap();
        assert_eq!(admissions(&next(&unvoted, &seed(4, all), &seed(3, two))), [0, 0, 0]);
    }

    #[test]
    fn where_nobody_could_send_the_records_what_is_there_counts() {
        let three = &[(1, true), (2, true), (3, true)];
        let first = next(&Configuration::default(), &seed(1, three), &seed(1, three));
        for rhs in [Seed::default(), seed(1, &[(1, false), (2, false), (3, false)])] {
            let whs = seed(2, &[(1, true), (2, false), (3, false), (4, true)]);
            assert_eq!(admissions(&next(&first, &whs, &rhs)), [0, 0]);
        }
        // Five servers with three copies: two of them cannot have all that the other three had alone.
        let (rhs, whs) = (
            seed(2, &[(1, true), (2, true), (3, false), (4, false), (5, false)]),
            seed(3, &[(1, true), (2, true), (3, true), (4, false), (5, false)]),
        );
        let before = next(&first, &rhs, &rhs);
        assert_eq!(admissions(&next(&before, &whs, &rhs)), [0, 0, 0]);
    }
}
