//! A server that has started again: the other members may remember that its store was further than it is now, so they are
//! heard before it acts. Pure.

use std::collections::BTreeSet;

use super::configuration::Configuration;
use crate::time::Moment;
use crate::wire::NodeAddress;

/// What the others have said since the start.
/// What the others have said since the start.
#[derive(Debug, Clone)]
pub struct Restart {
    /// The members that have not answered yet.
    awaited: BTreeSet<NodeAddress>,
    /// Who has not answered by then is not waited for.
    until: Moment,
    /// Who remembers that the store was further.
    doubting: BTreeSet<NodeAddress>,
    /// The counter of the configuration that has admitted this server, if it is a member.
    admitted: Option<u64>,
    /// The members of the configuration; who else remembers something is a manager.
    members: BTreeSet<NodeAddress>,
}

fn admission(configuration: &Configuration, own: NodeAddress) -> Option<u64> {
    configuration.members.get(&own).map(|member| member.admitted)
}

impl Restart {
    /// The server `own` starts at `now` with what its store has kept.
    pub fn new(kept: &Configuration, own: NodeAddress, now: Moment) -> Self {
        let admitted = admission(kept, own);
        let others = kept.members.keys().copied().filter(|node| admitted.is_some() && *node != own);
        Self {
            awaited: others.collect(),
            until: now + kept.timing.failure(),
            doubting: BTreeSet::new(),
            admitted,
            members: kept.members.keys().copied().collect(),
        }
    }

    /// `node` has answered, and remembers that the store was further, or does not. Says whether it is the first that does.
    pub fn answered(&mut self, node: NodeAddress, doubts: bool) -> bool {
        self.awaited.remove(&node);
        if !doubts || self.admitted.is_none() {
            self.doubting.remove(&node);
            return false;
        }
        self.doubting.insert(node) && self.doubting.len() == 1
    }

    /// `configuration` is in force from now on: with another admission the server `own` gets what it lacks, and what members
    /// remembered that are none any more nobody will send it.
    pub fn adopt(&mut self, configuration: &Configuration, own: NodeAddress) {
        let admitted = admission(configuration, own);
        if admitted.is_none() || admitted != self.admitted {
            self.doubting.clear();
        }
        self.admitted = admitted;
        self.doubting.retain(|node| !self.members.contains(node) || configuration.members.contains_key(node));
        self.members = configuration.members.keys().copied().collect();
        self.awaited.retain(|node| configuration.members.contains_key(node));
    }

    /// Who remembers that the store was further.
    pub fn doubting(&self) -> &BTreeSet<NodeAddress> {
        &self.doubting
    }

    /// Whether this server may act at `now`, if the voters confirm it.
    pub fn permits(&self, now: Moment) -> bool {
        self.doubting.is_empty() && (self.awaited.is_empty() || now >= self.until)
    }

    /// The members that are waited for at `now`.
    pub fn awaited(&self, now: Moment) -> impl Iterator<Item = NodeAddress> {
        self.awaited.iter().copied().filter(move |_| now < self.until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ClockTime;
    use crate::wire::params::Seed;

    fn node(number: u8) -> NodeAddress {
        NodeAddress::new(([10, 0, 0, number], 19800).into())
    }

    fn configuration(active: [bool; 3]) -> Configuration {
        let nodes = (1..).map(node).zip(active).collect();
        let seed = Seed { nodes, clocktime: ClockTime(1) };
        let stores = (1..).map(|number| (node(number), u64::from(number))).take(3).collect();
        Configuration::default().next(seed.clone(), seed, &stores, &BTreeSet::new()).unwrap()
    }

    #[test]
    fn the_other_members_are_heard_first_for_the_failure_time_out() {
        let (kept, now) = (configuration([true; 3]), Moment::from_nanos(77));
        let mut restart = Restart::new(&kept, node(1), now);
        assert!(!restart.permits(now));
        assert!(!restart.answered(node(3), false) && !restart.answered(node(9), false));
        assert_eq!(restart.awaited(now).collect::<Vec<_>>(), [node(2)]);
        assert!(!restart.permits(now + kept.timing.failure().saturating_sub(Duration::from_nanos(1))));
        assert!(restart.permits(now + kept.timing.failure()));
        assert_eq!(restart.awaited(now + kept.timing.failure()).count(), 0);
        restart.answered(node(2), false);
        assert!(restart.permits(now));
    }

    #[test]
    fn who_is_no_member_or_alone_waits_for_nobody() {
        let now = Moment::from_nanos(77);
        assert!(Restart::new(&Configuration::default(), node(1), now).permits(now));
        assert!(Restart::new(&configuration([true; 3]), node(4), now).permits(now));
        assert!(Restart::new(&configuration([true, false, false]), node(1), now).permits(now));
    }

    #[test]
    fn an_older_store_permits_nothing_until_nobody_doubts_it_or_the_server_is_admitted_anew() {
        let (kept, now) = (configuration([true; 3]), Moment::from_nanos(77));
        let mut restart = Restart::new(&kept, node(1), now);
        assert!(restart.answered(node(2), true));
        assert!(!restart.answered(node(3), true) && !restart.answered(node(2), true), "it is known");
        restart.adopt(&kept, node(1));
        assert!(!restart.permits(now + Duration::from_hours(1)));
        for number in [2, 3] {
            restart.answered(node(number), false);
        }
        assert!(restart.permits(now));
        for doubting in [2, 9] {
            restart.answered(node(doubting), true);
        }
        restart.adopt(&configuration([true, false, true]), node(1));
        assert_eq!(restart.doubting(), &BTreeSet::from([node(9)]), "the other one has gone, and this is a manager");
        restart.answered(node(9), false);
        restart.adopt(&kept, node(1));
        restart.answered(node(2), true);
        restart.adopt(&configuration([false, true, true]), node(1));
        assert!(restart.permits(now));
        assert!(!restart.answered(node(2), true), "late: it is no member");
        restart.adopt(&kept, node(1));
        restart.answered(node(2), true);
        // It has not heard that it was given up meanwhile.
        let mut again = kept;
        again.members.get_mut(&node(1)).unwrap().admitted += 7;
        restart.adopt(&again, node(1));
        assert!(restart.permits(now));
    }
}
