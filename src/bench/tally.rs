//! The counts of a thread: latencies of answers, faults in them, requests that failed.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::choice::Operation;
use crate::wire::method::ErrorCode;

/// Latencies are distinguished down to this, and to three digits, in nanoseconds.
const SHORTEST: u64 = 64;
/// Longer latencies count as this long, in nanoseconds: an hour.
const LONGEST: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

/// Faults described in words; all are counted.
pub(super) const SAMPLES: usize = 5;

/// The counts of one thread in one stage, or of all of them together.
#[derive(Debug)]
pub(super) struct Tally {
    operations: [OperationCounts; Operation::ALL.len()],
    /// Answers that cannot be.
    pub(super) faults: Faults,
    /// The first of them in words.
    pub(super) samples: Vec<String>,
    /// Requests that failed, by reason.
    pub(super) failures: BTreeMap<Failure, u64>,
}

/// The counts of one operation.
#[derive(Debug, Clone)]
pub(super) struct OperationCounts {
    /// Nanoseconds from the write that sent a request to the read that brought its answer.
    pub(super) latency: Histogram<u64>,
    /// Of these, answers that found nothing: absent keys, compare-and-swaps that did not match, copies that were not
    /// newer than what was stored.
    pub(super) void: u64,
}

/// Answers that cannot be: the server has lost or mixed something up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Faults {
    /// Values that were not written for their key, or not at their clocktime.
    pub wrong: u64,
    /// Keys that must exist and do not.
    pub missing: u64,
    /// Values older than an acknowledged write or delete.
    pub stale: u64,
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    /// Error 6: not ready, obsolete hash space, storage failure.
    Server,
    /// Any other error.
    Error(u32),
    /// A replica could not be written.
    NotReplicated,
    /// The connection was lost before the answer came.
    Lost,
    /// No answer in time.
    TimedOut,
    /// An answer that this method does not have.
    Unexpected,
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        if code == ErrorCode::Server { Self::Server } else { Self::Error(code.number()) }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server => f.write_str("server error (not an owner, not ready, or storage)"),
            Self::Error(number) => match ErrorCode::from_number(*number) {
                Some(code) => code.fmt(f),
                None => write!(f, "error {number}"),
            },
            Self::NotReplicated => f.write_str("not replicated"),
            Self::Lost => f.write_str("connection lost"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Unexpected => f.write_str("unexpected answer"),
        }
    }
}

impl Faults {
    /// All of them.
    pub(super) fn total(&self) -> u64 {
        self.wrong + self.missing + self.stale
    }
}

impl Tally {
    /// Nothing seen yet.
    pub(super) fn new() -> Result<Self, hdrhistogram::CreationError> {
        let seen = OperationCounts { latency: Histogram::new_with_bounds(SHORTEST, LONGEST, DIGITS)?, void: 0 };
        Ok(Self {
            operations: std::array::from_fn(|_| seen.clone()),
            faults: Faults::default(),
            samples: Vec::new(),
            failures: BTreeMap::new(),
        })
    }

    /// The counts of `operation`.
    pub(super) fn of(&self, operation: Operation) -> &OperationCounts {
        let [get, set, cas, delete, replicate] = &self.operations;
        match operation {
            Operation::Get => get,
            Operation::Set => set,
            Operation::Cas => cas,
            Operation::Delete => delete,
            Operation::Replicate => replicate,
        }
    }

    #[inline]
    fn of_mut(&mut self, operation: Operation) -> &mut OperationCounts {
        let [get, set, cas, delete, replicate] = &mut self.operations;
        match operation {
            Operation::Get => get,
            Operation::Set => set,
            Operation::Cas => cas,
            Operation::Delete => delete,
            Operation::Replicate => replicate,
        }
    }

    /// A request was answered; `void` if it found nothing.
    #[inline]
    pub(super) fn answered(&mut self, operation: Operation, latency: Duration, void: bool) {
        let seen = self.of_mut(operation);
        seen.latency.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(LONGEST));
        seen.void += u64::from(void);
    }

    /// A number of requests failed.
    pub(super) fn failed(&mut self, failure: Failure, count: u64) {
        if count > 0 {
            *self.failures.entry(failure).or_default() += count;
        }
    }

    /// An answer cannot be: counts it where `which` says, and describes the first few.
    pub(super) fn fault(&mut self, which: impl FnOnce(&mut Faults) -> &mut u64, describe: impl FnOnce() -> String) {
        *which(&mut self.faults) += 1;
        if self.samples.len() < SAMPLES {
            self.samples.push(describe());
        }
    }

    /// Latencies of all operations together.
    pub(super) fn latency(&self) -> Histogram<u64> {
        let [first, others @ ..] = &self.operations;
        let mut all = first.latency.clone();
        for seen in others {
            // Cannot fail: both have the same bounds.
            let _ = all.add(&seen.latency);
        }
        all
    }

    /// Requests answered without an error.
    #[cfg(test)]
    pub(super) fn answers(&self) -> u64 {
        self.operations.iter().map(|seen| seen.latency.len()).sum()
    }

    /// Requests that failed.
    #[cfg(test)]
    pub(super) fn failed_in_all(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Takes over what another thread has counted.
    pub(super) fn add(&mut self, other: &Self) {
        for (seen, more) in self.operations.iter_mut().zip(&other.operations) {
            // Cannot fail: both have the same bounds.
            let _ = seen.latency.add(&more.latency);
            seen.void += more.void;
        }
        self.add_failures(other);
    }

    /// Takes over faults and failures only: those of a stage that is not measured count too.
    pub(super) fn add_failures(&mut self, other: &Self) {
        self.faults.wrong += other.faults.wrong;
        self.faults.missing += other.faults.missing;
        self.faults.stale += other.faults.stale;
        let free = SAMPLES.saturating_sub(self.samples.len());
        self.samples.extend(other.samples.iter().take(free).cloned());
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up() {
        let (mut all, mut one) = (Tally::new().unwrap(), Tally::new().unwrap());
        for _ in 0..2 {
            one.answered(Operation::Get, Duration::from_micros(10), true);
            one.answered(Operation::Set, Duration::from_hours(2), false);
            one.failed(Failure::Lost, 3);
            one.failed(Failure::TimedOut, 0);
            for _ in 0..4 {
                one.fault(|faults| &mut faults.missing, || "gone".to_owned());
            }
            all.add(&one);
            one = Tally::new().unwrap();
        }
        assert_eq!((all.answers(), all.failed_in_all(), all.faults.total()), (4, 6, 8));
        assert_eq!((all.of(Operation::Get).void, all.of(Operation::Set).void), (2, 0));
        assert_eq!(all.samples.len(), SAMPLES);
        assert_eq!(all.failures.len(), 1);
        let hour = all.of(Operation::Set).latency.max() / 1_000_000_000;
        assert!((3600..3610).contains(&hour), "{hour}");
    }
}
