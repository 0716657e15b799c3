//! What a manager tells of the cluster and of itself, for `ctl status`.

use super::addresses::Refused;
use super::shell::{Inner, Shell};
use crate::register::{Machine, Voter};
use crate::time::Moment;
use crate::wire::NodeAddress;
use crate::wire::figures::{ChangeFigures, ManagerFigures, MemberFigures, RefusedFigures};

impl Shell {
    /// All figures.
    pub(super) fn figures(&self, inner: &Inner) -> ManagerFigures {
        let now = self.env.time().now();
        let configuration = inner.votes.configuration();
        let (heard, silent): (Vec<_>, Vec<_>) =
            configuration.voters.iter().copied().partition(|voter| inner.is_heard(*voter, now));
        let votes = inner.votes.are_held();
        let without = || self.without_votes(inner);
        let whs = &inner.state.spaces().whs;
        ManagerFigures {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: Some(self.address),
            configuration: configuration.counter,
            votes,
            without_votes: (!votes).then(without),
            voters: configuration.voters.len() as u64,
            voters_heard: heard.len() as u64,
            voters_silent: silent.into_iter().map(|voter| inner.name(voter)).collect(),
            servers: whs.nodes.iter().map(|(node, active)| inner.member(*node, *active, now)).collect(),
            change: inner.changes.pending.as_ref().map(|pending| ChangeFigures {
                what: pending.job.what.clone(),
                waits_ms: millis(pending.since.elapsed()),
                silent: inner.votes.unheard().map(|voter| inner.name(voter)).collect(),
            }),
            changes_waiting: inner.changes.waiting.len() as u64,
            refused: inner.addresses.refused(now).map(refused).collect(),
        }
    }
}

impl Inner {
    /// Whether a voter was heard lately.
    pub(super) fn is_heard(&self, voter: Voter, now: Moment) -> bool {
        let there = |node: NodeAddress| {
            self.reports.is_heard(node, now) && self.votes.heard(node).is_some_and(|speaker| speaker.voter() == voter)
        };
        self.votes.is_own(voter) || self.votes.node_of(voter).is_some_and(there)
    }

    fn member(&self, node: NodeAddress, active: bool, now: Moment) -> MemberFigures {
        let connected = self.state.servers().contains(&node);
        let takes_part = active && (connected || self.reports.is_heard(node, now));
        let member = self.votes.configuration().members.get(&node);
        MemberFigures {
            address: Some(node),
            active,
            connected,
            store: member.map(|member| format!("{:016x}", member.store)).unwrap_or_default(),
            configuration: self.votes.held_by(node).map(|version| version.counter),
            silent_ms: self.reports.silence(node, now).map(millis),
            unreached: self.reports.unreached_by(node, now),
            reason: self.given_up.get(&node).filter(|_| !takes_part).cloned(),
        }
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn refused((node, refused): (NodeAddress, Refused)) -> RefusedFigures {
    let store = |machine: &Machine| if machine.store == 0 { String::new() } else { format!("{:016x}", machine.store) };
    RefusedFigures {
        address: Some(node),
        machine: refused.machine.ip.to_string(),
        store: store(&refused.machine),
        owner: refused.owner.map(|owner| owner.ip.to_string()).unwrap_or_default(),
        owner_store: refused.owner.as_ref().map(store).unwrap_or_default(),
    }
}
