//! How long an operation is tried, and the pauses in between.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause between two rounds of tries; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause between two rounds of tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The tries of one operation.
#[derive(Debug)]
pub(super) struct Tries {
    deadline: Instant,
    pause: Duration,
    patience: Duration,
}

impl Tries {
    /// Tries until `limit` is over; `patience` is the time for one server in the first round.
    pub(super) fn within(limit: Duration, patience: Duration) -> Self {
        Self { deadline: Instant::now() + limit, pause: PAUSE_MIN, patience }
    }

    /// Time for one server in this round.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Until when to pause before the next round, longer each time and never quite the same for two; `None` if the
    /// deadline would be over.
    pub(super) fn next(&mut self, now: Instant) -> Option<Instant> {
        let share = fastrand::u32(512..=1024);
        let next = now + self.pause * share / 1024;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.patience = self.patience.saturating_mul(2);
        (next < self.deadline).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_with_the_deadline() {
        let start = Instant::now();
        let mut tries = Tries::within(Duration::from_secs(5), Duration::from_millis(100));
        let (mut now, mut count, mut last) = (start, 0, Duration::ZERO);
        while let Some(next) = tries.next(now) {
            let pause = next - now;
            assert!(pause * 2 >= last.min(PAUSE_MAX / 2) && pause <= PAUSE_MAX, "{last:?} then {pause:?}");
            (now, count, last) = (next, count + 1, pause);
        }
        assert!(now - start >= Duration::from_millis(3900) && (8..20).contains(&count), "{count} in {:?}", now - start);
        assert!(tries.patience() > Duration::from_secs(10));
    }
}
