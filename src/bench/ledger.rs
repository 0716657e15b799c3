//! The state of each key as far as a run knows it, and therefore which answers to a read are right.
//!
//! The rules hold for any number of writers of one key, since they count only what was acknowledged before a request
//! left: a value must not be older than that, and a key must be there if nothing can have deleted it. Whatever was
//! under way at the same time may have come first or last. Other writers of the same keys would break the rules.

use parking_lot::Mutex;

use super::value;
use crate::clock::ClockTime;
use crate::ring;

/// Bytes of memory for each key.
pub(crate) const ENTRY_LEN: usize = size_of::<Mutex<Entry>>();

/// The states of all keys, shared by all threads.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: Box<[Mutex<Entry>]>,
}

/// The state of one key.
#[derive(Debug)]
struct Entry {
    hash: u64,
    /// No older value may be read any more.
    floor: ClockTime,
    /// The version that the write at `floor` wrote; 0 if that is not known.
    version: u64,
    /// Deletes sent and not answered; one that fails stays for ever, since it may still happen.
    deleting: u32,
    /// Counts the deletes sent.
    generation: u16,
    /// Written since the last delete.
    live: bool,
}

/// The state of a key when a request left.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// The place in the hash space.
    pub(super) hash: u64,
    /// The clocktime of the newest write acknowledged, for a compare-and-swap; 0 if there is none.
    pub(super) clocktime: ClockTime,
    floor: ClockTime,
    generation: u16,
    live: bool,
    quiet: bool,
}

/// An answer that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing, where an acknowledged write must be.
    Missing,
    /// A value older than an acknowledged write or delete.
    Stale,
    /// The clocktime of an acknowledged write with another write's value.
    Exchanged,
}

impl Ledger {
    /// A ledger for keys 0 to `keys`, which exist if `loaded`.
    pub(super) fn new(keys: u64, loaded: bool) -> Self {
        let entry = |index| {
            let (floor, version) = (ClockTime(0), 0);
            Mutex::new(Entry {
                hash: ring::hash(&value::key(index)),
                floor,
                version,
                deleting: 0,
                generation: 0,
                live: loaded,
            })
        };
        Self { entries: (0..keys).map(entry).collect() }
    }

    /// Keys in it.
    pub(super) fn keys(&self) -> u64 {
        self.entries.len() as u64
    }

    #[inline]
    fn with<R>(&self, index: u64, act: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let entry = self.entries.get(usize::try_from(index).ok()?)?;
        Some(act(&mut entry.lock()))
    }

    /// The state now, for a read or a write that is about to leave.
    #[inline]
    pub(super) fn begin(&self, index: u64) -> Known {
        self.with(index, |entry| entry.known()).unwrap_or_default()
    }

    /// The same for a delete.
    #[inline]
    pub(super) fn begin_delete(&self, index: u64) -> Known {
        self.with(index, |entry| {
            let known = entry.known();
            entry.deleting = entry.deleting.saturating_add(1);
            entry.generation = entry.generation.wrapping_add(1);
            entry.live = false;
            known
        })
        .unwrap_or_default()
    }

    /// A value was read.
    #[inline]
    pub(super) fn found(
        &self,
        index: u64,
        known: Known,
        clocktime: ClockTime,
        version: Option<u64>,
    ) -> Result<(), Fault> {
        if clocktime.is_before(known.floor) {
            return Err(Fault::Stale);
        }
        let newest = self.with(index, |entry| (entry.floor, entry.version));
        match (newest, version) {
            (Some((floor, written)), Some(version)) if floor == clocktime && written != 0 && written != version => {
                Err(Fault::Exchanged)
            }
            _ => Ok(()),
        }
    }

    /// Nothing was there to be read.
    #[inline]
    pub(super) fn absent(&self, index: u64, known: Known) -> Result<(), Fault> {
        let undisturbed = known.live && self.with(index, |entry| entry.generation == known.generation) == Some(true);
        if undisturbed { Err(Fault::Missing) } else { Ok(()) }
    }

    /// A write was acknowledged.
    #[inline]
    pub(super) fn written(&self, index: u64, known: Known, clocktime: ClockTime, version: u64) {
        self.with(index, |entry| {
            entry.raise(clocktime, version);
            entry.live |= known.quiet && known.generation == entry.generation;
        });
    }

    /// A delete was acknowledged. What it says it found proves nothing: in a replace, its server may have nothing yet.
    #[inline]
    pub(super) fn deleted(&self, index: u64, known: Known) {
        self.with(index, |entry| {
            entry.deleting = entry.deleting.saturating_sub(1);
            // The deletion is later than what was acknowledged before it was asked for.
            if known.floor != ClockTime(0) {
                entry.raise(ClockTime(known.floor.0 + 1), 0);
            }
        });
    }

