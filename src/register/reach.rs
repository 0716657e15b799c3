//! Which servers reach each other: what one server notices, and what follows from what all of them tell. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::time::Moment;
use crate::wire::NodeAddress;
use crate::wire::params::NODE_LIMIT;

/// Questions in a row without an answer after which a member counts as out of reach: as long as a silent server has.
const MISSED: u32 = 6;
/// After so many, and each time again, it is dialled anew: a connection of before a cut takes long to go on.
const REDIAL: u32 = 8;
/// How long a server must have told so without a break.
const SUSTAINED: Duration = Duration::from_secs(1);
/// How long ago a server may have been heard at most.
const FRESH: Duration = Duration::from_millis(1500);

/// The members that one server asks, with the questions since the last answer of each.
///
/// Questions are counted, not seconds: a server that was stopped has asked none.
#[derive(Debug, Clone, Default)]
pub struct Reach(BTreeMap<NodeAddress, u32>);

impl Reach {
    /// All of `members` are asked now. Gives those to dial anew for it.
    pub fn ask(&mut self, members: &BTreeSet<NodeAddress>) -> Vec<NodeAddress> {
        self.0.retain(|node, _| members.contains(node));
        for node in members {
            let missed = self.0.entry(*node).or_insert(0);
            *missed = missed.saturating_add(1);
        }
        let stale = self.0.iter().filter(|(_, missed)| **missed > 1 && (**missed - 1).is_multiple_of(REDIAL));
        stale.map(|(node, _)| *node).collect()
    }

    /// `node` has answered.
    pub fn answered(&mut self, node: NodeAddress) {
        if let Some(missed) = self.0.get_mut(&node) {
            *missed = 0;
        }
    }

    /// The members that do not answer.
    pub fn unreached(&self) -> Vec<NodeAddress> {
        self.0.iter().filter(|(_, missed)| **missed > MISSED).map(|(node, _)| *node).collect()
    }
}

/// What a node has told, and when.
#[derive(Debug, Clone)]
struct Report {
    heard: Moment,
    /// Since when it was heard without a break.
    there: Moment,
    /// Whom it does not reach, and since when it says so.
    unreached: BTreeMap<NodeAddress, Moment>,
}

/// What all nodes have told of whom they reach.
#[derive(Debug, Clone, Default)]
pub struct Reports(BTreeMap<NodeAddress, Report>);

impl Reports {
    /// `node` tells at `now` that it does not reach these members.
    pub fn note(&mut self, node: NodeAddress, unreached: &[NodeAddress], now: Moment) {
        if self.0.len() >= 2 * NODE_LIMIT && !self.0.contains_key(&node) {
            return;
        }
        let before = self.0.get(&node).filter(|report| now.since(report.heard) < FRESH);
        let since = |other: &NodeAddress| before.and_then(|report| report.unreached.get(other)).copied().unwrap_or(now);
        let unreached = unreached.iter().take(NODE_LIMIT).map(|other| (*other, since(other))).collect();
        let there = before.map_or(now, |report| report.there);
        self.0.insert(node, Report { heard: now, there, unreached });
    }

    /// Whether `node` was heard lately.
    pub fn is_heard(&self, node: NodeAddress, now: Moment) -> bool {
        self.0.get(&node).is_some_and(|report| now.since(report.heard) < FRESH)
    }

    /// How long ago `node` was last heard.
    pub fn silence(&self, node: NodeAddress, now: Moment) -> Option<Duration> {
        self.0.get(&node).map(|report| now.since(report.heard))
    }

    /// Whom `node` does not reach, by what it has told lately.
    pub fn unreached_by(&self, node: NodeAddress, now: Moment) -> Vec<NodeAddress> {
        let report = self.0.get(&node).filter(|report| now.since(report.heard) < FRESH);
        report.map(|report| report.unreached.keys().copied().collect()).unwrap_or_default()
    }

