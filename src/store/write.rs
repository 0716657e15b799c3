//! Writes, their outcomes, and the decision between the two. Knows no locks, no files and no threads.

use crate::clock::{Clock, ClockTime};
use crate::wire::{RecordKey, RecordValue};

/// A change to one record.
#[derive(Debug, Clone, Copy)]
pub enum Write<'a> {
    /// Store `body` (meta and data) under a clocktime of ours, whatever is there.
    Set {
        /// The record.
        key: RecordKey<'a>,
        /// The raw value without its clocktime.
        body: &'a [u8],
    },
    /// As `Set`, if the stored record is live and has exactly this clocktime. Absent or deleted matches 0 and no other.
    Cas {
        /// The record.
        key: RecordKey<'a>,
        /// The raw value without its clocktime.
        body: &'a [u8],
        /// The clocktime that must be stored now.
        expected: ClockTime,
    },
    /// Store a tombstone with a clocktime of ours, also if nothing is there.
    Delete {
        /// The record.
        key: RecordKey<'a>,
    },
    /// Store a raw value or tombstone with its own clocktime, if nothing is stored or what is stored is before it.
    Update {
        /// The record.
        key: RecordKey<'a>,
        /// The raw value or tombstone of another node.
        value: RecordValue<'a>,
        /// Even when ignored, record that the key was seen in the current generation.
        touch: bool,
    },
    /// Forget the record, tombstone or live, if it still has exactly this clocktime.
    Remove {
        /// The record.
        key: RecordKey<'a>,
        /// The clocktime that must be stored now.
        clocktime: ClockTime,
    },
}

impl<'a> Write<'a> {
    /// The record it is about.
    #[inline]
    pub fn key(&self) -> RecordKey<'a> {
        match *self {
            Self::Set { key, .. }
            | Self::Cas { key, .. }
            | Self::Delete { key }
            | Self::Update { key, .. }
            | Self::Remove { key, .. } => key,
        }
    }

    /// Bytes that would be stored behind the clocktime.
    #[inline]
    pub(super) fn body(&self) -> &'a [u8] {
        match *self {
            Self::Set { body, .. } | Self::Cas { body, .. } => body,
            Self::Update { value, .. } => value.body(),
            Self::Delete { .. } | Self::Remove { .. } => &[],
        }
    }
}

/// A [`Write`] that owns its bytes, for the pool.
#[derive(Debug, Clone)]
pub struct OwnedWrite {
    kind: Kind,
    key: Box<[u8]>,
    value: Box<[u8]>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Set,
    Cas(ClockTime),
    Delete,
    Update(bool),
    Remove(ClockTime),
}

impl From<&Write<'_>> for OwnedWrite {
    fn from(write: &Write<'_>) -> Self {
        let (kind, value) = match *write {
            Write::Set { body, .. } => (Kind::Set, body),
            Write::Cas { body, expected, .. } => (Kind::Cas(expected), body),
            Write::Delete { .. } => (Kind::Delete, &[][..]),
            Write::Update { value, touch, .. } => (Kind::Update(touch), value.bytes()),
            Write::Remove { clocktime, .. } => (Kind::Remove(clocktime), &[][..]),
        };
        Self { kind, key: write.key().bytes().into(), value: value.into() }
    }
}

impl OwnedWrite {
    /// The raw key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The write it was made from; `None` never happens to one made from a [`Write`].
    pub fn borrow(&self) -> Option<Write<'_>> {
        let key = RecordKey::new(&self.key).ok()?;
        let body = &self.value[..];
        Some(match self.kind {
            Kind::Set => Write::Set { key, body },
            Kind::Cas(expected) => Write::Cas { key, body, expected },
            Kind::Delete => Write::Delete { key },
            Kind::Update(touch) => Write::Update { key, value: RecordValue::new(body).ok()?, touch },
            Kind::Remove(clocktime) => Write::Remove { key, clocktime },
        })
    }
}

