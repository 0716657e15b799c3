//! `mergedb`: files of 2010, stores and backups, whole and damaged, into a store that a server serves.

use std::fmt::Write;
use std::path::Path;

use kumo_server::clock::ClockTime;
use kumo_server::ring;
use kumo_server::store::at_rest::{Builder, tree_order};
use kumo_server::wire::RecordValue;
use kumo_server::wire::record::{raw_value, tombstone};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::cluster::{Cluster, status};
use crate::harness::{Finished, Folder, Process, kumo_server, wait_for, wait_until};

/// SQLite's page size.
const PAGE: usize = 4096;

/// The path of a recorded Tokyo Cabinet file.
pub(crate) fn fixture(order: &str) -> String {
    format!("{}/tests/fixtures/tokyocabinet-{order}-endian.tch", env!("CARGO_MANIFEST_DIR"))
}

fn expected(order: &str) -> serde_json::Map<String, Value> {
    let path = fixture(order).replace(".tch", ".expected.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub(crate) fn run(folder: &Folder, args: &[&str]) -> Finished {
    Process::run(folder, &kumo_server(), args)
}

/// Runs a tool that prints JSON, and expects this exit status.
#[track_caller]
pub(crate) fn report(folder: &Folder, status: i32, args: &[&str]) -> Value {
    let finished = run(folder, &[args, &["--json"]].concat());
    assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(status), ""), "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

/// Makes a store of these keys; without data a key is deleted.
pub(crate) fn make(path: &Path, records: impl IntoIterator<Item = (String, ClockTime, Option<String>)>) {
    let mut records: Vec<_> = records
        .into_iter()
        .map(|(key, time, data)| {
            let value = data.map_or_else(|| tombstone(time).to_vec(), |data| raw_value(time, 0, data.as_bytes()));
            (ring::raw_key(key.as_bytes()), value)
        })
        .collect();
    records.sort_by(|a, b| tree_order(&a.0, &b.0));
    let mut fresh = Builder::create(path).unwrap();
    fresh.append(records.iter().map(|(key, value)| (&key[..], RecordValue::new(value).unwrap()))).unwrap();
    fresh.finish().unwrap();
}

fn at(seconds: u32, clock: u32) -> ClockTime {
    ClockTime::new(1_700_000_000 + seconds, clock)
}

/// Everything in a folder but the output of the tests' own processes.
fn names(folder: &Folder) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !["out", "err"].iter().any(|end| name.ends_with(end)));
    names.sort();
    names
}

#[test]
fn a_server_serves_what_was_merged_from_files_of_2010() {
    let folder = Folder::new();
    let (big, little) = (fixture("big"), fixture("little"));
    let merged = report(&folder, 0, &["mergedb", "server0.tch", &big, &little]);
    assert_eq!((&merged["records"], &merged["tombstones"]), (&Value::from(304), &Value::from(32)));
    assert_eq!(merged["complete"], true);
    assert_eq!(names(&folder), ["server0.tch"]);
    let cluster = Cluster::start_in(folder.path(), 1, &["-gN", "100000000", "-gX", "100000000"]);
    assert_eq!(cluster.items(), 304);
    let mut client = cluster.client();
    // The little-endian file was recorded later.
    let all = expected("little");
    assert_eq!(all.len(), 270);
    for (key, value) in &all {
        assert_eq!(client.get(key.as_bytes()).as_deref(), value[1].as_str().map(str::as_bytes), "{key}");
    }
    assert_eq!(client.get(b"user:00000"), None);
    // What is written now is after what came from the files.
    assert!(client.set(b"user:00001", b"new").is_acknowledged());
    assert_eq!(client.get(b"user:00001").as_deref(), Some(&b"new"[..]));
}

