//! The keys of records that are not known to be on all owners, though the write that made them has ended.
//!
//! Such a write was answered nil, or with an error: it may happen or not. Each key stays marked (see `marks`) until its
//! record is settled; `coordinate::settle` takes care of that. Knows no records, and sends nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::marks::Mark;

/// Keys that are remembered at most, and the bytes of memory that they may take.
const KEYS: usize = 65_536;
const BYTES: usize = 32 << 20;
/// Bytes of memory that a key takes beside its own, about.
const KEY_COST: usize = 200;
/// Keys whose turn comes together.
const BATCH: usize = 256;

/// The keys.
#[derive(Default)]
pub(super) struct Unsettled {
    keys: Mutex<Keys>,
    /// Their number, to be looked at without the lock.
    count: AtomicUsize,
    wake: Notify,
}

#[derive(Default)]
struct Keys {
    kept: BTreeMap<Box<[u8]>, Kept>,
    bytes: usize,
    /// Those that somebody waits for.
    urgent: Vec<Box<[u8]>>,
    /// The last one that had its turn.
    last: Box<[u8]>,
    /// One could not be remembered, and that was said.
    full: bool,
}

struct Kept {
    mark: Option<Mark>,
    /// Counts the writes that have failed.
    version: u32,
    joins: u32,
}

/// A key whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    /// The raw key.
    pub(super) key: Box<[u8]>,
    /// How often this server had become active when the write was decided; see `Spaces::joins`.
    pub(super) joins: u32,
    version: u32,
}

impl Unsettled {
    /// All of them.
    pub(super) fn keys(&self) -> Vec<Box<[u8]>> {
        self.keys.lock().kept.keys().cloned().collect()
    }

