//! Closing a store: its threads end in the order in which they need each other.

use super::core::Core;
use super::error::Error;
use super::lock::OwnerLock;
use super::pool::{Pool, ReadJob, WriteJob};
use super::request::Request;
use super::syncer;
use crate::time::Moment;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long the end of closing may take beyond the time for the merge: a checkpoint, and the syncs of two files.
const GRACE: Duration = Duration::from_secs(5);
/// Pause between two looks at whether a thread has ended.
const POLL_PAUSE: Duration = Duration::from_millis(1);

/// The threads to end when a store is closed, in their order, and the lock to release.
pub(super) struct Shutdown {
    pub(super) core: Arc<Core>,
    pub(super) reads: Pool<ReadJob>,
    pub(super) writes: Pool<WriteJob>,
    pub(super) pools: Vec<JoinHandle<()>>,
    /// `None`, and likewise the next: a driver does its work.
    pub(super) log: Option<JoinHandle<()>>,
    pub(super) maintenance: Option<JoinHandle<()>>,
    pub(super) lock: OwnerLock,
}

impl Shutdown {
    /// Finishes what is queued, merges, closes. Must not be called on one of the store's threads, which it waits for.
    ///
    /// With a limit it gives up when finishing takes longer than that, or when the rest takes longer than a merge and its
    /// end may. The store's threads are then left behind, and its lock is kept: the process has to end.
    pub(super) fn run(mut self, limit: Option<Duration>) -> Result<(), Error> {
        let core = self.core.clone();
        core.begin_closing();
        let wait = Wait { core: &core, begun: core.now(), limit };
        let ended = wait.until(|| self.reads.stop() && self.writes.stop())
            && wait.until(|| self.pools.iter().all(JoinHandle::is_finished))
            && {
                core.stop_log.store(true, Ordering::Release);
                match &self.log {
                    Some(log) => {
                        core.log_signal.raise();
                        wait.until(|| log.is_finished())
                    }
                    None => {
                        while syncer::round(&core) {}
                        true
                    }
                }
            };
        if !ended {
            return Err(self.abandon());
        }
        core.drop_connections();
        let wait = Wait { limit: limit.map(|limit| limit.max(core.options.close_merge) + GRACE), ..wait };
        let result = core.ask_while(Request::Close, || !wait.is_over());
        if !wait.until(|| self.maintenance.as_ref().is_none_or(JoinHandle::is_finished)) {
            return Err(self.abandon());
        }
        // A thread that panicked has ended the process.
        for thread in self.pools.into_iter().chain(self.log).chain(self.maintenance) {
            let _ = thread.join();
        }
        drop(self.lock);
        result
    }

    /// Leaves the threads as they are: they wait for the disk. The lock is kept for as long as they may write.
    fn abandon(self) -> Error {
        let redo = &self.core.redo;
        let (next, written, synced) = (redo.next(), redo.written(), redo.synced());
        let error = Error::Stalled {
            unwritten: next.saturating_sub(1).saturating_sub(written),
            unsynced: written.saturating_sub(synced),
        };
        std::mem::forget(self.lock);
        error
    }

    /// As [`Shutdown::run`] for whoever has let go of the last handle, in a callback perhaps; failures are logged.
    pub(super) fn run_anywhere(self) {
        let this = thread::current().id();
        if self.pools.iter().chain(&self.log).chain(&self.maintenance).all(|thread| thread.thread().id() != this) {
            return self.run_and_log();
        }
        if let Err(error) = thread::Builder::new().name("store-close".to_owned()).spawn(|| self.run_and_log()) {
            tracing::error!(%error, "cannot close the store; the redo log keeps what is not merged");
        }
    }

    fn run_and_log(self) {
        if let Err(error) = self.run(None) {
            tracing::error!(%error, "closing the store failed; the redo log keeps what is not merged");
        }
    }
}

/// Waiting for threads of a store, with a limit from when closing has begun.
struct Wait<'a> {
    core: &'a Core,
    begun: Moment,
    limit: Option<Duration>,
}

impl Wait<'_> {
    fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.core.elapsed(self.begun) >= limit)
    }

    /// Waits until `done`; false if the time is over before.
    fn until(&self, mut done: impl FnMut() -> bool) -> bool {
        while !done() {
            if self.is_over() {
                return false;
            }
            thread::sleep(POLL_PAUSE);
        }
        true
    }
}
