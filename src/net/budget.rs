//! Memory that all connections share, against one limit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

/// Bytes held by all connections together, and how many they may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    held: AtomicUsize,
    limit: usize,
    /// Tasks that wait until less is held than the limit.
    waiting: Mutex<Vec<Waker>>,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { held: AtomicUsize::new(0), limit, waiting: Mutex::default() }
    }

    /// Counts bytes, also beyond the limit: whoever asks holds them already.
    #[inline]
    pub(crate) fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Counts them no more.
    #[inline]
    pub(crate) fn release(&self, bytes: usize) {
        let before = self.held.fetch_sub(bytes, Ordering::SeqCst);
        assert!(before >= bytes, "more bytes are released than are held: {bytes} of {before}");
        if before >= self.limit && before.wrapping_sub(bytes) < self.limit {
            for task in std::mem::take(&mut *self.waiting.lock()) {
                task.wake();
            }
        }
    }

    /// Whether nobody who holds something should take more.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.held.load(Ordering::SeqCst) >= self.limit
    }

    /// Whether more than half is held: who holds something should take no more before some of that is released.
    #[inline]
    pub(crate) fn is_tight(&self) -> bool {
        self.held.load(Ordering::SeqCst) > self.limit / 2
    }

    /// Whether it is full; if so, `waker` is woken when it is so no more.
    pub(crate) fn is_full_for(&self, waker: &Waker) -> bool {
        if !self.is_full() {
            return false;
        }
        self.waiting.lock().push(waker.clone());
        // It may have become less before this task could be found.
        self.is_full()
    }

    /// Whether `more` bytes are too many.
    pub(crate) fn is_exceeded_by(&self, more: usize) -> bool {
        self.held().saturating_add(more) > self.limit
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        let held = *self.held.get_mut();
        assert!(held == 0 || std::thread::panicking(), "all holders are gone, but {held} bytes are still counted");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_is_woken_once_when_there_is_space_again() {
        let budget = Budget::new(100);
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        assert!(!budget.is_full_for(&waker));
        budget.hold(50);
        assert!(!budget.is_tight());
        budget.hold(100);
        assert!(budget.is_tight() && budget.is_full_for(&waker) && budget.is_exceeded_by(0));
        budget.release(20);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        budget.release(50);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(!budget.is_full() && budget.is_exceeded_by(21));
        budget.hold(20);
        budget.release(100);
        assert_eq!((count.0.load(Ordering::Relaxed), budget.held()), (1, 0));
    }
}
