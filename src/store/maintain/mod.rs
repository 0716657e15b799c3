//! The maintenance thread, sole owner of the connection that changes the main tree: merges, checkpoints, the sweeper,
//! backups, named state.

mod backup;
mod floor;
mod sweep;

use super::core::{COMMITS, Core};
use super::disk::Step;
use super::error::Error;
use super::failures::Operation;
use super::merge::Merge;
use super::options::SyncMode;
use super::request::{Inline, Reply, Request};
use super::tree::{Tally, Writer};
use super::undecided::{self, Kept, Undecided};
use crate::time::{Moment, Time};
use crossbeam_channel::RecvTimeoutError;
use floor::OldRows;
use rusqlite::Connection;
use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use sweep::Sweep;

/// How often the thread looks around when nobody calls.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Time without writes after which what there is gets merged.
const IDLE: Duration = Duration::from_secs(1);
/// Time after which it is merged in any case.
const AGE: Duration = Duration::from_secs(5);
/// Pause before a failed merge is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// Longest pause after one transaction.
const PAUSE_LIMIT: Duration = Duration::from_millis(20);
/// A merge takes this many times what its transactions seem to need, and ...
const FINISH_SHARE: f64 = 1.2;
/// ... this for syncs at its end.
const FINISH: Duration = Duration::from_millis(100);
/// Bytes of a page in the write-ahead log.
const WAL_PAGE: u64 = 4096 + 24;

/// The thread's state. Methods take `&self`, since a backup borrows the connection while merges go on.
pub(super) struct Maintenance {
    core: Arc<Core>,
    tree: Writer,
    last_merge: Cell<Moment>,
    failed_at: Cell<Option<Moment>>,
    sweep: RefCell<Sweep>,
    /// The deletion of what lies below the floor.
    old_rows: RefCell<OldRows>,
    /// There is more to sweep.
    sweeping: Cell<bool>,
    /// Keys that a restart must find, once somebody knows of any.
    undecided: RefCell<Option<Kept>>,
    /// Who wants the store closed.
    closing: RefCell<Option<Reply<()>>>,
}

/// Runs until the store is closed.
pub(super) fn run(maintenance: Maintenance) {
    let core = maintenance.core.clone();
    let mut next = Some(maintenance);
    while let Some(this) = next {
        let request = match core.request_inbox.recv_timeout(this.pause()) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        next = this.round(request);
    }
}

impl Inline for Maintenance {
    fn step(self: Box<Self>, mut request: Option<Request>) -> Option<Box<dyn Inline>> {
        let mut this = *self;
        loop {
            this = this.round(request)?;
            request = this.core.request_inbox.try_recv().ok();
            if request.is_none() {
                return Some(Box::new(this));
            }
        }
    }
}

impl Maintenance {
    pub(super) fn new(core: &Arc<Core>, tree: Writer) -> Self {
        Self {
            core: core.clone(),
            tree,
            last_merge: Cell::new(core.now()),
            failed_at: Cell::new(None),
            sweep: RefCell::default(),
            old_rows: RefCell::default(),
            sweeping: Cell::new(false),
            undecided: RefCell::default(),
            closing: RefCell::default(),
        }
    }

    /// How long to wait for a request.
    fn pause(&self) -> Duration {
        if self.sweeping.get() { Duration::from_millis(2) } else { TICK }
    }

    /// Serves a request and does what is due; gives itself back unless that was the end.
    fn round(self, request: Option<Request>) -> Option<Self> {
        if let Some(request) = request {
            self.serve(request, true);
        }
        let core = self.core.clone();
        if core.crashed.load(Ordering::Acquire) {
            // As after a kill: SQLite must not tidy up.
            core.ended.store(true, Ordering::Release);
            std::mem::forget(self);
            return None;
        }
        if let Some(reply) = self.closing.take() {
            let _ = reply.send(self.close());
            core.ended.store(true, Ordering::Release);
            return None;
        }
        self.merge_if_due();
        let deleting = self.old_rows.borrow_mut().step(&self);
        self.sweeping.set(self.sweep() || deleting);
        Some(self)
    }

