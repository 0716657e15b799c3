//! Records in memory: those not yet in the main tree, which must stay, and those that may go.
//!
//! The table is sharded; a record is read, decided on and changed under its shard's lock. Nothing here touches a file.
//! A slot without a value says that the record certainly does not exist.
//!
//! Eviction is CLOCK over the buckets of each table: a hand goes round, spares what was used since it last came by, and
//! takes the rest. It needs no list and no memory beside the table.

mod bare;
mod slot;
#[cfg(test)]
mod tests;

pub use bare::BareCache;
pub(super) use slot::{Change, Slot, split_value};

use super::newest::{Newest, is_low};
use crate::clock::ClockTime;
use crate::wire::RecordValue;
use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::{Mutex, MutexGuard};
use slot::{Shard, cost};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Shards, a power of two: enough that two threads seldom meet.
const SHARDS: usize = 64;
/// Groups of keys per shard for which the newest clocktime is kept.
const GROUPS: usize = 1024;
/// Shards looked at by one attempt to free memory.
const EVICT_SHARDS: usize = 16;
/// A record larger than this share of the limit is not kept once it is merged or read.
const LARGE_SHARE: u64 = 8;

/// A shard on cache lines of its own.
#[repr(align(128))]
struct Padded(Mutex<Shard>);

/// A record that is to be merged. The slot is found again by hash and sequence number; if it is not, a later write has
/// replaced it, and that one is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Dirty {
    /// Place in the main tree.
    pub(super) rowid: i64,
    table_hash: u64,
    pub(super) seq: u64,
}

impl Dirty {
    /// The same record in the state of `slot`.
    pub(super) fn as_of(&self, slot: &Slot) -> Self {
        Self { seq: slot.seq, ..*self }
    }
}

/// Whether a record existed before a write, when it is not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// Whether the record existed is not known.
    Unknown,
    /// It did or did not.
    Known(bool),
}

/// All shards, and the sums over them.
pub(super) struct Cache {
    shards: Box<[Padded]>,
    hasher: DefaultHashBuilder,
    /// Bytes that should not be exceeded.
    limit: u64,
    used: AtomicI64,
    dirty_bytes: AtomicI64,
    dirty_count: AtomicI64,
    /// Records stored, as far as known: blind writes are not in it yet.
    items: AtomicI64,
    blind: AtomicI64,
    hand: AtomicUsize,
    /// Counts the occasions on which dirty records became clean: what was read from the main tree before one is not
    /// certainly current after it.
    epoch: AtomicU64,
    /// Latest second at which a low clock was stored.
    low_seconds: AtomicU32,
}

/// Facts about the records in the main tree that the cache needs at start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stored {
    /// Records, tombstones included.
    pub(super) items: u64,
    /// Bounds of their clocktimes.
    pub(super) newest: Newest,
    /// Latest second of a record with a low clock.
    pub(super) low_seconds: u32,
}

/// A shard, locked, and where a key is in it.
pub(super) struct Place<'a> {
    pub(super) shard: MutexGuard<'a, Shard>,
    table_hash: u64,
    index: Option<usize>,
}

impl Place<'_> {
    /// The key's slot.
    #[inline]
    pub(super) fn slot(&self) -> Option<&Slot> {
        self.index.and_then(|index| self.shard.table.get_bucket(index))
    }

    /// Spares the slot when the hand comes by.
    #[inline]
    pub(super) fn touch(&mut self) {
        if let Some(slot) = self.index.and_then(|index| self.shard.table.get_bucket_mut(index)) {
            slot.visited = true;
        }
    }

    /// Bounds of the clocktimes stored under keys of this group.
    #[inline]
    pub(super) fn newest(&self) -> Newest {
        self.shard.newest.get(group(self.table_hash)).copied().unwrap_or(Newest::ANY)
    }
}

#[inline]
fn group(table_hash: u64) -> usize {
    (table_hash >> 16) as usize & (GROUPS - 1)
}

#[inline]
fn shard_index(table_hash: u64) -> usize {
    (table_hash >> 40) as usize & (SHARDS - 1)
}

/// Takes from a sum what was added to it under the same shard's lock.
#[inline]
fn subtract(sum: &AtomicI64, part: u64) {
    let before = sum.fetch_sub(part.cast_signed(), Ordering::Relaxed);
    assert!(before >= part.cast_signed(), "a sum of the record cache is less than one of its parts");
}