/// The outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A `Set`, matched `Cas` or newer `Update` was stored under this clocktime.
    Stored {
        /// The record's clocktime now.
        clocktime: ClockTime,
    },
    /// A `Delete` stored its tombstone.
    Deleted {
        /// The tombstone's clocktime.
        clocktime: ClockTime,
        /// Whether a live value was there.
        live: bool,
    },
    /// The condition of a `Cas` did not hold; nothing changed.
    Mismatch {
        /// The clocktime that is stored, also of a tombstone; `None` if there is no record.
        stored: Option<ClockTime>,
    },
    /// An `Update` was not newer than what is stored.
    Ignored {
        /// The clocktime of the stored record.
        stored: ClockTime,
    },
    /// A `Remove` forgot the record.
    Removed,
    /// A `Remove` found something else, or nothing.
    Kept,
}

/// The state of a record before a write to it, as far as memory knows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Previous<'a> {
    /// Not in memory; the tree may have one.
    Unknown,
    /// Certainly nothing.
    Absent,
    /// This.
    Present(RecordValue<'a>),
}

/// The effect of a write on its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Store the write's body under this clocktime.
    Put(ClockTime, Outcome),
    /// Store what is there again, in the current generation.
    Touch(Outcome),
    /// Forget the record.
    Drop,
    /// Change nothing.
    Keep(Outcome),
    /// Cannot be said before the record has been read.
    Read,
}

/// Decides a write. `newest` says whether a clocktime is certainly after all that is stored under the key.
pub(super) fn decide(
    write: &Write<'_>,
    previous: Previous<'_>,
    clock: &Clock,
    newest: impl Fn(ClockTime) -> bool,
) -> Decision {
    let put = |clocktime| Decision::Put(clocktime, Outcome::Stored { clocktime });
    match *write {
        Write::Set { .. } => match previous {
            Previous::Absent => put(clock.stamp()),
            Previous::Present(value) => put(clock.stamp_after(value.clocktime())),
            Previous::Unknown => {
                let stamp = clock.stamp();
                if newest(stamp) { put(stamp) } else { Decision::Read }
            }
        },
        Write::Cas { expected, .. } => {
            let stored = match previous {
                Previous::Unknown => return Decision::Read,
                Previous::Absent => None,
                Previous::Present(value) => Some(value),
            };
            let condition =
                stored.filter(|value| !value.is_tombstone()).map_or(ClockTime(0), |value| value.clocktime());
            let stored = stored.map(|value| value.clocktime());
            if condition == expected {
                put(stored.map_or_else(|| clock.stamp(), |stored| clock.stamp_after(stored)))
            } else {
                Decision::Keep(Outcome::Mismatch { stored })
            }
        }
        Write::Delete { .. } => {
            let (clocktime, live) = match previous {
                Previous::Unknown => return Decision::Read,
                Previous::Absent => (clock.stamp(), false),
                Previous::Present(value) => (clock.stamp_after(value.clocktime()), !value.is_tombstone()),
            };
            Decision::Put(clocktime, Outcome::Deleted { clocktime, live })
        }
        Write::Update { value, touch, .. } => match previous {
            Previous::Unknown if newest(value.clocktime()) => put(value.clocktime()),
            Previous::Unknown => Decision::Read,
            Previous::Absent => put(value.clocktime()),
            Previous::Present(stored) => {
                let outcome = Outcome::Ignored { stored: stored.clocktime() };
                if stored.clocktime().is_before(value.clocktime()) {
                    put(value.clocktime())
                } else if touch {
                    Decision::Touch(outcome)
                } else {
                    Decision::Keep(outcome)
                }
            }
        },
        Write::Remove { clocktime, .. } => match previous {
            Previous::Unknown => Decision::Read,
            Previous::Present(stored) if stored.clocktime() == clocktime => Decision::Drop,
            Previous::Absent | Previous::Present(_) => Decision::Keep(Outcome::Kept),
        },
    }
}
