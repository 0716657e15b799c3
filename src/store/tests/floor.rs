//! The floor: what was stored before it counts as absent, what is stored after it does not, whatever happens in between.

use super::faulty::FaultyDisk;
use super::fixture::*;
use crate::clock::ClockTime;
use crate::store::at_rest::AtRest;
use crate::store::disk::Step;
use crate::store::{OpenError, Outcome, Position, Store, Write};
use crate::wire::{RecordKey, RecordValue, record};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The format in the header of the database.
fn format(path: &Path) -> u32 {
    u32::from_be_bytes(*std::fs::read(path).unwrap()[60..].first_chunk().unwrap())
}

/// Records of every kind: on disk, in memory, deleted, two with one hash.
fn fill(store: &Store) -> Vec<Vec<u8>> {
    let mut keys: Vec<_> = (0..40).map(key).collect();
    keys.extend([record::raw_key(7, b"one"), record::raw_key(7, b"other")]);
    for (number, raw) in keys.iter().enumerate() {
        set(store, raw, "before");
        if number % 5 == 0 {
            delete(store, raw);
        }
        if number == 20 {
            store.flush().unwrap();
        }
    }
    keys
}

fn assert_absent(store: &Store, keys: &[Vec<u8>]) {
    for raw in keys {
        assert_eq!(read(store, raw), None);
        assert_eq!(get(store, raw), None);
    }
    assert_eq!(scan_all(store, 7).len(), 0);
    assert_eq!((store.count(), store.status().tombstones), (0, 0));
}

#[test]
fn what_was_there_before_a_floor_counts_as_absent() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let keys = fill(&store);
    let floor = store.set_floor().unwrap();
    assert_eq!(store.generation(), floor);
    assert_absent(&store, &keys);
    assert_eq!(store.status().old_records, keys.len() as u64);
    store.close().unwrap();
    let store = fixture.open();
    assert_absent(&store, &keys);
    store.crash();
    let store = fixture.try_open_at(&fixture.image("killed")).unwrap();
    assert_absent(&store, &keys);
    assert_eq!(store.status().old_records, keys.len() as u64);
}

#[test]
fn decisions_on_writes_do_not_see_below_the_floor() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let keys = fill(&store);
    let [swapped, updated, deleted, removed] = [1, 2, 3, 4].map(|number| RecordKey::new(&keys[number]).unwrap());
    let stored = RecordValue::new(&get(&store, removed.bytes()).unwrap()).unwrap().clocktime();
    store.set_floor().unwrap();
    let outcome = write(&store, &Write::Remove { key: removed, clocktime: stored });
    assert_eq!(outcome, Ok(Outcome::Kept));
    let outcome = write(&store, &Write::Cas { key: swapped, body: &body("x"), expected: stored }).unwrap();
    assert_eq!(outcome, Outcome::Mismatch { stored: None });
    let outcome = write(&store, &Write::Cas { key: swapped, body: &body("swapped"), expected: ClockTime(0) }).unwrap();
    assert!(matches!(outcome, Outcome::Stored { .. }));
    // Older than what lies below, by hours.
    let time = ClockTime::new(1_699_990_000, 7);
    let value = record::raw_value(time, 0, b"sent");
    let value = RecordValue::new(&value).unwrap();
    let outcome = write(&store, &Write::Update { key: updated, value, touch: true }).unwrap();
    assert_eq!(outcome, Outcome::Stored { clocktime: time });
    let Ok(Outcome::Deleted { live: false, .. }) = write(&store, &Write::Delete { key: deleted }) else {
        panic!("what lies below the floor was deleted")
    };
    for _ in 0..2 {
        assert_eq!(store.count(), 3);
        assert_eq!(scan_all(&store, 5).len(), 3);
        assert_eq!(data(&store, updated.bytes()).as_deref(), Some("sent"));
        assert_eq!(data(&store, swapped.bytes()).as_deref(), Some("swapped"));
        store.flush().unwrap();
    }
    // The rows of these three have been replaced.
    assert_eq!(store.status().old_records, keys.len() as u64 - 3);
    store.set_floor().unwrap();
    assert_absent(&store, &keys);
    assert_eq!(store.status().old_records, keys.len() as u64);
}

