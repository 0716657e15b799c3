//! The two hash spaces as a manager changes them: attach, detach, fault, and agreement with a partner.
//!
//! Pure: every change takes a clocktime from the clock it is given. Knows nothing of connections or of a replace.

use std::collections::BTreeSet;

use crate::clock::{Clock, ClockTime};
use crate::ring::HashSpace;
use crate::wire::NodeAddress;
use crate::wire::params::{NODE_LIMIT, Seed};

/// The hash space for writing and the one for reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spaces {
    pub(super) whs: Seed,
    pub(super) rhs: Seed,
}

/// What came of a partner's hash spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Merge {
    /// At least one was newer than ours and has been taken.
    pub(super) taken: bool,
    /// At least one is older than ours: the partner should hear.
    pub(super) partner_lags: bool,
}

impl Spaces {
    /// Whether any server is active for writing; before that there is nothing to lose.
    pub(super) fn are_ready(&self) -> bool {
        self.whs.has_active()
    }

    /// Whether no server has ever been attached, as far as is known.
    pub(super) fn are_new(&self) -> bool {
        self.whs.nodes.is_empty() && self.rhs.nodes.is_empty()
    }

    /// Whether `node` is in either, active or not.
    pub(super) fn contain(&self, node: NodeAddress) -> bool {
        [&self.whs, &self.rhs].into_iter().any(|seed| seed.nodes.iter().any(|(known, _)| *known == node))
    }

    /// Whether `node` is active for writing: what makes it attached.
    pub(super) fn is_attached(&self, node: NodeAddress) -> bool {
        self.whs.nodes.iter().any(|(known, active)| *active && *known == node)
    }

    /// The nodes that are active in either.
    pub(super) fn active(&self) -> BTreeSet<NodeAddress> {
        let nodes = self.whs.nodes.iter().chain(&self.rhs.nodes);
        nodes.filter(|(_, active)| *active).map(|(node, _)| *node).collect()
    }

    /// Adds servers for writing, or marks those active again that are in it as faulty. Says whether any was new.
    pub(super) fn attach(&mut self, servers: impl IntoIterator<Item = NodeAddress>, clock: &Clock) -> bool {
        let mut changed = false;
        let nodes = &mut self.whs.nodes;
        for server in servers {
            let room = nodes.len() < NODE_LIMIT;
            match nodes.iter_mut().find(|(known, _)| *known == server) {
                Some((_, active)) => changed |= !std::mem::replace(active, true),
                None if room => {
                    nodes.push((server, true));
                    changed = true;
                }
                None => {}
            }
        }
        if changed {
            self.whs.clocktime = self.stamp(clock);
        }
        changed
    }

    /// Removes the faulty servers for writing, unless no active one would be left. Says whether any was removed.
    pub(super) fn detach(&mut self, clock: &Clock) -> bool {
        self.remove(&self.faulty(), clock)
    }

    /// The servers that are faulty for writing, in ring order.
    pub(super) fn faulty(&self) -> Vec<NodeAddress> {
        self.whs.nodes.iter().filter(|(_, active)| !*active).map(|(node, _)| *node).collect()
    }

    /// Removes those of `servers` that are faulty for writing, unless no active one would be left. Says whether any was.
    pub(super) fn remove(&mut self, servers: &[NodeAddress], clock: &Clock) -> bool {
        let before = self.whs.nodes.len();
        if self.whs.has_active() {
            self.whs.nodes.retain(|(node, active)| *active || !servers.contains(node));
        }
        let changed = self.whs.nodes.len() < before;
        if changed {
            self.whs.clocktime = self.stamp(clock);
        }
        changed
    }

    /// Whether every hash has an active owner for reading. Where it has none, the records are with servers that are lost:
    /// these must keep their places, or what they bring back would count as nobody's.
    pub(super) fn are_covered(&self) -> bool {
        let rhs = HashSpace::new(self.rhs.clone());
        rhs.points().iter().all(|point| rhs.owners(*point).coordinator().is_some())
    }

    /// Whether there are hashes of which `node` is the only active owner left, for writing or for reading.
    pub(super) fn is_last(&self, node: NodeAddress) -> bool {
        let last = |seed: &Seed| {
            let space = HashSpace::new(seed.clone());
            let only = |point: &u64| space.owners(*point).active().eq([node]);
            space.points().iter().any(only)
        };
        last(&self.whs) || last(&self.rhs)
    }

    /// Goes back to the nodes of `last`, whose servers have returned, under clocktimes of now.
    pub(super) fn restore(&mut self, last: Self, clock: &Clock) {
        let apart = last.whs.clocktime != last.rhs.clocktime;
        self.rhs = Seed { nodes: last.rhs.nodes, clocktime: self.stamp(clock) };
        let clocktime = if apart { self.stamp(clock) } else { self.rhs.clocktime };
        self.whs = Seed { nodes: last.whs.nodes, clocktime };
    }

