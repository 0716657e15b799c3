//! One server in `top`: its latest sample, the rates since the one before, and the words for its state.
//!
//! Pure: readings come in with the time they were taken, and nothing here sends requests, waits or draws.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::cli::tool::space::replace_state;
use crate::client::Status;
use crate::clock::ClockTime;
use crate::wire::NodeAddress;
use crate::wire::figures::Figures;
use crate::wire::method::ErrorCode;

/// Intervals that are remembered.
pub(super) const HISTORY: usize = 600;
/// The least time that a rate is computed from.
const LEAST_SPAN: Duration = Duration::from_millis(50);

/// One sample of a server.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    pub(super) status: Status,
    /// How far the server's clock is ahead of ours, in seconds.
    pub(super) ahead: i64,
    /// An original server has none.
    pub(super) figures: Option<Box<Figures>>,
}

/// The state of a server in its cluster, as far as that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Membership {
    /// Its address was given.
    Named,
    Active,
    Fault,
    Detached,
}

/// Requests in a second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Rates {
    pub(super) gets: f64,
    pub(super) sets: f64,
    pub(super) deletes: f64,
}

/// One server.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) address: NodeAddress,
    pub(super) membership: Membership,
    /// The last sample with an answer, and when it was begun and ended.
    last: Option<(Range<Instant>, Reading)>,
    /// Between the last two samples, if both were answered.
    pub(super) rates: Option<Rates>,
    /// Why the latest request was not answered.
    pub(super) failure: Option<ErrorCode>,
    /// Requests in a second at each interval, the latest last.
    pub(super) history: VecDeque<u64>,
    /// How far its clock is ahead of the servers' middle one, in seconds.
    pub(super) skew: Option<i64>,
}

/// The order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sort {
    #[default]
    Address,
    Gets,
    Sets,
    Deletes,
    Total,
    Items,
    Skew,
    Status,
}

/// How a state is highlighted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    Normal,
    Busy,
    Alarm,
}

impl Rates {
    /// All requests.
    pub(super) fn total(self) -> f64 {
        self.gets + self.sets + self.deletes
    }

    /// Rates between the last two samples; none if the server was started anew in between, or hardly any time has passed.
    ///
    /// Each counter was read at some time during its sample. Either sample may have taken long, because the server or this
    /// program was stopped: the rate is that over the longest time which may have passed, so it never exaggerates.
    fn between(earlier: &(Range<Instant>, Reading), later: &(Range<Instant>, Reading)) -> Option<Self> {
        let time = later.0.end.saturating_duration_since(earlier.0.start);
        if time < LEAST_SPAN {
            return None;
        }
        let seconds = time.as_secs_f64();
        let rate = |count: fn(&Status) -> u64| {
            let grown = count(&later.1.status).checked_sub(count(&earlier.1.status))?;
            Some(precise(grown) / seconds)
        };
        Some(Self { gets: rate(|s| s.gets)?, sets: rate(|s| s.sets)?, deletes: rate(|s| s.deletes)? })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is shown with a few digits")]
fn precise(number: u64) -> f64 {
    number as f64
}

/// A rate as a whole number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are never negative, and saturate")]
pub(super) fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

impl Row {
    pub(super) fn new(address: NodeAddress, membership: Membership) -> Self {
        Self { address, membership, last: None, rates: None, failure: None, history: VecDeque::new(), skew: None }
    }

    /// The latest sample.
    pub(super) fn reading(&self) -> Option<&Reading> {
        self.last.as_ref().filter(|_| self.failure.is_none()).map(|(_, reading)| reading)
    }

    /// The latest counters.
    pub(super) fn status(&self) -> Option<&Status> {
        self.reading().map(|reading| &reading.status)
    }

    /// Its Lamport clock.
    pub(super) fn clock(&self) -> Option<u32> {
        self.status().map(|status| ClockTime(status.clocktime).clock())
    }

    /// Its state, in a word or two.
    pub(super) fn word(&self) -> (&'static str, Severity) {
        match (self.failure, self.reading()) {
            (Some(ErrorCode::NodeLost), _) => return ("unreachable", Severity::Alarm),
            (Some(_), _) => return ("no answer", Severity::Alarm),
            (None, None) => return ("...", Severity::Normal),
            (None, Some(Reading { figures: Some(figures), .. })) if figures.store.failed.is_some() => {
                return ("no writes", Severity::Alarm);
            }
            (None, Some(_)) => {}
        }
        match self.membership {
            Membership::Fault => ("fault", Severity::Alarm),
            Membership::Detached => ("detached", Severity::Busy),
            Membership::Named | Membership::Active => {
                let flags = self.status().map_or(0, |status| status.flags);
                match replace_state(flags.into()) {
                    "ready" => ("ready", Severity::Normal),
                    word => (word, Severity::Busy),
                }
            }
        }
    }

    fn total(&self) -> f64 {
        self.rates.unwrap_or_default().total()
    }

    /// Takes the answer to a request sent at `time.start` and answered at `time.end`, or why there was none.
    pub(super) fn take(&mut self, time: Range<Instant>, answer: Result<Reading, ErrorCode>) {
        match answer {
            Ok(reading) => {
                let now = (time, reading);
                // A gap would spread what happened before it over the time of silence.
                let earlier = self.last.as_ref().filter(|_| self.failure.is_none());
                self.rates = earlier.and_then(|earlier| Rates::between(earlier, &now));
                self.last = Some(now);
                self.failure = None;
            }
            Err(error) => {
                self.rates = None;
                self.failure = Some(error);
            }
        }
    }

    /// Remembers the present rate: once in each interval, however long a sample takes, so that the same place in the history
    /// of two servers is the same time.
    pub(super) fn tick(&mut self) {
        let total = whole(self.total());
        remember(&mut self.history, total);
    }

    /// Which of two rows stands first.
    pub(super) fn compare(&self, other: &Self, sort: Sort) -> Ordering {
        let by = |value: fn(&Self) -> f64| value(other).total_cmp(&value(self));
        let rates = |row: &Self| row.rates.unwrap_or_default();
        match sort {
            Sort::Address => Ordering::Equal,
            Sort::Gets => rates(other).gets.total_cmp(&rates(self).gets),
            Sort::Sets => rates(other).sets.total_cmp(&rates(self).sets),
            Sort::Deletes => rates(other).deletes.total_cmp(&rates(self).deletes),
            Sort::Total => by(Self::total),
            Sort::Items => {
                let items = |row: &Self| row.status().map(|status| status.items);
                items(other).cmp(&items(self))
            }
            Sort::Skew => {
                let skew = |row: &Self| row.skew.map(i64::unsigned_abs);
                skew(other).cmp(&skew(self))
            }
            Sort::Status => {
                let alarm = |row: &Self| match row.word().1 {
                    Severity::Alarm => 2,
                    Severity::Busy => 1,
                    Severity::Normal => 0,
                };
                alarm(other).cmp(&alarm(self))
            }
        }
    }
}

/// Adds the latest of a history, which does not grow beyond what is remembered.
pub(super) fn remember(history: &mut VecDeque<u64>, value: u64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(value);
}
