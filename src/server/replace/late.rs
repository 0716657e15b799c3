//! Keys written here while not every server may know the new hash space yet.
//!
//! A manager tells all servers of a new hash space at about the same time, not at the same time. Until the last one
//! knows it, a coordinator still writes to the old owners only, and such a write can reach this server behind the
//! place that its scan has reached. So for a short time the keys of all writes are remembered, and looked at again
//! when the scan is over.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::wire::RecordKey;

/// Bytes of keys that are remembered, each counted with what a set needs for it. Beyond, everything is scanned again.
const LIMIT: usize = 64 << 20;
/// Bytes of memory that a key takes beside its own, about.
const KEY_COST: usize = 48;

/// The keys of late writes. The server notes every write; a replace watches while it must know of them.
#[derive(Debug, Default)]
pub struct LateWrites {
    watching: AtomicBool,
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    watch: Watch,
    seen: HashSet<Box<[u8]>>,
    cost: usize,
    overflown: bool,
}

/// Names one watch, so that whoever has been cancelled cannot end the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Watch(u64);

/// The keys that were written while the watch lasted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// These keys.
    Keys(Vec<Box<[u8]>>),
    /// Too many to remember.
    TooMany,
}

impl LateWrites {
    /// Begins to remember, anew.
    pub(super) fn watch(&self) -> Watch {
        let mut keys = self.keys.lock();
        let watch = Watch(keys.watch.0 + 1);
        *keys = Keys { watch, ..Keys::default() };
        self.watching.store(true, Ordering::Release);
        watch
    }

    /// A record of `key` has just been written here, by whomever. Cheap while nobody watches.
    #[inline]
    pub fn note(&self, key: RecordKey<'_>) {
        if self.watching.load(Ordering::Acquire) {
            self.keys.lock().add(key.bytes());
        }
    }

    /// Ends this watch; one that has been replaced by another has seen nothing.
    pub(super) fn take(&self, watch: Watch) -> Written {
        let mut keys = self.keys.lock();
        if keys.watch != watch {
            return Written::Keys(Vec::new());
        }
        self.watching.store(false, Ordering::Release);
        let keys = std::mem::replace(&mut *keys, Keys { watch, ..Keys::default() });
        if keys.overflown {
            return Written::TooMany;
        }
        let mut seen: Vec<_> = keys.seen.into_iter().collect();
        // In hash order, as the store has them.
        seen.sort_unstable();
        Written::Keys(seen)
    }
}

impl Keys {
    fn add(&mut self, key: &[u8]) {
        if self.overflown || self.seen.contains(key) {
            return;
        }
        self.cost += key.len() + KEY_COST;
        if self.cost > LIMIT {
            *self = Self { watch: self.watch, overflown: true, ..Self::default() };
        } else {
            self.seen.insert(key.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(late: &LateWrites, key: &[u8]) {
        late.note(RecordKey::new(key).unwrap());
    }

    #[test]
    fn remembers_each_key_once_while_it_watches() {
        let late = LateWrites::default();
        note(&late, b"before--");
        let watch = late.watch();
        note(&late, b"during--");
        note(&late, b"during--");
        assert_eq!(late.take(watch), Written::Keys(vec![b"during--"[..].into()]));
        note(&late, b"after---");
        assert_eq!(late.take(watch), Written::Keys(vec![]));
    }

    #[test]
    fn a_watch_that_was_replaced_ends_nothing() {
        let late = LateWrites::default();
        let older = late.watch();
        note(&late, b"for old-");
        let newer = late.watch();
        note(&late, b"for new-");
        assert_eq!(late.take(older), Written::Keys(vec![]));
        note(&late, b"for new-");
        assert_eq!(late.take(newer), Written::Keys(vec![b"for new-"[..].into()]));
    }

    #[test]
    fn more_than_the_limit_is_too_many() {
        let late = LateWrites::default();
        let watch = late.watch();
        for number in 0..65_u64 {
            note(&late, &[&number.to_be_bytes()[..], &vec![7; 1 << 20]].concat());
        }
        assert!(late.keys.lock().seen.is_empty());
        note(&late, b"one more");
        assert_eq!(late.take(watch), Written::TooMany);
        let watch = late.watch();
        assert_eq!(late.take(watch), Written::Keys(vec![]));
    }
}
