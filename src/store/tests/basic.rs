//! Each operation once, and what opening refuses.

use super::fixture::*;
use crate::clock::ClockTime;
use crate::store::{Applied, Error, OpenError, Outcome, Position, Store, Write};
use crate::wire::{RecordKey, RecordValue, record};
use std::sync::atomic::{AtomicBool, Ordering};

fn record_key(key: &[u8]) -> RecordKey<'_> {
    RecordKey::new(key).unwrap()
}

#[test]
fn set_get_delete_and_all_again_after_reopening() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let first = set(&store, &key(1), "one");
    assert_eq!(data(&store, &key(1)).as_deref(), Some("one"));
    let second = set(&store, &key(1), "two!");
    assert!(first.is_before(second));
    let deletion = delete(&store, &key(2));
    assert_eq!(get(&store, &key(2)), Some(record::tombstone(deletion).to_vec()));
    assert_eq!(get(&store, &key(3)), None);
    assert_eq!(store.count(), 2);
    store.close().unwrap();
    assert_eq!(write(&store, &Write::Delete { key: record_key(&key(1)) }), Err(Error::Closed));
    assert_eq!(store.close(), Ok(()));

    let store = fixture.open();
    assert_eq!(store.count(), 2);
    assert_eq!(data(&store, &key(1)).as_deref(), Some("two!"));
    assert_eq!(get(&store, &key(2)), Some(record::tombstone(deletion).to_vec()));
    let third = set(&store, &key(1), "three");
    assert!(second.is_before(third), "the clock goes on where it was");
    assert_eq!(store.count(), 2);
}

#[test]
fn cas_matches_only_the_clocktime_of_a_live_record() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let key = key(1);
    let cas = |expected, data: &str| {
        write(&store, &Write::Cas { key: record_key(&key), body: &body(data), expected }).unwrap()
    };
    assert_eq!(cas(ClockTime(7), "no"), Outcome::Mismatch { stored: None });
    let Outcome::Stored { clocktime } = cas(ClockTime(0), "added") else { panic!("0 adds") };
    assert_eq!(cas(ClockTime(0), "no"), Outcome::Mismatch { stored: Some(clocktime) });
    assert!(matches!(cas(clocktime, "swapped"), Outcome::Stored { .. }));
    assert_eq!(data(&store, &key).as_deref(), Some("swapped"));
    let deletion = delete(&store, &key);
    assert_eq!(cas(deletion, "no"), Outcome::Mismatch { stored: Some(deletion) });
    assert!(matches!(cas(ClockTime(0), "again"), Outcome::Stored { .. }));
}

#[test]
fn update_stores_what_is_newer_and_nothing_else() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let key = key(1);
    let update = |time: ClockTime, touch| {
        let value = record::raw_value(time, 0, b"x");
        let write_ = Write::Update { key: record_key(&key), value: RecordValue::new(&value).unwrap(), touch };
        write(&store, &write_).unwrap()
    };
    let time = |clock| ClockTime::new(1_700_000_000, clock);
    assert_eq!(update(time(10), false), Outcome::Stored { clocktime: time(10) });
    assert_eq!(update(time(10), false), Outcome::Ignored { stored: time(10) });
    assert_eq!(update(time(9), false), Outcome::Ignored { stored: time(10) });
    assert_eq!(update(time(11), false), Outcome::Stored { clocktime: time(11) });
    assert!(time(11).is_before(set(&store, &key, "ours")), "the clock has learned");
    assert_eq!(store.bump_generation(), Ok(1));
    let Outcome::Ignored { stored } = update(time(9), true) else { panic!("it is old") };
    store.flush().unwrap();
    let rows = scan_all(&store, 10);
    assert_eq!((rows.len(), rows[0].generation), (1, 1), "touched");
    let removed = |clocktime| write(&store, &Write::Remove { key: record_key(&key), clocktime }).unwrap();
    assert_eq!(removed(time(9)), Outcome::Kept);
    assert_eq!(removed(stored), Outcome::Removed);
    assert_eq!(get(&store, &key), None);
    assert_eq!(store.count(), 0);
    assert!(scan_all(&store, 10).is_empty());
}

