//! `flush_all`: what was written up to a moment is hidden by this gateway from then on.
//!
//! A cluster cannot be emptied by its protocol, nor its records listed. So nothing is deleted: other gateways go on
//! showing what is hidden here, and so does this one after a restart. Clocktimes count seconds; a flush at once is
//! therefore over when its second is, and what is written afterwards is seen.

use std::sync::atomic::{AtomicU32, Ordering};

use super::item::expires;
use crate::clock::ClockTime;

/// The last flush.
#[derive(Debug, Default)]
pub(super) struct Flush {
    /// Records of this second (unix) and before are hidden once it has come; zero: none.
    upto: AtomicU32,
}

impl Flush {
    /// Hides what has been written `delay` seconds from now; a `delay` over thirty days is a moment in unix seconds.
    /// Returns the second that must be over before anything is written that is to be seen, if it is this one.
    pub(super) fn order(&self, delay: i64, now: u32) -> Option<u32> {
        let upto = if delay > 0 { expires(delay, now) } else { now };
        self.upto.store(upto, Ordering::Release);
        (upto <= now).then_some(now)
    }

    /// Whether there was one.
    pub(super) fn is_ordered(&self) -> bool {
        self.upto.load(Ordering::Acquire) != 0
    }

    /// Whether a record must not be seen.
    pub(super) fn hides(&self, written: ClockTime, now: u32) -> bool {
        let upto = self.upto.load(Ordering::Acquire);
        upto != 0 && upto <= now && written.seconds() <= upto
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
        assert!(!hides(100, 150) && hides(151, 151) && !hides(152, 152));
    }
}
