//! Random work on a store, printed line by line on stdout: what the tests of crash points kill, starve and compare.
//!
//! Arguments: the folder, a seed, and then any of `steps=N`, `sync=MODE`, `now=SECONDS`, `large`, `heal=FILE` (removed
//! half-way; from then on everything must work), `look` (only prints what is there), `end=kill`. It knows nothing of faults: they come from
//! below. The lines are those of `crash_points::history`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on must stop, also in helpers, which clippy's exception for tests does not cover"
)]

use fastrand::Rng;
use kumo_server::clock::{Clock, ClockTime};
use kumo_server::store::{Applied, Error, Options, Outcome, OwnedWrite, Position, Store, SweepPolicy, SyncMode, Write};
use kumo_server::wire::{RecordKey, RecordValue, record};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Keys in use; every fourth shares a hash with the others of its kind.
const KEYS: u64 = 16;
/// Longest time that anything may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Batches that wait for their commit at once.
const UNDER_WAY: usize = 3;

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever listens has gone: then nobody misses the line.
    let _ = writeln!(out, "{line}");
}

/// Ends the process: the tests fail with `what`.
fn problem(what: &str) -> ! {
    say(&format!("problem {what}"));
    std::process::exit(1);
}

fn key_of(number: u64) -> Vec<u8> {
    let hash = if number.is_multiple_of(4) { 77 } else { number.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
    record::raw_key(hash, format!("key-{number}").as_bytes())
}

/// A value that names the try which wrote it, and can be checked as a whole.
fn data_of(name: &str, length: usize) -> Vec<u8> {
    format!("{name}:{length}:{}", "x".repeat(length)).into_bytes()
}

/// The name of the try that wrote a raw value; `-` if there is none, or a tombstone.
fn name_of(value: Option<RecordValue<'_>>) -> String {
    let Some(value) = value.filter(|value| !value.is_tombstone()) else { return "-".to_owned() };
    let text = String::from_utf8_lossy(value.data());
    let mut parts = text.splitn(3, ':');
    let (name, length, filling) = (parts.next(), parts.next(), parts.next());
    match (name, length.and_then(|length| length.parse::<usize>().ok()), filling) {
        (Some(name), Some(length), Some(filling)) if filling.len() == length => name.to_owned(),
        _ => problem(&format!("a torn value of {} bytes", value.data().len())),
    }
}

struct Worker {
    store: Store,
    rng: Rng,
    seed: u64,
    seconds: Arc<AtomicU32>,
    /// Number of the next try.
    tries: u64,
    /// All tries below are decided.
    decided: Arc<AtomicU64>,
    large: bool,
    under_way: Vec<Receiver<()>>,
    /// Faults are over: everything must work.
    must_work: Arc<AtomicBool>,
}

/// A write of this worker, with what must live as long as it.
struct Try {
    number: u64,
    write: OwnedWrite,
}

impl Worker {
    fn read(&self, key: u64) -> (String, ClockTime) {
        let raw = key_of(key);
        let see = |value: Option<RecordValue<'_>>| {
            let live = value.filter(|value| !value.is_tombstone()).map_or(ClockTime(0), |value| value.clocktime());
            (name_of(value), live)
        };
        if let Some(seen) = self.store.peek(RecordKey::new(&raw).unwrap(), see) {
            return seen;
        }
        let (sender, receiver) = channel();
        self.store.read(vec![raw.into()], move |values| drop(sender.send(values)));
        match receiver.recv_timeout(PATIENCE).expect("an answer to a read") {
            Ok(values) => see(values[0].as_deref().and_then(|value| RecordValue::new(value).ok())),
            Err(error) => problem(&format!("reading failed: {error}")),
        }
    }

    /// Up to `most` tries, of different keys: what a swap expects is read before the others are tried.
    fn some_tries(&mut self, most: usize) -> Vec<Try> {
        let count = self.rng.usize(1..=most);
        let keys = self.rng.choose_multiple(0..KEYS, count);
        keys.into_iter().map(|key| self.some_try(key)).collect()
    }

    fn some_try(&mut self, key: u64) -> Try {
        let number = self.tries;
        self.tries += 1;
        let raw = key_of(key);
        let record_key = RecordKey::new(&raw).unwrap();
        let length = if self.large { self.rng.usize(..60_000) } else { self.rng.usize(..60) };
        let name = format!("{}.{number}", self.seed);
        let data = data_of(&name, length);
        let body = [&[0, 0][..], &data].concat();
        let value;
        let (write, becomes) = match self.rng.u8(..10) {
            0..=2 => (Write::Delete { key: record_key }, "-"),
            3 | 4 => {
                // What waits for its commit may be of this key.
                self.settle();
                (Write::Cas { key: record_key, body: &body, expected: self.read(key).1 }, &name[..])
            }
            5 | 6 => {
                let clock = (1 << 20) + u32::try_from(number).unwrap() * 64;
                let time = ClockTime::new(self.seconds.load(Ordering::Relaxed), clock);
                value = record::raw_value(time, 0, &data);
                let value = RecordValue::new(&value).unwrap();
                (Write::Update { key: record_key, value, touch: self.rng.bool() }, &name[..])
            }
            _ => (Write::Set { key: record_key, body: &body }, &name[..]),
        };
        say(&format!("try {number} {key} {becomes}"));
        Try { number, write: OwnedWrite::from(&write) }
    }

    fn settle(&mut self) {
        for receiver in std::mem::take(&mut self.under_way) {
            receiver.recv_timeout(PATIENCE).expect("an answer to a commit");
        }
    }

    /// What becomes of tries once their commit is answered.
    fn on_commit<N: FnOnce() -> Vec<u64>>(
        &self,
        numbers: N,
    ) -> (impl FnOnce(Result<(), Error>) + use<N>, Receiver<()>) {
        let (sender, receiver) = channel();
        let must_work = self.must_work.clone();
        let done = move |result: Result<(), Error>| {
            for number in numbers() {
                match &result {
                    Ok(()) => say(&format!("done {number}")),
                    Err(error) if must_work.load(Ordering::Acquire) => problem(&format!("writing failed: {error}")),
                    Err(_) => say(&format!("fail {number}")),
                }
            }
            let _ = sender.send(());
        };
        (done, receiver)
    }

    fn batch(&mut self) {
        let tries = self.some_tries(6);
        let (mut decided, mut later) = (Vec::new(), Vec::new());
        let store = self.store.clone();
        let mut batch = store.batch();
        for one in tries {
            // Behind one that must wait all wait: they are told in their order.
            if !later.is_empty() {
                later.push(one);
                continue;
            }
            match batch.apply(&one.write.borrow().unwrap()) {
                Applied::Done(outcome) if stores(outcome) => decided.push(one.number),
                Applied::Later => {
                    later.push(one);
                    continue;
                }
                Applied::Failed(error) if self.must_work.load(Ordering::Acquire) => {
                    problem(&format!("a write was refused: {error}"))
                }
                Applied::Done(_) | Applied::Failed(_) => say(&format!("same {}", one.number)),
            }
            self.decided.store(one.number + 1, Ordering::Release);
        }
        let (done, receiver) = self.on_commit(move || decided);
        batch.commit(done);
        self.under_way.push(receiver);
        if !later.is_empty() {
            self.on_pool(later);
        } else if self.under_way.len() >= UNDER_WAY || self.rng.bool() {
            self.settle();
        }
    }

    fn on_pool(&mut self, tries: Vec<Try>) {
        self.settle();
        let numbers: Vec<u64> = tries.iter().map(|one| one.number).collect();
        let last = numbers.last().copied().unwrap_or(0);
        let writes = tries.into_iter().map(|one| one.write).collect();
        let (all, unchanged) = (numbers.clone(), Arc::new(Mutex::new(BTreeSet::new())));
        let heard = unchanged.clone();
        let (done, receiver) = self.on_commit(move || {
            let unchanged = heard.lock().unwrap();
            numbers.into_iter().filter(|number| !unchanged.contains(number)).collect()
        });
        let decided = move |index: usize, outcome| {
            if !stores(outcome) {
                // At once: the next of them may be stored and this one's commit not be answered.
                say(&format!("same {}", all[index]));
                unchanged.lock().unwrap().insert(all[index]);
            }
        };
        self.store.write(writes, decided, done);
        receiver.recv_timeout(PATIENCE).expect("an answer from the pool");
        self.decided.store(last + 1, Ordering::Release);
    }

    fn step(&mut self) {
        match self.rng.u8(..16) {
            0 => flush(&self.store, &self.decided, &self.must_work),
            1 => drop(self.seconds.fetch_add(self.rng.u32(..4), Ordering::Relaxed)),
            2 | 3 => {
                self.settle();
                let key = self.rng.u64(..KEYS);
                say(&format!("saw {key} {}", self.read(key).0));
            }
            4 => {
                let tries = self.some_tries(4);
                self.on_pool(tries);
            }
            5 if self.rng.bool() => self.set_floor(),
            _ => self.batch(),
        }
    }

    /// Everything becomes absent, or, if that fails, may have.
    fn set_floor(&mut self) {
        self.settle();
        let number = self.tries;
        self.tries += 1;
        say(&format!("try {number} all -"));
        match self.store.set_floor() {
            Ok(_) => say(&format!("done {number}\nflushed {}", number + 1)),
            Err(error) if self.must_work.load(Ordering::Acquire) => problem(&format!("no floor was set: {error}")),
            Err(_) => say(&format!("fail {number}")),
        }
        self.decided.store(number + 1, Ordering::Release);
    }

    /// Everything there is, read key by key; and that a scan finds the same.
    fn tell(&mut self) {
        self.settle();
        if let Err(error) = self.store.flush() {
            problem(&format!("flushing failed: {error}"));
        }
        let (mut scanned, mut rows, mut position) = (BTreeMap::new(), 0, Position::default());
        while !position.is_end() {
            let step = self.store.scan(position, 5, 1 << 20).unwrap_or_else(|error| problem(&error.to_string()));
            for row in step.rows {
                rows += 1;
                scanned.insert(row.key.to_vec(), name_of(RecordValue::new(&row.value).ok()));
            }
            position = step.next;
        }
        // The sweeper takes away what is deleted at any time, so only the live ones are counted.
        if rows != scanned.len() {
            problem(&format!("{rows} rows with {} keys", scanned.len()));
        }
        for key in 0..KEYS {
            let name = self.read(key).0;
            let found = scanned.get(&key_of(key)).map_or("-", String::as_str);
            if name != found {
                problem(&format!("key {key}: {name} read, {found} scanned"));
            }
            say(&format!("saw {key} {name}"));
        }
    }

    /// Waits until the store has found out that all works again. A merge comes after whatever failed before it.
    fn wait_for_health(&self) {
        let begun = Instant::now();
        while self.store.flush().is_err() || self.store.status().failed.is_some() {
            if begun.elapsed() > PATIENCE {
                problem(&format!("still failing: {:?}", self.store.status().failed));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn stores(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Stored { .. } | Outcome::Deleted { .. } | Outcome::Removed => true,
        Outcome::Ignored { .. } | Outcome::Kept => false,
        Outcome::Mismatch { stored } => problem(&format!("nobody else writes, and a swap met {stored:?}")),
    }
}

fn flush(store: &Store, decided: &AtomicU64, must_work: &AtomicBool) {
    let (before, must) = (decided.load(Ordering::Acquire), must_work.load(Ordering::Acquire));
    match store.flush() {
        Ok(()) => say(&format!("flushed {before}")),
        Err(error) if must => problem(&format!("flushing failed: {error}")),
        Err(_) => {}
    }
}

/// What goes on beside the writes: merges, backups, scans, state.
fn beside(worker: &Worker, folder: &Path, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (store, decided, must_work) = (worker.store.clone(), worker.decided.clone(), worker.must_work.clone());
    let (mut rng, copy) = (Rng::with_seed(worker.seed ^ 0x5eed), folder.join("copy"));
    std::thread::spawn(move || {
        while !stop.load(Ordering::Acquire) {
            let must = must_work.load(Ordering::Acquire);
            let result = match rng.u8(..12) {
                0 => store.backup(&copy),
                1 => store.bump_generation().map(drop),
                2 => store.state_put("name", &[rng.u8(..)]),
                3 => store.scan(Position::default(), 4, 1 << 20).map(drop),
                7 => store.drop_old(),
                4..=6 => {
                    flush(&store, &decided, &must_work);
                    Ok(())
                }
                _ => {
                    std::thread::sleep(Duration::from_micros(rng.u64(..1000)));
                    Ok(())
                }
            };
            match result {
                Err(error) if must && error != Error::Closed => problem(&error.to_string()),
                _ => {}
            }
        }
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(&format!("{name}=")));
    let folder = PathBuf::from(&arguments[0]);
    let seed: u64 = arguments[1].parse().expect("a seed");
    let steps: u32 = value("steps").map_or(40, |steps| steps.parse().expect("a number of steps"));
    std::thread::spawn(|| {
        std::thread::sleep(PATIENCE * 2);
        problem("stuck");
    });
    let mut options = Options::new(folder.join("db"));
    options.sync = match value("sync") {
        Some("always") => SyncMode::Always,
        Some("os") => SyncMode::Os,
        _ => SyncMode::Everysec,
    };
    (options.read_threads, options.write_threads) = (1, 1);
    // The least that there can be: these are raised to it.
    (options.cache_bytes, options.redo_bytes, options.wal_bytes) = (0, 0, 0);
    let second = Duration::from_secs(1);
    options.sweep = SweepPolicy { min_age: second, max_age: 2 * second, memory_limit: 1 << 20 };
    let seconds = Arc::new(AtomicU32::new(value("now").map_or(1_700_000_000, |now| now.parse().expect("seconds"))));
    let now = seconds.clone();
    let clock = |first| Arc::new(Clock::with_time(first, move || now.load(Ordering::Relaxed)));
    let store = match Store::open(options, clock) {
        Ok(store) => store,
        Err(error) => return say(&format!("refused {error}")),
    };
    let mut worker = Worker {
        store,
        rng: Rng::with_seed(seed),
        seed,
        seconds,
        tries: 0,
        decided: Arc::default(),
        large: arguments.iter().any(|argument| argument == "large"),
        under_way: Vec::new(),
        must_work: Arc::default(),
    };
    let stop = Arc::new(AtomicBool::new(steps == 0));
    let other = beside(&worker, &folder, stop.clone());
    for step in 0..steps {
        if let Some(file) = value("heal").filter(|_| step == steps / 2) {
            worker.settle();
            std::fs::remove_file(file).expect("a file to be removed");
            worker.wait_for_health();
            worker.must_work.store(true, Ordering::Release);
            say("healed");
        }
        worker.step();
    }
    worker.settle();
    stop.store(true, Ordering::Release);
    other.join().expect("the work beside");
    if worker.must_work.load(Ordering::Acquire) || arguments.iter().any(|argument| argument == "look") {
        worker.tell();
    }
    if value("end") == Some("kill") {
        let _ = std::fs::remove_file(folder.join("kill-me"));
    }
    match worker.store.close() {
        Ok(()) => say("end"),
        Err(error) if worker.must_work.load(Ordering::Acquire) => problem(&format!("closing failed: {error}")),
        Err(_) => say("unclosed"),
    }
}
