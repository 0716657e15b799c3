//! The store: records in memory, in a redo log, and in a main tree on disk.
//!
//! A write is decided under its record's lock, appended to the redo log, and visible in the cache; a merge moves it to
//! the tree later, sorted with all others. `docs/storage.md` has the formats, the promises and the reasons.
//!
//! No runtime is known here: what takes time answers through callbacks, on threads of the store. Network threads call
//! [`Store::peek`] and [`Batch`] directly; neither waits for a disk read.
//!
//! A panic in here, or in a callback on one of its threads, ends the process: half a write must not live on.

pub mod at_rest;
mod batch;
mod cache;
mod core;
mod disk;
mod driver;
mod error;
mod failures;
mod guard;
mod identity;
mod lock;
mod maintain;
mod merge;
mod newest;
mod open;
mod options;
mod paths;
mod pool;
mod redo;
mod request;
mod scan;
mod shutdown;
mod signal;
mod stall;
mod status;
mod syncer;
pub(crate) mod temporary;
#[cfg(test)]
mod tests;
mod throttle;
mod tree;
mod undecided;
mod write;

pub use batch::{Applied, Batch};
#[doc(hidden)]
pub use cache::BareCache;
pub use driver::Driver;
pub use error::{Error, OpenError};
pub use options::{Options, SweepPolicy, SyncMode};
pub use pool::{ReadJob, Values, WriteJob};
pub use scan::{Position, ScanBatch, ScanRow};
pub use status::Status;
pub use undecided::Undecided;
pub use write::{Outcome, OwnedWrite, Write};

use self::core::Core;
use crate::clock::Clock;
use crate::wire::{RecordKey, RecordValue};
use parking_lot::Mutex;
use pool::Queue;
use request::{Reply, Request};
use shutdown::Shutdown;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Unmerged records up to which [`Store::count`] merges to be exact.
const COUNT_MERGE: u64 = 100_000;

/// The version of the SQLite library that stores are read and written with.
pub(crate) fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// A store that is open. Clones are the same store; it is closed by [`Store::close`] or with the last of them, wherever
/// that is dropped.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    reads: Queue<ReadJob>,
    writes: Queue<WriteJob>,
    /// Taken by whoever closes the store.
    shutdown: Mutex<Option<Shutdown>>,
}

impl Store {
    /// Opens the store, or makes it. `clock` is given the first clock that is after all that were stored; the clock it
    /// returns is kept ahead of every clock stored from then on.
    pub fn open(options: Options, clock: impl FnOnce(u32) -> Arc<Clock>) -> Result<Self, OpenError> {
        let disk: Arc<dyn disk::Disk> = match &options.driver {
            Some(driver) => Arc::new(disk::DrivenDisk(driver.clone())),
            None => Arc::new(disk::RealDisk),
        };
        open::open(options, disk, clock).map(Self::running)
    }

    fn running(shutdown: Shutdown) -> Self {
        let core = shutdown.core.clone();
        let (reads, writes) = match &core.options.driver {
            Some(driver) => (
                Queue::Driven { driver: driver.clone(), core: Arc::downgrade(&core), serve: pool::serve_read },
                Queue::Driven { driver: driver.clone(), core: Arc::downgrade(&core), serve: pool::serve_write },
            ),
            None => (Queue::Threads(shutdown.reads.jobs.clone()), Queue::Threads(shutdown.writes.jobs.clone())),
        };
        Self { inner: Arc::new(Inner { core, reads, writes, shutdown: Mutex::new(Some(shutdown)) }) }
    }

