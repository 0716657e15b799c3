//! Closing while others are at work: what they were told before is kept, and all of them are told something.

use super::bed::*;
use super::faulty::{Fault, FaultyDisk};
use crate::store::disk::Step;
use crate::store::maintain::Request;
use crate::store::{Applied, Error, OwnedWrite, SyncMode, Write};
use crate::wire::RecordKey;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn a_commit_after_the_end_is_answered() {
    for sync in [SyncMode::Always, SyncMode::Everysec] {
        let mut bed = Bed::new();
        bed.options.sync = sync;
        let store = bed.open();
        let raw = key(1);
        let mut batch = store.batch();
        let applied = batch.apply(&Write::Set { key: RecordKey::new(&raw).unwrap(), body: b"\0\0kept" });
        assert!(matches!(applied, Applied::Done(_)));
        store.close().unwrap();
        answer(|sender| batch.commit(move |result| sender.send(result).unwrap())).unwrap();
        assert_eq!(data(&bed.open(), &raw).as_deref(), Some("kept"), "what was decided before is in the tree");
    }
}

#[test]
fn what_is_acknowledged_while_the_store_closes_is_kept() {
    let until = Instant::now() + Duration::from_secs(3);
    let mut round = 0;
    while Instant::now() < until {
        round += 1;
        let mut bed = Bed::in_memory();
        bed.options.sync = [SyncMode::Always, SyncMode::Everysec][round % 2];
        let store = bed.open();
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
        let store = bed.open();
        for raw in &acknowledged {
            assert_eq!(data(&store, raw).as_deref(), Some("x"), "round {round} of {}", acknowledged.len());
        }
    }
}

#[test]
fn requests_that_nobody_takes_any_more_do_not_block_the_next() {
    let bed = Bed::new();
    let store = bed.open();
    store.close().unwrap();
    // As if each had looked just before the end.
    let asking =
        std::thread::spawn(move || (0..70).all(|_| store.inner.core.ask(Request::Flush) == Err(Error::Closed)));
    wait_until("all are answered", || asking.is_finished());
    assert!(asking.join().unwrap());
}

#[test]
fn a_kick_that_finds_the_inbox_full_does_not_deafen_the_merge() {
    let mut bed = Bed::new();
    let disk = FaultyDisk::new(&bed.options.path);
    bed.disk = Arc::new(disk.clone());
    let store = bed.open();
    set(&store, &key(1), "x");
    let (release, held) = std::sync::mpsc::channel::<()>();
    disk.visit(move |_| assert!(held.recv().is_err()));
    let core = &store.inner.core;
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| store.flush().unwrap());
        }
        wait_until("the inbox is full", || core.request_inbox.is_full());
        core.kick();
        drop(release);
    });
    core.kick();
    wait_until("a kick is heard", || !core.kicked.load(std::sync::atomic::Ordering::Acquire));
}

#[test]
fn after_the_end_everything_says_so() {
    let bed = Bed::new();
    let store = bed.open();
    store.close().unwrap();
    assert_eq!(store.state_get("name"), Err(Error::Closed));
    assert_eq!(store.scan(crate::store::Position::default(), 1, 1).unwrap_err(), Error::Closed);
    assert_eq!(store.flush(), Err(Error::Closed));
}

#[test]
fn the_last_handle_may_go_in_a_callback() {
    for sync in [SyncMode::Always, SyncMode::Everysec] {
        let mut bed = Bed::new();
        bed.options.sync = sync;
        let store = bed.open();
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
        wait_until("the store is closed", || match bed.try_open() {
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
    let mut bed = Bed::new();
    bed.options.close_merge = Duration::ZERO;
    let store = bed.open();
    for number in 0..5000 {
        set(&store, &key(number), "x");
    }
    store.close().unwrap();
    assert!(bed.path("db.redo.1").exists(), "not merged");
    let store = bed.open();
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
    let mut bed = Bed::new();
    bed.options.redo_bytes = 1 << 20;
    let disk = FaultyDisk::new(&bed.options.path);
    bed.disk = Arc::new(disk.clone());
    let store = bed.open();
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
    wait_until("a write waits for room", || core.room_waiters.load(std::sync::atomic::Ordering::Relaxed) > 0);
    let closing = std::thread::spawn(move || store.close());
    assert_eq!(answer.recv_timeout(DEADLINE).expect("an answer while the merge is held"), Err(Error::Closed));
    drop(release);
    closing.join().unwrap().unwrap();
}

#[test]
fn a_failure_while_closing_leaves_the_write_ahead_log_alone() {
    let mut bed = Bed::new();
    let disk = FaultyDisk::new(&bed.options.path);
    bed.disk = Arc::new(disk.clone());
    let store = bed.open();
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
    assert!(std::fs::metadata(bed.path("db-wal")).unwrap().len() > 0, "not copied into the tree");
    disk.heal();
    disk.leave();
    assert_eq!(data(&bed.open(), &key(1)).as_deref(), Some("x"));
}

#[test]
fn a_start_that_fails_leaves_the_write_ahead_log_alone() {
    let bed = Bed::new();
    let store = bed.open();
    set(&store, &key(1), "x");
    let image = bed.image("killed");
    store.close().unwrap();
    let wal = crate::store::tree::side_path(&image, "-wal");
    let before = std::fs::read(&wal).unwrap();
    assert!(!before.is_empty());
    let log = |number| crate::store::redo::file_path(&image, number);
    std::fs::rename(log(1), log(2)).unwrap();
    assert!(bed.try_open_at(&image).is_err());
    assert_eq!(std::fs::read(&wal).unwrap(), before);
}
