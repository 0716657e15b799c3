//! Closing while others are at work: what was acknowledged before is kept, and every request gets an answer.

use super::faulty::{Fault, FaultyDisk};
use super::fixture::*;
use crate::store::disk::Step;
use crate::store::request::Request;
use crate::store::{Applied, Error, OwnedWrite, SyncMode, Write};
use crate::wire::RecordKey;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn a_commit_after_the_end_is_answered() {
    for sync in [SyncMode::Always, SyncMode::Everysec] {
        let mut fixture = Fixture::new();
        fixture.options.sync = sync;
        let store = fixture.open();
        let raw = key(1);
        let mut batch = store.batch();
        let applied = batch.apply(&Write::Set { key: RecordKey::new(&raw).unwrap(), body: b"\0\0kept" });
        assert!(matches!(applied, Applied::Done(_)));
        store.close().unwrap();
        answer(|sender| batch.commit(move |result| sender.send(result).unwrap())).unwrap();
        assert_eq!(data(&fixture.open(), &raw).as_deref(), Some("kept"), "what was decided before is in the tree");
    }
}

#[test]
fn what_is_acknowledged_while_the_store_closes_is_kept() {
    let until = Instant::now() + Duration::from_secs(3);
    let mut round = 0;
    while Instant::now() < until {
        round += 1;
        let mut fixture = Fixture::in_memory();
        fixture.options.sync = [SyncMode::Always, SyncMode::Everysec][round % 2];
        let store = fixture.open();
        let writers: Vec<_> = (0..4_u64)
            .map(|writer| {
                let store = store.clone();
                std::thread::spawn(move || {
                    let mut acknowledged = Vec::new();
                    for number in 0.. {
                        let raw = key(writer << 32 | number);
                        let mut batch = store.batch();
                        match batch.apply(&Write::Set { key: RecordKey::new(&raw).unwrap(), body: b"\0\0x" }) {
                            Applied::Done(_) => {}
                            Applied::Later => continue,
                            Applied::Failed(error) => {
                                assert_eq!(error, Error::Closed);
                                break;
                            }
                        }
                        if answer(|sender| batch.commit(move |result| sender.send(result).unwrap())).is_ok() {
                            acknowledged.push(raw);
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(3));
        store.close().unwrap();
        let acknowledged: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        drop(store);
        let store = fixture.open();
        for raw in &acknowledged {
            assert_eq!(data(&store, raw).as_deref(), Some("x"), "round {round} of {}", acknowledged.len());
        }
    }
}

#[test]
fn requests_that_nobody_takes_any_more_do_not_block_the_next() {
    let fixture = Fixture::new();
    let store = fixture.open();
    store.close().unwrap();
    // As if each had looked just before the end.
    let asking =
        std::thread::spawn(move || (0..70).all(|_| store.inner.core.ask(Request::Flush) == Err(Error::Closed)));
    wait_until("all are answered", || asking.is_finished());
    assert!(asking.join().unwrap());
}

#[test]
fn a_wake_up_that_finds_the_inbox_full_is_not_the_last_one() {
    let mut fixture = Fixture::new();
    let disk = FaultyDisk::new(&fixture.options.path);
    fixture.disk = Arc::new(disk.clone());
    let store = fixture.open();
    set(&store, &key(1), "x");
    let (release, held) = std::sync::mpsc::channel::<()>();
    disk.visit(move |_| assert!(held.recv().is_err()));
    let core = &store.inner.core;
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| store.flush().unwrap());
        }
        wait_until("the inbox is full", || core.request_inbox.is_full());
        core.wake();
        drop(release);
    });
    core.wake();
    wait_until("it is noticed", || !core.wake_pending.load(std::sync::atomic::Ordering::Acquire));
}

#[test]
fn after_the_end_everything_says_so() {
    let fixture = Fixture::new();
    let store = fixture.open();
    store.close().unwrap();
    assert_eq!(store.state_get("name"), Err(Error::Closed));
    assert_eq!(store.scan(crate::store::Position::default(), 1, 1).unwrap_err(), Error::Closed);
    assert_eq!(store.flush(), Err(Error::Closed));
}

#[test]
fn the_last_handle_may_go_in_a_callback() {
    for sync in [SyncMode::Always, SyncMode::Everysec] {
        let mut fixture = Fixture::new();
        fixture.options.sync = sync;
        let store = fixture.open();
        set(&store, &key(1), "x");
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let raw = key(2);
        let mut batch = store.batch();
        assert!(matches!(
            batch.apply(&Write::Set { key: RecordKey::new(&raw).unwrap(), body: b"\0\0y" }),
            Applied::Done(_)
        ));
        if sync == SyncMode::Always {
            // On the log's thread.
            let last = store.clone();
            batch.commit(move |result| {
                result.unwrap();
                assert!(gate.recv().is_err());
                drop(last);
            });
        } else {
            batch.commit(Result::unwrap);
            let last = store.clone();
            store.read(vec![key(3).into()], move |values| {
                values.unwrap();
                assert!(gate.recv().is_err());
                drop(last);
            });
        }
        drop(store);
        drop(release);
        wait_until("the store is closed", || match fixture.try_open() {
            Ok(store) => data(&store, &raw).as_deref() == Some("y"),
            Err(error) => {
                assert!(matches!(error, crate::store::OpenError::Locked { .. }), "{error}");
                false
            }
        });
    }
}

#[test]
fn closing_takes_no_longer_than_it_may_and_loses_nothing() {
    let mut fixture = Fixture::new();
    fixture.options.close_merge = Duration::ZERO;
    let store = fixture.open();
    for number in 0..5000 {
        set(&store, &key(number), "x");
    }
    store.close().unwrap();
    assert!(fixture.path("db.redo.1").exists(), "not merged");
    let store = fixture.open();
    let left = store.status().dirty;
    assert!((1..=5000).contains(&left), "{left}");
    for number in 0..5000 {
        assert_eq!(data(&store, &key(number)).as_deref(), Some("x"));
    }
    store.flush().unwrap();
    assert_eq!(store.count(), 5000);
}

#[test]
fn a_write_that_waits_for_room_does_not_keep_the_store_from_closing() {
    let mut fixture = Fixture::new();
    fixture.options.redo_bytes = 1 << 20;
    let disk = FaultyDisk::new(&fixture.options.path);
    fixture.disk = Arc::new(disk.clone());
    let store = fixture.open();
    let (release, held) = std::sync::mpsc::channel::<()>();
    disk.visit(move |step| {
        if step == Step::MergeCollected {
            assert!(held.recv().is_err());
        }
    });
    let body = vec![0; 3000];
    let writes = (0..1000)
        .map(|number| OwnedWrite::from(&Write::Set { key: RecordKey::new(&key(number)).unwrap(), body: &body }))
        .collect();
    let (sender, answer) = std::sync::mpsc::channel();
    store.write(writes, |_, _| (), move |result| sender.send(result).unwrap());
    let core = store.inner.core.clone();
    wait_until("a write waits for space", || core.space_waiters.load(std::sync::atomic::Ordering::Relaxed) > 0);
    let closing = std::thread::spawn(move || store.close());
    assert_eq!(answer.recv_timeout(DEADLINE).expect("an answer while the merge is held"), Err(Error::Closed));
    drop(release);
    closing.join().unwrap().unwrap();
}

#[test]
fn a_failure_while_closing_leaves_the_write_ahead_log_alone() {
    let mut fixture = Fixture::new();
    let disk = FaultyDisk::new(&fixture.options.path);
    fixture.disk = Arc::new(disk.clone());
    let store = fixture.open();
    set(&store, &key(1), "x");
    // The merge's own checkpoint is over: what fails is all that comes after.
    let planned = disk.clone();
    disk.visit(move |step| {
        if step == Step::Checkpointed {
            planned.plan(1, Fault::Fail(1000));
        }
    });
    let core = store.inner.core.clone();
    assert!(store.close().is_err());
    assert!(disk.failed() > 0 && core.ended.load(std::sync::atomic::Ordering::Acquire));
    assert!(std::fs::metadata(fixture.path("db-wal")).unwrap().len() > 0, "not copied into the tree");
    disk.heal();
    disk.leave();
    assert_eq!(data(&fixture.open(), &key(1)).as_deref(), Some("x"));
}

#[test]
fn a_start_that_fails_leaves_the_write_ahead_log_alone() {
    let fixture = Fixture::new();
    let store = fixture.open();
    set(&store, &key(1), "x");
    let image = fixture.image("killed");
    store.close().unwrap();
    let wal = crate::store::paths::side_path(&image, "-wal");
    let before = std::fs::read(&wal).unwrap();
    assert!(!before.is_empty());
    let log = |number| crate::store::paths::redo_file(&image, number);
    std::fs::rename(log(1), log(2)).unwrap();
    assert!(fixture.try_open_at(&image).is_err());
    assert_eq!(std::fs::read(&wal).unwrap(), before);
}

#[test]
fn the_number_of_commits_never_goes_back_however_the_store_ends() {
    let fixture = Fixture::new();
    let mut before = 0;
    for round in 0..4 {
        let store = fixture.open();
        assert!(store.commits() >= before, "round {round}: {} after {before}", store.commits());
        for number in 0..10 {
            set(&store, &key(number), "x");
        }
        before = store.commits();
        assert!(before >= 10 * (round + 1), "round {round}: {before}");
        store.close().unwrap();
    }
    let store = fixture.open();
    set(&store, &key(1), "y");
    let before = store.commits();
    store.crash();
    let store = fixture.try_open_at(&fixture.image("after")).unwrap();
    assert!(store.commits() >= before);
}