    /// Shows the record to `see` if memory knows it: its value or tombstone, or that there is none.
    ///
    /// `None` says that memory does not know: [`Store::read`] does. `see` runs under a lock and must be short. It may
    /// be shown a write whose batch has not committed yet.
    #[inline]
    pub fn peek<R>(&self, key: RecordKey<'_>, see: impl FnOnce(Option<RecordValue<'_>>) -> R) -> Option<R> {
        let mut place = self.inner.core.cache.find(key.bytes());
        let seen = see(place.slot()?.value());
        place.touch();
        Some(seen)
    }

    /// Begins a batch of writes.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(&self.inner.core)
    }

    /// Reads records on the `-TR` pool. Waits while [`Store::queue_capacity`] jobs are queued.
    ///
    /// Whoever must not wait bounds what it submits, with a semaphore of that many permits say, or uses
    /// [`Store::try_read`].
    pub fn read(&self, keys: Vec<Box<[u8]>>, done: impl FnOnce(Result<Values, Error>) + Send + 'static) {
        self.submit_read(ReadJob::new(keys, done));
    }

    /// As [`Store::read`], for a job that [`Store::try_read`] gave back.
    pub(crate) fn submit_read(&self, job: ReadJob) {
        if !self.inner.core.closing.load(Ordering::Acquire) {
            self.inner.reads.put(job);
        }
    }

    /// As [`Store::read`], but gives the job back if the queue is full.
    #[cfg(test)]
    fn try_read(&self, job: ReadJob) -> Result<(), ReadJob> {
        if self.inner.core.closing.load(Ordering::Acquire) {
            return Ok(());
        }
        self.inner.reads.try_put(job)
    }

    /// Writes on the `-TW` pool, in order: reads what must be read, waits while there is no space, then does as a
    /// [`Batch`]. Waits while [`Store::queue_capacity`] jobs are queued; see [`Store::try_write`].
    ///
    /// Jobs run beside each other: writes to one key whose order matters belong in one job.
    pub fn write(
        &self,
        writes: Vec<OwnedWrite>,
        decided: impl FnMut(usize, Outcome) + Send + 'static,
        committed: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        self.submit_write(WriteJob::new(writes, decided, committed));
    }

    /// As [`Store::write`], for a job that [`Store::try_write`] gave back.
    pub(crate) fn submit_write(&self, job: WriteJob) {
        if !self.inner.core.closing.load(Ordering::Acquire) {
            self.inner.writes.put(job);
        }
    }

    /// As [`Store::write`], but gives the job back if the queue is full.
    pub(crate) fn try_write(&self, job: WriteJob) -> Result<(), WriteJob> {
        if self.inner.core.closing.load(Ordering::Acquire) {
            return Ok(());
        }
        self.inner.writes.try_put(job)
    }

    /// Jobs that each pool's queue holds.
    pub(crate) fn queue_capacity(&self) -> usize {
        self.inner.core.options.queue_jobs
    }

    /// Merges everything written before the call into the main tree. Blocks.
    pub fn flush(&self) -> Result<(), Error> {
        self.ask(Request::Flush)
    }

    /// The next records from `from` on: at most `max_rows`, and at most one more than `max_bytes` allow. Blocks.
    ///
    /// Each record that was there before a [`Store::flush`] before the first call, and still is, comes exactly once,
    /// with its value of now. Of those written later, some come.
    pub fn scan(&self, from: Position, max_rows: usize, max_bytes: usize) -> Result<ScanBatch, Error> {
        scan::scan(&self.inner.core, from, max_rows, max_bytes, |_| true)
    }

    /// As [`Store::scan`], but passes over records whose hash `wants` refuses, which is faster; some may come all the
    /// same, and a step may bring none before the end.
    pub(crate) fn scan_where(
        &self,
        from: Position,
        max_rows: usize,
        max_bytes: usize,
        wants: impl Fn(u64) -> bool,
    ) -> Result<ScanBatch, Error> {
        scan::scan(&self.inner.core, from, max_rows, max_bytes, wants)
    }

    /// Writes a copy of the store to `destination`, replacing what is there: all that was written before the call, and
    /// some of what was written since. Blocks; everything else goes on meanwhile. The copy is a store of its own.
    pub fn backup(&self, destination: &Path) -> Result<(), Error> {
        let destination = destination.to_path_buf();
        self.ask(|reply| Request::Backup { destination, reply })
    }

    /// Warns, once for each time, if the disk holds writes back for long. To be called now and then.
    pub fn warn_of_stall(&self) {
        let core = &self.inner.core;
        if let Some(waited) = core.stall.look(core.now()) {
            let path = core.options.path.display();
            tracing::warn!(store = %path, "the disk has not answered for {:.1} s: writes wait for it", waited.as_secs_f64());
        }
    }

    /// Records stored, tombstones included. May block for a merge.
    ///
    /// Exact while writes pause or are few: blind writes, of which only the merge tells whether their key was new, are
    /// merged first. Under heavy load (over 100,000 unmerged records) it is an estimate from the share of new keys in
    /// the last merge, as [`Status::items`] always is.
    pub fn count(&self) -> u64 {
        let core = &self.inner.core;
        if core.cache.items().1 > 0 && core.cache.dirty_count() <= COUNT_MERGE && !core.failures.any() {
            // If it fails the estimate is what there is.
            let _ = self.flush();
        }
        status::estimate(core)
    }

    /// Figures; cheap, does not block.
    pub fn status(&self) -> Status {
        status::status(&self.inner.core)
    }

    /// Which store this is; see [`Options::new_id`].
    pub fn id(&self) -> u64 {
        self.inner.core.store_id
    }

    /// The keys of the last writes before the store was opened, if it was not closed in order, and those of
    /// [`Self::keep_undecided`]: what was under way then is among them. Gives them once.
    pub fn take_recovered(&self) -> Vec<Box<[u8]>> {
        let mut keys = std::mem::take(&mut *self.inner.core.recovered.lock());
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// From now on merges ask `owner` which records others are still to have: those are among the keys that
    /// [`Self::take_recovered`] gives after a restart. Blocks.
    pub fn keep_undecided(&self, owner: Arc<dyn Undecided>) -> Result<(), Error> {
        self.ask(|reply| Request::Undecided(owner, reply))
    }

    /// Whether nothing has failed that writes need, and has not succeeded since.
    pub fn takes_writes(&self) -> bool {
        !self.inner.core.failures.any()
    }

    /// How many entries of redo logs have been written since the store was made. It goes back only when the files are
    /// replaced by older ones, or the machine loses its power before they are on the disk.
    pub fn commits(&self) -> u64 {
        self.inner.core.commits()
    }

    /// The number that every write records.
    #[cfg(test)]
    pub(crate) fn generation(&self) -> u32 {
        self.inner.core.generation.load(Ordering::Relaxed)
    }

    /// Counts the generation up and returns the new one, which is durable then. Blocks.
    pub fn bump_generation(&self) -> Result<u32, Error> {
        self.ask(Request::Generation)
    }

    /// Has every record stored so far count as absent: for reads, for decisions on writes, for scans and backups. Returns the
    /// first generation that counts, which is begun by this. Blocks; writes wait meanwhile.
    ///
    /// Durable when it returns. After an error, or if the process dies in it, all of it may have happened or nothing. The
    /// records stay on disk until [`Store::drop_old`].
    pub fn set_floor(&self) -> Result<u32, Error> {
        self.ask(Request::SetFloor)
    }

    /// Has the records below the floor deleted in the background, also after a restart; then there is no floor any more.
    /// Returns when that is noted durably. Blocks.
    pub fn drop_old(&self) -> Result<(), Error> {
        self.ask(Request::DropOld)
    }

    /// Whether there is a floor. There is none any more when everything below it is deleted.
    pub fn has_floor(&self) -> bool {
        self.inner.core.floor() > 0
    }

    /// Sets the fencing token, which is 0 after the start. A write that carries another one is refused with
    /// [`Error::Fenced`]; when this returns none of them is being decided any more. Writes without a token are not concerned.
    pub(crate) fn set_token(&self, token: u64) {
        self.inner.core.set_token(token);
    }

    /// Has no tombstone swept for so long from now, whatever its age; zero ends an earlier hold. For times in which
    /// records travel between servers, and one may arrive after the deletion that hides it.
    pub(crate) fn hold_tombstones(&self, time: Duration) {
        self.inner.core.hold_tombstones(time);
    }

    /// A blob stored by [`Store::state_put`]. Blocks for a read.
    pub(crate) fn state_get(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.inner.core.with_connection(|connection| tree::get_state(connection, name))
    }

    /// Stores a small blob under a name. Durable when it returns, together with all writes before. Blocks.
    pub fn state_put(&self, name: &str, value: &[u8]) -> Result<(), Error> {
        let (name, value) = (name.to_owned(), value.to_vec());
        self.ask(|reply| Request::PutState { name, value, reply })
    }

    /// Finishes what is queued, merges, and closes. What cannot be merged within [`Options::close_merge`] stays in the
    /// redo log, synced, and the next start takes it from there. Later calls of anything get [`Error::Closed`], later
    /// calls of this do nothing. Must not be called from a callback.
    pub fn close(&self) -> Result<(), Error> {
        self.close_within(None)
    }

    /// As [`Self::close`], but gives up with [`Error::Stalled`] when what is queued is not finished within `limit`, or the
    /// rest not within that or [`Options::close_merge`] and five seconds more. Its threads are left behind then, and the
    /// store stays locked until the process ends.
    pub(crate) fn close_within(&self, limit: impl Into<Option<Duration>>) -> Result<(), Error> {
        let shutdown = self.inner.shutdown.lock().take();
        shutdown.map_or(Ok(()), |shutdown| shutdown.run(limit.into()))
    }

    /// Ends all threads and leaves the files as a kill would.
    #[cfg(test)]
    fn crash(&self) {
        let core = &self.inner.core;
        core.crashed.store(true, Ordering::Release);
        core.wake();
        let _ = self.close();
    }

    /// Asks the maintenance thread and waits for its answer.
    fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        if self.inner.core.closing.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        self.inner.core.ask(request)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(shutdown) = self.shutdown.get_mut().take() {
            shutdown.run_anywhere();
        }
    }
}
