//! How long an operation is tried, and the pauses in between.

use std::time::Duration;

use tokio::time::Instant;

use crate::env::{Backoff, Env};

/// The longest first pause between two rounds of tries.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause between two rounds of tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The tries of one operation.
#[derive(Debug)]
pub(super) struct Tries {
    deadline: Instant,
    backoff: Backoff,
    patience: Duration,
}

impl Tries {
    /// Tries until `limit` is over; `patience` is the time for one server in the first round.
    pub(super) fn within(limit: Duration, patience: Duration) -> Self {
        Self { deadline: Instant::now() + limit, backoff: Backoff::new(PAUSE_MIN, PAUSE_MAX), patience }
    }

    /// Time for one server in this round.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Until when to pause before the next round, longer each time and never quite the same for two; `None` if the
    /// deadline would be over.
    pub(super) fn next(&mut self, now: Instant, env: &Env) -> Option<Instant> {
        let next = now + self.backoff.next(env);
        self.patience = self.patience.saturating_mul(2);
        (next < self.deadline).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pauses_grow_and_end_with_the_deadline() {
        let (start, env) = (Instant::now(), Env::real());
        let mut tries = Tries::within(Duration::from_secs(5), Duration::from_millis(100));
        let (mut now, mut count, mut last) = (start, 0, Duration::ZERO);
        while let Some(next) = tries.next(now, &env) {
            let pause = next - now;
            assert!(pause * 2 >= last.min(PAUSE_MAX / 2) && pause <= PAUSE_MAX, "{last:?} then {pause:?}");
            (now, count, last) = (next, count + 1, pause);
        }
        assert!(now - start >= Duration::from_millis(3900) && (8..20).contains(&count), "{count} in {:?}", now - start);
        assert!(tries.patience() > Duration::from_secs(10));
    }
}
