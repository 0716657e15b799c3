//! Until when a server may act by a configuration: one number that the paths of reads and writes look at without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::register::Configuration;
use crate::time::{Moment, Time};

/// Leave to act by one configuration, until a moment.
#[derive(Debug, Default)]
pub(super) struct Permit(AtomicU64);

/// It never ends.
const UNLIMITED: u64 = u64::MAX;
/// It has ended for good.
const ENDED: u64 = 0;
/// It has not begun.
const NOT_YET: u64 = 1;

impl Permit {
    /// The permit for `configuration`: without votes there are no leases.
    pub(super) fn of(configuration: &Configuration) -> Self {
        Self(AtomicU64::new(if configuration.is_voted() { NOT_YET } else { UNLIMITED }))
    }

    /// One that never ends.
    pub(super) fn unlimited() -> Self {
        Self(AtomicU64::new(UNLIMITED))
    }

    /// Whether it holds now.
    #[inline]
    pub(super) fn holds(&self, time: &Time) -> bool {
        let until = self.0.load(Ordering::Acquire);
        until == UNLIMITED || time.now().nanos() < until
    }

    /// Whether it can end: servers vote.
    #[inline]
    pub(super) fn is_limited(&self) -> bool {
        self.0.load(Ordering::Relaxed) != UNLIMITED
    }

    /// It holds until `until`, unless it does longer already, or has ended for good.
    pub(super) fn extend(&self, until: Moment) {
        // A server that is a majority by itself needs nobody; still others may be bound by votes.
        let until = until.nanos().min(UNLIMITED - 1);
        let longer = |held: u64| (held != ENDED && held < until).then_some(until);
        // An error says that there was nothing to change.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, longer);
    }

    /// For how many milliseconds it holds yet; `None` if it does not end.
    pub(super) fn lasts_ms(&self, time: &Time) -> Option<u64> {
        match self.0.load(Ordering::Acquire) {
            UNLIMITED => None,
            until => Some(until.saturating_sub(time.now().nanos()) / 1_000_000),
        }
    }

    /// It ends now; it may be extended again.
    pub(super) fn suspend(&self) {
        let limited = |held: u64| (held != ENDED && held != UNLIMITED).then_some(NOT_YET);
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, limited);
    }

    /// It ends now, and for good.
    pub(super) fn end(&self) {
        self.0.store(ENDED, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_holds_until_its_end_and_never_again() {
        let time = Time::real();
        let permit = Permit(AtomicU64::new(NOT_YET));
        assert!(!permit.holds(&time));
        let soon = time.now() + Duration::from_mins(1);
        permit.extend(soon);
        permit.extend(time.now());
        assert!(permit.holds(&time), "an earlier end does not shorten it");
        assert!(permit.lasts_ms(&time).unwrap() > 50_000);
        permit.extend(Moment::from_nanos(u64::MAX));
        assert!(permit.is_limited(), "alone, and bound by votes all the same");
        permit.end();
        permit.extend(soon);
        assert!(!permit.holds(&time));
        assert_eq!(Permit::unlimited().lasts_ms(&time), None);
        assert!(Permit::of(&Configuration::default()).holds(&time));
    }
}
