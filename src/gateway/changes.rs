//! Changes that read before they write, one at a time for each item: those of one gateway need not find out by failing
//! that they get in each other's way.

use tokio::sync::{Mutex, MutexGuard};

/// Queues; items whose hashes share one wait for each other needlessly, but not for long.
const QUEUES: usize = 1024;

/// The queues of all items.
#[derive(Debug)]
pub(super) struct Changes(Vec<Mutex<()>>);

impl Default for Changes {
    fn default() -> Self {
        Self((0..QUEUES).map(|_| Mutex::default()).collect())
    }
}

impl Changes {
    /// Waits until no other change of the item is under way; it is over when the result is dropped.
    pub(super) async fn turn(&self, hash: u64) -> Option<MutexGuard<'_, ()>> {
        let queue = usize::try_from(hash % QUEUES as u64).ok().and_then(|queue| self.0.get(queue))?;
        Some(queue.lock().await)
    }
}
