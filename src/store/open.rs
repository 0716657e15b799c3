//! Opening a store: checks and locks the file, replays the redo log, starts the threads.

use super::cache::{Before, Cache, Change, Stored, split_value};
use super::core::{COMMITS, Core, Parts};
use super::disk::Disk;
use super::driver::Driver;
use super::error::OpenError;
use super::failures::Failures;
use super::guard::AbortOnPanic;
use super::lock::OwnerLock;
use super::maintain::{self, Maintenance};
use super::merge::Merge;
use super::options::Options;
use super::paths::{canonical, directory, side_path};
use super::pool::{Job, Pool, run_reads, run_writes};
use super::redo::{Kind, ReadEntry, Redo, RedoOptions, recover};
use super::shutdown::Shutdown;
use super::tree::{self, Reader, Writer};
use super::{syncer, temporary, undecided};
use crate::clock::{Clock, ClockTime};
use crossbeam_channel::Receiver;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

/// Opens the store, or makes it, and starts its threads. Returns them with all that they share.
pub(super) fn open(
    options: Options,
    disk: Arc<dyn Disk>,
    clock: impl FnOnce(u32) -> Arc<Clock>,
) -> Result<Shutdown, OpenError> {
    let mut options = options.checked();
    // First a look that leaves no trace, so that a foreign file does not even get a lock file beside it.
    tree::inspect(&options.path)?;
    // One store has one lock and one log, by whichever of its names it is opened.
    options.path = canonical(&options.path);
    let mut lock = OwnerLock::take(&options.path)?;
    let (connection, store_id, tally) = tree::open(&options.path, options.new_id, options.wal_bytes)?;
    let opened = lock.lock_database(&options.path)?;
    temporary::remove_unfinished_backups(&options.path, directory(&options.path));
    let tree = Writer::new(connection, tally, side_path(&options.path, "-wal"))
        .map_err(|source| OpenError::Sqlite { path: options.path.clone(), source })?;
    let clock = clock(tally.clock);
    let stored = Stored { items: tally.current_rows(), newest: tally.newest, low_seconds: tally.low_seconds };
    let mut replay = Replay {
        cache: Cache::new(options.cache_bytes, stored),
        tree: &tree,
        disk: &*disk,
        clock: &clock,
        path: &options.path,
        generation: tally.generation,
        floor: tally.floor_generation(),
        keys: Vec::new(),
    };
    let commits_before = tree
        .state(COMMITS)
        .map_err(|source| OpenError::Sqlite { path: options.path.clone(), source })?
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_be_bytes);
    let undecided = tree
        .state(undecided::STATE)
        .map_err(|source| OpenError::Sqlite { path: options.path.clone(), source })?
        .unwrap_or_default();
    let log = recover(&options.path, store_id, tally.redo_from, tally.clean, &*disk, |entry| replay.take(entry))?;
    let Replay { cache, generation, keys: mut recovered, .. } = replay;
    recovered.extend(undecided::read(&undecided));
    if log.cut_bytes > 0 {
        tracing::warn!(bytes = log.cut_bytes, "removed an incomplete write from the end of the redo log");
    }
    tracing::info!(records = tally.current_rows(), replayed = log.entries, "store opened");
    let failures = Arc::new(Failures::default());
    let redo_options = RedoOptions {
        store: options.path.clone(),
        store_id,
        limit: options.redo_bytes,
        disk: disk.clone(),
        writes: options.log_writes.clone(),
        failures: failures.clone(),
    };
    let redo = Redo::start(redo_options, log.next_number, log.next_sequence, log.files)
        .map_err(|source| OpenError::Io { path: super::paths::redo_file(&options.path, log.next_number), source })?;
    tree.seal(|tally| {
        tally.clean = false;
        tally.generation = generation;
    })
    .map_err(|source| OpenError::Sqlite { path: options.path.clone(), source })?;
    let floor = tally.floor_generation();
    let core = Core::new(Parts { options, store_id, opened, disk, cache, redo, clock, failures, generation, floor });
    *core.recovered.lock() = recovered;
    core.commits_before.store(commits_before, Ordering::Relaxed);
    core.publish(&tree.tally());
    start(core, tree, lock)
}

/// Keys of writes before a crash that are remembered, at least.
const RECOVERED_KEYS: usize = 32_768;

/// Puts the log's entries back into memory.
struct Replay<'a> {
    cache: Cache,
    tree: &'a Writer,
    disk: &'a dyn Disk,
    clock: &'a Clock,
    path: &'a Path,
    generation: u32,
    floor: u32,
    /// Those of the last entries.
    keys: Vec<Box<[u8]>>,
}

