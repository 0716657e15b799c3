//! The connections of clients that are open.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::job::Job;
use super::pipeline::Pipeline;

/// The pipelines of all open connections.
#[derive(Debug, Default)]
pub(super) struct Clients {
    open: Mutex<HashMap<u64, Arc<Pipeline<Job>>>>,
    last: AtomicU64,
}

impl Clients {
    /// Adds a connection, unless `limit` are open; says its number.
    pub(super) fn add(&self, pipeline: &Arc<Pipeline<Job>>, limit: usize) -> Option<u64> {
        let mut open = self.open.lock();
        (open.len() < limit).then(|| {
            let id = self.last.fetch_add(1, Ordering::Relaxed);
            open.insert(id, pipeline.clone());
            id
        })
    }

    /// Removes a connection that has ended.
    pub(super) fn remove(&self, id: u64) {
        self.open.lock().remove(&id);
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Pipeline<Job>>> {
        self.open.lock().values().cloned().collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.open.lock().len()
    }
}
