//! Changes of items, and how each is decided: pure decisions, no bytes on the wire, no cluster.
//!
//! The gateway asks [`Change::direct`] first. If that says nothing, or a compare-and-swap has not matched, it reads the
//! record at its coordinator and asks [`Change::decide`], until a write succeeds or there is an answer.

use std::borrow::Cow;

use super::failure::Failure;
use super::item::{Item, Rules, encode, expires};
use super::layout::Layout;
use super::outcome::Outcome;
use crate::clock::ClockTime;

/// The clocktime of no record: what a compare-and-swap expects when it adds.
pub(super) const ABSENT: ClockTime = ClockTime(0);
/// An expiry, in unix seconds, that is over.
const LONG_AGO: u32 = 1;

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

/// A change of an item, as a request wants it.
///
/// `compare` is the CAS unique that the item must have; `exptime` is as clients give it, in seconds (see
/// [`expires`]).
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
        /// Stored if there is no item: the number and its exptime.
        create: Option<(u64, i64)>,
        /// A new exptime.
        exptime: Option<i64>,
        /// The CAS unique it must have.
        compare: Option<ClockTime>,
    },
    /// Delete it, since the value to replace it is refused: a client must not go on reading what it meant to replace.
    Discard {
        /// Why, which is the answer.
        refused: Failure,
    },
    /// Give it a new expiry.
    Touch {
        /// When it expires.
        exptime: i64,
        /// Whether the item itself is the answer (`gat`).
        read: bool,
    },
    /// Read it; if there is none, put an empty one in its place and have this client fill it (`mg` with `N`).
    Vivify {
        /// When the empty one expires.
        create: i64,
        /// When any of them expires, from now on.
        exptime: Option<i64>,
    },
}

/// A record as read at its coordinator: its clocktime, its meta and its data.
pub type Current<'a> = (ClockTime, u16, &'a [u8]);

/// The next step of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Write this data.
    Store {
        /// The clocktime that must be there, 0 for none; `None`: write in any case.
        expected: Option<ClockTime>,
        /// The record's data.
        data: Vec<u8>,
        /// The answer once it is written.
        reward: Reward,
    },
    /// Delete the record.
    Delete {
        /// The answer once it is deleted; `None`: [`Outcome::Deleted`] or [`Outcome::NotFound`], as the server says.
        refused: Option<Failure>,
    },
    /// There is nothing to do but answer.
    Answer(Outcome<'a>),
}

/// The answer to a write that has been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reward {
    /// [`Outcome::Stored`].
    Stored,
    /// [`Outcome::Number`].
    Number(u64),
    /// [`Outcome::Touched`].
    Touched {
        /// Whether the item is still empty, and a client has been asked to fill it.
        awaited: bool,
    },
    /// [`Outcome::Found`], the item as it is now.
    Found {
        /// As above.
        awaited: bool,
    },
    /// [`Outcome::Created`]: an empty item that this client is to fill.
    Created,
    /// [`Outcome::Deleted`]: what was written has expired already.
    Deleted,
}

impl Reward {
    /// The meta of the record that is written with this layout.
    pub fn meta(self, layout: Layout) -> u16 {
        match self {
            Self::Created | Self::Touched { awaited: true } | Self::Found { awaited: true } => layout.awaited(),
            _ => layout.meta(),
        }
    }

    /// The outcome, now that `data` has been written at `clocktime`.
    pub fn outcome<'d>(self, clocktime: ClockTime, data: &'d [u8], rules: &Rules) -> Outcome<'d> {
        let item = Item::decode(clocktime, self.meta(rules.layout), data, rules);
        match self {
            Self::Stored => Outcome::Stored(clocktime),
            Self::Number(number) => Outcome::Number(number, item),
            Self::Touched { .. } => Outcome::Touched(item),
            Self::Found { .. } => Outcome::Found(item),
            Self::Created => Outcome::Created(item),
            Self::Deleted => Outcome::Deleted,
        }
    }
}

