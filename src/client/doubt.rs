//! A write of which some try may have been done: how it goes on after a look at its record. Pure: no
//! connections, no time.
//!
//! Repeated blindly, a write that was done already would undo what others have written over it since. So it is repeated
//! only where that cannot be, and by a compare-and-swap with what the look has found, which nobody else can come before.
//!
//! The look tells what was there before from what was written over the try by the Lamport clock. A server that was known
//! to have passed clock *n* when the try was sent gives the try a clock of *n* at least, and what replaces it a later one:
//! a record with a clock of *n* or less has not replaced it. What has a later one may have; then only a server that has
//! stayed the same, and has answered, can show that the write was done or may count as done just before.

use crate::clock::{ClockTime, is_behind};
use crate::wire::NodeAddress;

/// A record that a look has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// None, or on a server of 2010 a tombstone.
    Absent,
    /// A tombstone of this clocktime.
    Deleted(ClockTime),
    /// A value of this clocktime.
    Live(ClockTime),
}

impl Record {
    /// What a compare-and-swap that is to replace it expects.
    fn expected(self) -> ClockTime {
        match self {
            Self::Absent | Self::Deleted(_) => ClockTime(0),
            Self::Live(clocktime) => clocktime,
        }
    }
}

/// How the last try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Without an answer: whether it was done, or still will be, is not known.
    Lost,
    /// Done, but not on every replica.
    Partly,
    /// A compare-and-swap that has not matched. Whatever was sent before it on its connection is done with.
    Refused,
}

/// How to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Write by a compare-and-swap that expects this.
    Swap(ClockTime),
    /// Write as at first, whatever is there.
    Blind,
    /// It is done: the look has found it.
    Done,
    /// It is done, or counts as done just before what was found: somebody else has replaced it.
    Overwritten,
    /// Nobody can tell; it must not be repeated.
    Unknown,
}

/// A record that a look has found, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    pub(super) at: NodeAddress,
    pub(super) record: Record,
    /// Whether every owner has it: servers that vote show nothing else.
    pub(super) settled: bool,
}

/// The tries of a write, as far as they may have been done.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// Some try may have been done.
    tried: bool,
    /// A clock that the servers of all such tries had passed when these were sent, if one is known.
    passed: Option<u32>,
    /// What the last look has found, and where.
    seen: Option<(NodeAddress, Record)>,
    /// Where the last look has found the very value.
    done_at: Option<NodeAddress>,
}

impl Doubt {
    /// A try may have been done by a server that had passed `clock`, if that is known.
    pub(super) fn add_try(&mut self, clock: Option<u32>) {
        self.passed = match (self.passed, clock) {
            _ if !self.tried => clock,
            (Some(passed), Some(clock)) => Some(if is_behind(clock, passed) { clock } else { passed }),
            _ => None,
        };
        self.tried = true;
    }

    /// Whether a record has surely not replaced what one of the tries may have written.
    pub(super) fn is_from_before(&self, record: Record) -> bool {
        match record {
            Record::Absent => true,
            Record::Deleted(at) | Record::Live(at) => self.passed.is_some_and(|passed| !is_behind(passed, at.clock())),
        }
    }

    /// How a set goes on whose last try, at the server `by`, has `ended` so, and of whose key a look has found this;
    /// `same` says whether it is the very value to be written.
    pub(super) fn next(&mut self, (by, ended): (NodeAddress, Ended), sight: Sight, same: bool) -> Next {
        let Sight { at, record: found, settled } = sight;
        let seen = self.seen.replace((at, found));
        let was_done = std::mem::replace(&mut self.done_at, same.then_some(at)) == Some(at);
        if same {
            // Ours, or as good: to be completed where it may not be on every owner. Where it is, nobody may see it written twice.
            return if settled && !self.is_from_before(found) { Next::Done } else { Next::Swap(found.expected()) };
        }
        if seen.is_some_and(|(_, seen)| seen == found) {
            // Only a server of 2010 refuses to swap what is not there: it has a tombstone.
            let tombstone = found == Record::Absent && ended == Ended::Refused;
            return if tombstone { Next::Blind } else { Next::Swap(found.expected()) };
        }
        if self.is_from_before(found) {
            return Next::Swap(found.expected());
        }
        // From here on it is somebody else's, and perhaps later. A try that was found, or is known to be done, was replaced by it,
        // if the same server says so, and one that was forestalled counts as done just before a deletion. But not before another value:
        // that may be of a swap with what was there.
        let forestalled = ended == Ended::Refused && seen.is_some_and(|(before, _)| before == at);
        let done = was_done || ended == Ended::Partly || forestalled && matches!(found, Record::Deleted(_));
        if done && by == at { Next::Overwritten } else { Next::Unknown }
    }

