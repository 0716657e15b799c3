//! Doing the work of the pools without threads of the store: for simulations, in which one thread does everything.

/// Does what a thread of the read or the write pool would do.
pub trait Driver: Send + Sync + std::fmt::Debug {
    /// Does `work`, soon; not before this returns, since the caller may hold a lock.
    fn run(&self, work: Box<dyn FnOnce() + Send>);
}