#[test]
fn a_delete_tells_whether_something_was_there() {
    let fixture = Fixture::new();
    let store = fixture.open();
    set(&store, &key(1), "x");
    let delete = |key: &[u8]| match write(&store, &Write::Delete { key: record_key(key) }).unwrap() {
        Outcome::Deleted { live, .. } => live,
        other => panic!("{other:?}"),
    };
    assert!(delete(&key(1)));
    assert!(!delete(&key(1)));
    assert!(!delete(&key(2)));
}

#[test]
fn reads_come_from_the_tree_when_memory_has_nothing() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for number in 0..1000 {
        set(&store, &key(number), &number.to_string());
    }
    store.close().unwrap();
    let store = fixture.open();
    assert_eq!(store.peek(record_key(&key(5)), |_| ()), None);
    let keys: Vec<Box<[u8]>> = (0..1001).map(|number| key(number).into()).collect();
    let values = answer(|sender| store.read(keys, move |values| sender.send(values).unwrap())).unwrap();
    for (number, value) in values[..1000].iter().enumerate() {
        let value = value.as_deref().unwrap();
        assert_eq!(RecordValue::new(value).unwrap().data(), number.to_string().as_bytes());
    }
    assert_eq!(values[1000], None);
    assert_eq!(store.peek(record_key(&key(5)), |value| value.is_some()), Some(true), "filled by the read");
    assert_eq!(store.peek(record_key(&key(1000)), |value| value.is_none()), Some(true), "absence too");
}

#[test]
fn state_and_generation_are_there_after_a_crash() {
    let fixture = Fixture::new();
    let store = fixture.open();
    assert_eq!(store.state_get("space"), Ok(None));
    store.state_put("space", b"one").unwrap();
    store.state_put("space", b"two").unwrap();
    assert_eq!(store.bump_generation(), Ok(1));
    assert_eq!(store.bump_generation(), Ok(2));
    store.crash();
    let store = fixture.try_open_at(&fixture.image("after")).unwrap();
    assert_eq!(store.state_get("space"), Ok(Some(b"two".to_vec())));
    assert_eq!(store.generation(), 2);
}

#[test]
fn a_second_owner_is_refused_by_name_and_pid() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let error = fixture.try_open().err().unwrap();
    let OpenError::Locked { owner, .. } = &error else { panic!("{error}") };
    assert_eq!(*owner, Some(std::process::id()));
    assert!(error.to_string().contains("db: in use by another process (pid "), "{error}");
    drop(store);
    fixture.open();
}

#[test]
fn another_name_of_the_store_is_the_same_store() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let link = fixture.options.path.with_file_name("link");
    std::os::unix::fs::symlink(&fixture.options.path, &link).unwrap();
    assert!(matches!(fixture.try_open_at(&link), Err(OpenError::Locked { .. })));
    drop(store);
    assert!(fixture.try_open_at(&link).is_ok());
    assert!(!link.with_file_name("link.lock").exists());
}

