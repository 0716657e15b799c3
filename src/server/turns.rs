//! Turns at a queue of the store: whoever must not block waits for one on a task.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// As many turns as the queue has places: work that has one is queued without blocking.
pub(super) struct Turns(Arc<Semaphore>);

impl Turns {
    pub(super) fn new(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places)))
    }

    /// Runs `work` with a turn: at once if there is one, else on a task when there is. The work drops it when done.
    pub(super) fn enter(&self, runtime: &Handle, work: impl FnOnce(OwnedSemaphorePermit) + Send + 'static) {
        if let Ok(turn) = self.0.clone().try_acquire_owned() {
            return work(turn);
        }
        let turns = self.0.clone();
        runtime.spawn(async move {
            // Never closed.
            if let Ok(turn) = turns.acquire_owned().await {
                work(turn);
            }
        });
    }
}
