//! Doing the work of a store's threads without threads: for simulations, in which one thread does everything.

use std::io;
use std::time::Duration;

/// Does what the threads of a store would do.
pub trait Driver: Send + Sync + std::fmt::Debug {
    /// Does `work`, soon; not before this returns, since the caller may hold a lock.
    fn run(&self, work: Box<dyn FnOnce() + Send>);

    /// Does `work` once every `period` until it says false; the first time not before this returns.
    fn every(&self, period: Duration, work: Box<dyn FnMut() -> bool + Send>);

    /// Called before each write to the disk. An error fails it, as a full disk would.
    fn before_write(&self) -> io::Result<()> {
        Ok(())
    }
}