impl Cache {
    pub(super) fn new(limit: u64, stored: Stored) -> Self {
        let shard = || {
            Padded(Mutex::new(Shard {
                table: HashTable::new(),
                hand: 0,
                dirty: Vec::new(),
                dirty_slots: 0,
                collected_before: 0,
                newest: vec![stored.newest; GROUPS].into_boxed_slice(),
            }))
        };
        Self {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            hasher: DefaultHashBuilder::default(),
            limit,
            used: AtomicI64::new(0),
            dirty_bytes: AtomicI64::new(0),
            dirty_count: AtomicI64::new(0),
            items: AtomicI64::new(stored.items.cast_signed()),
            blind: AtomicI64::new(0),
            hand: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
            low_seconds: AtomicU32::new(stored.low_seconds),
        }
    }

    fn shard(&self, table_hash: u64) -> Option<&Mutex<Shard>> {
        self.shards.get(shard_index(table_hash)).map(|shard| &shard.0)
    }

    /// Locks a key's shard and finds the key.
    #[inline]
    #[expect(clippy::expect_used, reason = "the index is masked to the number of shards")]
    pub(super) fn find(&self, key: &[u8]) -> Place<'_> {
        let table_hash = self.hasher.hash_one(key);
        let shard = self.shard(table_hash).expect("as many shards as the mask allows").lock();
        let index = shard.table.find_bucket_index(table_hash, |slot| slot.key() == key);
        Place { shard, table_hash, index }
    }

    /// Whether `time` is certainly after all that is stored under a key of this group.
    #[inline]
    pub(super) fn is_newest(&self, newest: Newest, time: ClockTime) -> bool {
        newest.all_before(time, self.low_seconds.load(Ordering::Relaxed))
    }

    /// Puts a dirty record in place.
    ///
    /// `before` is only looked at if the key had no slot.
    #[inline]
    pub(super) fn write(&self, place: &mut Place<'_>, change: &Change<'_>, before: Before) {
        let exists = !change.head.is_empty();
        if let Some(clock) = change.head.first_chunk() {
            let time = ClockTime(u64::from_be_bytes(*clock));
            if is_low(time) {
                self.low_seconds.fetch_max(time.seconds(), Ordering::Relaxed);
            }
            if let Some(newest) = place.shard.newest.get_mut(group(place.table_hash)) {
                newest.include(time);
            }
        }
        let shard = &mut *place.shard;
        if let Some(slot) = place.index.and_then(|index| shard.table.get_bucket_mut(index)) {
            let (old_cost, old_seq, existed) = (slot.cost(), slot.seq, slot.exists());
            slot.store(change);
            slot.visited = true;
            let new_cost = slot.cost();
            if old_seq < shard.collected_before || old_seq == 0 {
                shard.dirty.push(place.table_hash);
            }
            if new_cost != old_cost {
                self.used.fetch_add(new_cost.cast_signed() - old_cost.cast_signed(), Ordering::Relaxed);
            }
            if old_seq == 0 {
                shard.dirty_slots += 1;
                self.dirty_bytes.fetch_add(new_cost.cast_signed(), Ordering::Relaxed);
                self.dirty_count.fetch_add(1, Ordering::Relaxed);
            } else if new_cost != old_cost {
                self.dirty_bytes.fetch_add(new_cost.cast_signed() - old_cost.cast_signed(), Ordering::Relaxed);
            }
            if exists != existed {
                self.items.fetch_add(i64::from(exists) - i64::from(existed), Ordering::Relaxed);
            }
            return;
        }
        let mut bytes = Vec::with_capacity(change.key.len() + change.head.len() + change.body.len());
        bytes.extend_from_slice(change.key);
        bytes.extend_from_slice(change.head);
        bytes.extend_from_slice(change.body);
        let slot = Slot {
            bytes: bytes.into_boxed_slice(),
            seq: change.seq,
            generation: change.generation,
            key_len: u32::try_from(change.key.len()).unwrap_or(u32::MAX),
            visited: false,
            blind: before == Before::Unknown,
        };
        let slot_cost = slot.cost().cast_signed();
        let existed = match before {
            Before::Unknown => {
                self.blind.fetch_add(1, Ordering::Relaxed);
                // Taken as there for now; the merge corrects it.
                true
            }
            Before::Known(existed) => existed,
        };
        if exists != existed {
            self.items.fetch_add(i64::from(exists) - i64::from(existed), Ordering::Relaxed);
        }
        self.used.fetch_add(slot_cost, Ordering::Relaxed);
        self.dirty_bytes.fetch_add(slot_cost, Ordering::Relaxed);
        self.dirty_count.fetch_add(1, Ordering::Relaxed);
        shard.dirty.push(place.table_hash);
        shard.dirty_slots += 1;
        self.insert(shard, place.table_hash, slot);
    }

    #[inline]
    fn insert(&self, shard: &mut Shard, table_hash: u64, slot: Slot) {
        shard.table.insert_unique(table_hash, slot, |slot| self.hasher.hash_one(slot.key()));
    }

    /// Takes a record read from the main tree in, unless memory knows better, and says what is current.
    ///
    /// `epoch` is [`Cache::epoch`] from before the read began.
    pub(super) fn settle<R>(
        &self,
        key: &[u8],
        read: Option<(&[u8], u32)>,
        epoch: u64,
        see: impl FnOnce(Option<RecordValue<'_>>) -> R,
    ) -> R {
        let mut place = self.find(key);
        if let Some(slot) = place.slot() {
            let seen = see(slot.value());
            place.touch();
            return seen;
        }
        let (value, generation) = read.unwrap_or_default();
        let size = cost(key.len() + value.len());
        if epoch == self.epoch() && size < self.limit / LARGE_SHARE {
            let mut bytes = Vec::with_capacity(key.len() + value.len());
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
            let slot = Slot {
                bytes: bytes.into_boxed_slice(),
                seq: 0,
                generation,
                key_len: u32::try_from(key.len()).unwrap_or(u32::MAX),
                visited: false,
                blind: false,
            };
            self.used.fetch_add(size.cast_signed(), Ordering::Relaxed);
            let table_hash = place.table_hash;
            self.insert(&mut place.shard, table_hash, slot);
        }
        drop(place);
        self.evict_to_limit();
        see(read.and_then(|(value, _)| RecordValue::new(value).ok()))
    }

    /// Evicts clean records while the limit is exceeded, within a bounded effort.
    #[inline]
    pub(super) fn evict_to_limit(&self) {
        if self.used() > self.limit {
            self.evict();
        }
    }

    #[cold]
    fn evict(&self) {
        for _ in 0..EVICT_SHARDS {
            let over = self.used().saturating_sub(self.limit);
            if over == 0 {
                return;
            }
            let next = self.hand.fetch_add(1, Ordering::Relaxed) & (SHARDS - 1);
            if let Some(mut shard) = self.shards.get(next).and_then(|shard| shard.0.try_lock()) {
                let freed = shard.evict(over);
                if shard.table.capacity() > 1024 && shard.table.len() < shard.table.capacity() / 8 {
                    let wanted = shard.table.len() * 2;
                    shard.table.shrink_to(wanted, |slot| self.hasher.hash_one(slot.key()));
                }
                subtract(&self.used, freed);
            }
        }
    }

    /// Takes note of all dirty records, in the order of the main tree. `next_seq` is asked under each shard's lock.
    pub(super) fn collect(&self, next_seq: impl Fn() -> u64) -> Vec<Dirty> {
        let mut collected = Vec::with_capacity(usize::try_from(self.dirty_count()).unwrap_or(0));
        for shard in &self.shards {
            let mut shard = shard.0.lock();
            let shard = &mut *shard;
            shard.collected_before = next_seq();
            for table_hash in std::mem::take(&mut shard.dirty) {
                // The table looks at some bits of the hash only. Under another slot's hash a slot would be found now, but
                // not when the table has grown.
                let is_it = |slot: &&Slot| slot.seq != 0 && self.hasher.hash_one(slot.key()) == table_hash;
                for slot in shard.table.iter_hash(table_hash).filter(is_it) {
                    collected.push(Dirty { rowid: slot.hash().cast_signed(), table_hash, seq: slot.seq });
                }
            }
        }
        collected.sort_unstable();
        // One that became dirty, was collected by a merge that failed, and was written again, is listed twice.
        collected.dedup();
        collected
    }

    /// Shows a collected record to `see`, as it is now.
    ///
    /// One that has been written again since is shown, too: a record that is written all the time would else never
    /// come into the tree, and be missing from a backup and from a scan. Others of its hash may be shown with it.
    pub(super) fn with_dirty(&self, dirty: &Dirty, mut see: impl FnMut(&Slot)) {
        let Some(shard) = self.shard(dirty.table_hash) else { return };
        let shard = shard.lock();
        if let Some(slot) = shard.table.find(dirty.table_hash, |slot| slot.seq == dirty.seq) {
            return see(slot);
        }
        let again = |slot: &&Slot| slot.seq > dirty.seq && slot.hash() == dirty.rowid.cast_unsigned();
        shard.table.iter_hash(dirty.table_hash).filter(again).for_each(see);
    }

    /// Puts collected records that were not merged back on their shards' lists.
    pub(super) fn uncollect(&self, rest: &[Dirty]) {
        for dirty in rest {
            if let Some(shard) = self.shard(dirty.table_hash) {
                shard.lock().dirty.push(dirty.table_hash);
            }
        }
    }

    /// Whether every dirty record is on a list for the next merge. Holds whenever no merge is under way: a record that
    /// is dirty and on no list would lose its place in the log and never reach the tree.
    pub(super) fn all_listed(&self) -> bool {
        self.shards.iter().all(|shard| {
            let shard = shard.0.lock();
            shard.dirty_slots <= shard.dirty.len()
        })
    }

    /// Returns when no shard is locked any more by whoever had one locked at the call.
    pub(super) fn pass_all_shards(&self) {
        self.shards.iter().for_each(|shard| drop(shard.0.lock()));
    }

    /// Forgets every record that is as it is in the main tree, and takes what is being read from there for out of date.
    /// Nothing is dirty, and `items` records are stored now.
    pub(super) fn forget_clean(&self, items: u64) {
        self.begin_epoch();
        for shard in &self.shards {
            let mut shard = shard.0.lock();
            let mut freed = 0;
            shard.table.retain(|slot| {
                let stays = slot.seq != 0;
                freed += if stays { 0 } else { slot.cost() };
                stays
            });
            let len = shard.table.len();
            shard.table.shrink_to(len, |slot| self.hasher.hash_one(slot.key()));
            subtract(&self.used, freed);
        }
        self.items.store(items.cast_signed(), Ordering::Relaxed);
    }

    /// Before the first of a row of [`Cache::merged`].
    pub(super) fn begin_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// See the field of this name.
    #[inline]
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The collected record is in the main tree now; `existed` says whether its key had a row there before.
    pub(super) fn merged(&self, dirty: &Dirty, key: &[u8], existed: bool) {
        let Some(shard) = self.shard(dirty.table_hash) else { return };
        let mut shard = shard.lock();
        let shard = &mut *shard;
        let Some(slot) = shard.table.find_mut(dirty.table_hash, |slot| slot.key() == key) else { return };
        if slot.blind {
            slot.blind = false;
            if !existed {
                self.items.fetch_add(1, Ordering::Relaxed);
            }
            // Last: whoever sees that nothing is unresolved sees all of it counted.
            let blind = self.blind.fetch_sub(1, Ordering::Release);
            assert!(blind > 0, "more blind writes are merged than there were");
        }
        if slot.seq == dirty.seq {
            slot.seq = 0;
            assert!(shard.dirty_slots > 0, "more records are merged than a shard has had to merge");
            shard.dirty_slots -= 1;
            subtract(&self.dirty_bytes, slot.cost());
            subtract(&self.dirty_count, 1);
        }
    }

    /// Bytes in use: records, tables, bookkeeping.
    #[inline]
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed).max(0).cast_unsigned()
    }

    /// Bytes of records that are not in the main tree.
    #[inline]
    pub(super) fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes.load(Ordering::Relaxed).max(0).cast_unsigned()
    }

    /// Records that are not in the main tree.
    #[inline]
    pub(super) fn dirty_count(&self) -> u64 {
        self.dirty_count.load(Ordering::Relaxed).max(0).cast_unsigned()
    }

    /// Records stored, all blind writes taken for overwrites, and how many blind writes there are.
    pub(super) fn items(&self) -> (u64, u64) {
        let blind = self.blind.load(Ordering::Acquire).max(0).cast_unsigned();
        (self.items.load(Ordering::Relaxed).max(0).cast_unsigned(), blind)
    }

    /// Bounds of all clocktimes stored, and the latest second of a low clock: what the next start must know.
    pub(super) fn newest(&self) -> (Newest, u32) {
        let mut newest = Newest::default();
        for shard in &self.shards {
            for group in &shard.0.lock().newest {
                newest = newest.cover(*group);
            }
        }
        (newest, self.low_seconds.load(Ordering::Relaxed))
    }

    /// Stops the process if the sums over the shards do not agree with one another. Nobody may be writing.
    pub(super) fn assert_sums(&self) {
        let (mut dirty, mut slots) = (0_u64, 0_u64);
        for shard in &self.shards {
            let shard = shard.0.lock();
            assert!(
                shard.dirty_slots <= shard.table.len(),
                "a shard of the record cache has more dirty slots than slots"
            );
            dirty += shard.dirty_slots as u64;
            slots += shard.table.len() as u64;
        }
        let [used, dirty_bytes, dirty_count] =
            [&self.used, &self.dirty_bytes, &self.dirty_count].map(|sum| sum.load(Ordering::Relaxed));
        assert!(dirty_count == dirty.cast_signed(), "{dirty_count} dirty records are counted where there are {dirty}");
        assert!((dirty_bytes == 0) == (dirty == 0), "{dirty_bytes} dirty bytes are counted for {dirty} records");
        assert!((used == 0) == (slots == 0), "{used} bytes of memory are counted for {slots} records");
        assert!(used >= dirty_bytes, "{dirty_bytes} dirty bytes are counted in {used} bytes of memory");
    }

    /// Bytes that should not be exceeded.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }
}
