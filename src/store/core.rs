//! State that all threads of a store share: cache, redo log, clock and the signals between them.

use super::cache::Cache;
use super::disk::Disk;
use super::error::Error;
use super::failures::Failures;
use super::lock::OpenedFile;
use super::options::{Options, SyncMode};
use super::redo::Redo;
use super::request::{Inline, Reply, Request};
use super::signal::Signal;
use super::stall::Stall;
use super::throttle::{self, Throttle};
use super::tree::Tally;
use crate::clock::Clock;
use crate::time::Moment;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Share of the cache that unmerged records may take, in quarters.
const DIRTY_QUARTERS: u64 = 3;
/// A merge begins when this share of the redo log or of the unmerged records' memory is in use: one in so many.
const MERGE_SHARE: u64 = 3;
/// Read connections kept for scans.
const SPARE_CONNECTIONS: usize = 4;

/// Bytes that a record takes beyond its own, at most.
const SPACE_SLACK: u64 = 4096;

/// How often a write that the throttle holds back asks again.
const THROTTLE_RETRY: Duration = Duration::from_millis(1);

/// A batch that waits for its place in the log to be written, and with [`SyncMode::Always`] to be durable.
pub(super) struct LogWaiter {
    pub(super) need: u64,
    pub(super) done: Box<dyn FnOnce(Result<(), Error>) + Send>,
}

/// Figures of the merges so far.
#[derive(Debug, Default)]
pub(super) struct MergeFigures {
    pub(super) merges: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) micros: AtomicU64,
    /// Of the blind writes merged last, those that were new keys, in thousandths.
    pub(super) new_share: AtomicU32,
}

/// Name of the blob with the entries of all redo logs that have ended in order, a big-endian u64: sequence numbers begin anew
/// with the next.
pub(super) const COMMITS: &str = "commits";

/// Shared by the handle and all threads.
pub(super) struct Core {
    pub(super) options: Options,
    /// See [`super::Store::id`].
    pub(super) store_id: u64,
    /// The main tree's file.
    pub(super) opened: OpenedFile,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) cache: Cache,
    pub(super) redo: Redo,
    pub(super) clock: Arc<Clock>,
    pub(super) failures: Arc<Failures>,
    pub(super) generation: AtomicU32,
    /// Entries of redo logs that ended in order before this one.
    pub(super) commits_before: AtomicU64,
    /// The keys of the last writes before a crash.
    pub(super) recovered: Mutex<Vec<Box<[u8]>>>,
    /// Records of earlier generations count as absent. Changed only while writes are held back.
    floor: AtomicU32,
    /// Rows of the tree that count as absent for that.
    pub(super) old_records: AtomicU64,
    /// See [`super::Store::set_token`].
    pub(super) token: AtomicU64,
    /// No write is decided now.
    held: AtomicBool,
    /// Rows of `twin`, raised before such a row can be seen.
    pub(super) collisions: AtomicU64,
    pub(super) tombstones: AtomicU64,
    pub(super) tombstone_bytes: AtomicU64,
    /// Until when no tombstone is swept.
    tombstones_held: Mutex<Option<Moment>>,
    /// Batches that the log's thread is to write, or to sync; whoever else has written answers those it has.
    pub(super) log_waiters: Mutex<Vec<LogWaiter>>,
    /// Whether there are any.
    pub(super) has_log_waiters: AtomicBool,
    pub(super) log_signal: Signal,
    /// Raised when the log or the unmerged records have shrunk, or failed.
    pub(super) space_signal: Signal,
    pub(super) space_waiters: AtomicU32,
    throttle: Throttle,
    pub(super) requests: Sender<Request>,
    pub(super) request_inbox: Receiver<Request>,
    /// The work of the maintenance thread where a driver does it, until the store is closed.
    pub(super) inline: Mutex<Option<Box<dyn Inline>>>,
    /// Whether the disk answers the log's thread.
    pub(super) stall: Stall,
    /// When the log was last synced by its thread.
    pub(super) last_sync: Mutex<Moment>,
    /// A request to wake up is on its way.
    pub(super) wake_pending: AtomicBool,
    /// Milliseconds since `started` of the last write.
    last_write: AtomicU64,
    started: Moment,
    /// No new work is accepted.
    pub(super) closing: AtomicBool,
    /// Since when.
    closing_since: OnceLock<Moment>,
    /// The log thread may go.
    pub(super) stop_log: AtomicBool,
    /// The log thread is gone; changes with `log_waiters` locked.
    pub(super) log_ended: AtomicBool,
    /// The maintenance thread answers no more.
    pub(super) ended: AtomicBool,
    /// Only in tests: threads go at once and leave everything as it is.
    pub(super) crashed: AtomicBool,
    pub(super) figures: MergeFigures,
    spare: Mutex<Vec<Connection>>,
}

