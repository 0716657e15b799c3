//! Shared by the tests: a directory, a clock that can be moved, and calls that wait for their answer.

use crate::clock::{Clock, ClockTime};
use crate::store::disk::{Disk, RealDisk};
use crate::store::{
    Applied, Error, OpenError, Options, Outcome, OwnedWrite, Position, ScanRow, Store, SyncMode, Write,
};
use crate::wire::{RecordKey, RecordValue};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything.
pub(super) const DEADLINE: Duration = Duration::from_mins(1);

/// A place for a store.
pub(super) struct Fixture {
    pub(super) directory: tempfile::TempDir,
    pub(super) now: Arc<AtomicU32>,
    pub(super) options: Options,
    pub(super) disk: Arc<dyn Disk>,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    /// A fixture whose disk is memory where the system has that: for thousands of runs.
    pub(super) fn in_memory() -> Self {
        Self::within(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    fn within(directory: tempfile::TempDir) -> Self {
        let mut options = Options::new(directory.path().join("db"));
        options.read_threads = 1;
        options.write_threads = 1;
        options.sync = SyncMode::Os;
        let now = Arc::new(AtomicU32::new(1_700_000_000));
        Self { directory, now, options, disk: Arc::new(RealDisk) }
    }

    pub(super) fn try_open(&self) -> Result<Store, OpenError> {
        self.try_open_at(&self.options.path)
    }

    pub(super) fn try_open_at(&self, path: &Path) -> Result<Store, OpenError> {
        let now = self.now.clone();
        let options = Options { path: path.to_path_buf(), ..self.options.clone() };
        crate::store::open::open(options, self.disk.clone(), |first| {
            Arc::new(Clock::with_time(first, move || now.load(Ordering::Relaxed)))
        })
        .map(Store::running)
    }

    pub(super) fn open(&self) -> Store {
        self.try_open().unwrap()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Copies all files of the store into a fresh directory, as a kill would leave them, and returns the store's path.
    pub(super) fn image(&self, name: &str) -> PathBuf {
        let target = self.path(name);
        std::fs::create_dir(&target).unwrap();
        for entry in std::fs::read_dir(self.options.path.parent().unwrap()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
            }
        }
        target.join("db")
    }
}

/// A raw key whose hash is not that of a real client but spreads.
pub(super) fn key(number: u64) -> Vec<u8> {
    let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut raw = hash.to_be_bytes().to_vec();
    raw.extend_from_slice(format!("key-{number}").as_bytes());
    raw
}

/// Meta and data.
pub(super) fn body(data: &str) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend_from_slice(data.as_bytes());
    body
}

/// Waits for an answer that a callback sends.
pub(super) fn answer<T: Send + 'static>(ask: impl FnOnce(std::sync::mpsc::Sender<T>)) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    ask(sender);
    receiver.recv_timeout(DEADLINE).expect("an answer in time")
}

/// Does a write and waits until it is committed, on the pool if it cannot be done at once.
pub(super) fn write(store: &Store, write: &Write<'_>) -> Result<Outcome, Error> {
    let mut batch = store.batch();
    match batch.apply(write) {
        Applied::Done(outcome) => {
            answer(|sender| batch.commit(move |result| sender.send(result).unwrap()))?;
            Ok(outcome)
        }
        Applied::Later => write_on_pool(store, write),
        Applied::Failed(error) => Err(error),
    }
}

pub(super) fn write_on_pool(store: &Store, write: &Write<'_>) -> Result<Outcome, Error> {
    let (outcomes, outcome) = std::sync::mpsc::channel();
    let owned = OwnedWrite::from(write);
    answer(|sender| {
        store.write(
            vec![owned],
            move |_, outcome| outcomes.send(outcome).unwrap(),
            move |result| sender.send(result).unwrap(),
        );
    })?;
    Ok(outcome.recv().unwrap())
}

pub(super) fn set(store: &Store, key: &[u8], data: &str) -> ClockTime {
    match write(store, &Write::Set { key: RecordKey::new(key).unwrap(), body: &body(data) }) {
        Ok(Outcome::Stored { clocktime }) => clocktime,
        other => panic!("{other:?}"),
    }
}

pub(super) fn delete(store: &Store, key: &[u8]) -> ClockTime {
    match write(store, &Write::Delete { key: RecordKey::new(key).unwrap() }) {
        Ok(Outcome::Deleted { clocktime, .. }) => clocktime,
        other => panic!("{other:?}"),
    }
}

/// The raw value, from memory or from the tree.
pub(super) fn get(store: &Store, key: &[u8]) -> Option<Vec<u8>> {
    store
        .peek(RecordKey::new(key).unwrap(), |value| value.map(|value| value.bytes().to_vec()))
        .unwrap_or_else(|| read(store, key))
}

pub(super) fn read(store: &Store, key: &[u8]) -> Option<Vec<u8>> {
    let mut values = answer(|sender| store.read(vec![key.into()], move |values| sender.send(values).unwrap())).unwrap();
    assert_eq!(values.len(), 1);
    values.remove(0)
}

/// The application's data; `None` if absent or deleted.
pub(super) fn data(store: &Store, key: &[u8]) -> Option<String> {
    let value = get(store, key)?;
    let value = RecordValue::new(&value).unwrap();
    (!value.is_tombstone()).then(|| String::from_utf8(value.data().to_vec()).unwrap())
}

/// All records, by scanning in steps of `step` rows.
pub(super) fn scan_all(store: &Store, step: usize) -> Vec<ScanRow> {
    let (mut rows, mut position) = (Vec::new(), Position::default());
    while !position.is_end() {
        let batch = store.scan(position, step, 1 << 20).unwrap();
        rows.extend(batch.rows);
        position = batch.next;
    }
    rows
}

/// Waits until `ready`, and says what it waited for if that does not come.
pub(super) fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < DEADLINE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
