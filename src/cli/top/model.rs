//! What `top` knows: the latest of each server, rates between two looks, and how they went.
//!
//! Pure: readings come in with the time they were taken, and nothing here asks, waits or draws.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::time::Instant;

use super::super::stat::replace_state;
use crate::client::Status;
use crate::clock::ClockTime;
use crate::wire::NodeAddress;
use crate::wire::method::{ErrorCode, FLAG_COPYING, FLAG_DELETING, FLAG_DIFFERENT, FLAG_UNFINISHED};

/// Looks that are remembered.
const HISTORY: usize = 600;

/// What one look at a server has found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    pub(super) status: Status,
    /// How far the server's clock is ahead of ours, in seconds.
    pub(super) ahead: i64,
    /// What an original server does not tell.
    pub(super) figures: Option<Figures>,
}

/// What only a server of this program tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Figures {
    /// Why no write is acknowledged.
    pub(super) failed: Option<String>,
    /// Of the replace that is under way: records scanned, sent, received, dropped.
    pub(super) progress: Option<[u64; 4]>,
}

/// What a manager knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nodes {
    pub(super) manager: NodeAddress,
    /// The servers of the hash space for writing, and whether they are active.
    pub(super) attached: Vec<(NodeAddress, bool)>,
    pub(super) detached: Vec<NodeAddress>,
    /// What its servers are busy with; an original manager does not tell.
    pub(super) flags: Option<u32>,
}

/// What a server is to its cluster, as far as that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
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
    pub(super) standing: Standing,
    /// The last look that found something, and when it was.
    last: Option<(Instant, Reading)>,
    /// Between the last two looks, if both have found something.
    pub(super) rates: Option<Rates>,
    /// Why the latest look has found nothing.
    pub(super) trouble: Option<ErrorCode>,
    /// Requests in a second at each look, the latest last.
    pub(super) history: VecDeque<u64>,
    /// How far its clock is ahead of the servers' middle one, in seconds.
    pub(super) skew: Option<i64>,
}

/// Everything that `top` shows.
#[derive(Debug, Default)]
pub(super) struct Model {
    rows: BTreeMap<NodeAddress, Row>,
    /// What the manager has told last, if there is one.
    pub(super) nodes: Option<Nodes>,
    /// Why no manager has answered lately.
    pub(super) trouble: Vec<(NodeAddress, ErrorCode)>,
    /// All servers' requests in a second, the latest last.
    pub(super) history: VecDeque<u64>,
}

/// What rows are sorted by.
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

/// How much a state should catch the eye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Calm,
    Busy,
    Alarm,
}

impl Rates {
    /// All requests.
    pub(super) fn total(self) -> f64 {
        self.gets + self.sets + self.deletes
    }

