//! A signal that threads wait for, with a limit.

use parking_lot::{Condvar, Mutex};
use std::sync::OnceLock;
use std::time::Duration;

/// Wakes threads that wait for a condition, which is kept elsewhere.
#[derive(Default)]
pub(super) struct Signal {
    lock: Mutex<()>,
    condition: Condvar,
    /// Called instead, where no thread waits.
    instead: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Signal {
    /// Has `call` called whenever the signal is raised, instead of waking threads.
    pub(super) fn call_instead(&self, call: impl Fn() + Send + Sync + 'static) {
        // The first one stays.
        let _ = self.instead.set(Box::new(call));
    }

    /// Wakes all who wait.
    pub(super) fn raise(&self) {
        if let Some(call) = self.instead.get() {
            return call();
        }
        drop(self.lock.lock());
        self.condition.notify_all();
    }

    /// Waits until `ready` or raised or timed out; `ready` is asked under the lock, so that no signal is missed.
    pub(super) fn wait(&self, timeout: Duration, ready: impl FnOnce() -> bool) {
        let mut guard = self.lock.lock();
        if !ready() {
            self.condition.wait_for(&mut guard, timeout);
        }
    }
}