    /// Whether this run knows of a write of the key.
    pub(super) fn is_written(&self, index: u64) -> bool {
        self.with(index, |entry| entry.version != 0).unwrap_or(true)
    }
}

impl Entry {
    #[inline]
    fn known(&self) -> Known {
        Known {
            hash: self.hash,
            clocktime: if self.version == 0 { ClockTime(0) } else { self.floor },
            floor: self.floor,
            generation: self.generation,
            live: self.live,
            quiet: self.deleting == 0,
        }
    }

    #[inline]
    fn raise(&mut self, clocktime: ClockTime, version: u64) {
        if self.floor == ClockTime(0) || self.floor.is_before(clocktime) {
            self.floor = clocktime;
            self.version = version;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(clock: u32) -> ClockTime {
        ClockTime::new(1_000_000, clock)
    }

    fn ledger() -> Ledger {
        Ledger::new(2, false)
    }

    fn write(ledger: &Ledger, clock: u32) {
        ledger.written(0, ledger.begin(0), at(clock), clock.into());
    }

    #[test]
    fn a_key_nobody_wrote_may_be_absent_or_not() {
        let ledger = ledger();
        let known = ledger.begin(0);
        assert_eq!(known.hash, ring::hash(b"key:000000000000"));
        assert_eq!(ledger.absent(0, known), Ok(()));
        assert_eq!(ledger.found(0, known, at(1), Some(77)), Ok(()));
        assert!(!ledger.is_written(0));
    }

    #[test]
    fn a_loaded_key_must_be_there() {
        let ledger = Ledger::new(1, true);
        assert_eq!(ledger.absent(0, ledger.begin(0)), Err(Fault::Missing));
    }

    #[test]
    fn an_acknowledged_write_must_be_there_and_nothing_older() {
        let ledger = ledger();
        let before = ledger.begin(0);
        write(&ledger, 5);
        let after = ledger.begin(0);
        assert_eq!(ledger.absent(0, after), Err(Fault::Missing));
        assert_eq!(ledger.found(0, after, at(4), Some(4)), Err(Fault::Stale));
        assert_eq!(ledger.found(0, after, at(5), Some(5)), Ok(()));
        assert_eq!(ledger.found(0, after, at(5), Some(4)), Err(Fault::Exchanged));
        assert_eq!(ledger.found(0, after, at(6), Some(6)), Ok(()));
        // A read that left before may have been answered before.
        assert_eq!(ledger.absent(0, before), Ok(()));
        assert_eq!(ledger.found(0, before, at(4), Some(4)), Ok(()));
    }

    #[test]
    fn answers_of_writes_may_come_in_any_order() {
        let ledger = ledger();
        let (first, second) = (ledger.begin(0), ledger.begin(0));
        ledger.written(0, second, at(8), 8);
        ledger.written(0, first, at(7), 7);
        let known = ledger.begin(0);
        assert_eq!(known.clocktime, at(8));
        assert_eq!(ledger.found(0, known, at(7), Some(7)), Err(Fault::Stale));
    }

    #[test]
    fn what_is_deleted_must_not_come_back() {
        let ledger = ledger();
        write(&ledger, 5);
        let delete = ledger.begin_delete(0);
        let during = ledger.begin(0);
        assert_eq!(ledger.absent(0, during), Ok(()));
        assert_eq!(ledger.found(0, during, at(5), Some(5)), Ok(()));
        ledger.deleted(0, delete);
        let after = ledger.begin(0);
        assert_eq!(after.clocktime, ClockTime(0));
        assert_eq!(ledger.absent(0, after), Ok(()));
        assert_eq!(ledger.found(0, after, at(5), Some(5)), Err(Fault::Stale));
        write(&ledger, 7);
        assert_eq!(ledger.absent(0, ledger.begin(0)), Err(Fault::Missing));
    }

    #[test]
    fn a_write_that_a_delete_may_have_followed_proves_nothing() {
        let ledger = ledger();
        // Write sent, delete sent, both answered.
        let set = ledger.begin(0);
        let delete = ledger.begin_delete(0);
        ledger.written(0, set, at(5), 5);
        ledger.deleted(0, delete);
        assert_eq!(ledger.absent(0, ledger.begin(0)), Ok(()));
        // Delete sent, write sent, both answered.
        let delete = ledger.begin_delete(0);
        let set = ledger.begin(0);
        ledger.deleted(0, delete);
        ledger.written(0, set, at(9), 9);
        assert_eq!(ledger.absent(0, ledger.begin(0)), Ok(()));
    }

    #[test]
    fn a_delete_without_answer_may_happen_at_any_time() {
        let ledger = ledger();
        let _unanswered = ledger.begin_delete(0);
        write(&ledger, 5);
        assert_eq!(ledger.absent(0, ledger.begin(0)), Ok(()));
    }
}
