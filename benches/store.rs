//! The store's hot paths.
//!
//! `peek` and `batch` are why network threads call the store inline: at over a million a second they cost less than a
//! hand-over to another thread. `read` shows how many keys a hand-over must carry to pay; `merge` sets the sizes of chunks.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench that meets an error has nothing better to do"
)]

use divan::counter::ItemsCount;
use kumo_server::clock::{Clock, ClockTime};
use kumo_server::store::{Applied, Options, Store, SyncMode, Write};
use kumo_server::time::Time;
use kumo_server::wire::{RecordKey, RecordValue, record};
use std::sync::Arc;
use std::sync::mpsc::channel;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u64 = 200_000;

fn main() {
    divan::main();
}

struct Bed {
    store: Store,
    keys: Vec<Vec<u8>>,
    _directory: tempfile::TempDir,
}

fn open(directory: &tempfile::TempDir, sync: SyncMode) -> Store {
    let mut options = Options::new(directory.path().join("db"));
    options.sync = sync;
    Store::open(options, |first| Arc::new(Clock::new(&Time::real(), first))).expect("a fresh directory")
}

fn keys() -> Vec<Vec<u8>> {
    (0..KEYS)
        .map(|number| {
            record::raw_key(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), format!("key-{number:09}").as_bytes())
        })
        .collect()
}

/// A store with all keys, in memory.
fn full(sync: SyncMode) -> Bed {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(&directory, sync);
    let bed = Bed { store, keys: keys(), _directory: directory };
    for some in bed.keys.chunks(16) {
        set(&bed.store, some.iter());
    }
    bed.store.flush().expect("a merge");
    bed
}

/// Keys in an order that the processor's caches do not foresee.
fn shuffled(bed: &Bed) -> impl Iterator<Item = &Vec<u8>> {
    let mut at = 12_345_u64;
    std::iter::repeat_with(move || {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        &bed.keys[usize::try_from((at >> 33) % KEYS).expect("small")]
    })
}

fn key(raw: &[u8]) -> RecordKey<'_> {
    RecordKey::new(raw).expect("a raw key")
}

fn set<'k>(store: &Store, keys: impl Iterator<Item = &'k Vec<u8>>) {
    let body = [7; 102];
    let mut batch = store.batch();
    let mut later = Vec::new();
    for raw in keys {
        let write = Write::Set { key: key(raw), body: &body };
        match batch.apply(&write) {
            Applied::Done(_) => {}
            Applied::Later => later.push((&write).into()),
            Applied::Failed(error) => panic!("{error}"),
        }
    }
    batch.commit(|result| result.expect("a commit"));
    if !later.is_empty() {
        let (done, wait) = channel();
        store.write(later, |_, _| (), move |result| done.send(result).expect("a waiting bench"));
        wait.recv().expect("an answer").expect("a commit");
    }
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn peek_100k_hits(bencher: divan::Bencher) {
    let bed = full(SyncMode::Os);
    let mut keys = shuffled(&bed);
    bencher.counter(ItemsCount::new(100_000_u64)).bench_local(|| {
        let mut bytes = 0;
        for raw in keys.by_ref().take(100_000) {
            bytes += bed.store.peek(key(raw), |value| value.map_or(0, |value| value.bytes().len())).expect("a hit");
        }
        bytes
    });
}

#[divan::bench(args = [1, 16, 64], sample_count = 20, sample_size = 1)]
fn set_100k_everysec(bencher: divan::Bencher, batch: usize) {
    let bed = full(SyncMode::Everysec);
    let mut keys = shuffled(&bed);
    bencher.counter(ItemsCount::new(100_000_u64)).bench_local(|| {
        for _ in 0..100_000 / batch {
            set(&bed.store, keys.by_ref().take(batch));
        }
    });
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn update_100k_by_16(bencher: divan::Bencher) {
    let bed = full(SyncMode::Everysec);
    let mut keys = shuffled(&bed);
    let clock = Clock::new(&Time::real(), 10_000_000);
    bencher.counter(ItemsCount::new(100_000_u64)).bench_local(|| {
        for _ in 0..100_000 / 16 {
            let mut batch = bed.store.batch();
            for raw in keys.by_ref().take(16) {
                let value = record::raw_value(clock.stamp(), 0, &[7; 100]);
                let value = RecordValue::new(&value).expect("a raw value");
                let applied = batch.apply(&Write::Update { key: key(raw), value, touch: false });
                assert!(matches!(applied, Applied::Done(_)), "{applied:?}");
            }
            batch.commit(|result| result.expect("a commit"));
        }
    });
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn cas_100k_by_16(bencher: divan::Bencher) {
    let bed = full(SyncMode::Everysec);
    let mut keys = shuffled(&bed);
    bencher.counter(ItemsCount::new(100_000_u64)).bench_local(|| {
        for _ in 0..100_000 / 16 {
            let mut batch = bed.store.batch();
            for raw in keys.by_ref().take(16) {
                let stored = bed.store.peek(key(raw), |value| value.map(|value| value.clocktime())).flatten();
                let expected = stored.unwrap_or(ClockTime(0));
                let applied = batch.apply(&Write::Cas { key: key(raw), body: &[7; 102], expected });
                assert!(matches!(applied, Applied::Done(_)), "{applied:?}");
            }
            batch.commit(|result| result.expect("a commit"));
        }
    });
}

#[divan::bench(args = [1, 16, 256], sample_count = 10, sample_size = 1)]
fn read_20k_from_the_tree(bencher: divan::Bencher, batch: usize) {
    let Bed { store, keys, _directory: directory } = full(SyncMode::Os);
    store.close().expect("a clean end");
    drop(store);
    bencher.counter(ItemsCount::new(20_000_u64)).with_inputs(|| open(&directory, SyncMode::Os)).bench_local_refs(
        |store| {
            let (done, wait) = channel();
            for some in keys[..20_000].chunks(batch) {
                let done = done.clone();
                store.read(some.iter().map(|raw| raw[..].into()).collect(), move |values| {
                    done.send(values.expect("values").len()).expect("a waiting bench");
                });
            }
            drop(done);
            assert_eq!(wait.iter().sum::<usize>(), 20_000);
        },
    );
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn merge_200k_into_200k(bencher: divan::Bencher) {
    let bed = full(SyncMode::Everysec);
    bencher
        .counter(ItemsCount::new(KEYS))
        .with_inputs(|| bed.keys.chunks(64).for_each(|some| set(&bed.store, some.iter())))
        .bench_local_values(|()| bed.store.flush().expect("a merge"));
}
