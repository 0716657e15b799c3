//! Shutdown a store: its threads in the order in which they need each other.

use super::core::Core;
use super::error::Error;
use super::lock::OwnerLock;
use super::pool::{Pool, ReadJob, WriteJob};
use super::request::Request;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

/// The threads to end when a store is closed, in their order, and the lock to release.
pub(super) struct Shutdown {
    pub(super) core: Arc<Core>,
    pub(super) reads: Pool<ReadJob>,
    pub(super) writes: Pool<WriteJob>,
    pub(super) pools: Vec<JoinHandle<()>>,
    pub(super) log: JoinHandle<()>,
    pub(super) maintenance: JoinHandle<()>,
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
        core.log_signal.raise();
        let _ = self.log.join();
        core.drop_connections();
        let result = core.ask(Request::Close);
        let _ = self.maintenance.join();
        drop(self.lock);
        result
    }

    /// As [`Shutdown::run`] for whoever has let go of the last handle, in a callback perhaps; failures are logged.
    pub(super) fn run_anywhere(self) {
        let this = thread::current().id();
        if self.pools.iter().chain([&self.log, &self.maintenance]).all(|thread| thread.thread().id() != this) {
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