#[test]
fn the_format_says_that_there_is_a_floor_and_a_backup_has_it_too() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let keys = fill(&store);
    store.flush().unwrap();
    assert_eq!(format(&fixture.options.path), 1);
    store.set_floor().unwrap();
    assert_eq!(format(&fixture.options.path), 2);
    set(&store, &keys[6], "after");
    let copy = fixture.path("copy");
    store.backup(&copy).unwrap();
    assert_eq!(format(&copy), 2);
    let at_rest = AtRest::open(&copy).unwrap();
    let mut rows = Vec::new();
    for mut table in at_rest.tables() {
        while let Some(row) = table.next_row().unwrap() {
            rows.push(row);
        }
    }
    let claim = at_rest.claim().unwrap();
    assert_eq!((rows.len() as u64, claim.old), (claim.records, keys.len() as u64 - 1));
    assert_eq!(rows.iter().filter(|row| !row.old).map(|row| &row.key[..]).collect::<Vec<_>>(), [&keys[6][..]]);
    assert_eq!(at_rest.find(&keys[7]).unwrap(), None);
    assert!(at_rest.find(&keys[6]).unwrap().is_some());
    drop(at_rest);
    let copy = fixture.try_open_at(&copy).unwrap();
    assert_eq!(scan_all(&copy, 9).len(), 1);
    store.drop_old().unwrap();
    wait_until("nothing lies below it", || !store.has_floor());
    store.close().unwrap();
    assert_eq!(format(&fixture.options.path), 1);
    let mut bytes = std::fs::read(&fixture.options.path).unwrap();
    bytes[63] = 3;
    std::fs::write(fixture.path("newer"), bytes).unwrap();
    let newer = fixture.try_open_at(&fixture.path("newer"));
    assert!(matches!(newer.err(), Some(OpenError::Newer { found: 3, known: 2, .. })));
}

#[test]
fn what_lies_below_is_deleted_in_steps_that_a_crash_may_interrupt() {
    let mut fixture = Fixture::in_memory();
    let disk = FaultyDisk::new(&fixture.options.path);
    fixture.disk = Arc::new(disk.clone());
    let store = fixture.open();
    for number in 0..5000 {
        set(&store, &key(number), "before");
    }
    fill(&store);
    store.set_floor().unwrap();
    set(&store, &key(3), "after");
    let (inner, mut steps) = (disk.clone(), 0);
    disk.visit(move |step| {
        steps += usize::from(step == Step::OldDeleted);
        if steps == 2 {
            inner.kill();
        }
    });
    store.drop_old().unwrap();
    wait_until("it is killed", || disk.image().is_some());
    store.crash();
    let store = Fixture::in_memory().try_open_at(&disk.image().unwrap()).unwrap();
    let left = store.status().old_records;
    assert!(left > 0 && left < 5001, "{left}");
    wait_until("nothing lies below it", || !store.has_floor());
    assert_eq!((store.status().old_records, store.count()), (0, 1));
    assert_eq!(data(&store, &key(3)).as_deref(), Some("after"));
    assert_eq!(store.scan(Position::default(), 10, 1 << 20).unwrap().rows.len(), 1);
}

/// What is written while a merge is under way is merged with the rest, and stays in the log's new file.
#[test]
fn what_was_below_a_floor_that_has_gone_does_not_come_back_from_the_log() {
    let mut fixture = Fixture::new();
    let disk = FaultyDisk::new(&fixture.options.path);
    fixture.disk = Arc::new(disk.clone());
    let store = fixture.open();
    let raw = key(6);
    set(&store, &raw, "before");
    let (writing, again, mut written) = (store.clone(), raw.clone(), false);
    disk.visit(move |step| {
        if step == Step::MergeCollected && !std::mem::replace(&mut written, true) {
            set(&writing, &again, "again");
        }
    });
    store.flush().unwrap();
    disk.leave();
    assert_eq!((scan_all(&store, 1).len(), data(&store, &raw).as_deref()), (1, Some("again")));
    store.set_floor().unwrap();
    store.drop_old().unwrap();
    wait_until("nothing lies below it", || !store.has_floor());
    assert_eq!(data(&store, &raw), None);
    store.crash();
    let store = fixture.try_open_at(&fixture.image("killed")).unwrap();
    assert_eq!((data(&store, &raw), store.count()), (None, 0));
}

