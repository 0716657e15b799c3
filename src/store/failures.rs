//! Operations that have failed and not succeeded since. While there are any, no write is acknowledged.

use super::error::Error;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The operations whose failure is remembered until the same one has succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Appending to the redo log.
    Append,
    /// Syncing the redo log.
    Sync,
    /// Merging into the main tree.
    Merge,
}

/// The failures that have not been made good.
#[derive(Debug, Default)]
pub(super) struct Failures {
    any: AtomicBool,
    reasons: Mutex<[Option<Arc<str>>; 3]>,
}

impl Failures {
    /// Whether writes are refused.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Whether this operation has failed.
    pub(super) fn includes(&self, operation: Operation) -> bool {
        self.any() && self.reasons.lock().get(operation as usize).is_some_and(Option::is_some)
    }

    /// The reason of the first one.
    pub(super) fn reason(&self) -> Option<Arc<str>> {
        if !self.any() {
            return None;
        }
        self.reasons.lock().iter().flatten().next().cloned()
    }

    /// The error that writes are refused with.
    pub(super) fn error(&self) -> Option<Error> {
        self.reason().map(Error::Failed)
    }

    /// Notes a failure; the first of a row is logged.
    pub(super) fn note(&self, operation: Operation, cause: &dyn ToString) -> Error {
        let cause: Arc<str> = cause.to_string().into();
        let mut reasons = self.reasons.lock();
        if let Some(reason) = reasons.get_mut(operation as usize) {
            if reason.is_none() {
                tracing::error!(?operation, %cause, "the store cannot write: refusing writes until one succeeds");
            }
            *reason = Some(cause.clone());
        }
        self.any.store(true, Ordering::Release);
        Error::Failed(cause)
    }

    /// This operation has succeeded.
    pub(super) fn clear(&self, operation: Operation) {
        if !self.any() {
            return;
        }
        let mut reasons = self.reasons.lock();
        if let Some(reason) = reasons.get_mut(operation as usize)
            && reason.take().is_some()
        {
            tracing::warn!(?operation, "the store can write again");
        }
        self.any.store(reasons.iter().any(Option::is_some), Ordering::Release);
    }
}
