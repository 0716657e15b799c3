//! The record cache by itself, without log and tree.
//!
//! `look_up`, compared with `read` of the store's bench, is why network threads read the cache themselves. `overwrite` and
//! `insert` are why a write is in the cache before it is in the log. `evict` is why eviction is CLOCK, without lists: to evict
//! a record must cost little more than to add one.

use divan::counter::ItemsCount;
use kumo_server::clock::ClockTime;
use kumo_server::store::BareCache;
use kumo_server::wire::record;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: usize = 200_000;
const ALL: u64 = 1 << 30;
/// Room for about a tenth of the keys.
const LITTLE: u64 = 4 << 20;

fn main() {
    divan::main();
}

fn keys() -> Vec<Vec<u8>> {
    let key = |number: u64| {
        record::raw_key(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), format!("key:{number:012}").as_bytes())
    };
    (0..KEYS as u64).map(key).collect()
}

fn value() -> Vec<u8> {
    record::raw_value(ClockTime(1 << 32), 0, &[7; 100])
}

fn filled(keys: &[Vec<u8>]) -> BareCache {
    let cache = BareCache::new(ALL);
    write_all(&cache, keys);
    cache
}

fn write_all(cache: &BareCache, keys: &[Vec<u8>]) {
    let value = value();
    for (seq, key) in (1..).zip(keys) {
        cache.write(key, &value, seq);
    }
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn look_up_200k_hits(bencher: divan::Bencher) {
    let keys = keys();
    let cache = filled(&keys);
    bencher
        .counter(ItemsCount::new(KEYS))
        .bench_local(|| keys.iter().filter_map(|key| cache.look_up(key)).sum::<usize>());
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn look_up_200k_misses(bencher: divan::Bencher) {
    let keys = keys();
    let (present, absent) = keys.split_at(KEYS / 2);
    let cache = filled(present);
    bencher
        .counter(ItemsCount::new(absent.len()))
        .bench_local(|| absent.iter().filter_map(|key| cache.look_up(key)).count());
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn overwrite_200k(bencher: divan::Bencher) {
    let keys = keys();
    let cache = filled(&keys);
    bencher.counter(ItemsCount::new(KEYS)).bench_local(|| write_all(&cache, &keys));
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn insert_200k(bencher: divan::Bencher) {
    let keys = keys();
    bencher
        .counter(ItemsCount::new(KEYS))
        .with_inputs(|| BareCache::new(ALL))
        .bench_local_refs(|cache| write_all(cache, &keys));
}

#[divan::bench(args = [ALL, LITTLE], sample_count = 10, sample_size = 1)]
fn read_in_200k_and_evict(bencher: divan::Bencher, limit: u64) {
    let (keys, value) = (keys(), value());
    bencher.counter(ItemsCount::new(KEYS)).with_inputs(|| BareCache::new(limit)).bench_local_refs(|cache| {
        for key in &keys {
            cache.read_in(key, &value);
        }
        assert!(cache.used() <= limit, "{} of {limit} bytes", cache.used());
    });
}
