//! The counters of a gateway. Knows no names of statistics; `report` shows them.
//!
//! A request on a key adds one to one counter, in a table of what it asks for and what has become of it; everything that
//! `stats` shows of such requests is a sum of these. All counters are relaxed: they order nothing.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::change::{Change, Mode};
use super::failure::Failure;
use super::outcome::Outcome;

/// The kinds of requests on a key that are counted apart, of memcached's choosing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A read that changes nothing, or makes an empty item where there is none.
    Get,
    /// A new expiry, read with it or not.
    Touch,
    /// A value.
    Store,
    /// A value in place of one with a given CAS unique.
    Swap,
    /// A deletion.
    Delete,
    /// Counting up.
    Increment,
    /// Counting down.
    Decrement,
    /// A value that is refused, and what it was to replace deleted.
    Discard,
}

impl Kind {
    /// How a change is counted.
    pub(super) fn of(change: &Change<'_>) -> Self {
        match change {
            Change::Vivify { exptime: None, .. } => Self::Get,
            Change::Touch { .. } | Change::Vivify { .. } => Self::Touch,
            Change::Put { mode: Mode::Set | Mode::Replace, compare: Some(_), .. } => Self::Swap,
            Change::Put { .. } => Self::Store,
            Change::Delete { .. } => Self::Delete,
            Change::Count { up: true, .. } => Self::Increment,
            Change::Count { up: false, .. } => Self::Decrement,
            Change::Discard { .. } => Self::Discard,
        }
    }
}

/// The ends of a request that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Found, or done.
    Hit,
    /// There is no such item.
    Miss,
    /// The item has another CAS unique.
    Differs,
    /// Its condition did not hold, or it asked for what this gateway does not do.
    Declined,
    /// The value is longer than allowed.
    TooLarge,
    /// Given up.
    Failed,
    /// Not tried, for want of memory.
    Refused,
}

impl Fate {
    fn of(outcome: &Outcome<'_>) -> Self {
        match outcome {
            Outcome::Missing | Outcome::NotFound => Self::Miss,
            Outcome::Exists => Self::Differs,
            Outcome::NotStored => Self::Declined,
            Outcome::Failed(failure) => match failure {
                Failure::Unavailable | Failure::Partial | Failure::Unknown | Failure::Hidden | Failure::Contended => {
                    Self::Failed
                }
                Failure::Overloaded => Self::Refused,
                Failure::TooLarge | Failure::TooLargeFor(..) => Self::TooLarge,
                _ => Self::Declined,
            },
            _ => Self::Hit,
        }
    }
}

const KINDS: usize = Kind::Discard as usize + 1;
const FATES: usize = Fate::Refused as usize + 1;

/// Counters since the start, or since they were set back.
#[derive(Debug, Default)]
pub(super) struct Stats {
    requests: [[AtomicU64; FATES]; KINDS],
    /// Values that were too long to be taken from the client, where nothing is deleted for that.
    pub(super) oversized: AtomicU64,
    /// Empty items made by a read.
    created: AtomicU64,
    /// Reads that found what had expired.
    pub(super) expired: AtomicU64,
    /// Reads that found what a flush hides.
    pub(super) flushed: AtomicU64,
    /// Changes that were decided anew because somebody else had changed the item.
    pub(super) contended: AtomicU64,
    /// Items read that a gateway with another layout has written.
    foreign: AtomicU64,
    /// Connections accepted.
    pub(super) connections: AtomicU64,
    /// Connections turned away.
    pub(super) rejected: AtomicU64,
    /// Flushes done.
    pub(super) flushes: AtomicU64,
    /// Bytes read from clients.
    pub(super) bytes_read: AtomicU64,
    /// Bytes written to clients.
    pub(super) bytes_written: AtomicU64,
    /// Second of the last warning.
    warned: AtomicU32,
}

impl Stats {
    /// One more.
    pub(super) fn add(counter: &AtomicU64) {
        Self::add_many(counter, 1);
    }

