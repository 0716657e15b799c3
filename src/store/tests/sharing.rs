//! Merges, the sweeper, a backup and a scan, all at once and under writes that never pause: each comes to its end.

use super::fixture::*;
use crate::store::{OwnedWrite, Position, Store, Write};
use crate::wire::RecordKey;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Records of the start; every third is a tombstone that is old enough to go.
const RECORDS: u64 = 36_000;

/// Writes of 200 bytes to keys of its own, without a pause.
fn write_on(store: &Store, number: u64, stop: &AtomicBool, done: &AtomicU64) {
    let body = body(&"w".repeat(200));
    for round in 0.. {
        let batch = (0..50_u64).map(|index| key((number + 2) << 40 | ((round * 50 + index) % 40_000)));
        let keys: Vec<_> = batch.collect();
        let writes =
            keys.iter().map(|raw| OwnedWrite::from(&Write::Set { key: RecordKey::new(raw).unwrap(), body: &body }));
        let writes = writes.collect();
        answer(|sender| store.write(writes, |_, _| (), move |result| sender.send(result).unwrap())).unwrap();
        done.fetch_add(1, Ordering::Relaxed);
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

#[test]
fn everything_at_once_under_writes_comes_to_an_end() {
    let mut fixture = Fixture::in_memory();
    fixture.options.cache_bytes = 8 << 20;
    fixture.options.redo_bytes = 2 << 20;
    fixture.options.wal_bytes = 4 << 20;
    (fixture.options.read_threads, fixture.options.write_threads) = (2, 2);
    fixture.options.sweep.max_age = std::time::Duration::from_secs(100);
    let store = fixture.open();
    for first in (0..RECORDS).step_by(500) {
        let keys: Vec<_> = (first..first + 500).map(key).collect();
        let body = body(&"r".repeat(400));
        let writes = keys.iter().enumerate().map(|(index, raw)| {
            let key = RecordKey::new(raw).unwrap();
            let write = if index % 3 == 0 { Write::Delete { key } } else { Write::Set { key, body: &body } };
            OwnedWrite::from(&write)
        });
        let writes = writes.collect();
        answer(|sender| store.write(writes, |_, _| (), move |result| sender.send(result).unwrap())).unwrap();
    }
    store.flush().unwrap();
    let tombstones = store.status().tombstones;
    assert!(tombstones > RECORDS / 4, "{tombstones}");

    let (stop, written, scanned) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let copy = fixture.path("copy");
    std::thread::scope(|scope| {
        for number in 0..2 {
            let (store, stop, written) = (&store, &stop, &written);
            scope.spawn(move || write_on(store, number, stop, written));
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let mut position = Position::default();
                while !position.is_end() {
                    position = store.scan(position, 200, 1 << 20).unwrap().next;
                    scanned.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        wait_until("writes have begun", || written.load(Ordering::Relaxed) > 100);
        let figures = || (store.status().merges, written.load(Ordering::Relaxed), scanned.load(Ordering::Relaxed));
        fixture.now.fetch_add(1000, Ordering::Relaxed);
        let before = figures();
        store.backup(&copy).unwrap();
        let after = figures();
        wait_until("the old tombstones are swept", || store.status().tombstones == 0);
        let merges = store.status().merges - before.0;
        stop.store(true, Ordering::Relaxed);
        assert!(after.0 > before.0 + 1 && after.1 > before.1 + 50 && after.2 > before.2 + 5, "{before:?} {after:?}");
        // Of the merge's work the sweeper has its share, however many merges follow each other.
        assert!(merges < tombstones / 256 * 2 / 3, "{merges} merges for {tombstones} tombstones");
    });
    let backup = fixture.try_open_at(&copy).unwrap();
    for number in (0..RECORDS).step_by(101) {
        let live = number % 500 % 3 != 0;
        assert_eq!(data(&backup, &key(number)).is_some(), live, "{number} in the backup");
        assert_eq!(data(&store, &key(number)).is_some(), live, "{number}");
    }
}