    /// Answers a request; the main loop closes.
    fn serve(&self, request: Request, may_back_up: bool) {
        // A client that has gone away does not want the answer.
        match request {
            Request::Wake => self.core.wake_noticed(),
            Request::Flush(reply) => drop(reply.send(self.flush())),
            Request::PutState { name, value, reply } => {
                let result =
                    self.order_before().and_then(|()| self.tree.put_state(&name, &value).map_err(Error::failed));
                drop(reply.send(result));
            }
            Request::Generation(reply) => drop(reply.send(self.next_generation())),
            Request::SetFloor(reply) => drop(reply.send(floor::set(self))),
            Request::DropOld(reply) => drop(reply.send(floor::begin_dropping(self))),
            Request::Backup { destination, reply } => {
                let result = if may_back_up {
                    backup::run(self, &destination)
                } else {
                    Err(Error::Backup { path: destination, reason: "another backup is under way".into() })
                };
                drop(reply.send(result));
            }
            Request::Undecided(owner, reply) => drop(reply.send(self.note_undecided(owner))),
            Request::Close(reply) => drop(self.closing.replace(Some(reply))),
        }
    }

    fn note_undecided(&self, owner: Arc<dyn Undecided>) -> Result<(), Error> {
        let stored = self.tree.state(undecided::STATE).map_err(Error::failed)?.unwrap_or_default();
        *self.undecided.borrow_mut() = Some(Kept::new(owner, stored));
        Ok(())
    }

    /// Stores which of the merged records others are still to have, if that has changed.
    fn keep_undecided(&self) -> Result<(), Error> {
        let mut undecided = self.undecided.borrow_mut();
        let Some(kept) = &mut *undecided else { return Ok(()) };
        if let Some(bytes) = kept.changed() {
            self.tree.put_state(undecided::STATE, &bytes).map_err(Error::failed)?;
            kept.stored(bytes);
        }
        Ok(())
    }

    /// Makes all writes so far durable: state must not be on disk before the writes that precede it.
    fn order_before(&self) -> Result<(), Error> {
        self.refuse_if_replaced()?;
        self.core.redo.write_all()?;
        self.core.redo.sync()
    }

    /// An error if the database's path no longer names the file that is open: what is written to that file would be lost,
    /// and the redo log's names may be another store's by now.
    fn refuse_if_replaced(&self) -> Result<(), Error> {
        let opened = &self.core.opened;
        if opened.is_there() {
            return Ok(());
        }
        Err(Error::failed(format!("{} was removed or replaced while the store was open", opened.path().display())))
    }

    fn next_generation(&self) -> Result<u32, Error> {
        let next = self.core.generation.load(Ordering::Relaxed).wrapping_add(1);
        self.order_before()?;
        self.tree.seal(|tally| tally.generation = next).map_err(Error::failed)?;
        self.core.generation.store(next, Ordering::Relaxed);
        Ok(next)
    }

    fn merge_if_due(&self) {
        let core = &self.core;
        if self.failed_at.get().is_some_and(|at| core.elapsed(at) < RETRY) {
            return;
        }
        let waiting = core.cache.dirty_count() > 0 || !core.redo.is_empty();
        let due = core.wants_merge()
            || core.space_waiters.load(Ordering::Relaxed) > 0
            || core.redo.is_suspect()
            || self.failed_at.get().is_some()
            || !core.opened.is_there()
            || (waiting && (core.idle() >= IDLE || core.elapsed(self.last_merge.get()) >= AGE));
        if due {
            // Noted where it fails.
            let _ = self.flush();
        }
    }

    /// Merges everything written so far and lets go of the log that held it. [`Error::Closed`]: there was no time left for
    /// all of it, and the log is synced.
    fn flush(&self) -> Result<(), Error> {
        let core = &self.core;
        let begun = core.now();
        let result = self.merge();
        self.last_merge.set(core.now());
        match &result {
            Ok(rows) => {
                self.failed_at.set(None);
                core.failures.clear(Operation::Merge);
                let micros = u64::try_from(core.elapsed(begun).as_micros()).unwrap_or(u64::MAX);
                core.figures.merges.fetch_add(1, Ordering::Relaxed);
                core.figures.records.fetch_add(*rows, Ordering::Relaxed);
                core.figures.micros.fetch_add(micros, Ordering::Relaxed);
                tracing::debug!(rows, ms = micros / 1000, "merged");
            }
            Err(Error::Closed) => {}
            Err(error) => {
                self.failed_at.set(Some(core.now()));
                let cause = if let Error::Failed(cause) = error { cause.to_string() } else { error.to_string() };
                core.failures.note(Operation::Merge, &cause);
            }
        }
        core.space_signal.raise();
        result.map(drop)
    }

