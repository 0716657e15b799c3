//! Figures of a replace: what the log, the status and `--wait` show.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Figures of one replace on one server.
pub use crate::wire::figures::ReplaceFigures as Progress;

/// A number that grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: usize) {
        self.0.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The figures as they grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) scanned: Counter,
    pub(super) sent: Counter,
    pub(super) tombstones: Counter,
    pub(super) failed: Counter,
    pub(super) received: Counter,
    pub(super) dropped: Counter,
}

impl Counters {
    fn all(&self) -> [&Counter; 6] {
        [&self.scanned, &self.sent, &self.tombstones, &self.failed, &self.received, &self.dropped]
    }

    /// A replace begins.
    pub(super) fn reset(&self) {
        for counter in self.all() {
            counter.0.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> Progress {
        let [scanned, sent, tombstones, failed, received, dropped] = self.all().map(Counter::read);
        Progress { scanned, sent, tombstones, failed, received, dropped }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scanned, sent, tombstones, failed, received, dropped } = self;
        write!(
            f,
            "(scanned {scanned}, sent {sent}, deletions sent {tombstones}, failed {failed}, received {received}, \
             dropped {dropped})"
        )
    }
}
