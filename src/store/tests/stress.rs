//! Everything at once, and a model that knows what was acknowledged: many threads write few and many keys, some of them
//! with one hash, in all ways, while records are merged, evicted, read, scanned, backed up and swept; then the store is
//! closed or killed, opened again, and compared.
//!
//! `KUMO_STRESS_SECONDS` sets how long, `KUMO_STRESS_SEED` the first round's seed.

use super::faulty::Dice;
use super::fixture::*;
use crate::clock::ClockTime;
use crate::store::{Applied, Outcome, OwnedWrite, Store, SyncMode, Write};
use crate::wire::{RecordKey, RecordValue, record};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const KEYS: u64 = 20_000;
const WRITERS: u64 = 4;
const ROUND: Duration = Duration::from_millis(700);

/// The acknowledged writes of one key.
#[derive(Debug, Default, Clone)]
struct Known {
    /// The latest record, by its clocktime: the test's clock only goes forward, so they are in the order of writing.
    value: Vec<u8>,
    removed: BTreeSet<u64>,
    /// Clocktimes that a `Cas` has matched.
    swapped: BTreeSet<u64>,
}

impl Known {
    fn time(&self) -> u64 {
        time_of(&self.value)
    }

    /// Whether a record must be there.
    fn must_exist(&self) -> bool {
        self.value.len() > 8 && !self.removed.contains(&self.time())
    }
}