    fn merge(&self) -> Result<u64, Error> {
        let core = &self.core;
        self.refuse_if_replaced()?;
        // The last merge looks into every shard: a write under way there is not counted yet.
        let last = core.closing.load(Ordering::Acquire);
        // Not by the dirty records alone: what came during the last merge may be in the tree and in the log.
        if core.cache.dirty_count() == 0 && core.redo.is_empty() && !core.redo.is_suspect() && !last {
            return Ok(0);
        }
        let suspect = core.redo.is_suspect();
        let (number, first) = core.redo.rotate()?;
        if !suspect {
            // The kernel may put the tree on the disk before the log: what is merged must not be there without what was
            // written before it.
            core.redo.sync()?;
        }
        let merge = Merge { cache: &core.cache, tree: &self.tree, disk: &*core.disk };
        let begun = core.now();
        let mut chunk_begun = begun;
        let moved = merge
            .run(
                || core.redo.next(),
                |collisions, newest| {
                    core.collisions.store(collisions.max(core.collisions.load(Ordering::Acquire)), Ordering::Release);
                    self.log_up_to(newest)
                },
                |key| {
                    if let Some(kept) = &mut *self.undecided.borrow_mut() {
                        kept.merged(key);
                    }
                },
                |done, left| {
                    self.bound_wal()?;
                    self.throttle(core.elapsed(begun), done, left);
                    // When one merge follows the other, the sweeper has no other time.
                    if !core.is_held() {
                        self.sweep();
                    }
                    if !core.in_a_hurry() {
                        std::thread::sleep(core.elapsed(chunk_begun).min(PAUSE_LIMIT));
                    }
                    chunk_begun = core.now();
                    Ok(!core.must_end())
                },
            )
            .map_err(Error::failed)?;
        if let Some(share) = (moved.new * 1000).checked_div(moved.rows) {
            core.figures.new_share.store(u32::try_from(share).unwrap_or(1000), Ordering::Relaxed);
        }
        core.publish(&self.tree.tally());
        if moved.cut_short {
            core.redo.write_all()?;
            core.redo.sync()?;
            return Err(Error::Closed);
        }
        if suspect {
            // The old files may have holes: nothing may rest on the new one while a start would read them before it.
            self.seal(|tally| tally.redo_from = number)?;
            core.redo.trust_again(first);
        }
        // What the merge left out because it was written again is only in the current file: it must be durable
        // before the older ones go.
        core.redo.write_all()?;
        core.redo.sync()?;
        self.keep_undecided()?;
        self.reached(Step::RedoSynced)?;
        if !suspect {
            self.seal(|tally| tally.redo_from = number)?;
        }
        self.reached(Step::MergeSynced)?;
        self.refuse_if_replaced()?;
        core.redo.delete_before(number);
        core.throttle_for(Duration::ZERO, 0);
        core.space_signal.raise();
        self.checkpoint(false)?;
        Ok(moved.rows)
    }