    /// What happened between two looks; none if the server was started anew in between.
    fn between(earlier: &(Instant, Reading), later: &(Instant, Reading)) -> Option<Self> {
        let seconds = later.0.saturating_duration_since(earlier.0).as_secs_f64();
        let rate = |count: fn(&Status) -> u64| {
            let grown = count(&later.1.status).checked_sub(count(&earlier.1.status))?;
            Some(precise(grown) / seconds)
        };
        let rates = Self { gets: rate(|s| s.gets)?, sets: rate(|s| s.sets)?, deletes: rate(|s| s.deletes)? };
        (seconds > 0.0).then_some(rates)
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
    fn new(address: NodeAddress, standing: Standing) -> Self {
        Self { address, standing, last: None, rates: None, trouble: None, history: VecDeque::new(), skew: None }
    }

    /// What the latest look has found.
    pub(super) fn reading(&self) -> Option<&Reading> {
        self.last.as_ref().filter(|_| self.trouble.is_none()).map(|(_, reading)| reading)
    }

    /// The latest counters.
    pub(super) fn status(&self) -> Option<&Status> {
        self.reading().map(|reading| &reading.status)
    }

    /// Its Lamport clock.
    pub(super) fn clock(&self) -> Option<u32> {
        self.status().map(|status| ClockTime(status.clocktime).clock())
    }

    /// How it is, in a word or two.
    pub(super) fn word(&self) -> (&'static str, Mood) {
        match (self.trouble, self.reading()) {
            (Some(ErrorCode::NodeLost), _) => return ("unreachable", Mood::Alarm),
            (Some(_), _) => return ("no answer", Mood::Alarm),
            (None, None) => return ("...", Mood::Calm),
            (None, Some(Reading { figures: Some(Figures { failed: Some(_), .. }), .. })) => {
                return ("no writes", Mood::Alarm);
            }
            (None, Some(_)) => {}
        }
        match self.standing {
            Standing::Fault => ("fault", Mood::Alarm),
            Standing::Detached => ("detached", Mood::Busy),
            Standing::Named | Standing::Active => {
                let flags = self.status().map_or(0, |status| status.flags);
                match replace_state(flags.into()) {
                    "ready" => ("ready", Mood::Calm),
                    word => (word, Mood::Busy),
                }
            }
        }
    }

    fn total(&self) -> f64 {
        self.rates.unwrap_or_default().total()
    }

    fn take(&mut self, at: Instant, answer: Result<Reading, ErrorCode>) {
        match answer {
            Ok(reading) => {
                let now = (at, reading);
                // A gap would spread what happened before it over the time of silence.
                let earlier = self.last.as_ref().filter(|_| self.trouble.is_none());
                self.rates = earlier.and_then(|earlier| Rates::between(earlier, &now));
                self.last = Some(now);
                self.trouble = None;
            }
            Err(error) => {
                self.rates = None;
                self.trouble = Some(error);
            }
        }
        let total = whole(self.total());
        remember(&mut self.history, total);
    }

    fn compare(&self, other: &Self, sort: Sort) -> Ordering {
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
                    Mood::Alarm => 2,
                    Mood::Busy => 1,
                    Mood::Calm => 0,
                };
                alarm(other).cmp(&alarm(self))
            }
        }
    }
}

impl Model {
    /// Nothing known yet but whom to ask.
    pub(super) fn named(servers: &[NodeAddress]) -> Self {
        let rows = servers.iter().map(|server| (*server, Row::new(*server, Standing::Named)));
        Self { rows: rows.collect(), ..Self::default() }
    }

    /// The servers that it knows.
    pub(super) fn servers(&self) -> BTreeSet<NodeAddress> {
        self.rows.keys().copied().collect()
    }

    /// Takes what a manager says: servers come and go with it.
    pub(super) fn take_nodes(&mut self, nodes: Nodes) {
        let attached = nodes
            .attached
            .iter()
            .map(|(node, active)| (*node, if *active { Standing::Active } else { Standing::Fault }));
        let detached = nodes.detached.iter().map(|node| (*node, Standing::Detached));
        let mut standings: BTreeMap<_, _> = detached.chain(attached).collect();
        self.rows.retain(|address, row| match standings.remove(address) {
            Some(standing) => {
                row.standing = standing;
                true
            }
            None => false,
        });
        self.rows.extend(standings.into_iter().map(|(address, standing)| (address, Row::new(address, standing))));
        self.nodes = Some(nodes);
        self.trouble.clear();
    }

    /// Takes what a look at a server has found, or why it has found nothing.
    pub(super) fn take(&mut self, server: NodeAddress, at: Instant, answer: Result<Reading, ErrorCode>) {
        if let Some(row) = self.rows.get_mut(&server) {
            row.take(at, answer);
            self.compare_clocks();
        }
    }

    /// The middle clock of all counts as right: that of the machine which asks may itself be wrong.
    fn compare_clocks(&mut self) {
        let mut all: Vec<_> = self.rows.values().filter_map(|row| Some(row.reading()?.ahead)).collect();
        all.sort_unstable();
        let middle = all.get(all.len().saturating_sub(1) / 2).copied();
        for row in self.rows.values_mut() {
            row.skew =
                row.reading().map(|reading| reading.ahead).zip(middle).map(|(own, middle)| own.saturating_sub(middle));
        }
    }

    /// Remembers the present total.
    pub(super) fn tick(&mut self) {
        let total = whole(self.total_rates().total());
        remember(&mut self.history, total);
    }

