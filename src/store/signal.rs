//! A signal that threads wait for, with a limit.

use parking_lot::{Condvar, Mutex};
use std::time::Duration;

/// Wakes threads that wait for a condition, which is kept elsewhere.
#[derive(Default)]
pub(super) struct Signal {
    lock: Mutex<()>,
    condition: Condvar,
}

impl Signal {
    /// Wakes all who wait.
    pub(super) fn raise(&self) {
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
