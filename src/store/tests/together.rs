//! Writers, readers, merges, scans, backups and the sweeper at once.

use super::fixture::*;
use crate::store::{OwnedWrite, Store, Write};
use crate::wire::{RecordKey, RecordValue};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Writes versions of keys of its own for a while, checking what it reads; returns what must be there.
fn writer(store: &Store, number: u64, keys: u64, stop: &AtomicBool) -> BTreeMap<Vec<u8>, u64> {
    let mut expected = BTreeMap::new();
    let mut dice = super::faulty::Dice(number);
    let mut version = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut batch = Vec::new();
        for _ in 0..8 {
            let raw = key(number * keys + dice.roll(keys));
            version += 1;
            let body = body(&format!("{version}:{}", "y".repeat(usize::try_from(dice.roll(400)).unwrap())));
            batch.push(OwnedWrite::from(&Write::Set { key: RecordKey::new(&raw).unwrap(), body: &body }));
            expected.insert(raw, version);
        }
        answer(|sender| store.write(batch, |_, _| (), move |result| sender.send(result).unwrap())).unwrap();
        for _ in 0..8 {
            let raw = key(number * keys + dice.roll(keys));
            assert_eq!(version_of(get(store, &raw)), expected.get(&raw).copied(), "a writer sees what it wrote");
        }
    }
    expected
}

fn version_of(value: Option<Vec<u8>>) -> Option<u64> {
    let value = value?;
    let text = String::from_utf8(RecordValue::new(&value).unwrap().data().to_vec()).unwrap();
    Some(text.split(':').next().unwrap().parse().unwrap())
}

#[test]
fn nobody_reads_an_old_value_while_records_come_and_go() {
    let mut fixture = Fixture::new();
    // Small enough that records leave memory all the time and come back from the tree.
    fixture.options.cache_bytes = 4 << 20;
    fixture.options.redo_bytes = 2 << 20;
    fixture.options.wal_bytes = 1 << 20;
    fixture.options.read_threads = 2;
    fixture.options.write_threads = 2;
    let store = fixture.open();
    let (begun, stop) = (Instant::now(), AtomicBool::new(false));
    let mut most_wal = 0;
    let expected: Vec<_> = std::thread::scope(|scope| {
        let (store, stop) = (&store, &stop);
        let writers: Vec<_> = (0..3).map(|number| scope.spawn(move || writer(store, number, 6000, stop))).collect();
        // As long as it takes to have merges among the reads: on a busy machine one may take a second.
        let enough = || begun.elapsed() >= Duration::from_secs(4) && store.status().merges > 3;
        while !enough() && begun.elapsed() < DEADLINE {
            let scanned = scan_all(store, 200);
            assert!(scanned.iter().all(|row| RecordValue::new(&row.value).is_ok()));
            most_wal = most_wal.max(store.status().wal_bytes);
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    assert!(store.status().merges > 3, "{:?}", store.status());
    // A transaction of a thousand rows may touch as many pages beyond the bound.
    assert!(most_wal < (1 << 20) + (10 << 20), "readers starved the checkpoint: {most_wal}");
    for (raw, version) in &expected {
        assert_eq!(version_of(get(&store, raw)), Some(*version));
    }
    store.close().unwrap();
    let store = fixture.open();
    assert_eq!(store.count(), expected.len() as u64);
    for (raw, version) in &expected {
        assert_eq!(version_of(get(&store, raw)), Some(*version));
    }
}

#[test]
fn a_scan_sees_each_record_once_with_its_value_of_now() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for number in 0..3000 {
        set(&store, &key(number), "0:");
    }
    store.flush().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut version = 0;
            while !stop.load(Ordering::Relaxed) {
                version += 1;
                set(&store, &key(version % 3000), &format!("{version}:"));
                if version % 500 == 0 {
                    store.flush().unwrap();
                }
            }
        });
        for _ in 0..10 {
            let rows = scan_all(&store, 100);
            let keys: BTreeSet<_> = rows.iter().map(|row| &row.key).collect();
            assert_eq!((rows.len(), keys.len()), (3000, 3000));
        }
        stop.store(true, Ordering::Relaxed);
    });
    set(&store, &key(1), "999999:");
    let rows = scan_all(&store, 1000);
    let row = rows.iter().find(|row| *row.key == key(1)).unwrap();
    assert_eq!(version_of(Some(row.value.clone())), Some(999_999), "not merged yet, and seen");
}

#[test]
fn a_backup_during_writes_is_complete_and_opens_as_a_store() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for number in 0..20_000 {
        set(&store, &key(number), "before");
    }
    delete(&store, &key(7));
    let stop = AtomicBool::new(false);
    let destination = fixture.path("copy");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                set(&store, &key(20_000 + number), "during");
                if number % 1000 == 0 {
                    store.flush().unwrap();
                }
            }
        });
        store.backup(&destination).unwrap();
        store.backup(&destination).unwrap();
        stop.store(true, Ordering::Relaxed);
    });
    let copy = fixture.try_open_at(&destination).unwrap();
    assert!(copy.count() >= 20_000);
    for number in (0..20_000).step_by(11) {
        let expected = if number == 7 { None } else { Some("before") };
        assert_eq!(data(&copy, &key(number)).as_deref(), expected);
    }
    let later = set(&copy, &key(1), "after");
    let stored = RecordValue::new(&get(&store, &key(1)).unwrap()).unwrap().clocktime();
    assert!(stored.is_before(later), "the copy's clock goes on from the original's");
    assert!(!fixture.path("copy.tmp").exists());
    let nowhere = store.backup(&fixture.path("no/such/directory")).unwrap_err().to_string();
    assert!(nowhere.contains("no/such/directory"), "{nowhere}");
}

#[test]
fn blind_writes_are_counted_exactly_once_merged() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for number in 0..5000 {
        set(&store, &key(number), "x");
    }
    store.close().unwrap();
    let store = fixture.open();
    for number in 2500..7500 {
        set(&store, &key(number), "y");
    }
    assert_eq!(store.status().unresolved, 5000, "none of them was read");
    assert_eq!(store.count(), 7500);
    assert_eq!(store.status().unresolved, 0);
    store.crash();
    let store = fixture.try_open_at(&fixture.image("after")).unwrap();
    assert_eq!(store.count(), 7500);
}

#[test]
fn a_backup_does_not_replace_a_store_that_is_open_or_was_killed() {
    let fixture = Fixture::new();
    let store = fixture.open();
    set(&store, &key(1), "one");
    let destination = fixture.path("copy");
    store.backup(&destination).unwrap();
    fixture.try_open_at(&destination).unwrap().close().unwrap();
    store.backup(&destination).unwrap();
    let copy = fixture.try_open_at(&destination).unwrap();
    set(&copy, &key(2), "of the copy");
    for when in ["open", "killed"] {
        let error = store.backup(&destination).unwrap_err().to_string();
        assert!(error.contains("copy-wal"), "{when}: {error}");
        copy.crash();
    }
    assert!(store.backup(&fixture.options.path).is_err(), "least of all itself");
    let copy = fixture.try_open_at(&destination).unwrap();
    assert_eq!(data(&copy, &key(2)).as_deref(), Some("of the copy"));
}
