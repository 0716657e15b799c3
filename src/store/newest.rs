//! Upper bounds of the clocktimes in a group of keys, so that a write known to be later needs no read.
//!
//! The comparison of clocktimes is not an order, so a single greatest one would prove nothing; the bounds kept here do,
//! by the definition of [`ClockTime::is_before`].

use crate::clock::ClockTime;
use serde::{Deserialize, Serialize};

/// Seconds from which on the times decide and not the clocks.
const FAR_SECONDS: u64 = 5;
/// A clock under this counts as after one above [`HIGH_CLOCK`]: the counter has wrapped.
const LOW_CLOCK: u32 = 1 << 10;
/// See [`LOW_CLOCK`].
const HIGH_CLOCK: u32 = 1 << 22;

/// Upper bounds of the clocktimes stored in a group of keys, by time:
///
/// ```text
/// seconds   0 ..= floor   floor+1 ..= middle   middle+1 ..= latest
/// clocks    any           <= older             <= newer
/// ```
///
/// While `floor` is 0 there is no first window, and the second begins with second 0.
/// The windows move on by themselves, so that a counter that has wrapped is forgotten after some seconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Newest {
    floor: u32,
    middle: u32,
    latest: u32,
    older: u32,
    newer: u32,
}

impl Newest {
    /// Bounds that hold for everything, and of which nothing is certain.
    pub(super) const ANY: Self =
        Self { floor: u32::MAX, middle: u32::MAX, latest: u32::MAX, older: u32::MAX, newer: u32::MAX };

    /// Bounds that hold for the records of both.
    pub(super) fn cover(self, other: Self) -> Self {
        let floor = self.floor.max(other.floor);
        let newer = self.older.max(self.newer).max(other.older).max(other.newer);
        Self { floor, middle: floor, latest: self.latest.max(other.latest), older: newer, newer }
    }

    /// Whether every record within these bounds [is before](ClockTime::is_before) `time`.
    ///
    /// `low_seconds` is the latest second at which a [low](is_low) clock was stored anywhere.
    #[inline]
    pub(super) fn all_before(self, time: ClockTime, low_seconds: u32) -> bool {
        let seconds = u64::from(time.seconds());
        let far_after = |other: u32| seconds >= u64::from(other) + FAR_SECONDS;
        // Near the end of the seconds the first ones come after them, in the year 2106.
        if seconds + FAR_SECONDS > u64::from(u32::MAX) {
            return false;
        }
        if far_after(self.latest) {
            return true;
        }
        (far_after(self.floor) || self.floor == 0)
            && seconds + FAR_SECONDS > u64::from(self.latest)
            && self.older.max(self.newer) < time.clock()
            && (time.clock() <= HIGH_CLOCK || far_after(low_seconds))
    }

    /// Takes a record in.
    #[inline]
    pub(super) fn include(&mut self, time: ClockTime) {
        let (seconds, clock) = (time.seconds(), time.clock());
        if u64::from(seconds) > u64::from(self.middle) + FAR_SECONDS && seconds > self.latest {
            // A floor of 0 is none.
            (self.floor, self.older) = (self.middle.max(1), self.newer);
            (self.middle, self.newer, self.latest) = (self.latest, clock, seconds);
        } else if seconds > self.middle {
            self.newer = self.newer.max(clock);
            self.latest = self.latest.max(seconds);
        } else if seconds > self.floor || self.floor == 0 {
            self.older = self.older.max(clock);
        }
    }
}

/// Whether a record with this clocktime must be remembered for the wrap of the counter.
#[inline]
pub(super) fn is_low(time: ClockTime) -> bool {
    time.clock() < LOW_CLOCK
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time() -> impl Strategy<Value = ClockTime> {
        let clock = prop_oneof![0..40_u32, 1000..1100_u32, 4_194_290..4_194_320_u32, u32::MAX - 40..=u32::MAX];
        let seconds = prop_oneof![4 => 0..40_u32, 2 => 0..9_u32, 1 => u32::MAX - 9..=u32::MAX];
        (seconds, clock).prop_map(|(seconds, clock)| ClockTime::new(seconds, clock))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]
        #[test]
        fn what_is_called_later_is_later(
            stored in proptest::collection::vec(time(), 0..20), half in 0..20_usize, new in time(),
        ) {
            let (mut newest, mut other) = (Newest::default(), Newest::default());
            let mut low_seconds = 0;
            for (index, &time) in stored.iter().enumerate() {
                if index < half { newest.include(time) } else { other.include(time) }
                if is_low(time) {
                    low_seconds = low_seconds.max(time.seconds());
                }
            }
            if newest.cover(other).all_before(new, low_seconds) {
                for time in stored {
                    prop_assert!(time.is_before(new), "{time} {new}");
                }
            }
        }
    }

    #[test]
    fn the_first_seconds_and_the_last_are_not_forgotten() {
        let mut newest = Newest::default();
        newest.include(ClockTime::new(0, 5000));
        newest.include(ClockTime::new(6, 2000));
        let new = ClockTime::new(2, 3000);
        assert!(!ClockTime::new(0, 5000).is_before(new) && !newest.all_before(new, 0));
        assert!(!newest.all_before(ClockTime::new(u32::MAX, 3000), 0), "a second before second 0");
    }

    #[test]
    fn a_running_clock_is_recognised_as_later_also_after_a_wrap() {
        let mut newest = Newest::default();
        let mut certain = 0;
        for step in 0..2000_u32 {
            let time = ClockTime::new(1_700_000_000 + step / 50, (u32::MAX - 1000).wrapping_add(step));
            certain += u32::from(newest.all_before(time, 0));
            newest.include(time);
        }
        // All but the seconds in which both ends of the counter are in the windows.
        assert!(certain > 1100, "{certain}");
    }
}