    /// The same for a deletion, which no server makes conditional: [`Next::Blind`] is all there is to repeat it.
    pub(super) fn next_deletion(&self, (by, ended): (NodeAddress, Ended), sight: Sight) -> Next {
        let Sight { at, record: found, settled } = sight;
        match found {
            Record::Live(_) if self.is_from_before(found) => Next::Blind,
            Record::Live(_) if ended == Ended::Partly && by == at => Next::Overwritten,
            Record::Live(_) => Next::Unknown,
            // Perhaps by this very deletion, and if not it makes no difference.
            Record::Absent | Record::Deleted(_) if settled => Next::Done,
            // It may not be on every owner.
            Record::Absent | Record::Deleted(_) => Next::Blind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16) -> NodeAddress {
        NodeAddress::new(([127, 0, 0, 1], port).into())
    }

    fn live(clock: u32) -> Record {
        Record::Live(ClockTime::new(1_000, clock))
    }

    fn deleted(clock: u32) -> Record {
        Record::Deleted(ClockTime::new(1_000, clock))
    }

    fn swap(clock: u32) -> Next {
        Next::Swap(ClockTime::new(1_000, clock))
    }

    const ADD: Next = Next::Swap(ClockTime(0));

    /// What follows each of these looks: how the try before it ended, where it was made and where was looked, what was
    /// found, and whether that is the value to be written. The try that began it was sent to a server past clock 10.
    fn follow(steps: &[(Ended, (u16, u16), Record, bool)]) -> Next {
        follow_among(false, steps)
    }

    /// The same, of servers that vote if `settled`.
    fn follow_among(settled: bool, steps: &[(Ended, (u16, u16), Record, bool)]) -> Next {
        let mut doubt = Doubt::default();
        doubt.add_try(Some(10));
        let mut next = Next::Blind;
        for (ended, (by, at), found, same) in steps {
            let sight = Sight { at: server(*at), record: *found, settled };
            next = doubt.next((server(*by), *ended), sight, *same);
        }
        next
    }

    #[test]
    fn what_every_owner_has_is_not_written_again() {
        use Ended::{Lost, Partly};
        for ended in [Lost, Partly] {
            assert_eq!(follow_among(true, &[(ended, (1, 2), live(11), true)]), Next::Done);
            // The same value from before: this one is still to come, or to be made.
            assert_eq!(follow_among(true, &[(ended, (1, 2), live(9), true)]), swap(9));
            assert_eq!(follow_among(true, &[(ended, (1, 2), live(9), false)]), swap(9));
            let mut doubt = Doubt::default();
            doubt.add_try(Some(10));
            let next = |record| doubt.next_deletion((server(1), ended), Sight { at: server(2), record, settled: true });
            for gone in [Record::Absent, deleted(5), deleted(15)] {
                assert_eq!(next(gone), Next::Done);
            }
            assert_eq!(next(live(10)), Next::Blind);
        }
    }

    #[test]
    fn what_was_there_before_is_replaced_and_what_came_later_is_not() {
        use Ended::{Lost, Partly};
        for ended in [Lost, Partly] {
            for at in [1, 2] {
                assert_eq!(follow(&[(ended, (1, at), live(10), false)]), swap(10));
                assert_eq!(follow(&[(ended, (1, at), deleted(9), false)]), ADD);
                assert_eq!(follow(&[(ended, (1, at), Record::Absent, false)]), ADD);
                // The value itself, whoever has written it and whenever: completed.
                for clock in [5, 50] {
                    assert_eq!(follow(&[(ended, (1, at), live(clock), true)]), swap(clock));
                }
            }
        }
        for later in [live(11), deleted(11)] {
            // Done, as the server has said.
            assert_eq!(follow(&[(Partly, (1, 1), later, false)]), Next::Overwritten);
            // With a server that has gone, or perhaps not done: written over the try, or just before it.
            assert_eq!(follow(&[(Partly, (1, 2), later, false)]), Next::Unknown);
            assert_eq!(follow(&[(Lost, (1, 1), later, false)]), Next::Unknown);
            assert_eq!(follow(&[(Lost, (1, 2), later, false)]), Next::Unknown);
        }
    }

    #[test]
    fn without_a_known_clock_only_what_is_absent_was_there_before() {
        let mut doubt = Doubt::default();
        doubt.add_try(None);
        let sight = Sight { at: server(1), record: live(3), settled: false };
        assert_eq!(doubt.next((server(1), Ended::Lost), sight, false), Next::Unknown);
        assert!(doubt.is_from_before(Record::Absent) && !doubt.is_from_before(deleted(3)));
        // The clock of all tries is the earliest.
        for (clocks, passed) in [
            ([Some(7), Some(9)], Some(7)),
            ([Some(9), Some(7)], Some(7)),
            ([None, Some(9)], None),
            ([Some(9), None], None),
        ] {
            let mut doubt = Doubt::default();
            for clock in clocks {
                doubt.add_try(clock);
            }
            assert_eq!(doubt.passed, passed, "{clocks:?}");
        }
    }

    #[test]
    fn a_repetition_that_was_forestalled_is_not_called_done() {
        use Ended::{Lost, Partly, Refused};
        let first = (Lost, (1, 2), live(8), false);
        // By a swap with what was there perhaps, before which nothing can have been.
        assert_eq!(follow(&[first, (Refused, (2, 2), live(12), false)]), Next::Unknown);
        assert_eq!(follow(&[first, (Refused, (2, 2), deleted(12), false)]), Next::Overwritten);
        assert_eq!(follow(&[first, (Partly, (2, 2), live(12), false)]), Next::Overwritten);
        // The first try has come after all, or the second: completed, unless somebody has replaced it before that.
        let found = (Refused, (2, 2), live(12), true);
        assert_eq!(follow(&[first, found]), swap(12));
        assert_eq!(follow(&[first, found, (Refused, (2, 2), live(14), false)]), Next::Overwritten);
        assert_eq!(follow(&[first, (Lost, (2, 2), live(12), true)]), swap(12));
        // Not done: again.
        assert_eq!(follow(&[first, (Lost, (2, 2), live(8), false)]), swap(8));
        assert_eq!(follow(&[first, (Lost, (2, 3), live(8), false)]), swap(8));
        // Gone with its server.
        assert_eq!(follow(&[(Partly, (1, 1), live(12), true), (Lost, (1, 2), live(8), false)]), swap(8));
        // One may be on its way still; and another server may show what is older than what was seen.
        assert_eq!(follow(&[first, (Lost, (2, 2), deleted(12), false)]), Next::Unknown);
        assert_eq!(follow(&[first, (Refused, (2, 3), deleted(12), false)]), Next::Unknown);
        assert_eq!(follow(&[first, (Lost, (2, 3), live(12), false)]), Next::Unknown);
    }

    #[test]
    fn a_tombstone_of_2010_takes_no_swap() {
        use Ended::{Lost, Refused};
        let first = (Lost, (1, 1), Record::Absent, false);
        assert_eq!(follow(&[first, (Refused, (1, 1), Record::Absent, false)]), Next::Blind);
        assert_eq!(follow(&[first, (Lost, (1, 1), Record::Absent, false)]), ADD);
    }

    #[test]
    fn a_deletion_is_repeated_where_it_cannot_delete_what_came_later() {
        use Ended::{Lost, Partly};
        let mut doubt = Doubt::default();
        doubt.add_try(Some(10));
        let next = |ended, at, record| {
            doubt.next_deletion((server(1), ended), Sight { at: server(at), record, settled: false })
        };
        for ended in [Lost, Partly] {
            for found in [Record::Absent, deleted(5), deleted(15), live(10)] {
                assert_eq!(next(ended, 1, found), Next::Blind);
            }
        }
        assert_eq!(next(Partly, 1, live(11)), Next::Overwritten);
        assert_eq!(next(Partly, 2, live(11)), Next::Unknown);
        assert_eq!(next(Lost, 1, live(11)), Next::Unknown);
    }
}
