//! How fast writes may come while a merge is behind them: no faster than its free space lasts.
//!
//! Without this writes run at full speed into the limit and then stand still until the merge ends, seconds later.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Allowance is saved up for at most this long, so that waiting writers come in small groups.
const SAVED: Duration = Duration::from_millis(5);
/// However little space is left, so many bytes per second are let through: the limit itself is enforced elsewhere.
const LEAST_RATE: u64 = 64 << 10;

/// A bucket of bytes that fills with time.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    limited: AtomicBool,
    bucket: Mutex<Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Bytes per second.
    rate: u64,
    bytes: i64,
    /// When it was filled last.
    filled: Duration,
}

/// Bytes per second that use up `space` bytes in `time`.
pub(super) fn rate(space: u64, time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    (space.saturating_mul(1000) / millis).max(LEAST_RATE)
}

impl Throttle {
    /// Sets the rate; `None`: no limit.
    pub(super) fn set(&self, rate: Option<u64>, now: Duration) {
        let mut bucket = self.bucket.lock();
        bucket.fill(now);
        bucket.rate = rate.unwrap_or(0);
        drop(bucket);
        self.limited.store(rate.is_some(), Ordering::Release);
    }

    /// Whether `bytes` may be written now; they count if so. `now` is asked only if there is a limit.
    #[inline]
    pub(super) fn take(&self, bytes: u64, now: impl FnOnce() -> Duration) -> bool {
        if !self.limited.load(Ordering::Relaxed) {
            return true;
        }
        let mut bucket = self.bucket.lock();
        bucket.fill(now());
        if bucket.bytes < 0 {
            return false;
        }
        bucket.bytes = bucket.bytes.saturating_sub_unsigned(bytes);
        true
    }
}

impl Bucket {
    fn fill(&mut self, now: Duration) {
        let micros = u64::try_from(now.saturating_sub(self.filled).as_micros()).unwrap_or(u64::MAX);
        let more = self.rate.saturating_mul(micros) / 1_000_000;
        if more == 0 && self.rate > 0 {
            // Less than a byte: the time still counts when it is enough for one, however often is asked in between.
            return;
        }
        let most = (self.rate / 1_000_000 * u64::try_from(SAVED.as_micros()).unwrap_or(0)).max(1).cast_signed();
        self.bytes = self.bytes.saturating_add_unsigned(more).min(most);
        self.filled = self.filled.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_come_at_the_rate_and_no_faster() {
        let throttle = Throttle::default();
        assert!(throttle.take(1 << 40, || Duration::ZERO), "no limit");
        throttle.set(Some(1_000_000), Duration::ZERO);
        let mut taken = 0;
        for micros in (0..2_000_000).step_by(10) {
            taken += u64::from(throttle.take(100, || Duration::from_micros(micros))) * 100;
        }
        assert!((1_950_000..2_050_000).contains(&taken), "{taken} bytes in two seconds");
        throttle.set(None, Duration::from_secs(2));
        assert!(throttle.take(1 << 40, || Duration::from_secs(2)));
    }

    #[test]
    fn many_who_ask_all_the_time_do_not_starve_each_other() {
        let throttle = Throttle::default();
        throttle.set(Some(LEAST_RATE), Duration::ZERO);
        let mut taken = 0;
        for micros in 0..2_000_000 {
            taken += u64::from(throttle.take(100, || Duration::from_micros(micros))) * 100;
        }
        assert!(taken > LEAST_RATE * 19 / 10, "{taken} bytes in two seconds");
    }

    #[test]
    fn space_is_spread_over_the_time() {
        assert_eq!(rate(1 << 20, Duration::from_secs(2)), 1 << 19);
        assert_eq!(rate(0, Duration::from_secs(2)), LEAST_RATE);
        assert!(rate(u64::MAX, Duration::ZERO) > 1 << 40);
    }
}
