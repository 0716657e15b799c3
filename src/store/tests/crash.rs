//! Random work that is cut short at any operation on the disk, or meets failures: nothing acknowledged is lost, nothing
//! deleted comes back, and nothing is there that nobody wrote.
//!
//! `KUMO_CRASH_RUNS` sets the number of runs, `KUMO_CRASH_SEED` the first seed.

use super::faulty::{Dice, Fault, FaultyDisk};
use super::fixture::*;
use crate::clock::ClockTime;
use crate::store::disk::Step;
use crate::store::{Applied, Error, Outcome, Store, SyncMode, Write};
use crate::wire::{RecordKey, RecordValue};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const KEYS: u64 = 12;
/// Stands for all keys: a floor makes everything absent.
const ALL: u64 = u64::MAX;

/// Live data by key number; absent and deleted are the same here.
type View = BTreeMap<u64, String>;

/// Everything that was written, in order, and how much of it was acknowledged.
#[derive(Debug, Default)]
struct History {
    /// Key number, what it became, and whether that was acknowledged.
    writes: Vec<(u64, Option<String>, bool)>,
    /// All writes before this one are durable by a flush.
    flushed: usize,
}

impl History {
    fn after(&self, count: usize) -> View {
        let mut view = View::new();
        for (key, data, _) in &self.writes[..count] {
            match data {
                None if *key == ALL => view.clear(),
                Some(data) => drop(view.insert(*key, data.clone())),
                None => drop(view.remove(key)),
            }
        }
        view
    }

    /// The values a key may have: the one acknowledged last, and what was tried after that.
    fn may_hold(&self, key: u64) -> Vec<Option<&str>> {
        let mut allowed = vec![None];
        for (_, data, acknowledged) in self.writes.iter().filter(|(written, ..)| [key, ALL].contains(written)) {
            if *acknowledged {
                allowed.clear();
            }
            allowed.push(data.as_deref());
        }
        allowed
    }
}

type Shared = Arc<Mutex<History>>;

fn view(store: &Store) -> View {
    (0..KEYS).filter_map(|number| data(store, &crash_key(number)).map(|data| (number, data))).collect()
}

/// Two of the keys share a hash.
fn crash_key(number: u64) -> Vec<u8> {
    if number < 2 { crate::wire::record::raw_key(77, &[u8::try_from(number).unwrap()]) } else { key(number) }
}

/// One random write; true if it was acknowledged. Never waits for the pool if `inline`.
fn random_write(store: &Store, history: &Shared, dice: &mut Dice, inline: bool) -> Result<(), Error> {
    let number = dice.roll(KEYS);
    let raw = crash_key(number);
    let key = RecordKey::new(&raw).unwrap();
    let stamp = history.lock().writes.len();
    let data = format!("{stamp}:{}", "x".repeat(usize::try_from(dice.roll(60)).unwrap()));
    let body = body(&data);
    let value;
    let (operation, becomes) = match dice.roll(8) {
        0 | 1 => (Write::Delete { key }, None),
        2 if !inline => {
            let stored = get(store, &raw).and_then(|value| {
                let value = RecordValue::new(&value).ok()?;
                (!value.is_tombstone()).then(|| value.clocktime())
            });
            (Write::Cas { key, body: &body, expected: stored.unwrap_or(ClockTime(0)) }, Some(data))
        }
        3 => {
            let time = ClockTime::new(1_700_000_000, 5_000 + u32::try_from(stamp).unwrap() * 64);
            value = crate::wire::record::raw_value(time, 0, data.as_bytes());
            (Write::Update { key, value: RecordValue::new(&value).unwrap(), touch: false }, Some(data))
        }
        _ => (Write::Set { key, body: &body }, Some(data)),
    };
    let place = history.lock().writes.len();
    // Entered before it is tried: a kill in the middle may or may not leave it.
    history.lock().writes.push((number, becomes, false));
    let result = if inline {
        let mut batch = store.batch();
        match batch.apply(&operation) {
            Applied::Done(outcome) => {
                let (sender, receiver) = std::sync::mpsc::channel();
                batch.commit(move |result| sender.send(result).unwrap());
                receiver.recv_timeout(DEADLINE).unwrap().map(|()| outcome)
            }
            Applied::Later => {
                history.lock().writes.truncate(place);
                return Ok(());
            }
            Applied::Failed(error) => Err(error),
        }
    } else {
        write(store, &operation)
    };
    match result {
        Ok(Outcome::Ignored { .. }) => drop(history.lock().writes.remove(place)),
        Ok(Outcome::Mismatch { .. }) => panic!("nobody else writes"),
        Ok(_) => history.lock().writes[place].2 = true,
        Err(error) => return Err(error),
    }
    Ok(())
}