    /// All rows; equal ones by address.
    pub(super) fn sorted(&self, sort: Sort, reverse: bool) -> Vec<&Row> {
        let mut rows: Vec<_> = self.rows.values().collect();
        rows.sort_by(|one, other| one.compare(other, sort));
        if reverse {
            rows.reverse();
        }
        rows
    }

    /// The sum of all servers' counters; clocktime and flags mean nothing.
    pub(super) fn total_status(&self) -> Status {
        self.rows.values().filter_map(Row::status).fold(Status::default(), |sum, status| Status {
            gets: sum.gets.saturating_add(status.gets),
            sets: sum.sets.saturating_add(status.sets),
            deletes: sum.deletes.saturating_add(status.deletes),
            items: sum.items.saturating_add(status.items),
            ..sum
        })
    }

    /// The sum of all servers' rates.
    pub(super) fn total_rates(&self) -> Rates {
        self.rows.values().filter_map(|row| row.rates).fold(Rates::default(), |sum, rates| Rates {
            gets: sum.gets + rates.gets,
            sets: sum.sets + rates.sets,
            deletes: sum.deletes + rates.deletes,
        })
    }

    /// How many servers there are of each kind.
    pub(super) fn census(&self) -> String {
        let count = |standing| self.rows.values().filter(|row| row.standing == standing).count();
        let answering = self.rows.values().filter(|row| row.reading().is_some()).count();
        let mut text = format!("{answering} of {} servers answer", self.rows.len());
        for (standing, word) in [(Standing::Fault, "in fault"), (Standing::Detached, "not attached")] {
            let count = count(standing);
            if count > 0 {
                let _ = write!(text, ", {count} {word}");
            }
        }
        text
    }

    /// What the cluster is busy with, and how far it is.
    pub(super) fn replace(&self) -> (String, Mood) {
        let own = |row: &&Row, flag: u32| row.status().is_some_and(|status| status.flags & flag != 0);
        let count = |flag| self.rows.values().filter(|row| own(row, flag)).count();
        let manager = self.nodes.as_ref().and_then(|nodes| nodes.flags).unwrap_or_default();
        let (copying, deleting) = (count(FLAG_COPYING), count(FLAG_DELETING));
        let of = self.rows.len();
        let mut text = if copying > 0 || manager & FLAG_COPYING != 0 {
            format!("copying on {copying} of {of} servers")
        } else if deleting > 0 || manager & FLAG_DELETING != 0 {
            format!("deleting on {deleting} of {of} servers")
        } else if manager & FLAG_UNFINISHED != 0 {
            return ("given up; run it again with ctl".to_owned(), Mood::Alarm);
        } else if count(FLAG_DIFFERENT) > 0 {
            return ("waiting: servers read by another hash space than they write by".to_owned(), Mood::Busy);
        } else {
            return ("none".to_owned(), Mood::Calm);
        };
        if let Some((share, [_, sent, received, dropped])) = self.progress() {
            let _ = write!(text, ": {share} % scanned, {sent} sent, {received} received, {dropped} dropped");
        }
        (text, Mood::Busy)
    }

    /// Of the servers that tell: how much of their records is scanned, in per cent, and their counts.
    fn progress(&self) -> Option<(u64, [u64; 4])> {
        let mut sums: Option<(u64, [u64; 4])> = None;
        for reading in self.rows.values().filter_map(Row::reading) {
            let Some(progress) = reading.figures.as_ref().and_then(|figures| figures.progress) else { continue };
            let (items, sum) = sums.get_or_insert_default();
            *items = items.saturating_add(reading.status.items);
            for (sum, own) in sum.iter_mut().zip(progress) {
                *sum = sum.saturating_add(own);
            }
        }
        let (items, sum) = sums?;
        let share = sum.first().map_or(0, |scanned| scanned.saturating_mul(100).checked_div(items).unwrap_or(100));
        Some((share.min(100), sum))
    }
}

fn remember(history: &mut VecDeque<u64>, value: u64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(value);
}

#[cfg(test)]
pub(in crate::cli::top) mod tests;
