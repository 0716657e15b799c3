//! Every bound is reached, holds, and lets go again.

use super::faulty::FaultyDisk;
use super::fixture::*;
use crate::store::disk::Step;
use crate::store::{Applied, Error, OwnedWrite, ReadJob, SyncMode, Write};
use crate::wire::RecordKey;
use std::sync::Arc;

fn big_set(store: &crate::store::Store, number: u64, len: usize) -> Result<crate::store::Outcome, Error> {
    let body = vec![u8::try_from(number % 251).unwrap(); len];
    write(store, &Write::Set { key: RecordKey::new(&key(number)).unwrap(), body: &body })
}

#[test]
fn a_full_redo_log_makes_writers_wait_and_go_on() {
    let mut fixture = Fixture::new();
    fixture.options.redo_bytes = 1 << 20;
    fixture.options.write_threads = 2;
    let store = fixture.open();
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..1500 {
                    big_set(store, writer * 1500 + number, 3000).unwrap();
                    assert!(store.status().redo_bytes <= (1 << 20) + 4096);
                }
            });
        }
    });
    assert!(store.status().merges >= 4, "13 MiB went through 1 MiB");
    assert_eq!(store.count(), 4500);
}

/// All of it is in the tree then, and no record waits to be merged.
#[test]
fn a_redo_log_that_fills_up_while_a_merge_is_under_way_is_emptied() {
    let mut fixture = Fixture::new();
    fixture.options.redo_bytes = 1 << 20;
    let disk = FaultyDisk::new(&fixture.options.path);
    fixture.disk = Arc::new(disk.clone());
    let store = fixture.open();
    big_set(&store, 1, 3000).unwrap();
    let (writing, mut filled) = (store.clone(), false);
    disk.visit(move |step| {
        if step != Step::MergeCollected || std::mem::replace(&mut filled, true) {
            return;
        }
        let (raw, body) = (key(1), vec![1; 3000]);
        let mut batch = writing.batch();
        while let Applied::Done(_) = batch.apply(&Write::Set { key: RecordKey::new(&raw).unwrap(), body: &body }) {}
        batch.commit(|result| result.unwrap());
    });
    store.flush().unwrap();
    disk.leave();
    assert!(store.status().redo_bytes > (1 << 20) - 8192, "{}", store.status().redo_bytes);
    big_set(&store, 2, 100_000).unwrap();
    store.flush().unwrap();
    assert!(store.status().redo_bytes < 1000, "{}", store.status().redo_bytes);
    assert_eq!(store.count(), 2);
}

#[test]
fn the_cache_limit_holds_with_large_values_and_with_tiny_ones() {
    for (len, records) in [(1 << 20, 48), (200_000, 200), (10, 120_000), (0, 120_000)] {
        let mut fixture = Fixture::new();
        fixture.options.cache_bytes = 8 << 20;
        let store = fixture.open();
        let mut most = 0;
        let mut later = Vec::new();
        for number in 0..records {
            if len > 10 {
                big_set(&store, number, len).unwrap();
                most = most.max(store.status().cache_bytes);
                continue;
            }
            let body = vec![0; len + 2];
            later.push(OwnedWrite::from(&Write::Set { key: RecordKey::new(&key(number)).unwrap(), body: &body }));
            if later.len() == 500 {
                let some = std::mem::take(&mut later);
                answer(|sender| store.write(some, |_, _| (), move |result| sender.send(result).unwrap())).unwrap();
                most = most.max(store.status().cache_bytes);
            }
        }
        // One record more than the limit may be in place before another has freed memory.
        let limit = (8 << 20) + 2 * (len as u64 + 4096);
        assert!(most <= limit, "{most} bytes with values of {len}, limit {limit}");
        assert_eq!(store.count(), records);
        for number in (0..records).step_by(7) {
            assert_eq!(
                get(&store, &key(number)).map(|value| value.len()),
                Some(8 + len.max(if len > 10 { len } else { len + 2 }))
            );
        }
        assert!(store.status().cache_bytes <= limit, "after reading");
    }
}