fn set_floor(store: &Store, history: &Shared) -> Result<(), Error> {
    let place = history.lock().writes.len();
    history.lock().writes.push((ALL, None, false));
    store.set_floor()?;
    let mut history = history.lock();
    history.writes[place].2 = true;
    history.flushed = place + 1;
    Ok(())
}

/// Random work until it is over or the disk says no. True if it came to its end.
fn work(store: &Store, fixture: &Fixture, disk: &FaultyDisk, history: &Shared, dice: &mut Dice, steps: u64) -> bool {
    // One write at a time, from its entry in the history to its outcome: the history's order must be the store's. False
    // when the work is over.
    let writing = Arc::new(Mutex::new(true));
    // Writes in the midst of merges, between any two of their steps. A merge that the store has begun by itself may come
    // here in the midst of a write, which may wait for that merge: it must not wait in turn.
    let (inner_store, inner_history, mut inner_dice) = (store.clone(), history.clone(), dice.clone());
    let inner_writing = writing.clone();
    disk.visit(move |_| {
        let free = inner_writing.try_lock().filter(|goes_on| **goes_on);
        if free.is_some() && inner_dice.roll(2) == 0 {
            let _ = random_write(&inner_store, &inner_history, &mut inner_dice, true);
        }
    });
    let mut ended = true;
    for _ in 0..steps {
        let result = match dice.roll(16) {
            0 | 1 => {
                let before = history.lock().writes.len();
                store.flush().map(|()| {
                    let mut history = history.lock();
                    history.flushed = history.flushed.max(before);
                })
            }
            2 => {
                fixture.now.fetch_add(u32::try_from(dice.roll(4)).unwrap(), Ordering::Relaxed);
                Ok(())
            }
            3 if dice.roll(4) == 0 => store.backup(&fixture.path("backup")),
            4 if dice.roll(4) == 0 => {
                let _one_at_a_time = writing.lock();
                set_floor(store, history)
            }
            5 if dice.roll(4) == 0 => store.drop_old(),
            _ => {
                let _one_at_a_time = writing.lock();
                random_write(store, history, dice, false)
            }
        };
        if result.is_err() {
            ended = false;
            break;
        }
    }
    *writing.lock() = false;
    disk.leave();
    ended
}

fn runs() -> (u64, std::ops::Range<u64>) {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (count, seed) = (number("KUMO_CRASH_RUNS", 100), number("KUMO_CRASH_SEED", 1));
    (count, seed..seed + count)
}

fn fixture(sync: SyncMode) -> (Fixture, FaultyDisk) {
    let mut fixture = Fixture::in_memory();
    fixture.options.sync = sync;
    fixture.options.sweep.max_age = std::time::Duration::from_secs(2);
    let disk = FaultyDisk::new(&fixture.options.path);
    fixture.disk = Arc::new(disk.clone());
    (fixture, disk)
}

/// The same place with a disk that works, and without the sweeper: what is there is counted.
fn healthy(mut fixture: Fixture) -> Fixture {
    fixture.disk = Arc::new(crate::store::disk::RealDisk);
    fixture.options.sweep = crate::store::SweepPolicy::default();
    fixture
}

fn mode(seed: u64) -> SyncMode {
    [SyncMode::Always, SyncMode::Everysec, SyncMode::Os][usize::try_from(seed % 3).unwrap()]
}