/// A write that was acknowledged before is below, one that was begun after is above.
#[test]
fn writes_beside_a_floor_lie_on_one_side_of_it() {
    let mut fixture = Fixture::in_memory();
    (fixture.options.read_threads, fixture.options.write_threads) = (2, 2);
    let store = fixture.open();
    let [begun, acknowledged] = [(), ()].map(|()| Arc::new(AtomicU64::new(0)));
    let mut floors = Vec::new();
    std::thread::scope(|scope| {
        let (writing, begun_, acknowledged_) = (store.clone(), begun.clone(), acknowledged.clone());
        let writer = scope.spawn(move || {
            for number in 0..20_000 {
                begun_.store(number + 1, Ordering::SeqCst);
                set(&writing, &key(number), "x");
                acknowledged_.store(number + 1, Ordering::SeqCst);
            }
        });
        while !writer.is_finished() {
            let before = acknowledged.load(Ordering::SeqCst);
            store.set_floor().unwrap();
            floors.push((before, begun.load(Ordering::SeqCst)));
            if before > 0 {
                assert_eq!(read(&store, &key(before / 2)), None, "{before}");
            }
        }
    });
    assert!(floors.len() > 3, "{}", floors.len());
    let (before, after) = *floors.last().unwrap();
    // A scan sees what is merged.
    store.flush().unwrap();
    let there = scan_all(&store, 500).len() as u64;
    assert!(there >= 20_000 - after && there <= 20_000 - before, "{there} of {before} {after}");
    for number in (0..before).step_by(97) {
        assert_eq!(read(&store, &key(number)), None, "{number}");
    }
    for number in after..20_000 {
        assert_eq!(data(&store, &key(number)).as_deref(), Some("x"), "{number}");
    }
}

#[test]
fn a_floor_set_while_records_are_deleted_puts_aside_what_is_left() {
    let mut fixture = Fixture::in_memory();
    let disk = FaultyDisk::new(&fixture.options.path);
    fixture.disk = Arc::new(disk.clone());
    let store = fixture.open();
    for number in 0..3000 {
        set(&store, &key(number), "before");
    }
    store.set_floor().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let (inner, mut asked) = (store.clone(), false);
    disk.visit(move |step| {
        if step == Step::OldDeleted && !std::mem::replace(&mut asked, true) {
            let (store, sender) = (inner.clone(), sender.clone());
            std::thread::spawn(move || sender.send(store.set_floor()).unwrap());
            // Until the request waits for this thread.
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    });
    store.drop_old().unwrap();
    receiver.recv_timeout(DEADLINE).unwrap().unwrap();
    disk.leave();
    assert!(store.status().old_records > 0, "it was set in the middle");
    assert_eq!(store.count(), 0);
    store.drop_old().unwrap();
    wait_until("nothing lies below it", || !store.has_floor());
    assert_eq!(store.count(), 0);
}

/// What is decided under a token is decided before the next is there, or not at all.
#[test]
fn a_write_under_an_earlier_fencing_token_is_refused() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let raw = key(1);
    let write = Write::Set { key: RecordKey::new(&raw).unwrap(), body: &body("x") };
    store.set_token(1);
    let mut early = store.batch().fenced(1);
    assert!(matches!(early.apply(&write), crate::store::Applied::Done(_)));
    early.commit(|result| result.unwrap());
    let mut late = store.batch().fenced(1);
    let job = |token: u64| {
        answer(|sender| {
            let writes = vec![crate::store::OwnedWrite::from(&write)];
            let job = crate::store::WriteJob::new(writes, |_, _| (), move |result| sender.send(result).unwrap());
            store.submit_write(job.fenced(token));
        })
    };
    assert_eq!(job(1), Ok(()));
    store.set_token(2);
    assert_eq!(late.apply(&write), crate::store::Applied::Failed(crate::store::Error::Fenced));
    assert_eq!((job(1), job(2)), (Err(crate::store::Error::Fenced), Ok(())));
    // Without a token, always.
    set(&store, &raw, "y");
    assert_eq!(data(&store, &raw).as_deref(), Some("y"));
}
