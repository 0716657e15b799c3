//! `flush_all`: which records a flush hides. Pure: the servers' clocktimes and the time come from outside.
//!
//! A cluster cannot be emptied by its protocol, nor its records listed. So nothing is deleted: other gateways go on
//! showing what is hidden here, and so does this one after a restart.

use std::collections::HashMap;

use super::item::expires;
use crate::clock::ClockTime;
use crate::ring::HashSpace;
use crate::wire::NodeAddress;

/// When a flush takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Now,
    /// In so many seconds.
    Later(u32),
    /// At a unix second that is over: it hides what was written before that second.
    Past(u32),
}

/// The moment that a delay in seconds stands for; over thirty days it is in unix seconds, below zero it is now.
pub(super) fn moment(delay: i64, now: u32) -> Moment {
    if delay <= 0 {
        return Moment::Now;
    }
    match expires(delay, now).checked_sub(now) {
        Some(0) => Moment::Now,
        Some(seconds) => Moment::Later(seconds),
        None => Moment::Past(expires(delay, now)),
    }
}

/// The line that a flush draws: each server's clocktime when it was asked, and who owned the keys then.
///
/// The stamps of one server are in sequence: its records from before have earlier clocktimes than it answered, later ones have
/// not, wherever its clock stands. A server also learns the clock of every copy that it stores. So what was written
/// before is before the clocktime of each active owner, and what is written later by any of them is not before its own.
#[derive(Debug)]
pub(super) struct Boundary {
    whs: HashSpace,
    clocktimes: HashMap<NodeAddress, ClockTime>,
}

impl Boundary {
    /// `clocktimes`: of those servers of `whs` that have answered; one at least.
    pub(super) fn new(whs: HashSpace, clocktimes: HashMap<NodeAddress, ClockTime>) -> Self {
        assert!(!clocktimes.is_empty(), "a flush that no server has answered hides everything for ever");
        Self { whs, clocktimes }
    }

    /// Whether a record was written before. `whs` is the version of the hash space for writing now.
    pub(super) fn hides(&self, hash: u64, written: ClockTime, whs: ClockTime) -> bool {
        let is_before = |server| self.clocktimes.get(&server).map(|clocktime| written.is_before(*clocktime));
        // As long as one server writes the key, the clocks of others do not matter.
        if whs == self.whs.clocktime()
            && let Some(is_before) = self.whs.owners(hash).coordinator().and_then(is_before)
        {
            return is_before;
        }
        let mut owners = self.whs.owners(hash).active().filter_map(is_before).peekable();
        if owners.peek().is_some() {
            owners.all(|is_before| is_before)
        } else {
            self.clocktimes.values().all(|clocktime| written.is_before(*clocktime))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::params::Seed;

    fn server(number: u16) -> NodeAddress {
        NodeAddress::new(([127, 0, 0, 1], number).into())
    }

    fn space(version: u32) -> HashSpace {
        let nodes = (1..=3).map(|number| (server(number), true)).collect();
        HashSpace::new(Seed { nodes, clocktime: ClockTime::new(version, 1) })
    }

    /// A boundary of three servers that have answered these clocktimes, in the order of the owners of hash 7.
    fn boundary(answers: [Option<(u32, u32)>; 3]) -> Boundary {
        let whs = space(9);
        let owners: Vec<_> = whs.owners(7).active().collect();
        let answered = owners.into_iter().zip(answers).filter_map(|(owner, answer)| Some((owner, answer?)));
        let clocktimes = answered.map(|(owner, (seconds, clock))| (owner, ClockTime::new(seconds, clock))).collect();
        Boundary::new(whs, clocktimes)
    }

    fn hides(boundary: &Boundary, (seconds, clock): (u32, u32), version: u32) -> bool {
        boundary.hides(7, ClockTime::new(seconds, clock), ClockTime::new(version, 1))
    }

    #[test]
    fn a_delay_is_read_as_an_exptime() {
        let now = 1_700_000_000;
        for (delay, expected) in [
            (0, Moment::Now),
            (-1, Moment::Now),
            (5, Moment::Later(5)),
            (2_592_000, Moment::Later(2_592_000)),
            (i64::from(now), Moment::Now),
            (i64::from(now) + 7, Moment::Later(7)),
            (i64::from(now) - 7, Moment::Past(now - 7)),
        ] {
            assert_eq!(moment(delay, now), expected, "{delay}");
        }
    }

    #[test]
    fn the_sequence_decides_within_a_second() {
        let boundary = boundary([Some((100, 50)), Some((100, 60)), Some((100, 40))]);
        for (written, hidden) in [((100, 49), true), ((100, 50), false), ((101, 51), false), ((60, 99), true)] {
            assert_eq!(hides(&boundary, written, 9), hidden, "{written:?}");
        }
    }

    #[test]
    fn clocks_of_other_servers_do_not_matter_while_one_server_writes() {
        // The writer's time lags behind by an hour, or is ahead by one.
        for seconds in [4000, 11200] {
            let boundary = boundary([Some((seconds, 50)), Some((7600, 900)), Some((7600, 10))]);
            for (clock, hidden) in [(49, true), (50, false)] {
                assert_eq!(hides(&boundary, (seconds, clock), 9), hidden, "{seconds}.{clock}");
            }
        }
    }

    #[test]
    fn after_a_takeover_each_owner_must_have_been_later() {
        let boundary = boundary([Some((100, 50)), Some((100, 47)), Some((100, 48))]);
        // Every owner had what was written before; whoever writes later goes on from its own clock.
        assert!(hides(&boundary, (100, 46), 10));
        assert!(!hides(&boundary, (102, 47), 10));
        assert!(!hides(&boundary, (107, 3), 10));
    }

    #[test]
    fn a_server_that_has_not_answered_is_judged_by_the_others() {
        let silent = boundary([None, Some((100, 50)), None]);
        assert!(hides(&silent, (100, 49), 9) && !hides(&silent, (100, 50), 9));
    }
}