impl Change<'_> {
    /// The step that can be done without reading the record first; `None` if it must be read.
    ///
    /// If the clocktime of such a [`Decision::Store`] does not match, the record is to be read and [`Self::decide`]
    /// asked. That is always so if it may have expired: only a read can show.
    pub fn direct(&self, now: u32, rules: &Rules) -> Option<Decision<'static>> {
        match self {
            Self::Put { mode, flags, exptime, data, compare } => {
                let expected = match (mode, compare) {
                    (Mode::Set, None) => None,
                    (Mode::Add, _) => Some(ABSENT),
                    (Mode::Set, Some(unique)) if *unique != ABSENT && !rules.layout.expiry => Some(*unique),
                    _ => return None,
                };
                Some(match store(expected, *flags, expires(*exptime, now), [data, b""], Reward::Stored, rules) {
                    Decision::Answer(Outcome::Failed(refused)) if expected.is_none() => {
                        Decision::Delete { refused: Some(refused) }
                    }
                    decision => decision,
                })
            }
            Self::Discard { refused } => Some(Decision::Delete { refused: Some(*refused) }),
            Self::Delete { compare: None } if !rules.layout.expiry => Some(Decision::Delete { refused: None }),
            Self::Delete { .. } | Self::Count { .. } | Self::Touch { .. } | Self::Vivify { .. } => None,
        }
    }

    /// The step to take now that the record is known to be `current`, `None` if there is none. A record that has expired
    /// counts as absent, but is named by its clocktime when it is overwritten.
    pub fn decide<'r>(&self, current: Option<Current<'r>>, now: u32, rules: &Rules) -> Decision<'r> {
        // What must be there for a write to take place, whether or not it can be seen.
        let expected = current.map_or(ABSENT, |(clocktime, ..)| clocktime);
        let item = current
            .map(|(clocktime, meta, stored)| Item::decode(clocktime, meta, stored, rules))
            .filter(|item| !item.is_expired(now));
        match (self, item) {
            (Self::Put { mode, flags, exptime, data, compare }, item) => {
                let put = Put { mode: *mode, flags: *flags, expires: expires(*exptime, now), data };
                match (compare, item) {
                    // An add does not compare: what it adds is nowhere, and has no unique.
                    _ if *mode == Mode::Add => put.decide(expected, item, rules),
                    (Some(unique), Some(item)) if item.clocktime != *unique => Decision::Answer(Outcome::Exists),
                    (Some(_), None) if matches!(mode, Mode::Set | Mode::Replace) => Decision::Answer(Outcome::NotFound),
                    _ => put.decide(expected, item, rules),
                }
            }
            (Self::Delete { .. } | Self::Count { create: None, .. } | Self::Touch { read: false, .. }, None) => {
                Decision::Answer(Outcome::NotFound)
            }
            (Self::Touch { read: true, .. }, None) => Decision::Answer(Outcome::Missing),
            (Self::Discard { refused }, _) => Decision::Delete { refused: Some(*refused) },
            (Self::Delete { compare }, Some(item)) => delete(*compare, item, rules),
            (Self::Count { create: Some((initial, created)), exptime, .. }, None) => {
                let expires = expires(exptime.unwrap_or(*created), now);
                let text = initial.to_string();
                store(Some(expected), 0, expires, [text.as_bytes(), b""], Reward::Number(*initial), rules)
            }
            (Self::Count { up, delta, exptime, compare, .. }, Some(item)) => {
                if compare.is_some_and(|unique| unique != item.clocktime) {
                    return Decision::Answer(Outcome::Exists);
                }
                let Some(number) = number(item.data) else { return failed(Failure::NotNumeric) };
                let number = if *up { number.wrapping_add(*delta) } else { number.saturating_sub(*delta) };
                let expires = exptime.map_or(item.expires, |exptime| expires(exptime, now));
                let text = number.to_string();
                let parts = [text.as_bytes(), b""];
                store(Some(expected), item.flags, expires, parts, Reward::Number(number), rules)
            }
            (Self::Touch { exptime, read }, Some(item)) => touch(expires(*exptime, now), *read, item, rules),
            (Self::Vivify { exptime: Some(exptime), .. }, Some(item)) => {
                touch(expires(*exptime, now), true, item, rules)
            }
            (Self::Vivify { exptime: None, .. }, Some(item)) => Decision::Answer(Outcome::Found(item)),
            (Self::Vivify { create, exptime }, None) => {
                let expires = expires(exptime.unwrap_or(*create), now);
                store(Some(expected), 0, expires, [b"", b""], Reward::Created, rules)
            }
        }
    }

    /// Bytes that it keeps.
    pub fn weight(&self) -> usize {
        match self {
            Self::Put { data, .. } => data.len(),
            Self::Delete { .. }
            | Self::Count { .. }
            | Self::Discard { .. }
            | Self::Touch { .. }
            | Self::Vivify { .. } => 0,
        }
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
            Self::Discard { refused } => Change::Discard { refused },
            Self::Touch { exptime, read } => Change::Touch { exptime, read },
            Self::Vivify { create, exptime } => Change::Vivify { create, exptime },
        }
    }
}

