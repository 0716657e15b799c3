//! The cache on its own.

use super::*;
use std::sync::atomic::AtomicU64;

fn put(cache: &Cache, number: u64, seq: u64, data: &[u8]) {
    let raw = crate::wire::record::raw_key(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), &number.to_le_bytes());
    let change = Change { key: &raw, head: &[1; 8], body: data, generation: 0, seq };
    let mut place = cache.find(&raw);
    cache.write(&mut place, &change, Before::Unknown);
}

/// Collecting took slots that the table only called alike for their own, under the hash of another. When the table had
/// grown before they were written they were not found by it, were taken for replaced, and were never merged.
#[test]
fn what_was_collected_is_found_again_after_the_tables_have_grown() {
    let cache = Cache::new(1 << 30, Stored::default());
    for number in 0..40_000 {
        put(&cache, number, number + 1, b"xx");
    }
    let collected = cache.collect(|| 40_001);
    assert_eq!(collected.len(), 40_000);
    for number in 40_000..400_000 {
        put(&cache, number, number + 1, b"xx");
    }
    let mut found = 0;
    for dirty in &collected {
        cache.with_dirty(dirty, |slot| {
            assert_eq!(slot.seq, dirty.seq);
            found += 1;
        });
    }
    assert_eq!(found, 40_000);
    assert!(!cache.all_listed(), "those collected are on no list until they are merged or given back");
    cache.uncollect(&collected);
    assert!(cache.all_listed());
    assert_eq!(cache.collect(|| 400_001).len(), 400_000);
}

#[test]
fn sums_agree_with_what_is_there() {
    let cache = Cache::new(1 << 30, Stored::default());
    let seq = AtomicU64::new(1);
    let next = || seq.fetch_add(1, Ordering::Relaxed);
    for round in 0..5_usize {
        for number in 0..1000 {
            put(&cache, number, next(), &vec![0; 2 + (round * 7 + usize::try_from(number).unwrap()) % 50]);
        }
        if round % 2 == 0 {
            let collected = cache.collect(|| seq.load(Ordering::Relaxed));
            cache.begin_epoch();
            for dirty in &collected {
                let mut key = Vec::new();
                cache.with_dirty(dirty, |slot| key.extend_from_slice(slot.key()));
                cache.merged(dirty, &key, false);
            }
            assert_eq!((cache.dirty_count(), cache.dirty_bytes()), (0, 0));
            assert_eq!(cache.items(), (1000, 0));
        } else {
            assert_eq!(cache.dirty_count(), 1000);
            assert_eq!(cache.dirty_bytes(), cache.used());
        }
    }
    let all: u64 = cache.shards.iter().map(|shard| shard.0.lock().table.iter().map(Slot::cost).sum::<u64>()).sum();
    assert_eq!(all, cache.used());
}

#[test]
fn eviction_takes_what_was_not_used_and_nothing_dirty() {
    let cache = Cache::new(1 << 20, Stored::default());
    for number in 0..2000 {
        put(&cache, number, number + 1, b"pinned");
    }
    for number in 2000..60_000_u64 {
        let raw = crate::wire::record::raw_key(number, b"clean");
        cache.settle(&raw, Some((&[1; 20], 0)), cache.epoch(), |_| ());
        let popular = crate::wire::record::raw_key(2000, b"clean");
        cache.find(&popular).touch();
    }
    assert!(cache.used() <= 1 << 20, "{}", cache.used());
    assert_eq!(cache.dirty_count(), 2000);
    assert_eq!(cache.collect(|| 100_000).len(), 2000, "all of them are there");
    assert!(cache.find(&crate::wire::record::raw_key(2000, b"clean")).slot().is_some(), "used all the time");
    assert!(cache.find(&crate::wire::record::raw_key(2001, b"clean")).slot().is_none(), "used once");
}
