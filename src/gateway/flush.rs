//! `flush_all`: what was written up to a moment is hidden by this gateway from then on.
//!
//! A cluster cannot be emptied by its protocol, nor its records listed. So nothing is deleted: other gateways go on
//! showing what is hidden here, and so does this one after a restart. Clocktimes count seconds; a flush at once is
//! therefore over when its second is, and what is written afterwards is seen.

use std::sync::atomic::{AtomicU32, Ordering};

use super::item::expires;
use crate::clock::ClockTime;

/// What has been flushed, and the one flush to come.
#[derive(Debug, Default)]
pub(super) struct Flush {
    /// Records of this second (unix) and before are hidden for good; zero: none. It only grows.
    hidden: AtomicU32,
    /// Records of this second and before are hidden once it has come; zero: none. A later flush takes its place.
    pending: AtomicU32,
}

impl Flush {
    /// Hides what has been written `delay` seconds from now; a `delay` over thirty days is a moment in unix seconds.
    /// Returns the second that must be over before anything is written that is to be seen, if it is this one.
    pub(super) fn order(&self, delay: i64, now: u32) -> Option<u32> {
        let upto = if delay > 0 { expires(delay, now) } else { now };
        let is_due = upto <= now;
        // What one before has hidden by now stays hidden.
        self.hidden.fetch_max(self.hidden_at(now).max(if is_due { upto } else { 0 }), Ordering::AcqRel);
        self.pending.store(if is_due { 0 } else { upto }, Ordering::Release);
        is_due.then_some(now)
    }

    /// Whether there was one.
    pub(super) fn is_ordered(&self) -> bool {
        self.hidden.load(Ordering::Acquire) != 0 || self.pending.load(Ordering::Acquire) != 0
    }

    /// Whether a record must not be seen.
    pub(super) fn hides(&self, written: ClockTime, now: u32) -> bool {
        let upto = self.hidden_at(now);
        upto != 0 && written.seconds() <= upto
    }

    /// The last second that is hidden now.
    fn hidden_at(&self, now: u32) -> u32 {
        let pending = self.pending.load(Ordering::Acquire);
        self.hidden.load(Ordering::Acquire).max(if pending <= now { pending } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_hides_what_is_older() {
        let flush = Flush::default();
        let hides = |written, now| flush.hides(ClockTime::new(written, 5), now);
        assert!(!flush.is_ordered() && !hides(100, 100));
        assert_eq!(flush.order(0, 100), Some(100));
        assert!(flush.is_ordered() && hides(100, 100) && hides(99, 200) && !hides(101, 101));
        assert_eq!(flush.order(50, 101), None);
        assert!(hides(100, 150) && !hides(101, 150) && hides(151, 151) && !hides(152, 152));
    }

    #[test]
    fn one_that_is_to_come_brings_nothing_back() {
        let flush = Flush::default();
        let hides = |written, now| flush.hides(ClockTime::new(written, 5), now);
        assert_eq!(flush.order(10, 100), None);
        assert!(flush.is_ordered() && !hides(100, 109) && hides(110, 110));
        // It has come; the next one has not.
        assert_eq!(flush.order(50, 120), None);
        assert!(hides(110, 120) && !hides(111, 169) && hides(170, 170));
        // One at once takes the place of the one to come.
        assert_eq!(flush.order(0, 130), Some(130));
        assert!(hides(130, 130) && !hides(131, 200));
        // A moment that was over before the last one.
        assert_eq!(flush.order(100 * 24 * 3600, 100 * 24 * 3600 + 5), Some(100 * 24 * 3600 + 5));
        assert!(hides(100 * 24 * 3600, u32::MAX) && !hides(100 * 24 * 3600 + 1, u32::MAX));
    }
}
