//! `ctl detach --force`: an operator vouches that servers are off and stay off, when those who are left are no majority.
//!
//! What is put in force then, and who must agree, is in [`crate::register`]; here is when it is refused, and what is lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::job::Job;
use super::shell::{Inner, Shell};
use super::state::State;
use crate::clock::Clock;
use crate::net::{Link, Reply};
use crate::ring::HashSpace;
use crate::time::Moment;
use crate::wire::extension::Changed;
use crate::wire::params::{Encode as _, Packed};
use crate::wire::{NodeAddress, Request};

impl Shell {
    /// Detaches `servers` without their votes, or says why not.
    pub(super) fn force(&self, link: &Arc<Link>, request: &Request<'_>, servers: &[NodeAddress], replace: bool) {
        let inner = &mut *self.lock();
        let reply = Reply::new(link, request.msgid);
        let servers: BTreeSet<_> = servers.iter().copied().collect();
        if let Some(why) = objection(inner, &servers, self.env.time().now()) {
            tracing::warn!(peer = %link.peer(), "detach by force refused: {why}");
            let changed = Changed { refused: Some(why), ..Changed::default() };
            return reply.ok(|out| Packed(changed).encode(out));
        }
        let lost = describe_loss(share_lost(&inner.state.spaces().rhs, &servers));
        tracing::warn!(peer = %link.peer(), "detach by force of {servers:?}: {lost}");
        let servers: Vec<_> = servers.into_iter().collect();
        let change = move |state: &mut State, clock: &Clock| {
            let (changed, actions) = state.detach_forced(&servers, replace, clock)?;
            let mut result = Vec::new();
            Packed(Changed { lost: Some(lost.clone()), ..changed }).encode(&mut result);
            Ok((result, actions))
        };
        let job = Job::new("detach by force", Box::new(change), Some((reply, request.method)));
        self.decide_first(inner, Job { forced: true, ..job });
    }
}

/// Why `servers` are not detached by force.
fn objection(inner: &Inner, servers: &BTreeSet<NodeAddress>, now: Moment) -> Option<String> {
    let configuration = inner.votes.configuration();
    if !inner.votes.are_held() {
        return Some(
            "the servers do not vote: silent ones are given up without it, and detach removes them".to_owned(),
        );
    }
    if let Some(stranger) = servers.iter().find(|node| !configuration.members.contains_key(node)) {
        return Some(format!("{stranger} is not active; detach removes it without --force"));
    }
    if let Some(alive) = servers.iter().find(|node| inner.reports.is_heard(**node, now)) {
        return Some(format!("{alive} answers this manager: it is not off"));
    }
    let answering: Vec<_> = configuration.voters.iter().copied().filter(|voter| inner.is_heard(*voter, now)).collect();
    if configuration.is_majority(&answering) {
        return Some(
            "a majority of the voters answers: silent servers are given up without it, and detach removes them"
                .to_owned(),
        );
    }
    let left: BTreeSet<_> = configuration.members.keys().copied().filter(|node| !servers.contains(node)).collect();
    if left.is_empty() {
        return Some("no server would be left".to_owned());
    }
    for node in left {
        if !inner.reports.is_heard(node, now) {
            return Some(format!("{node} does not answer either: start it, or name it, too"));
        }
        let unreached = inner.reports.unreached_by(node, now);
        if let Some(reached) = servers.iter().find(|server| !unreached.contains(server)) {
            return Some(format!("{node} has heard {reached} in the last two seconds; if that is off, try again"));
        }
    }
    None
}

/// The share of all keys, from 0 to 1, of which every copy for reading is on `servers`.
fn share_lost(rhs: &crate::wire::params::Seed, servers: &BTreeSet<NodeAddress>) -> f64 {
    let space = HashSpace::new(rhs.clone());
    let points = space.points();
    let Some(end) = points.last() else { return 0.0 };
    let mut lost: u64 = 0;
    let mut before = *end;
    for point in points {
        let all = space.owners(*point).active().all(|owner| servers.contains(&owner));
        if all {
            lost = lost.saturating_add(point.wrapping_sub(before));
        }
        before = *point;
    }
    #[allow(clippy::cast_precision_loss, reason = "a share, shown in percent")]
    let share = lost as f64 / u64::MAX as f64;
    share
}

/// What an operator is told.
fn describe_loss(share: f64) -> String {
    let without = "what they acknowledged without those that are left is lost";
    if share == 0.0 {
        format!("each key has a copy on a server that is left; {without}")
    } else {
        format!(
            "{:.0} % of all keys have no copy on a server that is left: they read as missing; {without}",
            (share * 100.0).max(1.0)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockTime;
    use crate::wire::params::Seed;

    fn node(number: u8) -> NodeAddress {
        NodeAddress::new(([10, 0, 0, number], 19800).into())
    }

    #[test]
    fn the_share_of_keys_without_a_copy_is_told() {
        let seed = |count: u8| Seed {
            nodes: (1..=count).map(|number| (node(number), true)).collect(),
            clocktime: ClockTime(1),
        };
        let lost = |count: u8, off: &[u8]| share_lost(&seed(count), &off.iter().map(|number| node(*number)).collect());
        // Three copies: those of three servers are on all of them.
        assert!(lost(3, &[1, 2]).abs() < f64::EPSILON);
        assert!((lost(3, &[1, 2, 3]) - 1.0).abs() < 0.001);
        let some = lost(5, &[1, 2, 3]);
        assert!(some > 0.02 && some < 0.3, "a tenth or so: {some}");
        assert!(describe_loss(0.0).starts_with("each key has a copy"));
        assert!(describe_loss(0.001).starts_with("1 % of all keys"));
    }
}