    /// Marks a server faulty in both. Says whether it was active in any.
    ///
    /// Both get one new clocktime if they had one before, else two: servers take equal clocktimes as a sign that
    /// nothing is being rebalanced.
    pub(super) fn fault(&mut self, node: NodeAddress, clock: &Clock) -> bool {
        let apart = self.whs.clocktime != self.rhs.clocktime;
        let read = deactivate(&mut self.rhs, node);
        let written = deactivate(&mut self.whs, node);
        if read {
            self.rhs.clocktime = self.stamp(clock);
        }
        if written {
            self.whs.clocktime = if read && !apart { self.rhs.clocktime } else { self.stamp(clock) };
        }
        read || written
    }

    /// Reads as it is written: what the copying of a replace has prepared.
    pub(super) fn settle(&mut self) {
        self.rhs = self.whs.clone();
    }

    /// Takes what is newer of another manager's hash spaces, or of those that a server has kept.
    pub(super) fn merge(&mut self, whs: Seed, rhs: Seed, clock: &Clock) -> Merge {
        clock.observe(whs.clocktime);
        clock.observe(rhs.clocktime);
        self.take_newer(whs, rhs)
    }

    /// The same without taking note of the clocktimes.
    pub(super) fn take_newer(&mut self, whs: Seed, rhs: Seed) -> Merge {
        let mut merge = Merge { taken: false, partner_lags: false };
        for (held, received) in [(&mut self.whs, whs), (&mut self.rhs, rhs)] {
            merge.partner_lags |= supersedes(held, &received);
            if supersedes(&received, held) {
                *held = received;
                merge.taken = true;
            }
        }
        merge
    }

    /// Gives the hash space for writing a new clocktime, nothing else.
    pub(super) fn restamp(&mut self, clock: &Clock) {
        self.whs.clocktime = self.stamp(clock);
    }

    /// A clocktime after both.
    fn stamp(&self, clock: &Clock) -> ClockTime {
        let (whs, rhs) = (self.whs.clocktime, self.rhs.clocktime);
        clock.stamp_after(if whs.is_before(rhs) { rhs } else { whs })
    }
}

fn deactivate(seed: &mut Seed, node: NodeAddress) -> bool {
    let found = seed.nodes.iter_mut().find(|(known, _)| *known == node);
    found.is_some_and(|(_, active)| std::mem::replace(active, false))
}