    /// So many more.
    pub(super) fn add_many(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Counts a request on a key by what became of it.
    pub(super) fn count(&self, kind: Kind, outcome: &Outcome<'_>) {
        if let Some(counter) = self.cell(kind, Fate::of(outcome)) {
            Self::add(counter);
        }
        if matches!(outcome, Outcome::Created(_)) {
            Self::add(&self.created);
        }
    }

    fn cell(&self, kind: Kind, fate: Fate) -> Option<&AtomicU64> {
        self.requests.get(kind as usize).and_then(|row| row.get(fate as usize))
    }

    /// Requests of this kind that ended so.
    pub(super) fn of(&self, kind: Kind, fate: Fate) -> u64 {
        self.cell(kind, fate).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Requests of this kind, whatever became of them.
    pub(super) fn all_of(&self, kind: Kind) -> u64 {
        self.requests.get(kind as usize).map_or(0, |row| row.iter().map(|count| count.load(Ordering::Relaxed)).sum())
    }

    /// Requests of any kind that ended so.
    pub(super) fn all_that(&self, fate: Fate) -> u64 {
        let counts = self.requests.iter().filter_map(|row| row.get(fate as usize));
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Values stored.
    pub(super) fn stored(&self) -> u64 {
        let written = self.of(Kind::Store, Fate::Hit).saturating_add(self.of(Kind::Swap, Fate::Hit));
        written.saturating_add(self.created.load(Ordering::Relaxed))
    }

    /// Counts an item that a gateway with another layout has written; says whether it is the first.
    pub(super) fn count_foreign(&self) -> bool {
        self.foreign.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Items read that a gateway with another layout has written.
    pub(super) fn foreign(&self) -> u64 {
        self.foreign.load(Ordering::Relaxed)
    }

    /// Whether a warning about a request is due: one in a second is enough.
    pub(super) fn may_warn(&self, now: u32) -> bool {
        self.warned.swap(now, Ordering::Relaxed) != now
    }

    /// Sets all counters back.
    pub(super) fn reset(&self) {
        let Self {
            requests,
            oversized,
            created,
            expired,
            flushed,
            contended,
            foreign,
            connections,
            rejected,
            flushes,
            bytes_read,
            bytes_written,
            warned: _,
        } = self;
        let others = [
            oversized,
            created,
            expired,
            flushed,
            contended,
            foreign,
            connections,
            rejected,
            flushes,
            bytes_read,
            bytes_written,
        ];
        for counter in requests.iter().flatten().chain(others) {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockTime;

    #[test]
    fn a_request_is_counted_once_by_kind_and_fate() {
        let stats = Stats::default();
        for (kind, outcome, fate) in [
            (Kind::Get, Outcome::Missing, Fate::Miss),
            (Kind::Swap, Outcome::Exists, Fate::Differs),
            (Kind::Swap, Outcome::Stored(ClockTime(1)), Fate::Hit),
            (Kind::Store, Outcome::NotStored, Fate::Declined),
            (Kind::Delete, Outcome::Deleted, Fate::Hit),
            (Kind::Increment, Outcome::Failed(Failure::NotNumeric), Fate::Declined),
            (Kind::Decrement, Outcome::Failed(Failure::Unavailable), Fate::Failed),
            (Kind::Store, Outcome::Failed(Failure::TooLarge), Fate::TooLarge),
            (Kind::Get, Outcome::Failed(Failure::Overloaded), Fate::Refused),
        ] {
            stats.count(kind, &outcome);
            assert_eq!(stats.of(kind, fate), 1, "{kind:?} {outcome:?}");
        }
        assert_eq!((stats.all_of(Kind::Get), stats.all_of(Kind::Store), stats.all_of(Kind::Touch)), (2, 2, 0));
        assert_eq!((stats.all_that(Fate::Failed), stats.all_that(Fate::Refused), stats.stored()), (1, 1, 1));
        stats.reset();
        assert_eq!((stats.all_of(Kind::Get), stats.all_that(Fate::Hit), stats.stored()), (0, 0, 0));
    }
}