fn time_of(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

type Model = Vec<Mutex<Known>>;

/// A few keys are hot, some share a hash, and of some records are removed.
fn stress_key(number: u64) -> Vec<u8> {
    if number % 50 == 7 { record::raw_key(number % 3, &number.to_be_bytes()) } else { key(number) }
}

fn is_removed_at_times(number: u64) -> bool {
    number.is_multiple_of(3)
}

fn pick(dice: &mut Dice) -> u64 {
    if dice.roll(3) == 0 { dice.roll(12) } else { dice.roll(KEYS) }
}

fn some_body(dice: &mut Dice) -> Vec<u8> {
    let len = if dice.roll(400) == 0 { 100_000 } else { dice.roll(300) };
    let mut body = vec![0, 0];
    body.extend_from_slice(&dice.0.to_le_bytes());
    body.resize(10 + usize::try_from(len).unwrap(), b'v');
    body
}

/// A write, and the bytes it would store behind the clocktime.
fn some_write(store: &Store, dice: &mut Dice) -> (u64, OwnedWrite, Vec<u8>, Option<u64>) {
    let number = pick(dice);
    let (raw, body) = (stress_key(number), some_body(dice));
    let key = RecordKey::new(&raw).unwrap();
    let known = || get(store, &raw).filter(|value| value.len() > 8).map_or(0, |value| time_of(&value));
    match dice.roll(10) {
        0 | 1 => {
            let expected = known();
            let write = Write::Cas { key, body: &body, expected: ClockTime(expected) };
            (number, OwnedWrite::from(&write), body, Some(expected))
        }
        2 => (number, OwnedWrite::from(&Write::Delete { key }), Vec::new(), None),
        3 | 4 if is_removed_at_times(number) => {
            let clocktime = ClockTime(get(store, &raw).map_or(1, |value| time_of(&value)));
            (number, OwnedWrite::from(&Write::Remove { key, clocktime }), Vec::new(), Some(clocktime.0))
        }
        3..=5 if !is_removed_at_times(number) => {
            let stamp = store.inner.core.clock.stamp();
            let back = u32::try_from(dice.roll(300)).unwrap();
            let time = ClockTime::new(stamp.seconds(), stamp.clock().saturating_sub(back));
            let value = [&time.0.to_be_bytes()[..], if back == 7 { &[] } else { &body }].concat();
            let touch = dice.roll(2) == 0;
            let write = Write::Update { key, value: RecordValue::new(&value).unwrap(), touch };
            (number, OwnedWrite::from(&write), value[8..].to_vec(), None)
        }
        _ => (number, OwnedWrite::from(&Write::Set { key, body: &body }), body, None),
    }
}

/// Enters what was acknowledged.
fn enter(model: &Model, number: u64, outcome: Outcome, body: &[u8], condition: Option<u64>) {
    let mut known = model[usize::try_from(number).unwrap()].lock();
    let stored = match outcome {
        Outcome::Stored { clocktime } => {
            if let Some(expected) = condition.filter(|&expected| expected != 0) {
                assert!(known.swapped.insert(expected), "key {number}: two swaps of {expected}");
            }
            [&clocktime.0.to_be_bytes()[..], body].concat()
        }
        Outcome::Deleted { clocktime, .. } => clocktime.0.to_be_bytes().to_vec(),
        Outcome::Removed => {
            known.removed.insert(condition.unwrap());
            return;
        }
        Outcome::Mismatch { .. } | Outcome::Ignored { .. } | Outcome::Kept => return,
    };
    if time_of(&stored) > known.time() {
        known.value = stored;
    }
}

fn writer(store: &Store, model: &Model, mut dice: Dice, until: Instant) {
    while Instant::now() < until {
        let writes: Vec<_> = (0..=dice.roll(16)).map(|_| some_write(store, &mut dice)).collect();
        let mut batch = store.batch();
        let (mut decided, mut later) = (Vec::new(), Vec::new());
        for (index, (_, write, ..)) in writes.iter().enumerate() {
            match batch.apply(&write.borrow().unwrap()) {
                Applied::Done(outcome) => decided.push((index, outcome)),
                Applied::Later => later.push(index),
                Applied::Failed(error) => panic!("{error}"),
            }
        }
        // Some leave their writes to the next commit, which is then another's.
        answer(|sender| batch.commit(move |result| sender.send(result).unwrap())).unwrap();
        if !later.is_empty() {
            let job = later.iter().map(|&index| writes[index].1.clone()).collect();
            let outcomes = Arc::new(Mutex::new(Vec::new()));
            let heard = outcomes.clone();
            answer(|sender| {
                store.write(
                    job,
                    move |index, outcome| heard.lock().push((index, outcome)),
                    move |result| sender.send(result).unwrap(),
                );
            })
            .unwrap();
            decided.extend(outcomes.lock().iter().map(|&(index, outcome)| (later[index], outcome)));
        }
        assert_eq!(decided.len(), writes.len());
        for (index, outcome) in decided {
            let (number, _, body, condition) = &writes[index];
            enter(model, *number, outcome, body, *condition);
        }
    }
}

/// The least that must be there, of keys whose records are never removed.
fn floor(model: &Model) -> BTreeMap<Vec<u8>, u64> {
    (0..KEYS)
        .filter(|&number| !is_removed_at_times(number))
        .filter_map(|number| {
            let known = model[usize::try_from(number).unwrap()].lock();
            known.must_exist().then(|| (stress_key(number), known.time()))
        })
        .collect()
}

fn holds(what: &str, floor: &BTreeMap<Vec<u8>, u64>, found: impl Fn(&[u8]) -> Option<u64>, swept: bool) {
    for (raw, time) in floor {
        match found(raw) {
            Some(found) => assert!(found >= *time, "{what}: {raw:?} is {found}, acknowledged was {time}"),
            None => assert!(swept, "{what}: {raw:?} is missing, acknowledged was {time}"),
        }
    }
}

fn reader(store: &Store, model: &Model, mut dice: Dice, until: Instant) {
    while Instant::now() < until {
        let number = pick(&mut dice);
        let known = model[usize::try_from(number).unwrap()].lock().clone();
        let found = get(store, &stress_key(number));
        if known.must_exist() && !is_removed_at_times(number) {
            // A tombstone written since may have been swept, but is not within one round.
            let found = found.map_or(0, |value| time_of(&value));
            assert!(found >= known.time(), "key {number}: read {found}, acknowledged was {}", known.time());
        }
    }
}

/// After all writers have ended: exactly what was acknowledged last is there.
fn compare(what: &str, store: &Store, model: &Model) {
    store.flush().unwrap();
    // Only the sweeper is at work.
    let before = store.count();
    let scanned: BTreeMap<_, _> = scan_all(store, 700).into_iter().map(|row| (row.key.to_vec(), row.value)).collect();
    let after = store.count();
    let there = scanned.len() as u64;
    assert!(after <= there && there <= before, "{what}: {there} scanned, counted {before} before and {after} after");
    for number in 0..KEYS {
        let (raw, known) = (stress_key(number), model[usize::try_from(number).unwrap()].lock().clone());
        for (how, found) in [("read", get(store, &raw)), ("scanned", scanned.get(&raw).cloned())] {
            if known.must_exist() {
                assert!(
                    found.as_ref() == Some(&known.value),
                    "{what}: key {number} {how}: {:?}, acknowledged {}",
                    found.map(|value| (time_of(&value), value.len())),
                    known.time()
                );
            } else if let Some(found) = found {
                assert!(
                    found == known.value && found.len() == 8 && !known.removed.contains(&known.time()),
                    "{what}: {number}"
                );
            }
        }
    }
}

fn round(fixture: &mut Fixture, model: &Model, seed: u64) {
    let mut dice = Dice(seed);
    fixture.options.sync = [SyncMode::Everysec, SyncMode::Always, SyncMode::Os][usize::try_from(dice.roll(3)).unwrap()];
    fixture.options.redo_bytes = 1 << (20 + dice.roll(3));
    fixture.options.write_threads = 1 + usize::try_from(dice.roll(3)).unwrap();
    fixture.now.fetch_add(u32::try_from(dice.roll(4)).unwrap(), Ordering::Relaxed);
    let store = fixture.open();
    compare("opened", &store, model);
    let until = Instant::now() + ROUND;
    let stop = AtomicBool::new(false);
    let copy = fixture.path(&format!("copy-{seed}"));
    std::thread::scope(|scope| {
        let (store, stop, copy) = (&store, &stop, &copy);
        let mut workers: Vec<_> = (0..WRITERS)
            .map(|number| scope.spawn(move || writer(store, model, Dice(seed * 100 + number), until)))
            .collect();
        workers.push(scope.spawn(move || reader(store, model, Dice(seed * 100 + 50), until)));
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let floor = floor(model);
                store.flush().unwrap();
                let rows = scan_all(store, 300);
                let found: BTreeMap<_, _> = rows.iter().map(|row| (&row.key[..], time_of(&row.value))).collect();
                assert_eq!(rows.len(), found.len(), "each once");
                holds("scan", &floor, |raw| found.get(raw).copied(), false);
            }
        });
        if dice.roll(2) == 0 {
            let floor = floor(model);
            store.backup(copy).unwrap();
            let copy = Fixture { now: fixture.now.clone(), ..Fixture::in_memory() }.try_open_at(copy).unwrap();
            holds("backup", &floor, |raw| get(&copy, raw).map(|value| time_of(&value)), false);
            copy.close().unwrap();
        }
        for worker in workers {
            worker.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let end = dice.roll(4);
    if end > 0 {
        store.flush().unwrap();
        // The sweeper may write once more at any time.
        wait_until("all is merged", || {
            store.flush().unwrap();
            let status = store.status();
            status.dirty == 0 && status.dirty_bytes == 0 && status.unresolved == 0
        });
        compare("merged", &store, model);
    }
    if end < 2 {
        store.crash();
        let image = fixture.image(&format!("image-{seed}"));
        let old = std::mem::replace(&mut fixture.options.path, image);
        if let Some(directory) = old.parent().filter(|directory| *directory != fixture.directory.path()) {
            std::fs::remove_dir_all(directory).unwrap();
        }
    } else {
        store.close().unwrap();
    }
    let _ = std::fs::remove_file(copy);
}

#[test]
fn what_is_acknowledged_is_kept_while_everything_goes_on_at_once() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let until = Instant::now() + Duration::from_secs(number("KUMO_STRESS_SECONDS", 6));
    let mut seed = number("KUMO_STRESS_SEED", 1);
    let mut fixture = Fixture::in_memory();
    fixture.options.cache_bytes = 4 << 20;
    fixture.options.wal_bytes = 1 << 20;
    fixture.options.read_threads = 2;
    fixture.options.sweep.min_age = Duration::from_secs(1);
    fixture.options.sweep.max_age = Duration::from_secs(3);
    let model: Model = (0..KEYS).map(|_| Mutex::default()).collect();
    while Instant::now() < until {
        eprintln!("round with KUMO_STRESS_SEED={seed}");
        round(&mut fixture, &model, seed);
        seed += 1;
    }
}
