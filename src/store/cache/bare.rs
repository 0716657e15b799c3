//! The cache without log and tree, for benches: what a lookup, a write and an eviction cost by themselves.
//!
//! Public only because a bench is a crate of its own; nothing else may use it.

use super::{Before, Cache, Change, Stored, split_value};

/// A cache with nothing behind it.
#[doc(hidden)]
pub struct BareCache(Cache);

impl BareCache {
    /// An empty cache of so many bytes.
    pub fn new(limit: u64) -> Self {
        Self(Cache::new(limit, Stored::default()))
    }

    /// Looks a raw key up as a Get does; the length of its raw value, if it is there.
    pub fn look_up(&self, key: &[u8]) -> Option<usize> {
        let mut place = self.0.find(key);
        let len = place.slot()?.value().map_or(0, |value| value.bytes().len());
        place.touch();
        Some(len)
    }

    /// Puts a raw value in as a Set does: it must stay until it is merged, which here is never.
    pub fn write(&self, key: &[u8], value: &[u8], seq: u64) {
        let (head, body) = split_value(value);
        let mut place = self.0.find(key);
        self.0.write(&mut place, &Change { key, head, body, generation: 0, seq }, Before::Unknown);
    }

    /// Takes a raw value in as one read from disk, which evicts others for it if the limit is exceeded.
    pub fn read_in(&self, key: &[u8], value: &[u8]) {
        self.0.settle(key, Some((value, 0)), self.0.epoch(), |_| ());
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.0.used()
    }
}