#[test]
fn the_latest_of_each_key_is_taken_and_deletions_count() {
    let folder = Folder::new();
    let key = |index: usize| format!("key {index}");
    let some = |text: &str| Some(text.to_owned());
    make(&folder.join("a"), (0..100).map(|index| (key(index), at(100, 5), some("a"))));
    make(&folder.join("b"), (50..150).map(|index| (key(index), at(if index < 60 { 300 } else { 20 }, 9), some("b"))));
    make(&folder.join("c"), (0..10).map(|index| (key(index), at(500, 1), None)));
    let merged = report(&folder, 0, &["mergedb", "all", "a", "b", "c"]);
    assert_eq!((&merged["records"], &merged["tombstones"]), (&Value::from(150), &Value::from(10)));
    let counts = |index: usize| {
        let source = &merged["sources"][index];
        ["read", "taken", "older", "lost"].map(|name| source[name].as_u64().unwrap())
    };
    assert_eq!(counts(0), [100, 80, 20, 0]);
    assert_eq!(counts(1), [100, 60, 40, 0]);
    assert_eq!(counts(2), [10, 10, 0, 0]);
    // The text says the same.
    let text = run(&folder, &["mergedb", "again", "a", "b", "c"]).stdout;
    assert_eq!(
        text,
        "a: store, 100 records read, 80 taken, 20 not newer\n\
         b: store, 100 records read, 60 taken, 40 not newer\n\
         c: store, 10 records read, 10 taken, 0 not newer\n\
         again: 150 records, 10 of them deletions; verified\n"
    );
}

/// Of three clocktimes each is before another: the order of the sources decides.
#[test]
fn a_circle_of_clocktimes_is_decided_by_the_order_given() {
    let folder = Folder::new();
    for (name, time) in [("a", at(100, 30)), ("b", at(104, 20)), ("c", at(108, 10))] {
        make(&folder.join(name), [("key".to_owned(), time, Some(name.to_owned()))]);
    }
    for (order, taken) in [(["a", "b", "c"], 2), (["b", "c", "a"], 2), (["c", "a", "b"], 2), (["c", "b", "a"], 2)] {
        let merged = report(&folder, 0, &[&["mergedb", &order.concat()], &order[..]].concat());
        assert_eq!(merged["sources"][taken]["taken"], 1, "{merged}");
        assert_eq!(merged["records"], 1);
    }
}

#[test]
fn a_killed_servers_log_counts_and_a_running_one_is_refused() {
    let mut cluster = Cluster::start(1);
    let mut client = cluster.client();
    for index in 0..300 {
        assert!(client.set(format!("k{index}").as_bytes(), b"value").is_acknowledged());
    }
    client.delete(b"k7");
    let store = cluster.folder().join("server0.tch").to_str().unwrap().to_owned();
    let folder = Folder::new();
    for tool in [&["mergedb", "all", &store][..], &["check", &store], &["restore", &store, "all"]] {
        let refused = run(&folder, tool);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let pid = cluster.servers[0].process().pid().as_raw_nonzero();
        let line = format!("{store}: in use by another process (pid {pid}); stop that server, or take a backup");
        assert!(refused.stderr.contains(&line) && refused.stderr.lines().count() == 1, "{refused:?}");
    }
    assert_eq!(names(&folder), [""; 0]);
    cluster.kill(0);
    let checked = report(&folder, 0, &["check", &store]);
    assert_eq!((&checked["records"], &checked["tombstones"]), (&Value::from(300), &Value::from(1)));
    assert!(checked["notes"][0].as_str().unwrap().contains("in the redo log"), "{checked}");
    let merged = report(&folder, 0, &["mergedb", "all", &store]);
    assert_eq!((&merged["records"], &merged["tombstones"]), (&Value::from(300), &Value::from(1)));
    // The store itself is as it was.
    cluster.start_server(0);
    let address = cluster.servers[0].address();
    wait_until("the server has recovered its records", || status(address, 7) == Some(300));
}

#[test]
fn nothing_is_overwritten_and_mistakes_are_one_line() {
    let folder = Folder::new();
    make(&folder.join("a"), [("key".to_owned(), at(1, 1), Some("a".to_owned()))]);
    std::fs::write(folder.join("text"), "not a database, and too short for one").unwrap();
    std::fs::write(folder.join("empty"), "").unwrap();
    std::fs::write(folder.join("left.redo.3"), "").unwrap();
    let too_many = format!("mergedb new{}", " a".repeat(65));
    for (args, status, line) in [
        ("mergedb a a", 1, "a: already exists; not overwritten"),
        ("mergedb left a", 1, "left.redo.3: already exists; not overwritten"),
        ("mergedb new a nowhere", 1, "nowhere: no such file"),
        ("mergedb new a empty", 1, "empty: an empty file"),
        ("mergedb new text", 1, "text: an unknown kind of file; neither a store, a backup, nor a Tokyo Cabinet file"),
        ("mergedb new .", 1, ".: a directory; neither a store, a backup, nor a Tokyo Cabinet file"),
        ("mergedb new a ./a", 1, "./a: given twice"),
        (&too_many, 1, "65 files to merge, and 64 is the most; merge some of them first, then the results"),
        ("mergedb nowhere/new a", 1, "nowhere: No such file or directory (os error 2)"),
        ("check nowhere", 1, "nowhere: no such file"),
        ("restore nowhere new", 1, "nowhere: no such file"),
        ("restore a a", 1, "a: already exists; not overwritten"),
        ("log nowhere", 1, "nowhere: No such file or directory (os error 2)"),
        (
            "mergedb new",
            2,
            "the following required arguments were not provided: <SRC>...; try 'kumo-server mergedb --help'",
        ),
        (
            "check --margin x a",
            2,
            "invalid value 'x' for '--margin <SEC>': not a number of seconds; try 'kumo-server check --help'",
        ),
    ] {
        let args: Vec<_> = args.split(' ').collect();
        let finished = run(&folder, &args);
        assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(status), ""), "{args:?}");
        assert_eq!(finished.stderr, format!("kumo-server {}: {line}\n", args[0]), "{args:?}");
    }
    assert_eq!(names(&folder), ["a", "empty", "left.redo.3", "text"]);
}

