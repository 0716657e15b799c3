//! One connection as seen from outside its task: how to wake it, to end it, and what its peer owes.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

/// The last order about `TCP_NODELAY`.
const NODELAY_KEEP: u8 = 0;
const NODELAY_ON: u8 = 1;
const NODELAY_OFF: u8 = 2;

/// The handle of a connection's task.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// The task sleeps, or is about to: it must be woken to see what is new.
    asleep: AtomicBool,
    waker: Mutex<Option<Waker>>,
    close: AtomicBool,
    drain: AtomicBool,
    nodelay: AtomicU8,
    /// Nothing is read: the end of the connection would not be noticed.
    resting: AtomicBool,
    /// The task is to look whether its peer is still there.
    look: AtomicBool,
    /// Seconds of the registry's clock since when the peer has owed us progress; zero: it owes nothing.
    owing_since: AtomicU32,
}

impl Control {
    /// Has the task look again, unless it is about to by itself.
    #[inline]
    pub(crate) fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            let waker = self.waker.lock().clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// The task is about to look around and then to sleep: what becomes new from here on wakes it.
    pub(super) fn before_sleep(&self, waker: &Waker) {
        {
            let mut known = self.waker.lock();
            match &mut *known {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// The task is awake and will look around before it sleeps: nobody needs to wake it.
    #[inline]
    pub(super) fn attend(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Asks the task to end, without waiting for anything under way.
    pub(crate) fn close(&self) {
        self.close.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.close.load(Ordering::SeqCst)
    }

    /// Asks the task to read no more, and to end when everything under way is answered and sent.
    pub(crate) fn drain(&self) {
        self.drain.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.drain.load(Ordering::SeqCst)
    }

    /// Asks for `TCP_NODELAY` to be switched.
    pub(crate) fn set_nodelay(&self, on: bool) {
        self.nodelay.store(if on { NODELAY_ON } else { NODELAY_OFF }, Ordering::SeqCst);
        self.wake();
    }

    pub(super) fn take_nodelay(&self) -> Option<bool> {
        // A look is cheaper than a swap, and hardly ever finds anything.
        if self.nodelay.load(Ordering::SeqCst) == NODELAY_KEEP {
            return None;
        }
        match self.nodelay.swap(NODELAY_KEEP, Ordering::SeqCst) {
            NODELAY_ON => Some(true),
            NODELAY_OFF => Some(false),
            _ => None,
        }
    }

    /// Whether the task reads from its connection now.
    pub(super) fn note_reading(&self, reading: bool) {
        self.resting.store(!reading, Ordering::Relaxed);
    }

    /// Has a task that does not read look whether its peer is still there.
    pub(super) fn have_look(&self) {
        if self.resting.load(Ordering::Relaxed) {
            self.look.store(true, Ordering::SeqCst);
            self.wake();
        }
    }

    /// Whether the task is to look, once.
    pub(super) fn take_look(&self) -> bool {
        self.look.load(Ordering::SeqCst) && self.look.swap(false, Ordering::SeqCst)
    }

    /// The peer owes progress now, or nothing; `now` in seconds of the registry's clock.
    pub(super) fn note_owing(&self, owing: bool, now: impl FnOnce() -> u32) {
        if !owing {
            self.owing_since.store(0, Ordering::Relaxed);
        } else if self.owing_since.load(Ordering::Relaxed) == 0 {
            self.owing_since.store(now(), Ordering::Relaxed);
        }
    }

    /// The peer has made progress.
    #[inline]
    pub(super) fn note_progress(&self) {
        self.owing_since.store(0, Ordering::Relaxed);
    }

    /// Seconds for which the peer has owed progress, at `now`.
    pub(super) fn owes_for(&self, now: u32) -> u32 {
        match self.owing_since.load(Ordering::Relaxed) {
            0 => 0,
            since => now.saturating_sub(since),
        }
    }
}
