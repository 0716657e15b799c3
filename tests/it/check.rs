//! `check`: whole files pass, each kind of flaw is named, and nothing is changed.

use std::path::Path;

use kumo_server::clock::{ClockTime, unix_seconds};
use kumo_server::store::at_rest::Builder;
use kumo_server::wire::RecordValue;
use kumo_server::wire::record::{raw_key, raw_value};
use rusqlite::Connection;

use crate::harness::Folder;
use crate::harness::cluster::Cluster;
use crate::mergedb::{fixture, make, report, run};

fn record(index: u32) -> (String, ClockTime, Option<String>) {
    (format!("key {index}"), ClockTime::new(9, index), (!index.is_multiple_of(10)).then(|| "value".repeat(20)))
}

/// Changes a good store in SQL, and checks what is said of it then.
#[track_caller]
fn problem(sql: &str, said: &str) {
    let folder = Folder::new();
    let path = folder.join("store");
    make(&path, (0..1000).map(record));
    assert_eq!(report(&folder, 0, &["check", "store"])["records"], 1000);
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let before = std::fs::read(&path).unwrap();
    let checked = run(&folder, &["check", "store"]);
    assert_eq!((checked.status.code(), checked.stderr.as_str()), (Some(1), ""), "{sql}: {checked:?}");
    assert!(checked.stdout.contains(&format!("store: problem: {said}\n")), "{sql}: {}", checked.stdout);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(!folder.join("store.lock").exists() && !folder.join("store-wal").exists());
}

#[test]
fn each_flaw_of_a_store_is_named() {
    let one = "(SELECT min(hash) FROM record WHERE deleted IS NULL)";
    for (sql, said) in [
        (format!("UPDATE record SET value = x'0102' WHERE hash = {one}"), "1 record whose key or value is too short"),
        (format!("UPDATE record SET key = x'00' WHERE hash = {one}"), "1 record whose hash is not that of their key"),
        (
            format!("UPDATE record SET deleted = 5 WHERE hash = {one}"),
            "1 record wrongly marked as deleted, or not marked",
        ),
        (format!("INSERT INTO twin SELECT * FROM record WHERE hash = {one}"), "1 key is in both tables"),
        (format!("DELETE FROM record WHERE hash = {one}"), "1 record is missing"),
        (
            "INSERT INTO record VALUES(1, x'00', x'0000000000000000', 0, 0)".to_owned(),
            "the store counts 1000 records, there are 1001",
        ),
        (
            "INSERT INTO record VALUES(1, x'00', x'0000000000000000', 0, 0)".to_owned(),
            "the store counts 100 tombstones, there are 101",
        ),
    ] {
        problem(&sql, said);
    }
}

#[test]
fn a_damaged_page_is_found_by_sqlite_and_by_reading() {
    let folder = Folder::new();
    make(&folder.join("store"), (0..3000).map(record));
    let mut bytes = std::fs::read(folder.join("store")).unwrap();
    let leaf = (2..bytes.len() / 4096).find(|page| bytes[page * 4096] == 0x0d).unwrap();
    bytes[leaf * 4096..(leaf + 1) * 4096].fill(0x77);
    std::fs::write(folder.join("store"), bytes).unwrap();
    let checked = report(&folder, 1, &["check", "store"]);
    let problems = checked["problems"].to_string();
    for part in ["SQLite: ", "1 range of hashes where the database is damaged", "records are missing"] {
        assert!(problems.contains(part), "{part}: {problems}");
    }
}

#[test]
fn clocktimes_of_the_future_are_found() {
    let folder = Folder::new();
    let ahead = |seconds: u32| ClockTime::new(unix_seconds() + seconds, 1);
    let records = [("now", 0), ("soon", 30), ("later", 1000)];
    make(&folder.join("store"), records.map(|(key, seconds)| (key.to_owned(), ahead(seconds), Some("x".to_owned()))));
    let checked = report(&folder, 1, &["check", "store"]);
    assert!(checked["problems"][0].as_str().unwrap().starts_with("1 record with a clocktime after"), "{checked}");
    assert_eq!(checked["problems"].as_array().unwrap().len(), 1);
    report(&folder, 0, &["check", "--margin", "2000", "store"]);
}

#[test]
fn keys_that_share_a_hash_are_no_flaw_but_a_foreign_hash_is() {
    let folder = Folder::new();
    let value = raw_value(ClockTime::new(9, 1), 0, b"x");
    let keys = [raw_key(7, b"a"), raw_key(7, b"b")];
    let mut fresh = Builder::create(&folder.join("store")).unwrap();
    fresh.append(keys.iter().map(|key| (&key[..], RecordValue::new(&value).unwrap()))).unwrap();
    fresh.finish().unwrap();
    let checked = report(&folder, 1, &["check", "store"]);
    assert_eq!(checked["problems"].as_array().unwrap().len(), 1, "{checked}");
    assert_eq!(checked["problems"][0], "2 records whose hash is not that of their key");
}

#[test]
fn files_of_2010_pass_and_damaged_ones_do_not() {
    let folder = Folder::new();
    for order in ["big", "little"] {
        let checked = run(&folder, &["check", &fixture(order)]);
        assert_eq!(checked.status.code(), Some(0), "{checked:?}");
        assert!(
            checked.stdout.ends_with("Tokyo Cabinet, 304 records, 32 of them deletions; no problem\n"),
            "{checked:?}"
        );
    }
    let mut bytes = std::fs::read(fixture("big")).unwrap();
    let middle = bytes.len() - 80_000;
    bytes[middle..middle + 900].fill(0);
    std::fs::write(folder.join("old.tch"), &bytes).unwrap();
    let checked = report(&folder, 1, &["check", "old.tch"]);
    assert!(checked["problems"][0].as_str().unwrap().starts_with("1 damaged stretch, "), "{checked}");
    bytes.truncate(middle);
    std::fs::write(folder.join("old.tch"), &bytes).unwrap();
    let checked = report(&folder, 1, &["check", "old.tch"]);
    assert_eq!(checked["problems"][0], "80000 bytes are missing at its end");
}

#[test]
fn a_damaged_redo_log_is_found() {
    let mut cluster = Cluster::start(1);
    let mut client = cluster.client();
    for index in 0..100 {
        assert!(client.set(format!("k{index}").as_bytes(), b"value").is_acknowledged());
    }
    cluster.kill(0);
    let store = cluster.folder().join("server0.tch");
    let log = |path: &Path| path.to_string_lossy().contains("server0.tch.redo.");
    let files = std::fs::read_dir(cluster.folder().path()).unwrap().map(|entry| entry.unwrap().path());
    let logs: Vec<_> = files.filter(|path| log(path)).collect();
    let folder = Folder::new();
    report(&folder, 0, &["check", store.to_str().unwrap()]);
    // Without its log a store that was not closed may have lost anything.
    for path in &logs {
        std::fs::rename(path, folder.join(path.file_name().unwrap().to_str().unwrap())).unwrap();
    }
    let checked = report(&folder, 1, &["check", store.to_str().unwrap()]);
    assert!(checked["problems"][0].as_str().unwrap().contains("this redo log file is missing"), "{checked}");
    let merged = report(&folder, 3, &["mergedb", "new", store.to_str().unwrap()]);
    assert!(merged["sources"][0]["damage"][0].as_str().unwrap().starts_with("redo log: "), "{merged}");
}
