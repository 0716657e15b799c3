//! Does the work of a store's threads as tasks of its machine, on a disk that can be slow or full.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kumo_server::env::Env;
use kumo_server::store;

/// How a machine's disk is.
#[derive(Debug, Default)]
pub(crate) struct DiskState {
    /// Milliseconds that a job takes at most.
    slow: AtomicU64,
    full: AtomicBool,
}

impl DiskState {
    /// From now on each job takes up to so many milliseconds.
    pub(crate) fn set_slow(&self, millis: u64) {
        self.slow.store(millis, Ordering::Relaxed);
    }

    /// From now on it takes nothing, or does again.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }
}

/// A machine that does a store's work.
#[derive(Debug)]
pub(crate) struct Driver {
    env: Env,
    disk: Arc<DiskState>,
}

impl Driver {
    pub(crate) fn new(env: &Env, disk: &Arc<DiskState>) -> Self {
        Self { env: env.clone(), disk: disk.clone() }
    }
}

impl store::Driver for Driver {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        match self.disk.slow.load(Ordering::Relaxed) {
            0 => self.env.detach_blocking(work),
            slow => {
                let time = Duration::from_millis(self.env.random() % slow);
                self.env.spawn(async move {
                    tokio::time::sleep(time).await;
                    work();
                });
            }
        }
    }

    fn every(&self, period: Duration, mut work: Box<dyn FnMut() -> bool + Send>) {
        self.env.spawn(async move {
            loop {
                tokio::time::sleep(period).await;
                if !work() {
                    return;
                }
            }
        });
    }

    fn before_write(&self) -> io::Result<()> {
        if self.disk.full.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}