/// The parts of [`Core::new`].
pub(super) struct Parts {
    pub(super) options: Options,
    pub(super) store_id: u64,
    pub(super) opened: OpenedFile,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) cache: Cache,
    pub(super) redo: Redo,
    pub(super) clock: Arc<Clock>,
    pub(super) failures: Arc<Failures>,
    pub(super) generation: u32,
    pub(super) floor: u32,
}

/// Writes are held back as long as this lives.
pub(super) struct Held<'a>(&'a Core);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.store(false, Ordering::Release);
        self.0.space_signal.raise();
    }
}

impl Core {
    pub(super) fn new(parts: Parts) -> Self {
        let (requests, request_inbox) = crossbeam_channel::bounded(64);
        let now = parts.options.time.now();
        Self {
            started: now,
            stall: Stall::default(),
            last_sync: Mutex::new(now),
            options: parts.options,
            store_id: parts.store_id,
            opened: parts.opened,
            disk: parts.disk,
            cache: parts.cache,
            redo: parts.redo,
            clock: parts.clock,
            failures: parts.failures,
            generation: AtomicU32::new(parts.generation),
            commits_before: AtomicU64::new(0),
            recovered: Mutex::default(),
            floor: AtomicU32::new(parts.floor),
            old_records: AtomicU64::new(0),
            token: AtomicU64::new(0),
            held: AtomicBool::new(false),
            collisions: AtomicU64::new(0),
            tombstones: AtomicU64::new(0),
            tombstone_bytes: AtomicU64::new(0),
            tombstones_held: Mutex::default(),
            log_waiters: Mutex::default(),
            has_log_waiters: AtomicBool::new(false),
            log_signal: Signal::default(),
            space_signal: Signal::default(),
            space_waiters: AtomicU32::new(0),
            throttle: Throttle::default(),
            requests,
            request_inbox,
            inline: Mutex::default(),
            wake_pending: AtomicBool::new(false),
            last_write: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            closing_since: OnceLock::new(),
            stop_log: AtomicBool::new(false),
            log_ended: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            crashed: AtomicBool::new(false),
            figures: MergeFigures::default(),
            spare: Mutex::default(),
        }
    }

    /// The first generation whose records count.
    #[inline]
    pub(super) fn floor(&self) -> u32 {
        self.floor.load(Ordering::Acquire)
    }

    /// Takes another floor. Whoever calls it holds writes back, and nothing is unmerged: what memory has read from the tree
    /// is forgotten, and `records` are there now.
    pub(super) fn take_floor(&self, floor: u32, records: u64) {
        assert!(self.is_held() && self.cache.dirty_count() == 0, "a floor is set while there are unmerged writes");
        self.floor.store(floor, Ordering::Release);
        self.cache.forget_clean(records);
    }

    /// Nothing lies below the floor any more.
    pub(super) fn end_floor(&self) {
        self.floor.store(0, Ordering::Release);
    }

