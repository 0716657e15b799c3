//! The Lamport clock and the comparison of clocktimes (protocol, section 5).
//!
//! Time comes in from outside, so that nothing here needs to sleep to be tested. The comparison is a relation, not
//! an order: it can go in a circle, and therefore [`ClockTime`] has no `Ord`.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::time::Time;

/// Below this many seconds apart, the clocks decide and not the times.
const NEAR_SECONDS: i32 = 5;
/// A clock under this is taken for one that has wrapped when the other is above [`WRAP_HIGH`].
const WRAP_LOW: u32 = 1 << 10;
/// See [`WRAP_LOW`].
const WRAP_HIGH: u32 = 1 << 22;
/// How far [`Clock::raise_beyond`] goes past a clock known to be too low.
const RAISE: u32 = 1 << 20;

/// Whether clock `x` is before clock `y`, across a wrap.
#[inline]
pub(crate) fn clock_less(x: u32, y: u32) -> bool {
    if (x < WRAP_LOW && y > WRAP_HIGH) || (y < WRAP_LOW && x > WRAP_HIGH) { x > y } else { x < y }
}

/// Whether a counter lags behind a clock that was received. See [`Clock::adjust`] for why it is not [`clock_less`].
#[inline]
pub fn is_behind(counter: u32, received: u32) -> bool {
    let ends = |clock: u32| clock > u32::MAX - WRAP_LOW;
    match (counter < WRAP_LOW && ends(received), received < WRAP_LOW && ends(counter)) {
        (true, _) => false,
        (_, true) => true,
        _ => counter < received,
    }
}

/// When a record was written: unix seconds in the high half, a clock in the low half.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct ClockTime(pub u64);

impl ClockTime {
    /// Puts the two halves together.
    #[inline]
    pub fn new(seconds: u32, clock: u32) -> Self {
        Self(u64::from(seconds) << 32 | u64::from(clock))
    }

    /// Unix seconds.
    #[inline]
    pub fn seconds(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The Lamport clock.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
    pub fn clock(self) -> u32 {
        self.0 as u32
    }

    /// Whether this was before `other`: by the clocks if they lie under five seconds apart, else by the times.
    ///
    /// Not transitive. Never sort by it.
    #[inline]
    pub fn is_before(self, other: Self) -> bool {
        let apart = self.seconds().wrapping_sub(other.seconds()).cast_signed();
        if apart.unsigned_abs() < NEAR_SECONDS.unsigned_abs() {
            clock_less(self.clock(), other.clock())
        } else {
            self.seconds() < other.seconds()
        }
    }
}

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.seconds(), self.clock())
    }
}

/// Unix seconds now, by this machine's clock.
pub fn unix_seconds() -> u32 {
    Time::real().unix_seconds()
}

/// This process's Lamport counter with a source of time.
pub struct Clock {
    counter: AtomicU32,
    now: Box<dyn Fn() -> u32 + Send + Sync>,
}

impl Clock {
    /// A clock that issues `first` next and reads its seconds from `time`.
    pub fn new(time: &Time, first: u32) -> Self {
        let time = time.clone();
        Self::with_time(first, move || time.unix_seconds())
    }

    /// A clock that issues `first` next and asks `now` for unix seconds.
    pub fn with_time(first: u32, now: impl Fn() -> u32 + Send + Sync + 'static) -> Self {
        Self { counter: AtomicU32::new(first), now: Box::new(now) }
    }

    /// Takes a clock: returns the counter and increments it, wrapping.
    #[inline]
    pub fn take(&self) -> u32 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// The counter as it stands.
    pub fn peek(&self) -> u32 {
        self.counter.load(Ordering::Relaxed)
    }

    /// Learns a clock received from another node: the counter is at least `received` afterwards.
    ///
    /// Not by [`clock_less`], which takes any counter that has hardly begun for one that has wrapped: a server that joins
    /// would not learn the clock of an old cluster, and those that hear its clock would fall back to it. Here only a
    /// clock at the very end of the range makes a small one later.
    #[inline]
    pub(crate) fn adjust(&self, received: u32) {
        let mut counter = self.counter.load(Ordering::Relaxed);
        while is_behind(counter, received) {
            match self.counter.compare_exchange_weak(counter, received, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => counter = now,
            }
        }
    }

    /// Learns the clocktime of a record stored here: what is issued next is after it, as far as the counter decides.
    #[inline]
    pub(crate) fn observe(&self, stored: ClockTime) {
        self.adjust(stored.clock().wrapping_add(1));
    }

    /// Takes a clocktime: now, and a clock.
    #[inline]
    pub fn stamp(&self) -> ClockTime {
        ClockTime::new(self.seconds(), self.take())
    }