/// A [`Change::Put`] whose CAS unique holds.
struct Put<'a> {
    mode: Mode,
    flags: u32,
    expires: u32,
    data: &'a [u8],
}

impl Put<'_> {
    fn decide<'r>(self, expected: ClockTime, item: Option<Item<'r>>, rules: &Rules) -> Decision<'r> {
        let Self { mode, flags, expires, data } = self;
        let (flags, expires, parts) = match (mode, item) {
            (Mode::Add, Some(_)) | (Mode::Replace | Mode::Append | Mode::Prepend, None) => {
                return Decision::Answer(Outcome::NotStored);
            }
            (Mode::Set | Mode::Replace, _) | (Mode::Add, None) => (flags, expires, [data, &b""[..]]),
            (Mode::Append, Some(item)) => (item.flags, item.expires, [item.data, data]),
            (Mode::Prepend, Some(item)) => (item.flags, item.expires, [data, item.data]),
        };
        store(Some(expected), flags, expires, parts, Reward::Stored, rules)
    }
}

/// With `-E`, deleting what has a CAS unique is one step: an empty item that has expired already takes its place.
/// Without, the record can be compared only before it is deleted.
fn delete<'r>(compare: Option<ClockTime>, item: Item<'_>, rules: &Rules) -> Decision<'r> {
    match compare {
        Some(unique) if unique != item.clocktime => Decision::Answer(Outcome::Exists),
        Some(unique) if rules.layout.expiry => store(Some(unique), 0, LONG_AGO, [b"", b""], Reward::Deleted, rules),
        None | Some(_) => Decision::Delete { refused: None },
    }
}

/// The data of an empty item that has expired already; `None` without `-E`.
pub(super) fn expired(rules: &Rules) -> Option<Vec<u8>> {
    encode(0, LONG_AGO, [b"", b""], rules).ok()
}

/// Nothing is written if the expiry is what it was.
fn touch<'r>(expires: u32, read: bool, item: Item<'r>, rules: &Rules) -> Decision<'r> {
    match (expires == item.expires, read) {
        (true, true) => Decision::Answer(Outcome::Found(item)),
        (true, false) => Decision::Answer(Outcome::Touched(item)),
        (false, _) => {
            let awaited = item.awaited;
            let reward = if read { Reward::Found { awaited } } else { Reward::Touched { awaited } };
            store(Some(item.clocktime), item.flags, expires, [item.data, b""], reward, rules)
        }
    }
}

fn store<'r>(
    expected: Option<ClockTime>,
    flags: u32,
    expires: u32,
    parts: [&[u8]; 2],
    reward: Reward,
    rules: &Rules,
) -> Decision<'r> {
    match encode(flags, expires, parts, rules) {
        Ok(data) => Decision::Store { expected, data, reward },
        Err(failure) => failed(failure),
    }
}

fn failed<'r>(failure: Failure) -> Decision<'r> {
    Decision::Answer(Outcome::Failed(failure))
}

/// The number that a value stands for, as memcached reads it: space around it is no part of it, nor is what follows.
fn number(data: &[u8]) -> Option<u64> {
    let text = data.trim_ascii_start();
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let (digits, _) = text.split_at_checked(end)?;
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