    /// Holds writes back: those that are decided later wait on the store's write threads.
    pub(super) fn hold_writes(&self) -> Held<'_> {
        self.held.store(true, Ordering::Release);
        // One that is being decided has a shard locked, and has not seen it.
        self.cache.pass_all_shards();
        Held(self)
    }

    /// Takes another fencing token. Nothing is decided under the old one when this returns.
    pub(super) fn set_token(&self, token: u64) {
        self.token.store(token, Ordering::Release);
        // One that is being decided has a shard locked, and has not seen it.
        self.cache.pass_all_shards();
    }

    /// Whether writes are held back. Certain with the record's shard locked.
    #[inline]
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Waits on a write thread until writes are held back no more.
    pub(super) fn wait_while_held(&self) -> Result<(), Error> {
        while self.is_held() {
            if self.is_closing() {
                return Err(Error::Closed);
            }
            self.space_signal.wait(Duration::from_millis(100), || !self.is_held());
        }
        Ok(())
    }

    /// Now, by the clock that the store measures by.
    pub(super) fn now(&self) -> Moment {
        self.options.time.now()
    }

    /// How long ago `moment` was.
    pub(super) fn elapsed(&self, moment: Moment) -> Duration {
        self.options.time.elapsed(moment)
    }

    /// Has no tombstone swept for so long from now, whatever was said before.
    pub(super) fn hold_tombstones(&self, time: Duration) {
        *self.tombstones_held.lock() = Some(self.now() + time);
    }

    /// Whether tombstones may be swept now.
    pub(super) fn may_sweep(&self) -> bool {
        self.tombstones_held.lock().is_none_or(|until| self.now() >= until)
    }

    /// Bytes that unmerged records may take.
    pub(super) fn dirty_limit(&self) -> u64 {
        self.cache.limit() / 4 * DIRTY_QUARTERS
    }

    /// Largest record accepted, key and value.
    pub(super) fn record_limit(&self) -> u64 {
        (self.dirty_limit().min(self.options.redo_bytes) / 2).saturating_sub(2 * SPACE_SLACK)
    }

    /// Whether a merge should begin for the sake of space.
    #[inline]
    pub(super) fn wants_merge(&self) -> bool {
        self.redo.used() > self.options.redo_bytes / MERGE_SHARE
            || self.cache.dirty_bytes() > self.dirty_limit() / MERGE_SHARE
    }

    /// Whether a merge must hurry: writes wait, or soon will.
    pub(super) fn in_a_hurry(&self) -> bool {
        self.space_waiters.load(Ordering::Relaxed) > 0
            || self.is_held()
            || self.closing.load(Ordering::Relaxed)
            || self.is_tight()
            || !self.request_inbox.is_empty()
    }

    /// Whether so much of the log and of memory is used that writes must be kept from using the rest before the merge ends.
    fn is_tight(&self) -> bool {
        self.redo.used() > self.options.redo_bytes / 2 || self.cache.dirty_bytes() > self.dirty_limit() / 2
    }

    /// Sets the rate of writes so that the free space lasts for `time`, in which the merge will clean `cleaned` bytes.
    pub(super) fn throttle_for(&self, time: Duration, cleaned: u64) {
        let rate = self.is_tight().then(|| {
            let redo = (self.options.redo_bytes / 16 * 15).saturating_sub(self.redo.used());
            let dirty = (self.dirty_limit() / 16 * 15 + cleaned).saturating_sub(self.cache.dirty_bytes());
            // A record of usual size takes up to twice as much memory as it takes space in the log.
            throttle::rate(redo.min(dirty / 2), time)
        });
        self.throttle.set(rate, self.elapsed(self.started));
    }

    /// Whether a write of `bytes` may come now.
    #[inline]
    pub(super) fn may_write(&self, bytes: u64) -> bool {
        self.throttle.take(bytes, || self.elapsed(self.started))
    }

    /// Accepts no new work from now on.
    pub(super) fn begin_closing(&self) {
        // Whoever sees that it closes must find since when.
        self.closing_since.get_or_init(|| self.now());
        self.closing.store(true, Ordering::Release);
    }

    /// Whether closing has merged for as long as it may.
    pub(super) fn must_end(&self) -> bool {
        self.closing_since.get().is_some_and(|since| self.elapsed(*since) >= self.options.close_merge)
    }

    /// Asks the maintenance thread and waits for its answer.
    pub(super) fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        self.ask_while(request, || true)
    }

    /// As [`Self::ask`], but waits only while `patient` says so; then the result is [`Error::Closed`].
    pub(super) fn ask_while<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request,
        patient: impl Fn() -> bool,
    ) -> Result<T, Error> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        if self.is_driven() {
            self.step(Some(request(reply)));
            return answer.try_recv().unwrap_or(Err(Error::Closed));
        }
        let (pause, mut request) = (Duration::from_millis(20), request(reply));
        while let Err(error) = self.requests.send_timeout(request, pause) {
            if self.ended.load(Ordering::Acquire) || !patient() {
                return Err(Error::Closed);
            }
            request = error.into_inner();
        }
        loop {
            match answer.recv_timeout(pause) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) if !self.ended.load(Ordering::Acquire) && patient() => {}
                // The last answer may have come between the end of the wait and that of the thread.
                Err(_) => return answer.try_recv().unwrap_or(Err(Error::Closed)),
            }
        }
    }

    /// Whether a driver does the work of the store's threads.
    pub(super) fn is_driven(&self) -> bool {
        self.options.driver.is_some()
    }

    /// Does the work of the maintenance thread in its place, if it has none; says whether the store is open.
    pub(super) fn step(&self, request: Option<Request>) -> bool {
        let mut inline = self.inline.lock();
        *inline = inline.take().and_then(|maintenance| maintenance.step(request));
        inline.is_some()
    }

    /// Wakes the maintenance thread if it may be asleep.
    pub(super) fn wake(&self) {
        if !self.wake_pending.swap(true, Ordering::AcqRel) {
            // A full inbox means that it has more than enough to wake up for.
            if self.requests.try_send(Request::Wake).is_err() {
                self.wake_noticed();
            }
        }
    }

    /// The maintenance thread has noticed that it was woken.
    pub(super) fn wake_noticed(&self) {
        self.wake_pending.store(false, Ordering::Release);
    }

    /// Answers the batches that only wait to be written, as far as they are. Whoever has written calls it afterwards.
    pub(super) fn answer_written(&self) {
        if !self.has_log_waiters.load(Ordering::Acquire) || self.options.sync == SyncMode::Always {
            return;
        }
        let written = self.redo.written();
        let mut waiters = self.log_waiters.lock();
        let (ready, rest) = std::mem::take(&mut *waiters).into_iter().partition(|waiter| waiter.need <= written);
        *waiters = rest;
        self.has_log_waiters.store(!waiters.is_empty(), Ordering::Release);
        drop(waiters);
        let ready: Vec<LogWaiter> = ready;
        for waiter in ready {
            (waiter.done)(self.failures.error().map_or(Ok(()), Err));
        }
    }

    /// Something was written.
    pub(super) fn note_write(&self) {
        self.last_write.store(self.millis(), Ordering::Relaxed);
    }

    /// How long ago the last write was.
    pub(super) fn idle(&self) -> Duration {
        Duration::from_millis(self.millis().saturating_sub(self.last_write.load(Ordering::Relaxed)))
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.elapsed(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits until there is space for a record of `bytes`, with some to spare. An error if there will not be any soon:
    /// [`Error::Closed`] also for a store that is being closed, since the write would be refused afterwards.
    pub(super) fn wait_for_space(&self, bytes: u64) -> Result<(), Error> {
        self.space_waiters.fetch_add(1, Ordering::Relaxed);
        self.wake();
        let fits = |used: u64, limit: u64| used <= limit / 4 * 3 && used + bytes + SPACE_SLACK <= limit;
        let free = || {
            (fits(self.redo.used(), self.options.redo_bytes) && fits(self.cache.dirty_bytes(), self.dirty_limit()))
                || self.failures.any()
                || self.is_closing()
        };
        while !free() {
            if self.is_driven() {
                self.step(None);
                continue;
            }
            self.space_signal.wait(Duration::from_millis(100), free);
        }
        self.space_waiters.fetch_sub(1, Ordering::Relaxed);
        if self.is_closing() {
            return Err(Error::Closed);
        }
        self.failures.error().map_or(Ok(()), Err)
    }

    /// Waits until the throttle lets `bytes` through, or the write will be refused anyway.
    pub(super) fn wait_for_throttle(&self, bytes: u64) {
        let over = || self.failures.any() || self.is_closing();
        // Where one thread does everything, no merge is under way that could need the room.
        while !self.is_driven() && !self.may_write(bytes) && !over() {
            std::thread::sleep(THROTTLE_RETRY);
        }
    }

    /// Whether no write is decided any more.
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire) || self.crashed.load(Ordering::Relaxed)
    }

    /// Lends a reading connection; it is kept for the next time.
    pub(super) fn with_connection<R>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<R>) -> Result<R, Error> {
        if self.closing.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let spare = self.spare.lock().pop();
        let connection = match spare {
            Some(connection) => connection,
            None => super::tree::open_reader(&self.options.path, SPARE_CONNECTIONS * 4).map_err(Error::read)?,
        };
        let result = work(&connection).map_err(Error::read);
        let mut spare = self.spare.lock();
        if result.is_ok() && spare.len() < SPARE_CONNECTIONS && !self.closing.load(Ordering::Acquire) {
            spare.push(connection);
        }
        result
    }

    /// How many entries of redo logs have been written since the store was made.
    pub(super) fn commits(&self) -> u64 {
        self.commits_before.load(Ordering::Relaxed).saturating_add(self.redo.written())
    }

    /// Shows all threads what the tree holds.
    pub(super) fn publish(&self, tally: &Tally) {
        self.collisions.store(tally.collisions, Ordering::Release);
        let (tombstones, bytes) = tally.current_tombstones();
        self.tombstones.store(tombstones, Ordering::Relaxed);
        self.tombstone_bytes.store(bytes, Ordering::Relaxed);
        self.old_records.store(tally.old_rows(), Ordering::Relaxed);
    }

    /// Closes the lent connections that came back.
    pub(super) fn drop_connections(&self) {
        self.spare.lock().clear();
    }
}
