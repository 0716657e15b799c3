//! The connections that are open: how many there may be, which have stalled, and how they are ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::control::Control;
use crate::time::{Moment, Time};

/// Pause between two looks at the connections that are left when draining.
const DRAIN_PAUSE: Duration = Duration::from_millis(5);
/// At most one warning in this many seconds about connections that were turned away.
const WARN_SECONDS: u32 = 10;

/// A connection as the registry knows it.
pub(crate) trait Connected: Send + Sync {
    /// The handle of its task.
    fn control(&self) -> &Control;
}

/// All open connections of one kind.
#[derive(Debug)]
pub(crate) struct Registry<C> {
    open: Mutex<BTreeMap<u64, Arc<C>>>,
    last: AtomicU64,
    time: Time,
    started: Moment,
    /// When it was last said that connections are turned away, in seconds of the registry's clock; zero: never.
    warned: AtomicU32,
}

impl<C: Connected> Registry<C> {
    pub(crate) fn new(time: &Time) -> Self {
        Self {
            open: Mutex::default(),
            last: AtomicU64::new(0),
            started: time.now(),
            time: time.clone(),
            warned: AtomicU32::new(0),
        }
    }

    /// A number that no other connection has or had.
    pub(crate) fn next_id(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Adds a connection, unless `limit` are open.
    pub(crate) fn insert(&self, id: u64, connection: Arc<C>, limit: usize) -> bool {
        let mut open = self.open.lock();
        let fits = open.len() < limit;
        if fits {
            open.insert(id, connection);
        }
        fits
    }

    /// Removes a connection that has ended.
    pub(crate) fn remove(&self, id: u64) {
        self.open.lock().remove(&id);
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<C>> {
        self.open.lock().values().cloned().collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.open.lock().len()
    }

    /// Seconds since this was made, at least one: the clock by which progress is owed.
    pub(crate) fn uptime_seconds(&self) -> u32 {
        u32::try_from(self.time.elapsed(self.started).as_secs()).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Closes those whose peers have owed progress for `limit`, and hands each to `each`; has those that are not read from
    /// look whether their peers are still there.
    pub(crate) fn reap(&self, limit: Duration, each: impl Fn(&C, u32)) {
        let now = self.uptime_seconds();
        let limit = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX).max(1);
        for connection in self.all() {
            if connection.control().owes_for(now) >= limit {
                each(&connection, limit);
                connection.control().close();
            } else {
                connection.control().have_look();
            }
        }
    }

    /// Lets those that `which` names finish what is under way and end; says how many are left at the deadline.
    pub(crate) async fn drain(&self, deadline: tokio::time::Instant, which: impl Fn(&C) -> bool) -> usize {
        loop {
            let left: Vec<_> = self.all().into_iter().filter(|connection| which(connection)).collect();
            if left.is_empty() {
                return 0;
            }
            for connection in &left {
                connection.control().drain();
            }
            if tokio::time::timeout_at(deadline, tokio::time::sleep(DRAIN_PAUSE)).await.is_err() {
                return left.len();
            }
        }
    }

    /// Closes all of them.
    pub(crate) fn close_all(&self) {
        for connection in self.all() {
            connection.control().close();
        }
    }

    /// Warns, now and then, that there is no place for a client.
    pub(crate) fn warn_turned_away(&self, peer: &dyn std::fmt::Display, limit: usize) {
        let (now, last) = (self.uptime_seconds(), self.warned.load(Ordering::Relaxed));
        let due = last == 0 || now.saturating_sub(last) >= WARN_SECONDS;
        if due && self.warned.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(%peer, "connection refused: {limit} are open, which is the limit");
        }
    }
}
