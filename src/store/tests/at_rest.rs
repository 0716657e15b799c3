//! Stores that nobody has open: read without a trace, around damage; and made from records in order.

use super::fixture::*;
use crate::clock::ClockTime;
use crate::store::at_rest::{AtRest, Builder, Row, side_files, tree_order};
use crate::store::{OpenError, Store};
use crate::wire::record::{raw_value, tombstone};
use crate::wire::{RecordKey, RecordValue};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// SQLite's page size.
const PAGE: usize = 4096;

/// Every file of a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn rows(store: &AtRest) -> (Vec<Row>, u64) {
    let (mut found, mut stretches) = (Vec::new(), 0);
    for mut table in store.tables() {
        while let Some(row) = table.next_row().unwrap() {
            found.push(row);
        }
        stretches += table.take_gaps().stretches;
    }
    (found, stretches)
}

/// The records of a store at rest: its tables, then what the log says instead.
fn contents(store: &AtRest) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut all: BTreeMap<_, _> = rows(store).0.into_iter().map(|row| (row.key.into_vec(), row.value)).collect();
    let end = store.log(|entry| {
        match entry.value {
            Some(value) => drop(all.insert(entry.key.to_vec(), value.to_vec())),
            None => drop(all.remove(entry.key)),
        }
        Ok(())
    });
    end.unwrap();
    all
}

fn scanned(store: &Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    store.flush().unwrap();
    scan_all(store, 100).into_iter().map(|row| (row.key.into_vec(), row.value)).collect()
}

#[test]
fn after_a_kill_everything_is_read_and_nothing_changed() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for number in 0..500 {
        set(&store, &key(number), "first");
    }
    store.flush().unwrap();
    for number in 400..600 {
        set(&store, &key(number), "second");
    }
    for number in (0..600).step_by(7) {
        delete(&store, &key(number));
    }
    let twin = [&key(1)[..8], b"another key of the same hash"].concat();
    set(&store, &twin, "twin");
    store.crash();
    drop(store);
    let image = fixture.image("image");
    let before = files(image.parent().unwrap());
    assert!(before.keys().any(|path| path.to_string_lossy().ends_with("-wal")), "{:?}", before.keys());
    assert!(side_files(&image).unwrap().len() >= 2);
    let at_rest = AtRest::open(&image).unwrap();
    let seen = contents(&at_rest);
    assert_eq!(at_rest.integrity().unwrap(), Vec::<String>::new());
    assert_eq!(at_rest.duplicate_keys().unwrap(), 0);
    drop(at_rest);
    assert_eq!(files(image.parent().unwrap()), before);
    let store = fixture.try_open_at(&image).unwrap();
    assert_eq!(seen, scanned(&store));
    assert_eq!(seen.len(), 601);
}

#[test]
fn a_closed_store_and_a_backup_need_no_side_files() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for number in 0..50 {
        set(&store, &key(number), "value");
    }
    let backup = fixture.path("a backup?#%");
    store.backup(&backup).unwrap();
    let expected = scanned(&store);
    assert!(matches!(AtRest::open(&fixture.options.path), Err(OpenError::Locked { owner: Some(_), .. })));
    store.close().unwrap();
    let before = files(fixture.directory.path());
    for path in [&fixture.options.path, &backup] {
        let at_rest = AtRest::open(path).unwrap();
        assert_eq!(contents(&at_rest), expected);
        assert!(at_rest.claim().is_some_and(|claim| claim.records == 50 && claim.closed));
        // Two may read at once, but a server must wait.
        assert!(AtRest::open(path).is_ok());
        if path == &fixture.options.path {
            assert!(matches!(fixture.try_open(), Err(OpenError::Locked { .. })));
        }
    }
    assert_eq!(files(fixture.directory.path()), before);
}

/// Records in the store's order, some of them deletions, every tenth with a hash that the one before has, too.
fn records(count: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records: Vec<_> = (0..count)
        .map(|number| {
            let mut key = key(number - u64::from(number % 10 == 9));
            key.extend(b"+".repeat(usize::from(number % 10 == 9)));
            let time = ClockTime::new(1_700_000_000 + u32::try_from(number).unwrap(), 77);
            let live = || raw_value(time, 0, format!("data of {number}").repeat(3).as_bytes());
            (key, if number % 11 == 0 { tombstone(time).to_vec() } else { live() })
        })
        .collect();
    records.sort_by(|a, b| tree_order(&a.0, &b.0));
    records
}