#[test]
fn killed_at_any_operation_nothing_acknowledged_is_lost() {
    let (_, seeds) = runs();
    let mut kills = 0;
    for seed in seeds {
        let mut dice = Dice(seed);
        let (fixture, disk) = fixture(mode(seed));
        let store = fixture.open();
        let history = Shared::default();
        disk.plan(1 + dice.roll(150), Fault::Kill(usize::try_from(dice.roll(1001)).unwrap()));
        work(&store, &fixture, &disk, &history, &mut dice, 100);
        disk.kill();
        kills += 1;
        store.crash();
        let image = disk.image().unwrap();
        let healthy = healthy(fixture);
        for round in 0..2 {
            let store = healthy.try_open_at(&image).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let view = view(&store);
            let history = history.lock();
            for number in 0..KEYS {
                let (found, allowed) = (view.get(&number).map(String::as_str), history.may_hold(number));
                assert!(
                    allowed.contains(&found),
                    "seed {seed} round {round}: key {number}: {found:?}, not of {allowed:?}"
                );
            }
            store.flush().unwrap();
            assert_eq!(store.status().unresolved, 0);
            assert_eq!(store.count(), scan_all(&store, 5).len() as u64, "seed {seed}");
            store.close().unwrap();
        }
    }
    assert!(kills > 0);
}

#[test]
fn a_loss_of_power_leaves_a_prefix_and_with_always_everything_acknowledged() {
    let (_, seeds) = runs();
    let mut shortened = 0;
    for seed in seeds {
        let mut dice = Dice(seed);
        let (fixture, disk) = fixture(mode(seed));
        let store = fixture.open();
        disk.tree_is_durable();
        let history = Shared::default();
        disk.plan(1 + dice.roll(200), Fault::Kill(usize::try_from(dice.roll(1001)).unwrap()));
        work(&store, &fixture, &disk, &history, &mut dice, 100);
        disk.kill();
        store.crash();
        for round in 0..3 {
            let image = disk.power_loss(&fixture.path(&format!("dark-{round}")), &mut dice);
            let healthy = Fixture { disk: Arc::new(crate::store::disk::RealDisk), ..Fixture::in_memory() };
            let store = healthy.try_open_at(&image).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let found = view(&store);
            let history = history.lock();
            let least = if fixture.options.sync == SyncMode::Always {
                history.writes.iter().rposition(|(.., acknowledged)| *acknowledged).map_or(0, |last| last + 1)
            } else {
                history.flushed
            };
            let total = history.writes.len();
            let fits = (least..=total).rev().find(|&count| history.after(count) == found);
            assert!(
                fits.is_some(),
                "seed {seed} round {round}: {found:?} is none of the last {} states",
                total - least
            );
            shortened += u64::from(fits < Some(total));
            store.crash();
        }
    }
    assert!(shortened > 0, "power was lost too gently to prove anything");
}

#[test]
fn failures_are_sticky_and_pass_without_loss() {
    let (_, seeds) = runs();
    let mut failures = 0;
    for seed in seeds {
        let mut dice = Dice(seed);
        let (fixture, disk) = fixture(mode(seed));
        let store = fixture.open();
        let history = Shared::default();
        disk.plan(1 + dice.roll(100), Fault::Fail(dice.roll(6)));
        for _ in 0..4 {
            work(&store, &fixture, &disk, &history, &mut dice, 40);
            if dice.roll(2) == 0 {
                wait_until("the failure passes", || store.status().failed.is_none());
            }
        }
        disk.heal();
        // Space is back; the store finds out by itself.
        wait_until(&format!("writes are accepted again (seed {seed}: {:?})", store.status().failed), || {
            store.status().failed.is_none()
        });
        failures += disk.failed();
        assert!(work(&store, &fixture, &disk, &history, &mut dice, 20), "seed {seed}: {:?}", store.status().failed);
        let check = |store: &Store, when: &str| {
            let (view, history) = (view(store), history.lock());
            for number in 0..KEYS {
                let (found, allowed) = (view.get(&number).map(String::as_str), history.may_hold(number));
                assert!(allowed.contains(&found), "seed {seed} {when}: key {number}: {found:?}, not of {allowed:?}");
            }
        };
        check(&store, "running");
        if fixture.options.sync != SyncMode::Always {
            store.flush().unwrap();
        }
        let dark = disk.power_loss(&fixture.path("dark"), &mut dice);
        check(&fixture.try_open_at(&dark).unwrap(), "after a loss of power");
        disk.kill();
        store.crash();
        let healthy = healthy(fixture);
        let store = healthy.try_open_at(&disk.image().unwrap()).unwrap();
        check(&store, "after a kill");
        store.flush().unwrap();
        check(&store, "merged");
        assert_eq!(store.count(), scan_all(&store, 5).len() as u64, "seed {seed}");
    }
    assert!(failures > 0);
}

