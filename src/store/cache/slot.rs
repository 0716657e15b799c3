//! One record in memory, and one table of them.

use crate::store::newest::Newest;
use crate::wire::RecordValue;
use crate::wire::record::TOMBSTONE_LEN;
use hashbrown::HashTable;

/// Memory that one allocation takes beside its bytes, and its slot's share of the table, about.
const SLOT_COST: u64 = 72;
/// Buckets looked at in each of them.
const EVICT_BUCKETS: usize = 128;

/// A record in memory.
pub(in crate::store) struct Slot {
    /// Raw key, then raw value; no value: there is no such record.
    pub(super) bytes: Box<[u8]>,
    /// Sequence number in the redo log; 0 once it is in the main tree.
    pub(super) seq: u64,
    pub(in crate::store) generation: u32,
    pub(super) key_len: u32,
    /// Used since the hand last came by.
    pub(super) visited: bool,
    /// Written without knowing whether the record existed: its merge will tell.
    pub(super) blind: bool,
}

impl Slot {
    #[inline]
    pub(in crate::store) fn key(&self) -> &[u8] {
        self.bytes.get(..self.key_len as usize).unwrap_or_default()
    }

    #[inline]
    pub(in crate::store) fn value_bytes(&self) -> &[u8] {
        self.bytes.get(self.key_len as usize..).unwrap_or_default()
    }

    /// The raw value or tombstone, `None` if there is no record.
    #[inline]
    pub(in crate::store) fn value(&self) -> Option<RecordValue<'_>> {
        RecordValue::new(self.value_bytes()).ok()
    }

    /// Sequence number in the redo log; 0 once it is in the main tree.
    #[inline]
    pub(in crate::store) fn seq(&self) -> u64 {
        self.seq
    }

    #[inline]
    pub(super) fn exists(&self) -> bool {
        self.bytes.len() > self.key_len as usize
    }

    #[inline]
    pub(super) fn hash(&self) -> u64 {
        self.bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// Bytes of memory it takes.
    #[inline]
    pub(super) fn cost(&self) -> u64 {
        cost(self.bytes.len())
    }
}

/// Splits a raw value into its clocktime and what follows that; both are empty for a removed record.
pub(in crate::store) fn split_value(value: &[u8]) -> (&[u8], &[u8]) {
    value.split_at(value.len().min(TOMBSTONE_LEN))
}

/// Memory taken by a record of `len` bytes; allocators waste up to an eighth on large ones.
pub(super) fn cost(len: usize) -> u64 {
    let len = len as u64;
    len + len / 16 + 8 + SLOT_COST
}

/// A new state of a record.
pub(in crate::store) struct Change<'a> {
    pub(in crate::store) key: &'a [u8],
    /// Clocktime; empty if the record is removed.
    pub(in crate::store) head: &'a [u8],
    /// The bytes behind the clocktime.
    pub(in crate::store) body: &'a [u8],
    pub(in crate::store) generation: u32,
    pub(in crate::store) seq: u64,
}

impl Slot {
    /// Takes a new state; the same allocation is used if the size is the same.
    #[inline]
    pub(super) fn store(&mut self, change: &Change<'_>) {
        let key_len = self.key_len as usize;
        if self.bytes.len() == key_len + change.head.len() + change.body.len() {
            let (_, value) = self.bytes.split_at_mut(key_len.min(self.bytes.len()));
            let (head, body) = value.split_at_mut(change.head.len().min(value.len()));
            head.copy_from_slice(change.head);
            body.copy_from_slice(change.body);
        } else {
            let mut bytes = Vec::with_capacity(key_len + change.head.len() + change.body.len());
            bytes.extend_from_slice(change.key);
            bytes.extend_from_slice(change.head);
            bytes.extend_from_slice(change.body);
            self.bytes = bytes.into_boxed_slice();
        }
        self.generation = change.generation;
        self.seq = change.seq;
    }
}

/// One of the tables.
pub(in crate::store) struct Shard {
    pub(super) table: HashTable<Slot>,
    pub(super) hand: usize,
    /// Table hashes of the slots that became dirty since the last merge began.
    pub(super) dirty: Vec<u64>,
    /// Slots that are dirty.
    pub(super) dirty_slots: usize,
    /// A dirty slot with a smaller sequence number is not in `dirty` any more: a merge has taken it.
    pub(super) collected_before: u64,
    pub(super) newest: Box<[Newest]>,
}

impl Shard {
    /// Moves the hand on until `wanted` bytes are free or it has gone far enough; returns what was freed.
    pub(super) fn evict(&mut self, wanted: u64) -> u64 {
        let buckets = self.table.num_buckets();
        let mut freed = 0;
        for _ in 0..EVICT_BUCKETS.min(buckets * 2) {
            if freed >= wanted {
                break;
            }
            if self.hand >= buckets {
                self.hand = 0;
            }
            if let Ok(mut entry) = self.table.get_bucket_entry(self.hand) {
                let slot = entry.get_mut();
                if slot.visited {
                    slot.visited = false;
                } else if slot.seq == 0 {
                    freed += slot.cost();
                    entry.remove();
                }
            }
            self.hand += 1;
        }
        freed
    }
}