    /// Takes a clocktime that `previous` is before, raising the counter where it lags.
    ///
    /// Where only a time ahead of ours would do, this one stamp carries it: a record stamped by a machine whose clock is
    /// far ahead must not pull the stamps of others along.
    pub(crate) fn stamp_after(&self, previous: ClockTime) -> ClockTime {
        let stamp = self.stamp();
        if previous.is_before(stamp) {
            return stamp;
        }
        self.observe(previous);
        let stamp = self.stamp();
        if previous.is_before(stamp) {
            return stamp;
        }
        self.observe(previous);
        let stamp = ClockTime::new(previous.seconds(), self.take());
        if previous.is_before(stamp) {
            return stamp;
        }
        // No clock is later than one at the end of the range, but for a few: only the time can decide.
        ClockTime::new(previous.seconds().saturating_add(NEAR_SECONDS.unsigned_abs()), self.take())
    }

    /// Raises the counter well past `known`, a clock that has proved too low for what others hold.
    ///
    /// Does nothing if the counter is past that already, so that many writers who find out at once raise it once.
    pub(crate) fn raise_beyond(&self, known: u32) {
        match known.checked_add(RAISE) {
            Some(raised) => self.adjust(raised),
            // Near the end of the range only a wrapped clock is later.
            None => {
                self.adjust(u32::MAX);
                self.adjust(0);
            }
        }
    }

    /// Unix seconds now.
    #[inline]
    pub fn seconds(&self) -> u32 {
        (self.now)()
    }

    /// The clocktime that would be issued now; takes nothing.
    pub fn now(&self) -> ClockTime {
        ClockTime::new(self.seconds(), self.peek())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_recorded_relation() {
        let text = include_str!("../tests/vectors/clocktime.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let cases = vectors["less"].as_array().unwrap();
        assert_eq!(cases.len(), 300);
        for case in cases {
            let time = |index: usize| ClockTime(case[index].as_str().unwrap().parse().unwrap());
            assert_eq!(time(0).is_before(time(1)), case[2].as_bool().unwrap(), "{case}");
        }
    }

    #[test]
    fn taking_returns_then_increments_and_wraps() {
        let clock = Clock::with_time(u32::MAX, || 7);
        assert_eq!(clock.take(), u32::MAX);
        assert_eq!(clock.stamp(), ClockTime::new(7, 0));
    }

    #[test]
    fn adjust_only_goes_forward() {
        let clock = Clock::with_time(10, || 7);
        clock.adjust(5);
        assert_eq!(clock.peek(), 10);
        clock.adjust(20);
        assert_eq!(clock.peek(), 20);
    }

    #[test]
    fn a_stamp_after_another_is_after_it() {
        for first in [3, 5000, 1 << 23, u32::MAX] {
            for (seconds, counter) in
                [(100, 5000), (104, 1), (103, 99_999), (200, 3), (10, 7), (100, u32::MAX), (99, 1 << 31)]
            {
                let clock = Clock::with_time(first, || 100);
                let previous = ClockTime::new(seconds, counter);
                let stamp = clock.stamp_after(previous);
                assert!(previous.is_before(stamp), "{previous} {stamp}");
                assert_eq!(clock.stamp().seconds(), 100, "one stamp only is ahead of the time");
            }
        }
    }

    /// Compared as across a wrap, a counter that has hardly begun seemed later than that of an old cluster.
    #[test]
    fn a_fresh_clock_learns_that_of_an_old_cluster_and_does_not_reset_it() {
        let (fresh, old) = (Clock::with_time(0, || 7), Clock::with_time(50_000_000, || 7));
        old.adjust(fresh.take());
        assert_eq!(old.peek(), 50_000_000);
        fresh.adjust(old.take());
        assert_eq!(fresh.peek(), 50_000_000);
    }

    #[test]
    fn clocks_at_the_end_of_the_range_all_get_past_it() {
        let clocks = [u32::MAX - 5, u32::MAX - 100, 3].map(|first| Clock::with_time(first, || 7));
        for _ in 0..10 {
            for from in &clocks {
                let said = from.take();
                for to in &clocks {
                    to.adjust(said);
                }
            }
        }
        assert!(clocks.iter().all(|clock| clock.peek() < 1000), "{clocks:?}");
    }

    #[test]
    fn raising_happens_once_for_many() {
        let clock = Clock::with_time(100, || 7);
        clock.raise_beyond(90);
        let raised = clock.peek();
        clock.raise_beyond(99);
        clock.raise_beyond(100);
        assert!(clock.peek() - raised <= 10);
        assert!(raised > 1_000_000);
    }
}