#[test]
fn power_lost_before_the_first_sync_and_a_kill_after_it_do_not_keep_the_store_shut() {
    let fixture = Fixture::new();
    fixture.open().crash();
    // The name of the redo log's file had reached the disk, and nothing of what was in it.
    let first = fixture.image("dark");
    std::fs::write(crate::store::paths::side_path(&first, ".redo.1"), []).unwrap();
    let store = fixture.try_open_at(&first).unwrap();
    set(&store, &key(1), "kept");
    store.crash();
    let store = fixture.try_open_at(&first).unwrap();
    assert_eq!(data(&store, &key(1)).as_deref(), Some("kept"));
}

/// The answer for a record whose newest state another one has written, and not committed, while a merge takes it along.
fn answer_to_a_write_in_a_merge(sync: SyncMode) -> (Fixture, FaultyDisk, bool) {
    let (fixture, disk) = fixture(sync);
    let store = fixture.open();
    disk.tree_is_durable();
    let raw = crate::wire::record::raw_key(1 << 63, b"merged first");
    let first = set(&store, &raw, "first");
    for number in 0..1500 {
        let raw = key(number);
        let batch = &mut store.batch();
        batch.apply(&Write::Set { key: RecordKey::new(&raw).unwrap(), body: b"\0\0x" });
    }
    set(&store, &key(0), "x");
    let time = ClockTime::new(first.seconds(), first.clock() + 100_000);
    let value = crate::wire::record::raw_value(time, 0, b"second");
    let answer = Arc::new(Mutex::new(None));
    let (inner, inner_disk, inner_answer) = (store.clone(), disk.clone(), answer.clone());
    let mut commits = 0;
    disk.visit(move |step| {
        let write = Write::Update {
            key: RecordKey::new(&raw).unwrap(),
            value: RecordValue::new(&value).unwrap(),
            touch: false,
        };
        let mut batch = inner.batch();
        commits += usize::from(step == Step::MergeCommit);
        if step == Step::MergeCollected && commits == 0 {
            assert!(matches!(batch.apply(&write), Applied::Done(Outcome::Stored { .. })));
        } else if step == Step::MergeCommit && commits == 2 {
            // The transaction with the record in it is over.
            assert!(matches!(batch.apply(&write), Applied::Done(Outcome::Ignored { .. })));
            let answer = inner_answer.clone();
            batch.commit(move |result| *answer.lock() = Some(result));
            inner_disk.kill();
        }
    });
    let _ = store.flush();
    let answer = answer.lock().take() == Some(Ok(()));
    store.crash();
    (fixture, disk, answer)
}

fn data_at(path: &std::path::Path) -> Option<String> {
    let store = Fixture::in_memory().try_open_at(path).unwrap();
    data(&store, &crate::wire::record::raw_key(1 << 63, b"merged first"))
}

#[test]
fn an_answer_that_rests_on_another_write_comes_after_that_is_safe() {
    let (_bed, disk, answer) = answer_to_a_write_in_a_merge(SyncMode::Everysec);
    assert!(answer);
    assert_eq!(data_at(&disk.image().unwrap()).as_deref(), Some("second"), "after a kill");
    for seed in 0..8 {
        let (fixture, disk, answer) = answer_to_a_write_in_a_merge(SyncMode::Always);
        let dark = disk.power_loss(&fixture.path("dark"), &mut Dice(seed));
        assert!(!answer || data_at(&dark).as_deref() == Some("second"), "without power");
    }
}