    /// Nothing enters the tree before it is as safe in the log as when it is acknowledged: others rest their answers on
    /// a record that is merged without asking the log, and a replay puts back what the log has.
    fn log_up_to(&self, seq: u64) -> io::Result<()> {
        let redo = &self.core.redo;
        redo.write_out(seq).map_err(io::Error::other)?;
        // After a failed sync no answer is given before this merge has ended.
        if self.core.options.sync == SyncMode::Always && !redo.is_suspect() {
            redo.sync_up_to(seq).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Lets writes come as fast as the rest of the merge allows.
    fn throttle(&self, elapsed: Duration, done: usize, left: usize) {
        let (done, left) = (u32::try_from(done.max(1)).unwrap_or(u32::MAX), u32::try_from(left).unwrap_or(u32::MAX));
        let rest = elapsed.mul_f64(f64::from(left) / f64::from(done));
        // Dirty records are much alike: those left are their share of all.
        let dirty = self.core.cache.dirty_count().max(1);
        let cleaned = self.core.cache.dirty_bytes() / dirty * u64::from(left);
        self.core.throttle_for(rest.mul_f64(FINISH_SHARE) + FINISH, cleaned);
    }

    /// Makes the tree durable, with all that the next start must know.
    fn seal(&self, change: impl FnOnce(&mut Tally)) -> Result<(), Error> {
        let seal = self.tree.seal(|tally| {
            self.describe(tally);
            change(tally);
        });
        seal.map_err(Error::failed)
    }

    /// Fills in what is true of all that the tree may hold by now.
    fn describe(&self, tally: &mut Tally) {
        (tally.newest, tally.low_seconds) = self.core.cache.newest();
        tally.clock = self.core.clock.peek();
        tally.generation = self.core.generation.load(Ordering::Relaxed);
    }

    /// Checkpoints in the middle of a merge if the write-ahead log has reached its bound.
    fn bound_wal(&self) -> rusqlite::Result<()> {
        if self.tree.wal_pages()? * WAL_PAGE > self.core.options.wal_bytes {
            self.tree.checkpoint(false)?;
        }
        Ok(())
    }

    fn checkpoint(&self, truncate: bool) -> Result<(), Error> {
        self.reached(Step::Checkpoint)?;
        if !self.tree.checkpoint(truncate).map_err(Error::failed)? {
            tracing::debug!("readers kept the checkpoint from finishing; the next one will");
        }
        self.reached(Step::Checkpointed)
    }

    fn reached(&self, step: Step) -> Result<(), Error> {
        self.core.disk.reached(step).map_err(Error::failed)
    }

    fn sweep(&self) -> bool {
        if self.core.failures.any() {
            return false;
        }
        match self.sweep.borrow_mut().step(&self.core, &self.tree) {
            Ok(more) => more,
            Err(error) => {
                tracing::warn!(%error, "removing old tombstones failed; it is tried again later");
                false
            }
        }
    }

    /// Merges, notes that nothing is left in the log, and closes the tree. What there was no time for is in the log, and
    /// the next start takes it from there.
    fn close(self) -> Result<(), Error> {
        let mut result = self.flush();
        self.core.cache.assert_sums();
        let cut_short = result == Err(Error::Closed);
        if cut_short {
            tracing::info!(records = self.core.cache.dirty_count(), "closing with records left in the redo log");
            result = Ok(());
        } else if result.is_ok() && self.core.cache.dirty_count() == 0 {
            let (items, blind) = self.core.cache.items();
            let rows = self.tree.tally().current_rows();
            debug_assert!(
                blind == 0 && items == rows,
                "{items} records are counted, {blind} more not yet, in {rows} rows"
            );
            result = self.leave_nothing();
        }
        // After a failure the write-ahead log stays as it is: the next start writes it anew before it rests on it.
        let closed = self.tree.close(result.is_ok() && !cut_short).map_err(Error::failed);
        result.and(closed)
    }

    /// Notes in the tree that it holds everything, and ends the log.
    fn leave_nothing(&self) -> Result<(), Error> {
        let number = self.core.redo.number();
        // First: counted twice after a crash in between, and never less than before.
        self.tree.put_state(COMMITS, &self.core.commits().to_be_bytes()).map_err(Error::failed)?;
        self.seal(|tally| {
            tally.redo_from = number + 1;
            tally.clean = true;
        })?;
        self.core.redo.finish();
        self.checkpoint(true)
    }
}

impl floor::Host for Maintenance {
    fn core(&self) -> &Core {
        &self.core
    }

    fn tree(&self) -> &Writer {
        &self.tree
    }

    fn flush(&self) -> Result<(), Error> {
        Maintenance::flush(self)
    }

    fn order_before(&self) -> Result<(), Error> {
        Maintenance::order_before(self)
    }

    fn seal(&self, change: impl FnOnce(&mut Tally)) -> Result<(), Error> {
        Maintenance::seal(self, change)
    }

    fn bound_wal(&self) -> Result<(), Error> {
        Maintenance::bound_wal(self).map_err(Error::failed)
    }

    fn checkpoint(&self) -> Result<(), Error> {
        Maintenance::checkpoint(self, false)
    }

    fn reached(&self, step: Step) -> Result<(), Error> {
        Maintenance::reached(self, step)
    }
}

impl backup::Host for Maintenance {
    fn path(&self) -> &Path {
        self.core.opened.path()
    }

    fn connection(&self) -> &Connection {
        self.tree.connection()
    }

    fn flush(&self) -> Result<(), Error> {
        Maintenance::flush(self)
    }

    fn may_pause(&self) -> bool {
        !self.core.in_a_hurry()
    }

    fn work_between(&self) -> bool {
        while let Ok(request) = self.core.request_inbox.try_recv() {
            self.serve(request, false);
        }
        self.merge_if_due();
        self.sweep();
        self.old_rows.borrow_mut().step(self);
        !self.core.crashed.load(Ordering::Acquire) && !self.core.closing.load(Ordering::Acquire)
    }

    fn time(&self) -> &Time {
        &self.core.options.time
    }

    fn tally(&self) -> Tally {
        let mut tally = self.tree.tally();
        // A merge may have failed since the last seal, and some of its rows be in the copy.
        self.describe(&mut tally);
        tally
    }

    fn reached(&self, step: Step) -> Result<(), Error> {
        Maintenance::reached(self, step)
    }
}
