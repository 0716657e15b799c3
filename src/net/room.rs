//! Room that the requests under way of all connections share.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Bytes in use, and how many may be.
#[derive(Debug)]
pub(super) struct Room {
    used: AtomicUsize,
    limit: usize,
    freed: Notify,
}

impl Room {
    pub(super) fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit, freed: Notify::new() }
    }

    /// Takes room, also beyond the limit: whoever asks has read already. See [`Self::is_full`].
    pub(super) fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::SeqCst);
    }

    pub(super) fn give(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::SeqCst);
        if before >= self.limit && before - bytes < self.limit {
            self.freed.notify_waiters();
        }
    }

    /// Completes when there is room again that was missing after this was called.
    pub(super) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// Whether nobody who holds some should read on.
    pub(super) fn is_full(&self) -> bool {
        self.used.load(Ordering::SeqCst) >= self.limit
    }
}
