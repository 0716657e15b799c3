//! Whether the servers of this cluster vote: only if all who are active can, and both managers.
//!
//! An original, or a manager that was told to be compatible, takes the cluster back to how it was without votes; once the last
//! of them has gone, votes begin again. Knows nothing of how either is put into force.

use std::time::Duration;

use tokio::time::Instant;

use super::mode::{INTRODUCTION, Mode, Why};
use super::shell::{Inner, Shell};
use super::spaces::Spaces;
use crate::register::{Configuration, Timing};
use crate::wire::NodeAddress;

/// How long the other manager must be away before its place among the voters is taken, and how long nobody else has it then:
/// two managers that cannot reach each other would take it from each other again and again.
const VOTER_PATIENCE: Duration = Duration::from_secs(10);

impl Shell {
    /// Whether servers are to vote.
    pub(super) fn mode(&self, inner: &Inner, now: Instant) -> Mode {
        if !self.config.votes {
            return Mode::Without(Why::Own);
        }
        let partner = self.partner();
        if let Some(partner) = partner.filter(|partner| inner.votes.is_compatible(*partner)) {
            return Mode::Without(Why::Partner(partner));
        }
        let silent = partner.filter(|partner| inner.partner_connected && inner.votes.heard(*partner).is_none());
        match silent {
            Some(partner) if now >= inner.partner_changed + INTRODUCTION => {
                return Mode::Without(Why::OriginalPartner(partner));
            }
            Some(_) => return Mode::Open,
            None => {}
        }
        let original = |server: &NodeAddress| {
            let silent = inner.state.servers().contains(server) && inner.votes.heard(*server).is_none();
            silent && inner.fresh.get(server).is_none_or(|since| now >= *since + INTRODUCTION)
        };
        match inner.state.spaces().active().into_iter().find(original) {
            Some(server) => Mode::Without(Why::OriginalServer(server)),
            None => Mode::Votes,
        }
    }

    /// Why the servers do not vote, or not yet.
    pub(super) fn without_votes(&self, inner: &Inner) -> String {
        if let Mode::Without(why) = self.mode(inner, Instant::now()) {
            return why.to_string();
        }
        let active = inner.state.spaces().active();
        let is_away = |node: &&NodeAddress| !inner.state.servers().contains(*node);
        let is_mute = |node: &&NodeAddress| inner.votes.heard(**node).is_none();
        match (active.iter().find(is_away), active.iter().find(is_mute)) {
            _ if active.is_empty() => "no server is attached".to_owned(),
            (Some(node), _) => format!("{node} is not connected"),
            (_, Some(node)) => format!("{node} has not said yet whether it can"),
            (None, None) => "the servers have not agreed on it yet".to_owned(),
        }
    }

    /// The times by which the cluster is to act: of two managers, those of the one with the smaller address.
    pub(super) fn timing(&self, inner: &Inner) -> Timing {
        let held = inner.votes.configuration();
        if held.is_voted() && !self.decides_timing() { held.timing } else { self.config.timing }
    }

    fn decides_timing(&self) -> bool {
        self.config.partner.is_none() || self.partner().is_some_and(|partner| self.address < partner)
    }

    /// Says that the cluster acts by other times than this manager was given.
    pub(super) fn compare_timing(&self, configuration: &Configuration) {
        if configuration.is_voted() && configuration.timing != self.config.timing && !self.decides_timing() {
            tracing::warn!(
                lease = ?configuration.timing.lease(), failure_timeout = ?configuration.timing.failure(),
                "the other manager's --lease and --failure-timeout count: its address is the smaller one"
            );
        }
    }

    /// Whether a configuration should follow though nobody has asked for a change of the cluster.
    pub(super) fn is_due(&self, inner: &Inner, mode: Mode, now: Instant) -> bool {
        match (inner.votes.are_held(), mode) {
            (false, Mode::Votes) => inner.can_vote(inner.state.spaces(), now),
            (true, Mode::Without(_)) => true,
            (true, Mode::Votes) => {
                let held = inner.votes.configuration();
                let next = inner.votes.next(inner.state.spaces(), true, self.timing(inner));
                let changed = |next: &Configuration| {
                    next.timing != held.timing || next.voters != held.voters && self.may_take_place(inner, now)
                };
                next.is_some_and(|next| next.is_voted() && changed(&next))
            }
            (false, Mode::Without(_)) | (_, Mode::Open) => false,
        }
    }

    /// Whether the manager among the voters, which is not there, has ended or is away for long.
    fn may_take_place(&self, inner: &Inner, now: Instant) -> bool {
        let patience = VOTER_PATIENCE;
        self.config.partner.is_none()
            || inner.partner_connected
            || now >= inner.partner_changed + patience && now >= inner.configured + patience
    }
}

impl Inner {
    /// Says why servers do not vote, if that is news.
    pub(super) fn say_mode(&mut self, mode: Mode) {
        let Mode::Without(why) = mode else {
            if mode == Mode::Votes {
                self.without = None;
            }
            return;
        };
        if self.state.spaces().are_ready() && self.without.replace(why) != Some(why) {
            tracing::warn!("the servers do not vote: {why}");
        }
    }

    /// Whether those are hash spaces of a cluster whose servers are all here and can vote.
    pub(super) fn can_vote(&self, spaces: &Spaces, now: Instant) -> bool {
        let active = spaces.active();
        let here = |node: &NodeAddress| self.state.servers().contains(node) && self.votes.heard(*node).is_some();
        spaces.are_ready() && !self.is_learning(now) && !active.is_empty() && active.iter().all(here)
    }

    /// A node has answered a question as one that knows none: it was exchanged for another program, however fast.
    pub(super) fn says_nothing(&mut self, node: NodeAddress, is_partner: bool, now: Instant) {
        if self.votes.heard(node).is_none() {
            return;
        }
        self.votes.forget(node);
        if is_partner {
            self.partner_changed = now;
        } else if self.state.servers().contains(&node) {
            self.fresh.insert(node, now);
        }
    }
}