    /// The server to remove so that those that are left reach each other, with those that it does not reach. Of `members`,
    /// all of which this node hears: the one that fewer others can reach, of several the one with the highest address, but
    /// none that `stays`. `None` if nothing is to be done, or nothing can.
    pub fn to_remove(
        &self,
        members: &BTreeSet<NodeAddress>,
        now: Moment,
        stays: impl Fn(NodeAddress) -> bool,
    ) -> Option<(NodeAddress, BTreeSet<NodeAddress>)> {
        let heard: BTreeSet<_> = members.iter().copied().filter(|node| self.is_heard(*node, now)).collect();
        let mut apart: BTreeMap<NodeAddress, BTreeSet<NodeAddress>> = BTreeMap::new();
        for one in &heard {
            let told = self.0.get(one).map(|report| &report.unreached).into_iter().flatten();
            // As long as one was silent itself, nobody can have reached it.
            let since = |other, since: Moment| self.0.get(other).map_or(since, |report| since.max(report.there));
            let lasting =
                told.filter(|(other, told)| heard.contains(*other) && now.since(since(*other, **told)) >= SUSTAINED);
            for (other, _) in lasting {
                apart.entry(*one).or_default().insert(*other);
                apart.entry(*other).or_default().insert(*one);
            }
        }
        apart.into_iter().filter(|(node, _)| !stays(*node)).max_by_key(|(node, others)| (others.len(), *node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeAddress {
        NodeAddress::new(([10, 0, 0, number], 19800).into())
    }

    fn nodes(numbers: &[u8]) -> BTreeSet<NodeAddress> {
        numbers.iter().map(|number| node(*number)).collect()
    }

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(1_000_000_000 + millis * 1_000_000)
    }

    /// Each node tells this every 250 ms for some seconds.
    fn told(reports: &[(u8, &[u8])], millis: u64) -> Reports {
        let mut all = Reports::default();
        for time in (0..=millis).step_by(250) {
            for (one, unreached) in reports {
                all.note(node(*one), &unreached.iter().map(|other| node(*other)).collect::<Vec<_>>(), at(time));
            }
        }
        all
    }

    #[test]
    fn a_member_is_out_of_reach_after_some_questions_without_an_answer() {
        let mut reach = Reach::default();
        let others = nodes(&[2, 3]);
        for _ in 0..=MISSED {
            assert!(reach.unreached().is_empty());
            reach.ask(&others);
            reach.answered(node(3));
        }
        assert_eq!(reach.unreached(), [node(2)]);
        reach.answered(node(2));
        assert!(reach.unreached().is_empty());
        for _ in 0..=MISSED {
            reach.ask(&others);
        }
        reach.ask(&nodes(&[3]));
        assert_eq!(reach.unreached(), [node(3)], "the other is no member any more");
        let redialled: Vec<_> = (0..20).map(|_| reach.ask(&nodes(&[3])).len()).collect();
        assert_eq!(redialled.iter().sum::<usize>(), 3, "now and then: {redialled:?}");
    }

    #[test]
    fn the_one_that_fewer_reach_is_removed_else_the_one_with_the_higher_address() {
        let removed = |reports: &[(u8, &[u8])]| {
            let members: Vec<u8> = reports.iter().map(|(one, _)| *one).collect();
            told(reports, 2000).to_remove(&nodes(&members), at(2000), |_| false)
        };
        assert_eq!(removed(&[(1, &[]), (2, &[]), (3, &[])]), None);
        // Told by one side or both.
        let second = Some((node(2), nodes(&[1])));
        assert_eq!(removed(&[(1, &[2]), (2, &[1]), (3, &[])]), second);
        assert_eq!(removed(&[(1, &[2]), (2, &[]), (3, &[])]), second);
        assert_eq!(removed(&[(1, &[]), (2, &[1]), (3, &[])]), second);
        assert_eq!(removed(&[(1, &[2, 3]), (2, &[1]), (3, &[1])]), Some((node(1), nodes(&[2, 3]))));
        // One that is not heard, or is no member, is another matter.
        assert_eq!(removed(&[(1, &[4]), (2, &[4]), (3, &[4])]), None);
    }

    #[test]
    fn the_last_owner_of_some_keys_stays() {
        let reports = told(&[(1, &[2]), (2, &[1])], 2000);
        let members = nodes(&[1, 2]);
        assert_eq!(reports.to_remove(&members, at(2000), |one| one == node(2)), Some((node(1), nodes(&[2]))));
        assert_eq!(reports.to_remove(&members, at(2000), |_| true), None);
    }

    #[test]
    fn one_that_was_silent_itself_has_a_second_to_be_reached_again() {
        let members = nodes(&[1, 2, 3]);
        let mut reports = told(&[(1, &[2]), (3, &[2])], 4000);
        for time in [4000, 4500, 4750] {
            reports.note(node(2), &[], at(time));
            assert_eq!(reports.to_remove(&members, at(time), |_| false), None);
        }
        let reports = told(&[(1, &[2]), (2, &[]), (3, &[])], 1000);
        assert_eq!(reports.to_remove(&members, at(1000), |_| false), Some((node(2), nodes(&[1]))));
    }

    #[test]
    fn it_must_last_and_be_told_lately() {
        let members = nodes(&[1, 2]);
        let reports = told(&[(1, &[2]), (2, &[])], 750);
        assert_eq!(reports.to_remove(&members, at(750), |_| false), None);
        assert!(told(&[(1, &[2]), (2, &[])], 1000).to_remove(&members, at(1000), |_| false).is_some());
        assert_eq!(told(&[(1, &[2]), (2, &[])], 1000).to_remove(&members, at(2500), |_| false), None);
        // After a pause in what it tells it begins anew.
        let mut reports = told(&[(1, &[2]), (2, &[])], 500);
        for time in [2100, 2300] {
            reports.note(node(1), &[node(2)], at(time));
            reports.note(node(2), &[], at(time));
        }
        assert_eq!(reports.to_remove(&members, at(2300), |_| false), None);
        assert_eq!(reports.unreached_by(node(1), at(2300)), [node(2)]);
        assert_eq!(reports.silence(node(1), at(2400)), Some(Duration::from_millis(100)));
    }
}
