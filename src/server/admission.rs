//! Admission to the store's queues: work that must not block waits on a task until the queue has a place for it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::env::Env;

/// As many permits as a queue has places: work that holds one is queued without blocking.
pub(super) struct Admission(Arc<Semaphore>);

impl Admission {
    /// Permits for `places` works at a time.
    pub(super) fn new(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places)))
    }

    /// Runs `work` with a permit: at once if one is free, else later on a task. The work drops the permit when it is done.
    pub(super) fn enter(&self, env: &Env, work: impl FnOnce(OwnedSemaphorePermit) + Send + 'static) {
        if let Ok(permit) = self.0.clone().try_acquire_owned() {
            return work(permit);
        }
        let permits = self.0.clone();
        env.spawn(async move {
            // Never closed.
            if let Ok(permit) = permits.acquire_owned().await {
                work(permit);
            }
        });
    }
}
