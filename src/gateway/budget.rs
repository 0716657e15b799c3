//! What all connections together hold in memory, against one limit.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes held by requests and answers of all connections.
#[derive(Debug)]
pub(super) struct Budget {
    held: AtomicUsize,
    limit: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self { held: AtomicUsize::new(0), limit }
    }

    pub(super) fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether `more` bytes are too many.
    pub(super) fn is_exceeded_by(&self, more: usize) -> bool {
        self.held.load(Ordering::Relaxed).saturating_add(more) > self.limit
    }

    /// Whether connections that hold something should take no more for now.
    pub(super) fn is_tight(&self) -> bool {
        self.held.load(Ordering::Relaxed) > self.limit / 2
    }

    /// Bytes held now.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}