/// Whether `new` should replace `held`. Of two that the relation leaves undecided every manager picks the same.
fn supersedes(new: &Seed, held: &Seed) -> bool {
    if new.nodes.is_empty() || held.nodes.is_empty() {
        return !new.nodes.is_empty();
    }
    if held.clocktime.is_before(new.clocktime) {
        return true;
    }
    !new.clocktime.is_before(held.clocktime) && new.clocktime.0 > held.clocktime.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(number: u8) -> NodeAddress {
        NodeAddress::new(([127, 0, 0, number], 19800).into())
    }

    fn clock() -> Clock {
        Clock::with_time(0, || 1000)
    }

    fn settled(nodes: &[u8], clock: &Clock) -> Spaces {
        let mut spaces = Spaces::default();
        spaces.attach(nodes.iter().map(|number| node(*number)), clock);
        spaces.settle();
        spaces
    }

    #[test]
    fn attaching_adds_or_revives_and_stamps_once() {
        let clock = clock();
        let mut spaces = settled(&[1, 2], &clock);
        let before = spaces.clone();
        assert!(!spaces.attach([node(1)], &clock));
        assert_eq!(spaces, before);
        spaces.fault(node(1), &clock);
        let faulted = spaces.whs.clocktime;
        assert!(spaces.attach([node(3), node(1)], &clock));
        assert_eq!(spaces.whs.nodes, [(node(1), true), (node(2), true), (node(3), true)]);
        assert!(faulted.is_before(spaces.whs.clocktime));
        assert_eq!(spaces.rhs.nodes, [(node(1), false), (node(2), true)]);
    }

    #[test]
    fn a_fault_keeps_the_place_and_changes_both_clocktimes_to_one() {
        let clock = clock();
        let mut spaces = settled(&[1, 2, 3], &clock);
        let before = spaces.whs.clocktime;
        assert!(spaces.fault(node(2), &clock));
        assert_eq!(spaces.whs, spaces.rhs);
        assert_eq!(spaces.whs.nodes, [(node(1), true), (node(2), false), (node(3), true)]);
        assert!(before.is_before(spaces.whs.clocktime));
        assert!(!spaces.fault(node(2), &clock));
        assert!(!spaces.fault(node(9), &clock));
    }

    #[test]
    fn a_fault_while_the_spaces_differ_leaves_them_with_different_clocktimes() {
        let clock = clock();
        let mut spaces = settled(&[1, 2, 3], &clock);
        spaces.attach([node(4)], &clock);
        assert!(spaces.fault(node(2), &clock));
        assert!(spaces.rhs.clocktime.is_before(spaces.whs.clocktime));
    }

    #[test]
    fn detaching_never_removes_the_last() {
        let clock = clock();
        let mut spaces = settled(&[1, 2], &clock);
        spaces.fault(node(1), &clock);
        let mut both = spaces.clone();
        both.fault(node(2), &clock);
        assert!(!both.detach(&clock));
        assert_eq!(both.whs.nodes.len(), 2);
        assert!(spaces.detach(&clock));
        assert_eq!(spaces.whs.nodes, [(node(2), true)]);
        assert!(!spaces.detach(&clock));
    }

    #[test]
    fn the_newer_is_taken_and_the_older_reported() {
        let clock = clock();
        let old = settled(&[1, 2], &clock);
        let mut new = old.clone();
        new.fault(node(1), &clock);
        let mut here = old.clone();
        assert_eq!(here.merge(new.whs.clone(), new.rhs.clone(), &clock), Merge { taken: true, partner_lags: false });
        assert_eq!(here, new);
        assert_eq!(here.merge(old.whs.clone(), old.rhs.clone(), &clock), Merge { taken: false, partner_lags: true });
        assert_eq!(here, new);
        let same = here.clone();
        assert_eq!(here.merge(same.whs, same.rhs, &clock), Merge { taken: false, partner_lags: false });
        let mut empty = Spaces::default();
        assert!(empty.merge(new.whs.clone(), new.rhs.clone(), &clock).taken);
        assert_eq!(here.merge(Seed::default(), Seed::default(), &clock), Merge { taken: false, partner_lags: true });
    }

    #[test]
    fn a_restarted_clock_still_stamps_later() {
        let old = settled(&[1, 2], &Clock::with_time(70_000, || 1002));
        let young = clock();
        let mut spaces = Spaces::default();
        spaces.merge(old.whs.clone(), old.rhs, &young);
        spaces.fault(node(1), &young);
        assert!(old.whs.clocktime.is_before(spaces.whs.clocktime));
    }

    #[derive(Debug, Clone)]
    enum Change {
        Attach(u8),
        Detach,
        Fault(u8),
        Settle,
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (1u8..6).prop_map(Change::Attach),
            Just(Change::Detach),
            (1u8..6).prop_map(Change::Fault),
            Just(Change::Settle),
        ]
    }

    fn apply(spaces: &mut Spaces, change: &Change, clock: &Clock) {
        match change {
            Change::Attach(number) => drop(spaces.attach([node(*number)], clock)),
            Change::Detach => drop(spaces.detach(clock)),
            Change::Fault(number) => drop(spaces.fault(node(*number), clock)),
            Change::Settle => spaces.settle(),
        }
    }

    proptest! {
        #[test]
        fn every_change_is_later_and_an_active_server_stays(changes in prop::collection::vec(change(), 1..40)) {
            let clock = clock();
            let mut spaces = Spaces::default();
            for change in &changes {
                let before = spaces.clone();
                apply(&mut spaces, change, &clock);
                if spaces.whs.nodes != before.whs.nodes {
                    prop_assert!(before.whs.clocktime.is_before(spaces.whs.clocktime));
                }
                if before.whs.has_active() && matches!(change, Change::Detach) {
                    prop_assert!(spaces.whs.has_active());
                }
                if spaces.whs.nodes != spaces.rhs.nodes {
                    prop_assert_ne!(spaces.whs.clocktime, spaces.rhs.clocktime);
                }
            }
        }

        #[test]
        fn two_managers_agree_once_each_has_heard_the_other(
            here in prop::collection::vec(change(), 0..12),
            there in prop::collection::vec(change(), 0..12),
        ) {
            let (clock_a, clock_b) = (Clock::with_time(5, || 1000), Clock::with_time(900, || 1003));
            let mut a = settled(&[1, 2, 3], &clock_a);
            let mut b = Spaces::default();
            b.merge(a.whs.clone(), a.rhs.clone(), &clock_b);
            for change in &here {
                apply(&mut a, change, &clock_a);
            }
            for change in &there {
                apply(&mut b, change, &clock_b);
            }
            let told = a.clone();
            b.merge(told.whs, told.rhs, &clock_b);
            let told = b.clone();
            a.merge(told.whs, told.rhs, &clock_a);
            prop_assert_eq!(a, b);
        }
    }
}