#[test]
fn a_record_that_could_never_fit_is_refused() {
    let mut fixture = Fixture::new();
    fixture.options.cache_bytes = 4 << 20;
    let store = fixture.open();
    assert!(matches!(big_set(&store, 1, 3 << 20), Err(Error::TooLarge { .. })));
    assert_eq!(store.count(), 0);
    big_set(&store, 1, 1 << 20).unwrap();
}

#[test]
fn a_full_queue_gives_the_job_back() {
    let mut fixture = Fixture::new();
    fixture.options.queue_jobs = 2;
    let store = fixture.open();
    let (release, gate) = crossbeam_channel::bounded::<()>(0);
    let (done, answers) = crossbeam_channel::unbounded();
    let job = |gate: crossbeam_channel::Receiver<()>| {
        let done = done.clone();
        ReadJob::new(vec![key(1).into()], move |values| {
            let _ = gate.recv();
            done.send(values.is_ok()).unwrap();
        })
    };
    let mut accepted = 0;
    let refused = loop {
        assert!(accepted <= 4, "the queue must fill up");
        match store.try_read(job(gate.clone())) {
            Ok(()) => accepted += 1,
            Err(job) => break job,
        }
        // The one thread takes what it can into its transaction.
        std::thread::yield_now();
    };
    drop(release);
    store.submit_read(refused);
    for _ in 0..=accepted {
        assert!(answers.recv_timeout(DEADLINE).unwrap());
    }
}

#[test]
fn always_answers_after_a_sync_and_for_many_at_once() {
    let mut fixture = Fixture::new();
    fixture.options.sync = SyncMode::Always;
    let store = fixture.open();
    let (done, answers) = crossbeam_channel::unbounded();
    for number in 0..500 {
        let body = body("x");
        let raw = key(number);
        let mut batch = store.batch();
        batch.apply(&Write::Set { key: RecordKey::new(&raw).unwrap(), body: &body });
        let done = done.clone();
        batch.commit(move |result| done.send((std::thread::current().name().map(str::to_owned), result)).unwrap());
    }
    // Who commits answers only what a sync for others had brought to the disk before.
    let own = std::thread::current().name().map(str::to_owned);
    let mut by_log = 0;
    for _ in 0..500 {
        let (thread, result) = answers.recv_timeout(DEADLINE).unwrap();
        result.unwrap();
        by_log += u32::from(thread.as_deref() == Some("store-log"));
        assert!(thread.as_deref() == Some("store-log") || thread == own, "{thread:?}");
    }
    assert!(by_log > 0, "nothing waited for a sync");
    store.crash();
    assert_eq!(fixture.try_open_at(&fixture.image("after")).unwrap().count(), 500);
}

#[test]
fn many_and_few_threads_both_work() {
    for (reads, writes) in [(1, 1), (32, 16)] {
        let mut fixture = Fixture::new();
        fixture.options.read_threads = reads;
        fixture.options.write_threads = writes;
        let store = fixture.open();
        for number in 0..200 {
            delete(&store, &key(number));
        }
        store.close().unwrap();
        let store = fixture.open();
        let keys = (0..200).map(|number| key(number).into()).collect();
        let values = answer(|sender| store.read(keys, move |values| sender.send(values).unwrap())).unwrap();
        assert!(values.iter().all(|value| value.as_ref().is_some_and(|value| value.len() == 8)));
    }
}

#[test]
fn a_long_job_goes_on_while_merges_make_its_reads_stale() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let keys: Vec<_> = (0..512).map(key).collect();
    for number in 0..512 {
        big_set(&store, number, 60_000).unwrap();
    }
    store.close().unwrap();
    let store = fixture.open();
    let writes = keys
        .iter()
        .map(|raw| OwnedWrite::from(&Write::Delete { key: RecordKey::new(raw).unwrap() }))
        .collect::<Vec<_>>();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // As the transactions of a merge do, one after the other.
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                store.inner.core.cache.begin_epoch();
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let (sender, receiver) = std::sync::mpsc::channel();
        store.write(writes, |_, _| (), move |result| sender.send(result).unwrap());
        let answer = receiver.recv_timeout(std::time::Duration::from_secs(10));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(answer, Ok(Ok(())));
    });
}
