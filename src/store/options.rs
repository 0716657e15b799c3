//! Settings of a store: its path, when an answer is durable, and every bound.

use super::driver::Driver;
use super::identity::random_id;
use crate::time::Time;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// When an acknowledged write is on the disk and not only with the kernel.
///
/// In every mode it survives the death of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// Before it is acknowledged; one sync for all writes that wait.
    Always,
    /// Within a second.
    #[default]
    Everysec,
    /// When the kernel likes, at the latest when it is merged into the main tree.
    Os,
}

/// When a tombstone may go (`-gX`, `-gN`, `-gS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepPolicy {
    /// Never removed when younger. Taken for `max_age` if above it.
    pub min_age: Duration,
    /// Removed once older.
    pub max_age: Duration,
    /// Bytes of all tombstones' keys, with 8 for each; above it the oldest beyond `min_age` go early.
    pub memory_limit: u64,
}

impl Default for SweepPolicy {
    fn default() -> Self {
        Self { min_age: Duration::from_mins(1), max_age: Duration::from_hours(1), memory_limit: 2048 << 10 }
    }
}

impl SweepPolicy {
    /// `min_age` no greater than `max_age`.
    pub(super) fn ordered(mut self) -> Self {
        self.min_age = self.min_age.min(self.max_age);
        self
    }
}

/// Settings of a store. [`Options::new`] has the defaults; limits too small to work with are raised.
#[derive(Debug, Clone)]
pub struct Options {
    /// The main tree's file (`-s`). Side files start with its name.
    pub path: PathBuf,
    /// When acknowledged writes are on disk.
    pub sync: SyncMode,
    /// Threads that read what is not in memory (`-TR`).
    pub read_threads: usize,
    /// Threads for writes that must read first or wait for space (`-TW`).
    pub write_threads: usize,
    /// Bytes of memory for records, the unmerged ones included.
    pub cache_bytes: u64,
    /// Bytes of all redo log files; when they are used up writes wait for the merge.
    pub redo_bytes: u64,
    /// Bytes the main tree's write-ahead log may reach before a merge pauses to checkpoint it.
    pub wal_bytes: u64,
    /// How long closing may merge; what is left then stays in the redo log.
    pub close_merge: Duration,
    /// When tombstones go.
    pub sweep: SweepPolicy,
    /// Jobs that may wait in front of each pool.
    pub queue_jobs: usize,
    /// Does the work of the store's threads, of which it then has none.
    pub driver: Option<Arc<dyn Driver>>,
    /// Counts up when a write to the redo log begins and when it ends: odd while the kernel has one, which it may hold back
    /// for as long as the disk stalls. One at a time is under way, and batches write on the thread that commits them.
    pub log_writes: Arc<AtomicU64>,
    /// The time that the store's threads measure by; they wait on the system's clock.
    pub time: Time,
    /// The id of the store if it has to be made. No two stores share one.
    pub new_id: u64,
}

impl Options {
    /// The defaults, for a store at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            sync: SyncMode::default(),
            read_threads: 4,
            write_threads: 2,
            cache_bytes: 512 << 20,
            redo_bytes: 512 << 20,
            wal_bytes: 64 << 20,
            close_merge: Duration::from_secs(8),
            sweep: SweepPolicy::default(),
            queue_jobs: 1024,
            driver: None,
            log_writes: Arc::default(),
            time: Time::real(),
            new_id: random_id(),
        }
    }

    /// The same with every limit at least as large as the store needs to move at all.
    pub(super) fn checked(mut self) -> Self {
        self.read_threads = self.read_threads.clamp(1, 256);
        self.write_threads = self.write_threads.clamp(1, 256);
        self.cache_bytes = self.cache_bytes.max(4 << 20);
        self.redo_bytes = self.redo_bytes.max(1 << 20);
        self.wal_bytes = self.wal_bytes.max(1 << 20);
        self.queue_jobs = self.queue_jobs.clamp(1, 1 << 20);
        self.sweep = self.sweep.ordered();
        self
    }
}