#[test]
fn damaged_sources_are_salvaged_and_it_says_what_was_lost() {
    let folder = Folder::new();
    let records = |count: usize| (0..count).map(|index| (format!("key {index}"), at(1, 1), Some("v".repeat(100))));
    make(&folder.join("store"), records(5000));
    let mut bytes = std::fs::read(folder.join("store")).unwrap();
    let leaves: Vec<_> = (2..bytes.len() / PAGE).filter(|page| bytes[page * PAGE] == 0x0d).collect();
    for page in [leaves[5], leaves[50]] {
        bytes[page * PAGE..(page + 1) * PAGE].fill(0xaa);
    }
    std::fs::write(folder.join("store"), bytes).unwrap();
    let mut bytes = std::fs::read(fixture("big")).unwrap();
    let middle = bytes.len() - 80_000;
    bytes[middle..middle + 2000].fill(0x55);
    std::fs::write(folder.join("old.tch"), bytes).unwrap();

    let merged = report(&folder, 3, &["mergedb", "new", "store", "old.tch"]);
    assert_eq!(merged["complete"], false);
    let mut all = 0;
    for (index, full) in [(0, 5000), (1, 304)] {
        let source = &merged["sources"][index];
        let (read, lost) = (source["read"].as_u64().unwrap(), source["lost"].as_u64().unwrap());
        assert_eq!(read + lost, full, "{source}");
        assert!((1..100).contains(&lost), "{source}");
        assert!(!source["damage"].as_array().unwrap().is_empty());
        all += read;
    }
    assert_eq!(merged["records"], all);
    let text = run(&folder, &["mergedb", "text", "store"]).stdout;
    assert!(text.contains("store: damaged: 2 ranges of hashes where the database is damaged\n"), "{text}");
    assert!(text.contains(" lost\n") && text.contains(" records are missing\n"), "{text}");
    // What was made of them is whole.
    assert_eq!(report(&folder, 0, &["check", "new"])["records"], all);
    // One that cannot be opened at all fails the merge: it can be left out.
    let mut bytes = std::fs::read(folder.join("store")).unwrap();
    bytes[100..PAGE].fill(0);
    std::fs::write(folder.join("store"), bytes).unwrap();
    let failed = run(&folder, &["mergedb", "other", "store"]);
    assert_eq!((failed.status.code(), failed.stderr.lines().count()), (Some(1), 1), "{failed:?}");
    assert!(!folder.join("other").exists());
}

#[test]
fn compressed_files_and_other_kinds_are_refused_by_name() {
    let folder = Folder::new();
    let good = std::fs::read(fixture("little")).unwrap();
    for (offset, byte, reason) in
        [(36, 2, "compressed with deflate"), (36, 4, "bzip2"), (32, 1, "a Tokyo Cabinet B+ tree")]
    {
        let mut bytes = good.clone();
        bytes[offset] = byte;
        std::fs::write(folder.join("other.tch"), bytes).unwrap();
        let finished = run(&folder, &["mergedb", "new", "other.tch"]);
        assert_eq!((finished.status.code(), finished.stderr.lines().count()), (Some(1), 1), "{finished:?}");
        assert!(finished.stderr.contains(reason), "{finished:?}");
    }
    assert_eq!(names(&folder), ["other.tch"]);
}