impl Replay<'_> {
    fn take(&mut self, entry: ReadEntry<'_>) -> Result<(), OpenError> {
        if entry.generation < self.floor {
            // It was merged before the floor was set, and counts for nothing now.
            return Ok(());
        }
        let value = if entry.kind == Kind::Remove { &[][..] } else { entry.value };
        let (head, body) = split_value(value);
        if let Some(clocktime) = head.first_chunk() {
            self.clock.observe(ClockTime(u64::from_be_bytes(*clocktime)));
        }
        self.generation = self.generation.max(entry.generation);
        if self.keys.len() >= 2 * RECOVERED_KEYS {
            self.keys.drain(..RECOVERED_KEYS);
        }
        self.keys.push(entry.key.into());
        let change = Change { key: entry.key, head, body, generation: entry.generation, seq: entry.sequence };
        let mut place = self.cache.find(entry.key);
        self.cache.write(&mut place, &change, Before::Unknown);
        drop(place);
        self.cache.evict_to_limit();
        if self.cache.dirty_bytes() > self.cache.limit() {
            // A log made under a larger limit: what does not fit goes to the tree at once.
            let merge = Merge { cache: &self.cache, tree: self.tree, disk: self.disk };
            merge
                .run(|| entry.sequence + 1, |_, _| Ok(()), |_| {}, |_, _| Ok(true))
                .map_err(|source| OpenError::Sqlite { path: self.path.to_path_buf(), source })?;
        }
        Ok(())
    }
}

fn start(core: Core, tree: Writer, lock: OwnerLock) -> Result<Shutdown, OpenError> {
    let core = Arc::new(core);
    let options = &core.options;
    let threads = |count| if options.driver.is_some() { 0 } else { count };
    let (read_threads, write_threads) = (threads(options.read_threads), threads(options.write_threads));
    let (reads, read_jobs) = crossbeam_channel::bounded(options.queue_jobs);
    let (writes, write_jobs) = crossbeam_channel::bounded(options.queue_jobs);
    let mut pools = Vec::new();
    for index in 0..read_threads {
        pools.push(pool_thread(&core, format!("store-read-{index}"), read_jobs.clone(), run_reads)?);
    }
    for index in 0..write_threads {
        pools.push(pool_thread(&core, format!("store-write-{index}"), write_jobs.clone(), run_writes)?);
    }
    let maintenance = Maintenance::new(&core, tree);
    let (log, maintenance) = if let Some(driver) = &core.options.driver {
        drive(&core, driver, maintenance);
        (None, None)
    } else {
        let log = thread(&core, "store-log".to_owned(), syncer::run)?;
        (Some(log), Some(thread(&core, "store-merge".to_owned(), move |_| maintain::run(maintenance))?))
    };
    Ok(Shutdown {
        reads: Pool { jobs: reads, threads: read_threads },
        writes: Pool { jobs: writes, threads: write_threads },
        core,
        pools,
        log,
        maintenance,
        lock,
    })
}

/// Has a driver do the work of the log's and the maintenance thread.
fn drive(core: &Arc<Core>, driver: &Arc<dyn Driver>, maintenance: Maintenance) {
    *core.inline.lock() = Some(Box::new(maintenance));
    let (logging, runner) = (Arc::downgrade(core), driver.clone());
    core.log_signal.call_instead(move || {
        let core = logging.clone();
        runner.run(Box::new(move || {
            if let Some(core) = core.upgrade() {
                syncer::round(&core);
            }
        }));
    });
    let log = Arc::downgrade(core);
    driver.every(syncer::RETRY, Box::new(move || log.upgrade().is_some_and(|core| syncer::round(&core))));
    let merges = Arc::downgrade(core);
    driver.every(maintain::TICK, Box::new(move || merges.upgrade().is_some_and(|core| core.step(None))));
}

/// A thread whose panic is the end of the process.
fn thread(
    core: &Arc<Core>,
    name: String,
    run: impl FnOnce(&Core) + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let failed = |source: io::Error| OpenError::Io { path: core.options.path.clone(), source };
    let shared = core.clone();
    std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            let _guard = AbortOnPanic::new("a store thread");
            run(&shared);
        })
        .map_err(failed)
}

fn pool_thread<T: Send + 'static>(
    core: &Arc<Core>,
    name: String,
    jobs: Receiver<Job<T>>,
    run: fn(&Core, &Receiver<Job<T>>, &mut Reader<'_>),
) -> Result<JoinHandle<()>, OpenError> {
    let path = &core.options.path;
    let refused = |source| OpenError::Sqlite { path: path.clone(), source };
    let sharing = core.options.read_threads + core.options.write_threads;
    let connection = tree::open_reader(path, sharing).map_err(refused)?;
    // Prepared once here, so that a failure is reported now and not on the thread.
    Reader::new(&connection).map_err(refused)?;
    thread(core, name, move |core| {
        match Reader::new(&connection) {
            Ok(mut reader) => run(core, &jobs, &mut reader),
            Err(error) => {
                tracing::error!(%error, "a reading thread cannot start: stopping the process");
                std::process::abort();
            }
        }
        if core.crashed.load(std::sync::atomic::Ordering::Acquire) {
            std::mem::forget(connection);
        }
    })
}
