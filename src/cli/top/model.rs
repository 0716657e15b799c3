//! The state that `top` shows: all servers, totals, the replace, the clocks.
//!
//! Pure, as the rows are: nothing here sends requests, waits or draws.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::ops::Range;
use std::time::Instant;

use super::row::{Membership, Rates, Reading, Row, Severity, Sort, remember, whole};
use crate::client::Status;
use crate::wire::NodeAddress;
use crate::wire::method::{ErrorCode, FLAG_COPYING, FLAG_DELETING, FLAG_DIFFERENT, FLAG_UNFINISHED};

/// The servers that a manager knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nodes {
    pub(super) manager: NodeAddress,
    /// The servers of the hash space for writing, and whether they are active.
    pub(super) attached: Vec<(NodeAddress, bool)>,
    pub(super) detached: Vec<NodeAddress>,
    /// The phase of the replace; an original manager does not tell.
    pub(super) flags: Option<u32>,
}

/// Everything that `top` shows.
#[derive(Debug, Default)]
pub(super) struct Model {
    rows: BTreeMap<NodeAddress, Row>,
    /// The latest answer of a manager, if there is one.
    pub(super) nodes: Option<Nodes>,
    /// Why no manager has answered lately.
    pub(super) failures: Vec<(NodeAddress, ErrorCode)>,
    /// All servers' requests in a second, the latest last.
    pub(super) history: VecDeque<u64>,
}

impl Model {
    /// Nothing known yet but whom to ask.
    pub(super) fn named(servers: &[NodeAddress]) -> Self {
        let rows = servers.iter().map(|server| (*server, Row::new(*server, Membership::Named)));
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
            .map(|(node, active)| (*node, if *active { Membership::Active } else { Membership::Fault }));
        let detached = nodes.detached.iter().map(|node| (*node, Membership::Detached));
        let mut memberships: BTreeMap<_, _> = detached.chain(attached).collect();
        self.rows.retain(|address, row| match memberships.remove(address) {
            Some(membership) => {
                row.membership = membership;
                true
            }
            None => false,
        });
        self.rows.extend(memberships.into_iter().map(|(address, membership)| (address, Row::new(address, membership))));
        self.nodes = Some(nodes);
        self.failures.clear();
    }

    /// Takes the sample of a server, or why it has not answered; `time` is from its start to its end.
    pub(super) fn take(&mut self, server: NodeAddress, time: Range<Instant>, answer: Result<Reading, ErrorCode>) {
        if let Some(row) = self.rows.get_mut(&server) {
            row.take(time, answer);
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

    /// Remembers the present rates. Called once in each interval.
    pub(super) fn tick(&mut self) {
        self.rows.values_mut().for_each(Row::tick);
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
        let count = |membership| self.rows.values().filter(|row| row.membership == membership).count();
        let answering = self.rows.values().filter(|row| row.reading().is_some()).count();
        let mut text = format!("{answering} of {} servers answer", self.rows.len());
        for (membership, word) in [(Membership::Fault, "in fault"), (Membership::Detached, "not attached")] {
            let count = count(membership);
            if count > 0 {
                let _ = write!(text, ", {count} {word}");
            }
        }
        text
    }

    /// The phase of the replace in the cluster, and its progress.
    pub(super) fn replace(&self) -> (String, Severity) {
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
            return ("given up; run it again with ctl".to_owned(), Severity::Alarm);
        } else if count(FLAG_DIFFERENT) > 0 {
            return ("waiting: servers read by another hash space than they write by".to_owned(), Severity::Busy);
        } else {
            return ("none".to_owned(), Severity::Normal);
        };
        if let Some((share, [_, sent, received, dropped])) = self.progress() {
            let _ = write!(text, ": {share} % scanned, {sent} sent, {received} received, {dropped} dropped");
        }
        (text, Severity::Busy)
    }

    /// Of the servers that tell: how much of their records is scanned, in per cent, and their counts.
    fn progress(&self) -> Option<(u64, [u64; 4])> {
        let mut sums: Option<(u64, [u64; 4])> = None;
        for reading in self.rows.values().filter_map(Row::reading) {
            let Some(replace) = reading.figures.as_ref().and_then(|figures| figures.replace) else { continue };
            let progress = [replace.scanned, replace.sent, replace.received, replace.dropped];
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

#[cfg(test)]
pub(in crate::cli::top) mod tests;
