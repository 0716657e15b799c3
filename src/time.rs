//! Where time comes from: one machine's, or that of a simulation.
//!
//! Everything that measures or reads time is given a [`Time`], so that a simulation can make hours pass in moments and
//! let the clocks of machines disagree. Knows no runtime: timers of tasks follow the runtime's own clock.

use std::fmt;
use std::ops::Add;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A point in time. Points of different machines have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment that many nanoseconds after the source of time began.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the source of time began; never zero for a moment that [`Time::now`] has returned.
    pub(crate) const fn nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A source of time.
pub trait Source: Send + Sync + 'static {
    /// Now, by a clock that is never set and goes on while the machine sleeps.
    fn now(&self) -> Moment;

    /// Now, since 1970, by the clock that people set.
    fn unix(&self) -> Duration;
}

/// A handle to a source of time; cheap to clone.
#[derive(Clone)]
pub struct Time(Arc<dyn Source>);

impl Time {
    /// This machine's time.
    pub fn real() -> Self {
        Self(Arc::new(Machine))
    }

    /// Time from somewhere else.
    pub fn new(source: impl Source) -> Self {
        Self(Arc::new(source))
    }

    /// Now, by a clock that is never set and goes on while the machine sleeps.
    #[inline]
    pub fn now(&self) -> Moment {
        self.0.now()
    }

    /// How long ago `moment` was.
    #[inline]
    pub fn elapsed(&self, moment: Moment) -> Duration {
        self.now().since(moment)
    }

    /// Now, since 1970, by the clock that people set.
    pub fn unix(&self) -> Duration {
        self.0.unix()
    }

    /// Unix seconds now.
    #[inline]
    pub fn unix_seconds(&self) -> u32 {
        u32::try_from(self.unix().as_secs()).unwrap_or(u32::MAX)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Time({:?})", self.unix())
    }
}

/// The clocks of this machine.
struct Machine;

impl Source for Machine {
    fn now(&self) -> Moment {
        // Unlike the monotonic clock this one counts the time that the machine sleeps: others have not slept.
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
        Moment(seconds.saturating_mul(1_000_000_000).saturating_add(nanos).max(1))
    }

    fn unix(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_go_on_and_never_run_out() {
        let time = Time::real();
        let first = time.now();
        assert!(first.nanos() > 0);
        assert!(time.now() >= first);
        assert_eq!(first.since(first + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!((first + Duration::from_secs(1)).since(first), Duration::from_secs(1));
        assert_eq!(Moment::from_nanos(u64::MAX) + Duration::MAX, Moment::from_nanos(u64::MAX));
    }
}
