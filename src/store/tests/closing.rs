//! Closing while others are at work: what they were told before is kept, and all of them are told something.

use super::bed::*;
use crate::store::maintain::Request;
use crate::store::{Applied, Error, SyncMode, Write};
use crate::wire::RecordKey;
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
    let store = Bed::new().open();
    store.close().unwrap();
    // As if each had looked just before the end.
    let asking = std::thread::spawn(move || (0..70).all(|_| store.inner.ask(Request::Flush) == Err(Error::Closed)));
    wait_until("all are answered", || asking.is_finished());
    assert!(asking.join().unwrap());
}

#[test]
fn a_kick_that_finds_the_inbox_full_does_not_deafen_the_merge() {
    let mut bed = Bed::new();
    let disk = super::faulty::FaultyDisk::new(&bed.options.path);
    bed.disk = std::sync::Arc::new(disk.clone());
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