#[test]
fn foreign_files_are_refused_and_left_alone() {
    let fixture = Fixture::new();
    let path = fixture.options.path.clone();
    let refusal = |what: &str| {
        let error = fixture.try_open().err().unwrap().to_string();
        assert!(error.contains("db: "), "names the file: {error}");
        assert!(error.contains(what), "{error}");
        assert!(!error.contains('\n'));
    };
    for (bytes, what) in [
        (&b"ToKyO CaBiNeT\n1.0:911\n"[..], "`kumo-server mergedb` imports it"),
        (b"hello", "an unknown kind of file"),
        (b"SQLite format 3\0 short", "an unknown kind of file"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        refusal(what);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert!(!fixture.path("db.lock").exists());
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    refusal("a directory");
    std::fs::remove_dir(&path).unwrap();

    let foreign = |pragma: &str| {
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch(&format!("CREATE TABLE IF NOT EXISTS t(x); {pragma}")).unwrap();
    };
    foreign("");
    refusal("another program's SQLite database");
    foreign("PRAGMA application_id = 77");
    refusal("(application id 77)");
    std::fs::remove_file(&path).unwrap();
    fixture.open().close().unwrap();
    foreign("PRAGMA user_version = 9");
    refusal("store format 9, this program knows up to 2");
}

#[test]
fn sqlite_counts_no_memory() {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    let mut options = connection.prepare("PRAGMA compile_options").unwrap();
    let options: Vec<String> = options.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(options.iter().any(|option| option == "DEFAULT_MEMSTATUS=0"), ".cargo/config.toml: {options:?}");
}

#[test]
fn an_empty_file_becomes_a_store() {
    let fixture = Fixture::new();
    std::fs::write(&fixture.options.path, b"").unwrap();
    set(&fixture.open(), &key(1), "x");
    assert_eq!(data(&fixture.open(), &key(1)).as_deref(), Some("x"));
}

#[test]
fn a_missing_redo_file_is_an_error_and_so_is_one_of_another_store() {
    let fixture = Fixture::new();
    let store = fixture.open();
    set(&store, &key(1), "x");
    store.crash();
    let image = fixture.image("missing");
    let log = image.with_file_name("db.redo.1");
    let bytes = std::fs::read(&log).unwrap();
    std::fs::remove_file(&log).unwrap();
    assert!(matches!(fixture.try_open_at(&image), Err(OpenError::RedoDamaged { .. })));
    std::fs::write(&log, &bytes).unwrap();
    assert_eq!(data(&fixture.try_open_at(&image).unwrap(), &key(1)).as_deref(), Some("x"));

    let other = Fixture::new();
    other.open().close().unwrap();
    std::fs::write(other.path("db.redo.2"), bytes).unwrap();
    assert!(matches!(other.try_open(), Err(OpenError::RedoForeign { .. })), "{:?}", other.try_open().err());
}

/// Records were collected under hashes of others that look alike to the table, and not found again when it had grown:
/// they were never merged, and would have been gone with their part of the log.
#[test]
fn records_written_during_a_merge_are_merged_by_the_next() {
    const RECORDS: u64 = 40_000;
    let fixture = Fixture::new();
    let store = fixture.open();
    let written = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !written.load(Ordering::Relaxed) {
                store.flush().unwrap();
            }
        });
        for records in 0..RECORDS / 50 {
            let mut batch = store.batch();
            for record in 0..50 {
                let key = key(records * 50 + record);
                assert!(matches!(
                    batch.apply(&Write::Set { key: record_key(&key), body: b"mmdata" }),
                    Applied::Done(_)
                ));
            }
            batch.commit(Result::unwrap);
        }
        written.store(true, Ordering::Relaxed);
    });
    store.flush().unwrap();
    assert_eq!(scan_all(&store, 1000).len() as u64, RECORDS);
}

#[test]
fn tombstones_that_are_held_are_not_swept() {
    let fixtures = [Fixture::new(), Fixture::new()].map(|mut fixture| {
        fixture.options.sweep.max_age = std::time::Duration::from_secs(10);
        fixture
    });
    let [held, free] = fixtures.each_ref().map(Fixture::open);
    held.hold_tombstones(DEADLINE);
    for (fixture, store) in fixtures.iter().zip([&held, &free]) {
        delete(store, &key(1));
        fixture.now.fetch_add(60, Ordering::Relaxed);
        store.flush().unwrap();
    }
    let swept = |store: &Store| get(store, &key(1)).is_none();
    wait_until("the free one is swept", || swept(&free));
    assert!(!swept(&held));
    held.hold_tombstones(std::time::Duration::ZERO);
    wait_until("the other is swept, too", || swept(&held));
}

#[test]
fn a_scan_passes_over_what_is_not_wanted() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for number in 0..500 {
        set(&store, &key(number), "x");
    }
    store.flush().unwrap();
    let wants = |hash: u64| hash.is_multiple_of(50);
    let (mut found, mut position) = (0, Position::default());
    while !position.is_end() {
        // Far fewer wanted ones than one step may pass over.
        let batch = store.scan_where(position, 2, 1 << 20, wants).unwrap();
        assert!(batch.rows.iter().all(|row| wants(record_key(&row.key).hash())));
        found += batch.rows.len();
        position = batch.next;
    }
    let expected = scan_all(&store, 7).iter().filter(|row| wants(record_key(&row.key).hash())).count();
    assert!((1..100).contains(&expected), "{expected}");
    assert_eq!(found, expected);
}