#[test]
fn a_merge_cut_short_by_a_loss_of_power_leaves_a_prefix() {
    for seed in 0..8 {
        let (fixture, disk) = fixture(SyncMode::Os);
        let store = fixture.open();
        disk.tree_is_durable();
        let numbers: Vec<u64> = (0..1500).collect();
        for &number in &numbers {
            // The tree's order is the opposite of the order in time.
            let raw = crate::wire::record::raw_key(numbers.len() as u64 - number, b"k");
            set(&store, &raw, "x");
        }
        let (inner, mut commits) = (disk.clone(), 0);
        disk.visit(move |step| {
            commits += usize::from(step == Step::MergeCommit);
            if commits == 2 {
                // The kernel has written the tree's files, and who knows what of the log.
                inner.tree_is_durable();
                inner.kill();
            }
        });
        let _ = store.flush();
        store.crash();
        let dark = disk.power_loss(&fixture.path("dark"), &mut Dice(seed));
        let store = Fixture::in_memory().try_open_at(&dark).unwrap();
        let there = |number: &&u64| get(&store, &crate::wire::record::raw_key(1500 - **number, b"k")).is_some();
        let (count, last) = (numbers.iter().filter(there).count(), numbers.iter().rposition(|number| there(&number)));
        assert_eq!(count, last.map_or(0, |last| last + 1), "seed {seed}: something is missing before the last one");
    }
}

#[test]
fn what_a_killed_process_had_not_synced_is_synced_before_an_answer_rests_on_it() {
    for seed in 0..8 {
        let (fixture, disk) = fixture(SyncMode::Always);
        let raw = crate::wire::record::raw_key(1 << 63, b"merged first");
        let value = crate::wire::record::raw_value(ClockTime::new(1_700_000_000, 9000), 0, b"second");
        let write = Write::Update {
            key: RecordKey::new(&raw).unwrap(),
            value: RecordValue::new(&value).unwrap(),
            touch: false,
        };
        let store = fixture.open();
        disk.tree_is_durable();
        assert!(matches!(store.batch().apply(&write), Applied::Done(_)));
        store.inner.core.redo.write_all().unwrap();
        store.crash();
        let store = fixture.open();
        let outcome = super::fixture::write(&store, &write).unwrap();
        assert!(matches!(outcome, Outcome::Ignored { .. }));
        disk.kill();
        store.crash();
        let dark = disk.power_loss(&fixture.path("dark"), &mut Dice(seed));
        assert_eq!(data_at(&dark).as_deref(), Some("second"), "seed {seed}");
    }
}

/// One key is undecided for as long as it is told to.
struct OneKey(std::sync::atomic::AtomicBool, Vec<u8>);

impl crate::store::Undecided for OneKey {
    fn is_undecided(&self, key: &[u8]) -> bool {
        key == self.1 && self.0.load(Ordering::Relaxed)
    }

    fn left(&self) -> Vec<Box<[u8]>> {
        Vec::new()
    }
}

#[test]
fn what_is_undecided_is_found_after_a_restart_though_it_was_merged() {
    for kill in [true, false] {
        let fixture = Fixture::new();
        let owner = Arc::new(OneKey(true.into(), key(1)));
        let store = fixture.open();
        store.keep_undecided(owner.clone()).unwrap();
        for number in 0..3 {
            set(&store, &key(number), "x");
        }
        store.flush().unwrap();
        if kill {
            store.crash();
        } else {
            store.close().unwrap();
        }
        drop(store);
        let store = fixture.open();
        assert_eq!(store.take_recovered(), [Box::from(key(1))], "kill: {kill}");
        store.keep_undecided(owner.clone()).unwrap();
        owner.0.store(false, Ordering::Relaxed);
        set(&store, &key(4), "x");
        store.close().unwrap();
        drop(store);
        assert_eq!(fixture.open().take_recovered(), Vec::<Box<[u8]>>::new());
    }
}