fn make(path: &Path, records: &[(Vec<u8>, Vec<u8>)]) {
    let mut fresh = Builder::create(path).unwrap();
    for chunk in records.chunks(1000) {
        fresh.append(chunk.iter().map(|(key, value)| (&key[..], RecordValue::new(value).unwrap()))).unwrap();
    }
    fresh.finish().unwrap();
}

#[test]
fn a_store_made_from_records_is_one_like_any_other() {
    let fixture = Fixture::new();
    let records = records(3000);
    make(&fixture.options.path, &records);
    let claim = AtRest::open(&fixture.options.path).unwrap().claim().unwrap();
    assert_eq!((claim.records, claim.collisions, claim.tombstones), (3000, 300, 273));
    let store = fixture.open();
    assert_eq!(store.count(), 3000);
    assert_eq!(scanned(&store), records.iter().cloned().collect());
    // What is written now is after everything that came in, though its times are ahead.
    for (raw_key, value) in records.iter().step_by(100) {
        let stamp = set(&store, raw_key, "new");
        assert!(RecordValue::new(value).unwrap().clocktime().is_before(stamp), "{stamp}");
        assert!(store.peek(RecordKey::new(raw_key).unwrap(), |value| value.is_some()).unwrap());
    }
    assert_eq!(store.count(), 3000);
}

/// Pages are overwritten at random: reading ends, what comes is right, and a page costs what it held.
#[test]
fn damaged_pages_cost_the_rows_in_them() {
    let fixture = Fixture::in_memory();
    let path = fixture.path("damaged");
    let records = records(10_000);
    make(&path, &records);
    let good = std::fs::read(&path).unwrap();
    let known: BTreeMap<_, _> = records.into_iter().collect();
    let mut dice = fastrand::Rng::with_seed(7);
    let mut unreadable = 0;
    for run in 0..60 {
        let mut bytes = good.clone();
        let hits = dice.usize(1..4);
        for _ in 0..hits {
            // The first page says what the file is: without it there is nothing to read.
            let page = dice.usize(1..bytes.len() / PAGE);
            let (from, len) = if dice.bool() { (0, PAGE) } else { (dice.usize(0..PAGE - 64), dice.usize(1..64)) };
            let junk = dice.u8(..);
            bytes[page * PAGE + from..page * PAGE + from + len].fill_with(|| if junk < 64 { 0 } else { dice.u8(..) });
        }
        if dice.u8(..) < 20 {
            bytes.truncate(bytes.len() / PAGE * 3 / 4 * PAGE);
        }
        std::fs::write(&path, &bytes).unwrap();
        let Ok(at_rest) = AtRest::open(&path) else {
            unreadable += 1;
            continue;
        };
        let (found, stretches) = rows(&at_rest);
        let whole = found.iter().filter(|row| known.get(&row.key[..]) == Some(&row.value)).count();
        if stretches == 0 && bytes.len() == good.len() {
            assert!(whole + 200 * hits >= known.len(), "run {run}: {whole} without a gap");
        }
        // Beside the leaves there are few pages; one of these may cost much, but most runs do not hit them.
        assert!(found.len() <= known.len() + 200 * hits, "run {run}: {} rows", found.len());
        let _ = at_rest.integrity().unwrap();
    }
    assert!(unreadable < 10, "{unreadable} of 60 could not be opened");
}

#[test]
fn a_damaged_leaf_loses_its_rows_and_no_others() {
    let fixture = Fixture::in_memory();
    let path = fixture.path("damaged");
    let records = records(10_000);
    make(&path, &records);
    let good = std::fs::read(&path).unwrap();
    let leaf = (2..good.len() / PAGE).filter(|page| good[page * PAGE] == 0x0d).collect::<Vec<_>>();
    assert!(leaf.len() > 100);
    for pages in [vec![leaf[0]], vec![leaf[10], leaf[11]], vec![leaf[20], leaf[22]], vec![*leaf.last().unwrap()]] {
        let mut bytes = good.clone();
        for page in &pages {
            bytes[page * PAGE..(page + 1) * PAGE].fill(0xee);
        }
        std::fs::write(&path, &bytes).unwrap();
        let at_rest = AtRest::open(&path).unwrap();
        let (found, stretches) = rows(&at_rest);
        let lost = records.len() - found.len();
        assert!((1..=80 * pages.len()).contains(&lost), "{pages:?}: {lost}");
        assert!((1..=pages.len() as u64).contains(&stretches), "{pages:?}: {stretches}");
        assert!(!at_rest.integrity().unwrap().is_empty());
    }
}
