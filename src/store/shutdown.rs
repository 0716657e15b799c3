//! Closing a store: its threads end in the order in which they need each other.

use super::core::Core;
use super::error::Error;
use super::lock::OwnerLock;
use super::pool::{Pool, ReadJob, WriteJob};
use super::request::Request;
use super::syncer;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

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
    pub(super) fn run(self) -> Result<(), Error> {
        let core = self.core;
        core.begin_closing();
        self.reads.stop();
        self.writes.stop();
        for thread in self.pools {
            // A thread that panicked has ended the process.
            let _ = thread.join();
        }
        core.stop_log.store(true, Ordering::Release);
        match self.log {
            Some(log) => {
                core.log_signal.raise();
                let _ = log.join();
            }
            None => while syncer::round(&core) {},
        }
        core.drop_connections();
        let result = core.ask(Request::Close);
        if let Some(maintenance) = self.maintenance {
            let _ = maintenance.join();
        }
        drop(self.lock);
        result
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
        if let Err(error) = self.run() {
            tracing::error!(%error, "closing the store failed; the redo log keeps what is not merged");
        }
    }
}
