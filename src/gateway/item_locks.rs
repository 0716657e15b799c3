//! A lock for each item, for changes that read before they write: those of one gateway need not find out by a failed
//! compare-and-swap that they get in each other's way. Other gateways know nothing of these locks.

use tokio::sync::{Mutex, MutexGuard};

/// Locks; items whose hashes share one wait for each other needlessly, but not for long.
const LOCKS: usize = 1024;

/// The locks of all items.
#[derive(Debug)]
pub(super) struct ItemLocks(Vec<Mutex<()>>);

impl Default for ItemLocks {
    fn default() -> Self {
        Self((0..LOCKS).map(|_| Mutex::default()).collect())
    }
}

impl ItemLocks {
    /// Waits until no other change of the item with this hash is under way, in the order of those who wait; the lock is
    /// held until the result is dropped.
    pub(super) async fn lock(&self, hash: u64) -> Option<MutexGuard<'_, ()>> {
        let lock = usize::try_from(hash % LOCKS as u64).ok().and_then(|place| self.0.get(place))?;
        Some(lock.lock().await)
    }
}
