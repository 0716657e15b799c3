//! Pauses of tasks: between tries of something that fails, and between rounds of what is done regularly. Knows nothing of
//! what is tried or done.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::Env;

/// The pauses between tries of something that fails, so that whoever it is tried at can recover.
///
/// Each pause may be twice as long as the one before, up to a limit. Chance takes up to half of it away: nodes that have
/// failed at the same time do not try again at the same time.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    /// The first pause is at most `first` long, none is longer than `max`.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, max }
    }

    /// The length of the pause that is due now.
    pub fn next(&mut self, env: &Env) -> Duration {
        let pause = self.next / 2 + env.random_share(self.next / 2);
        self.next = self.next.saturating_mul(2).min(self.max);
        pause
    }

    /// Pauses.
    pub async fn pause(&mut self, env: &Env) {
        tokio::time::sleep(self.next(env)).await;
    }
}

/// Does `work` now and then once every `period`, until the future is dropped. When it could not be done in time, those that
/// follow are late by as much.
pub async fn every(period: Duration, mut work: impl FnMut()) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        work();
    }
}

/// Does `work` now and again after each `pause`, which is asked for anew every time, until the future is dropped.
pub async fn every_while(mut pause: impl FnMut() -> Duration, mut work: impl FnMut()) {
    loop {
        work();
        tokio::time::sleep(pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(10);
    const MAX: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn pauses_grow_to_the_limit_and_differ() {
        let env = Env::real();
        let mut longest = FIRST;
        let mut backoff = Backoff::new(FIRST, MAX);
        for _ in 0..20 {
            let pause = backoff.next(&env);
            assert!(pause >= longest / 2 && pause <= longest, "{pause:?} of {longest:?}");
            longest = (longest * 2).min(MAX);
        }
        let mut pauses: Vec<_> = (0..100).map(|_| Backoff::new(MAX, MAX).next(&env)).collect();
        pauses.sort();
        pauses.dedup();
        assert!(pauses.len() > 10, "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_late_delays_what_follows() {
        let start = tokio::time::Instant::now();
        let mut done = Vec::new();
        let rounds = every(MAX, || {
            done.push(start.elapsed());
        });
        let _ = tokio::time::timeout(MAX * 3 + FIRST, rounds).await;
        assert_eq!(done, [Duration::ZERO, MAX, MAX * 2, MAX * 3]);
    }
}
