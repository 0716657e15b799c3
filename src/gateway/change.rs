//! What a change does to an item: pure decisions, no bytes on the wire, no cluster.
//!
//! The engine asks [`Change::direct`] first. If that says nothing, or a compare-and-swap has not matched, it reads the
//! record at its coordinator and asks [`Change::decide`], until a write succeeds or there is an answer.

use std::borrow::Cow;

use super::item::Rules;
use super::outcome::Outcome;
use crate::clock::ClockTime;

/// When a [`Change::Put`] writes, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In any case.
    Set,
    /// If there is no item.
    Add,
    /// If there is one.
    Replace,
    /// Behind the data there is; flags and expiry stay.
    Append,
    /// In front of the data there is; flags and expiry stay.
    Prepend,
}

/// What a request wants done to an item.
///
/// `compare` is the CAS unique that the item must have; `exptime` is as clients give it, in seconds (see
/// [`expires`](super::item::expires)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<'a> {
    /// Write a value.
    Put {
        /// When, and what becomes of the value there is.
        mode: Mode,
        /// The application's flags.
        flags: u32,
        /// When it expires.
        exptime: i64,
        /// The application's bytes.
        data: Cow<'a, [u8]>,
        /// The CAS unique it must have.
        compare: Option<ClockTime>,
    },
    /// Delete it.
    Delete {
        /// The CAS unique it must have.
        compare: Option<ClockTime>,
    },
    /// Count up or down a decimal number.
    Count {
        /// Down stops at 0, up wraps.
        up: bool,
        /// By how much.
        delta: u64,
        /// What is stored if there is no item: the number and its exptime.
        create: Option<(u64, i64)>,
        /// A new exptime.
        exptime: Option<i64>,
        /// The CAS unique it must have.
        compare: Option<ClockTime>,
    },
    /// Give it a new expiry.
    Touch {
        /// When it expires.
        exptime: i64,
        /// Whether the item itself is the answer (`gat`).
        read: bool,
    },
}

/// A record as read at its coordinator: its clocktime and its data.
pub type Current<'a> = (ClockTime, &'a [u8]);

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Write this data.
    Store {
        /// The clocktime that must be there, 0 for none; `None`: write in any case.
        expected: Option<ClockTime>,
        /// The record's data.
        data: Vec<u8>,
        /// What the answer is once it is written.
        reward: Reward,
    },
    /// Delete the record. The answer is [`Outcome::Deleted`] or [`Outcome::NotFound`], as the server says.
    Delete,
    /// There is nothing to do but answer.
    Answer(Outcome<'a>),
}

/// What a write earns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reward {
    /// [`Outcome::Stored`].
    Stored,
    /// [`Outcome::Number`].
    Number(u64),
    /// [`Outcome::Touched`].
    Touched,
    /// [`Outcome::Found`], the item as it is now.
    Found,
    /// [`Outcome::Deleted`]: what was written has expired already.
    Deleted,
}

impl Reward {
    /// The outcome, now that `data` has been written at `clocktime`.
    pub fn outcome<'d>(self, clocktime: ClockTime, data: &'d [u8], rules: &Rules) -> Outcome<'d> {
        let item = super::item::Item::decode(clocktime, data, rules);
        match self {
            Self::Stored => Outcome::Stored(clocktime),
            Self::Number(number) => Outcome::Number(number, item),
            Self::Touched => Outcome::Touched(clocktime),
            Self::Found => Outcome::Found(item),
            Self::Deleted => Outcome::Deleted,
        }
    }
}

impl Change<'_> {
    /// What can be done without reading the record first; `None` if it must be read.
    ///
    /// If the clocktime of such a [`Decision::Store`] does not match, the record is to be read and [`Self::decide`] asked.
    pub fn direct(&self, now: u32, rules: &Rules) -> Option<Decision<'static>> {
        let _ = (now, rules);
        None
    }

    /// What to do now that the record is known to be `current`, `None` if there is none. A record that has expired
    /// counts as absent, but is named by its clocktime when it is overwritten.
    pub fn decide<'r>(&self, current: Option<Current<'r>>, now: u32, rules: &Rules) -> Decision<'r> {
        let _ = (current, now, rules);
        Decision::Answer(Outcome::NotStored)
    }

    /// The same, keeping its own copy of the data.
    pub fn into_owned(self) -> Change<'static> {
        match self {
            Self::Put { mode, flags, exptime, data, compare } => {
                Change::Put { mode, flags, exptime, data: Cow::Owned(data.into_owned()), compare }
            }
            Self::Delete { compare } => Change::Delete { compare },
            Self::Count { up, delta, create, exptime, compare } => {
                Change::Count { up, delta, create, exptime, compare }
            }
            Self::Touch { exptime, read } => Change::Touch { exptime, read },
        }
    }
}