/// The way back: a store becomes a file of 2010, and that a store again.
#[test]
fn a_store_becomes_a_file_of_2010_and_a_store_again() {
    let folder = Folder::new();
    let data = |index: usize| (!index.is_multiple_of(9)).then(|| "data ".repeat(index % 60));
    make(&folder.join("a"), (0..3000).map(|index| (format!("key {index}"), at(1, 1), data(index))));
    let first = report(&folder, 0, &["check", "a"]);
    for (format, file, back) in [("tokyo-cabinet", "little.tch", "b"), ("tokyo-cabinet-big-endian", "big.tch", "c")] {
        let made = report(&folder, 0, &["mergedb", "--format", format, file, "a"]);
        assert_eq!((&made["records"], &made["tombstones"]), (&first["records"], &first["tombstones"]));
        let checked = report(&folder, 0, &["check", file]);
        assert_eq!((&checked["kind"], &checked["records"]), (&Value::from("tokyo-cabinet"), &first["records"]));
        report(&folder, 0, &["mergedb", back, file]);
        // Were one record another one, a merge of both would take it from one side only.
        let both = report(&folder, 0, &["mergedb", &format!("{back}+a"), back, "a"]);
        assert_eq!((&both["records"], &both["sources"][0]["taken"]), (&first["records"], &first["records"]));
        assert_eq!(std::fs::read(folder.join(back)).unwrap().len(), std::fs::read(folder.join("a")).unwrap().len());
    }
    let header = |name: &str| std::fs::read(folder.join(name)).unwrap()[48..56].to_vec();
    assert!(header("little.tch").into_iter().rev().eq(header("big.tch")));
}

#[test]
fn an_interrupted_merge_leaves_nothing() {
    let folder = Folder::new();
    let mut records = String::new();
    for index in 0..40_000 {
        let _ = writeln!(records, "key {index}");
    }
    make(&folder.join("a"), records.lines().map(|key| (key.to_owned(), at(1, 1), Some("v".repeat(50)))));
    let merging = |name| Process::spawn(&folder, name, &kumo_server(), &["mergedb", "new", "a"]);
    let temporary = || names(&folder).iter().any(|name| name.starts_with(".new."));
    let process = merging("merge");
    wait_until("the new store is being written", || temporary() || folder.join("new").exists());
    process.signal(Signal::INT);
    let finished = process.finish();
    // On a fast machine it may have been too late.
    assert!(matches!(finished.status.code(), Some(130 | 0)), "{finished:?}");
    assert_eq!(finished.stderr, "");
    assert_eq!(folder.join("new").exists(), finished.stdout.contains("verified"));
    assert!(!temporary(), "{:?}", names(&folder));
}

#[test]
fn the_next_run_removes_what_a_killed_one_has_left_but_not_what_another_is_writing() {
    let folder = Folder::new();
    make(&folder.join("a"), (0..40_000).map(|index| (format!("key {index}"), at(1, 1), Some("v".repeat(50)))));
    let merge = |name| Process::spawn(&folder, name, &kumo_server(), &["mergedb", "new", "a"]);
    let temporary = || names(&folder).into_iter().filter(|name| name.starts_with(".new.")).collect::<Vec<_>>();
    // Stopped while it writes, as often as that takes.
    let stopped_in_the_middle = |name| {
        wait_for("a merge stopped in its middle", || {
            let _ = std::fs::remove_file(folder.join("new"));
            let (before, process) = (temporary(), merge(name));
            wait_until("the new store is being written", || temporary() != before || folder.join("new").exists());
            process.hang();
            // One that has nothing in it yet may not be held yet either.
            let is_written = |name: &String| std::fs::metadata(folder.join(name)).is_ok_and(|file| file.len() > 0);
            let new = temporary().into_iter().find(|name| !before.contains(name) && is_written(name));
            if new.is_none() {
                process.signal(Signal::CONT);
            }
            new.map(|file| (process, file))
        })
    };
    let (killed, left) = stopped_in_the_middle("killed");
    drop(killed);
    let (running, written) = stopped_in_the_middle("running");
    assert_eq!(temporary().as_slice(), std::slice::from_ref(&written), "{left} is removed");
    assert_eq!(merge("other").finish().status.code(), Some(0));
    assert_eq!(temporary(), [written], "its process lives");
    std::fs::remove_file(folder.join("new")).unwrap();
    running.signal(Signal::CONT);
    assert_eq!(running.finish().status.code(), Some(0));
    assert_eq!(names(&folder), ["a", "new"]);
}
