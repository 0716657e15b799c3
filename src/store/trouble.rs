//! What has failed and not worked since. While anything is noted here no write is acknowledged.

use super::error::Error;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The operations whose failure is remembered until the same one has succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Appending to the redo log.
    Append,
    /// Syncing the redo log.
    Sync,
    /// Merging into the main tree.
    Merge,
}

/// The failures that stand.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    any: AtomicBool,
    reasons: Mutex<[Option<Arc<str>>; 3]>,
}

impl Trouble {
    /// Whether writes are refused.
    #[inline]
    pub(super) fn stands(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Whether this part has failed.
    pub(super) fn stands_for(&self, part: Part) -> bool {
        self.stands() && self.reasons.lock().get(part as usize).is_some_and(Option::is_some)
    }

    /// The first reason that stands.
    pub(super) fn reason(&self) -> Option<Arc<str>> {
        if !self.stands() {
            return None;
        }
        self.reasons.lock().iter().flatten().next().cloned()
    }

    /// The error that writes are refused with.
    pub(super) fn error(&self) -> Option<Error> {
        self.reason().map(Error::Failed)
    }

    /// Notes a failure; the first of a row is logged.
    pub(super) fn note(&self, part: Part, cause: &dyn ToString) -> Error {
        let cause: Arc<str> = cause.to_string().into();
        let mut reasons = self.reasons.lock();
        if let Some(reason) = reasons.get_mut(part as usize) {
            if reason.is_none() {
                tracing::error!(?part, %cause, "the store cannot write: refusing writes until one succeeds");
            }
            *reason = Some(cause.clone());
        }
        self.any.store(true, Ordering::Release);
        Error::Failed(cause)
    }

    /// This part has worked.
    pub(super) fn clear(&self, part: Part) {
        if !self.stands() {
            return;
        }
        let mut reasons = self.reasons.lock();
        if let Some(reason) = reasons.get_mut(part as usize)
            && reason.take().is_some()
        {
            tracing::warn!(?part, "the store can write again");
        }
        self.any.store(reasons.iter().any(Option::is_some), Ordering::Release);
    }
}
