//! How long leases last, and after how long a silence a node counts as lost: each configuration says it for all its nodes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Questions in the time of a lease, at least: a few of them may be lost before it ends.
const QUESTIONS: u32 = 4;
/// The longest pause between two questions: for as long a new configuration may go unconfirmed.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// The shortest and the longest lease, in milliseconds.
const LEASES: std::ops::RangeInclusive<u64> = 100..=60_000;
/// The longest failure time-out, in milliseconds.
const LONGEST_FAILURE: u64 = 300_000;

/// The times by which the servers and managers of a cluster that votes act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// In milliseconds.
    lease: u64,
    /// In milliseconds.
    failure: u64,
}

/// Times by which no cluster can act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// Of the lease.
    #[error("a lease lasts from {} to {} seconds, not {}", Duration::from_millis(*LEASES.start()).as_secs_f64(), LEASES.end() / 1000, .0.as_secs_f64())]
    Lease(Duration),
    /// A server would be given up while it may still act.
    #[error("the failure time-out of {} seconds is shorter than the lease of {} seconds", .failure.as_secs_f64(), .lease.as_secs_f64())]
    Early {
        /// As it was given.
        lease: Duration,
        /// As it was given.
        failure: Duration,
    },
    /// Of the failure time-out.
    #[error("the failure time-out is at most {} seconds, not {}", LONGEST_FAILURE / 1000, .0.as_secs_f64())]
    Failure(Duration),
}

impl Default for Timing {
    fn default() -> Self {
        Self { lease: 1000, failure: 1500 }
    }
}

impl Timing {
    /// A lease lasts for `lease` from the question on; who answers nothing for `failure` is lost. Both are used in whole
    /// milliseconds.
    pub fn new(lease: Duration, failure: Duration) -> Result<Self, TimingError> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let timing = Self { lease: millis(lease), failure: millis(failure) };
        if !LEASES.contains(&timing.lease) {
            Err(TimingError::Lease(lease))
        } else if timing.failure < timing.lease {
            Err(TimingError::Early { lease, failure })
        } else if timing.failure > LONGEST_FAILURE {
            Err(TimingError::Failure(failure))
        } else {
            Ok(timing)
        }
    }

    /// Whether [`Timing::new`] can have made it.
    pub fn is_sound(&self) -> bool {
        Self::new(self.lease(), self.failure()) == Ok(*self)
    }

    /// For how long a confirmation holds, from the moment at which the server sent the question.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease)
    }

    /// Pause between two questions to a node.
    pub fn question_interval(&self) -> Duration {
        (self.lease() / QUESTIONS).min(LONGEST_PAUSE)
    }

    /// After how long a silence a node is lost.
    pub fn failure(&self) -> Duration {
        Duration::from_millis(self.failure)
    }

    /// How many questions in a row a node may leave unanswered until the next one is due; then it is lost.
    pub fn misses(&self) -> u32 {
        let questions = self.failure().as_nanos() / self.question_interval().as_nanos().max(1);
        // It may have answered the first of them just before it fell silent.
        u32::try_from(questions).unwrap_or(u32::MAX).saturating_sub(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(lease: f64, failure: f64) -> Result<Timing, String> {
        let [lease, failure] = [lease, failure].map(Duration::from_secs_f64);
        Timing::new(lease, failure).map_err(|error| error.to_string())
    }

    #[test]
    fn by_default_a_node_is_lost_after_five_questions_of_a_quarter_of_a_second() {
        let default = Timing::default();
        assert_eq!(timing(1.0, 1.5), Ok(default));
        assert_eq!((default.question_interval(), default.misses()), (Duration::from_millis(250), 5));
        let lazy = timing(8.0, 8.0).unwrap();
        assert_eq!((lazy.question_interval(), lazy.misses()), (Duration::from_millis(250), 31));
        let eager = timing(0.2, 0.2).unwrap();
        assert_eq!((eager.question_interval(), eager.misses()), (Duration::from_millis(50), 3));
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        let refused = [
            (0.05, 1.5, "a lease lasts from 0.1 to 60 seconds, not 0.05"),
            (61.0, 70.0, "a lease lasts from 0.1 to 60 seconds, not 61"),
            (1.0, 0.9, "the failure time-out of 0.9 seconds is shorter than the lease of 1 seconds"),
            (1.0, 301.0, "the failure time-out is at most 300 seconds, not 301"),
        ];
        for (lease, failure, why) in refused {
            assert_eq!(timing(lease, failure), Err(why.to_owned()));
        }
        assert!(Timing::default().is_sound());
        assert!(!Timing { lease: 1000, failure: 999 }.is_sound() && !Timing { lease: 0, failure: 0 }.is_sound());
    }
}