    /// Remembers a key, marked until its record is settled.
    pub(super) fn keep(&self, key: &[u8], mark: Option<Mark>, joins: u32) {
        let mut keys = self.keys.lock();
        let keys = &mut *keys;
        let cost = key.len() + KEY_COST;
        let has_room = keys.bytes + cost <= BYTES && keys.kept.len() < KEYS;
        match keys.kept.entry(key.into()) {
            Entry::Occupied(mut kept) => {
                let kept = kept.get_mut();
                (kept.version, kept.joins) = (kept.version.wrapping_add(1), joins);
                kept.mark = match (kept.mark.take(), mark) {
                    (Some(one), Some(other)) => Some(one.with(&other)),
                    (one, other) => one.or(other),
                };
            }
            Entry::Vacant(place) if has_room => {
                keys.bytes += cost;
                place.insert(Kept { mark, version: 0, joins });
            }
            Entry::Vacant(_) => {
                if !std::mem::replace(&mut keys.full, true) {
                    tracing::error!(
                        "more than {} records are not on all of their owners: further ones stay so until they are written again or a full replace",
                        keys.kept.len()
                    );
                }
            }
        }
        self.count.store(keys.kept.len(), Ordering::Release);
        self.wake.notify_one();
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Somebody waits for this key: if it is one of these its turn comes next.
    pub(super) fn hurry(&self, key: &[u8]) {
        if self.len() == 0 {
            return;
        }
        let mut keys = self.keys.lock();
        if keys.urgent.len() < BATCH && keys.kept.contains_key(key) && !keys.urgent.iter().any(|other| **other == *key)
        {
            keys.urgent.push(key.into());
            drop(keys);
            self.wake.notify_one();
        }
    }

    /// Waits until there is a key, or for one that is new or urgent.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// The keys whose turn it is: the urgent ones, then one after the other.
    pub(super) fn next(&self) -> Vec<Turn> {
        let mut keys = self.keys.lock();
        let keys = &mut *keys;
        let turn = |key: &[u8], kept: &Kept| Turn { key: key.into(), joins: kept.joins, version: kept.version };
        let urgent = std::mem::take(&mut keys.urgent);
        let mut turns: Vec<_> =
            urgent.iter().filter_map(|key| keys.kept.get(key).map(|kept| turn(key, kept))).collect();
        let (last, all) = (&*keys.last, &keys.kept);
        let behind = all.range::<[u8], _>((Bound::Excluded(last), Bound::Unbounded));
        let before = all.range::<[u8], _>((Bound::Unbounded, Bound::Included(last)));
        let others = behind.chain(before).filter(|(key, _)| !urgent.contains(key));
        let room = BATCH.saturating_sub(turns.len());
        let first_other = turns.len();
        turns.extend(others.take(room).map(|(key, kept)| turn(key, kept)));
        if let Some(last) = turns.get(first_other..).and_then(<[_]>::last) {
            keys.last = last.key.clone();
        }
        turns
    }

    /// The record of this key has been settled; unless another write of it has failed since, nobody need wait any more.
    pub(super) fn settled(&self, turn: &Turn) {
        let mut keys = self.keys.lock();
        let settled = match keys.kept.entry(turn.key.clone()) {
            Entry::Occupied(kept) if kept.get().version == turn.version => kept.remove(),
            _ => return,
        };
        keys.bytes = keys.bytes.saturating_sub(turn.key.len() + KEY_COST);
        keys.full &= !keys.kept.is_empty();
        self.count.store(keys.kept.len(), Ordering::Release);
        drop(keys);
        drop(settled);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::server::marks::Marks;

    fn names(turns: &[Turn]) -> Vec<&[u8]> {
        turns.iter().map(|turn| &*turn.key).collect()
    }

    #[test]
    fn a_key_stays_marked_until_it_is_settled() {
        let (unsettled, marks) = (Unsettled::default(), Arc::new(Marks::default()));
        unsettled.keep(b"a", Some(marks.mark(1)), 0);
        let turns = unsettled.next();
        assert_eq!((names(&turns), unsettled.len()), (vec![&b"a"[..]], 1));
        assert!(marks.wait(1).is_some());
        unsettled.settled(&turns[0]);
        assert_eq!(unsettled.len(), 0);
        assert!(marks.wait(1).is_none() && unsettled.next().is_empty());
    }

    #[test]
    fn what_has_failed_again_meanwhile_is_not_settled() {
        let (unsettled, marks) = (Unsettled::default(), Arc::new(Marks::default()));
        unsettled.keep(b"a", Some(marks.mark(1)), 0);
        let turns = unsettled.next();
        unsettled.keep(b"a", Some(marks.mark(1)), 1);
        unsettled.settled(&turns[0]);
        assert!(marks.wait(1).is_some());
        let turns = unsettled.next();
        assert_eq!(turns[0].joins, 1);
        unsettled.settled(&turns[0]);
        assert!(marks.wait(1).is_none());
    }

    #[test]
    fn every_key_has_its_turn_and_an_urgent_one_at_once() {
        let unsettled = Unsettled::default();
        let all: Vec<_> = (0..600_u32).map(u32::to_be_bytes).collect();
        for key in &all {
            unsettled.keep(key, None, 0);
        }
        let mut seen: Vec<Turn> = (0..3).flat_map(|_| unsettled.next()).collect();
        seen.truncate(600);
        assert_eq!(names(&seen), all.iter().map(|key| &key[..]).collect::<Vec<_>>());
        unsettled.hurry(&all[5]);
        unsettled.hurry(&all[5]);
        unsettled.hurry(b"another");
        let next = unsettled.next();
        assert_eq!((&*next[0].key, next.len()), (&all[5][..], BATCH));
        assert_eq!(names(&next).iter().filter(|key| **key == all[5]).count(), 1);
    }

    #[test]
    fn beyond_the_bound_nothing_is_remembered() {
        let (unsettled, marks) = (Unsettled::default(), Arc::new(Marks::default()));
        let long = vec![7; BYTES / 2];
        unsettled.keep(&[&[1], &long[..]].concat(), Some(marks.mark(1)), 0);
        unsettled.keep(&[&[2], &long[..]].concat(), Some(marks.mark(2)), 0);
        assert_eq!(unsettled.len(), 1);
        assert!(marks.wait(1).is_some() && marks.wait(2).is_none());
        let many = Unsettled::default();
        for key in 0..70_000_u32 {
            many.keep(&key.to_be_bytes(), None, 0);
        }
        assert_eq!(many.len(), KEYS);
    }
}
