//! What a manager decides: events in, actions out.
//!
//! Pure. The events are what happened to connections and what was asked for; the actions say who must be told what,
//! and [`super::shell`] does the telling.

use std::collections::{BTreeMap, BTreeSet};

use super::replace::{Phase, Replace};
use super::spaces::{Merge, Spaces};
use crate::clock::{Clock, ClockTime};
use crate::wire::NodeAddress;
use crate::wire::method::{FLAG_COPYING, FLAG_DELETING, FLAG_DIFFERENT, FLAG_UNFINISHED};
use crate::wire::params::{NODE_LIMIT, Seed};

/// Something that others must be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Both hash spaces, to every connected server.
    SyncServers,
    /// Both hash spaces, to the partner.
    SyncPartner,
    /// Both hash spaces, to every client connection.
    PushClients,
    /// The start of the copying, to the servers of the replace.
    StartCopy,
    /// The start of the deleting, to the servers of the replace.
    StartDelete,
}

/// Why the cluster cannot be changed as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Impossible {
    /// Nobody is there to attach, to keep or to copy.
    #[error("no server is active")]
    NoServer,
    /// What it holds would not be copied, and then be deleted elsewhere.
    #[error("{0} is active but not connected to this manager")]
    Absent(NodeAddress),
    /// It took writes when the others had gone: without it, older records would pass for the last.
    #[error("{0} was active when the cluster ended, and is not back")]
    Missing(NodeAddress),
}

pub(super) type Outcome = Result<Vec<Action>, Impossible>;

/// What a manager knows.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    spaces: Spaces,
    /// Servers that are connected, attached or not.
    servers: BTreeSet<NodeAddress>,
    /// Servers that were connected to this process at some time.
    seen: BTreeSet<NodeAddress>,
    /// The last hash spaces of servers that hold none now: all of the cluster has ended.
    remembered: BTreeMap<NodeAddress, (Seed, Seed)>,
    /// The hash spaces in which the last server was active for reading, since it was lost, too.
    outage: Option<Spaces>,
    replace: Option<Replace>,
    /// The clocktime of the last replace that was started here, until it has ended well.
    unfinished: Option<ClockTime>,
    /// Whether it is full: a replace whose copying was given up, since the configuration that it was for is no more. Where servers
    /// vote it is begun anew.
    given_up: Option<bool>,
    /// Replaces that have ended well.
    finished: u64,
    /// The servers vote: the last owner of a range is never removed for being silent, since it comes back with its records.
    voted: bool,
    /// Servers that are silent and were not removed for that reason.
    waited: BTreeSet<NodeAddress>,
}

impl State {
    pub(super) fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    pub(super) fn servers(&self) -> &BTreeSet<NodeAddress> {
        &self.servers
    }

    pub(super) fn replace(&self) -> Option<&Replace> {
        self.replace.as_ref()
    }

    /// Connected servers that are not active for writing, in the order of their addresses.
    pub(super) fn detached(&self) -> Vec<NodeAddress> {
        self.servers.iter().copied().filter(|server| !self.spaces.is_attached(*server)).collect()
    }

    /// Everybody whose signs of life matter: the connected and the active.
    pub(super) fn watched(&self) -> BTreeSet<NodeAddress> {
        self.spaces.active().union(&self.servers).copied().collect()
    }

    /// A server that is active but not connected: it will connect, or be lost, before long.
    pub(super) fn absent(&self) -> Option<NodeAddress> {
        self.spaces.active().difference(&self.servers).next().copied()
    }

    /// Whether `node` may report the end of a phase.
    pub(super) fn is_member(&self, node: NodeAddress) -> bool {
        self.spaces.contain(node) || self.servers.contains(&node)
    }

    /// Whether the loss of a connection to `node` says that it has died: not so if this process never saw it alive.
    pub(super) fn was_seen(&self, node: NodeAddress) -> bool {
        self.seen.contains(&node)
    }

    /// A connection to a server stands. Says whether it was not there before.
    pub(super) fn server_bound(&mut self, server: NodeAddress) -> bool {
        if self.servers.len() >= NODE_LIMIT && !self.servers.contains(&server) {
            return false;
        }
        self.seen.insert(server);
        self.waited.remove(&server);
        self.servers.insert(server)
    }

    /// Whether `server` is silent, and not given up since it is the last owner of some keys.
    pub(super) fn is_waited_for(&self, server: NodeAddress) -> bool {
        self.waited.contains(&server) && self.spaces.active().contains(&server)
    }

    /// Whether the servers vote on changes.
    pub(super) fn set_voted(&mut self, voted: bool) {
        self.voted = voted;
    }

    /// Takes the hash spaces of a configuration that is in force, whatever was held.
    pub(super) fn take(&mut self, spaces: Spaces, clock: &Clock) {
        clock.observe(spaces.whs.clocktime);
        clock.observe(spaces.rhs.clocktime);
        // Also when only the one for reading is another: the ends of copying are those of one configuration.
        if spaces != self.spaces {
            self.copy_anew("there is a newer configuration");
        }
        if spaces.whs == spaces.rhs {
            self.unfinished = None;
        }
        self.spaces = spaces;
        self.outage = None;
        self.remembered.clear();
    }

    /// Takes the hash spaces of a configuration without votes, as far as they are later than those held: since it came into
    /// force they may have changed as those of an original cluster do.
    pub(super) fn take_later(&mut self, spaces: Spaces, clock: &Clock) {
        let mut later = self.spaces.clone();
        later.take_newer(spaces.whs, spaces.rhs);
        self.take(later, clock);
    }

    /// A server is not connected any more; whether it is lost is still open.
    pub(super) fn server_gone(&mut self, server: NodeAddress) {
        self.servers.remove(&server);
        self.seen.remove(&server);
        self.remembered.remove(&server);
    }

    /// A server cannot be reached; that it is lost is still to be decided.
    pub(super) fn server_away(&mut self, server: NodeAddress) {
        self.servers.remove(&server);
        self.remembered.remove(&server);
    }

    /// A server cannot be reached any more.
    pub(super) fn server_lost(&mut self, server: NodeAddress, clock: &Clock) -> Vec<Action> {
        self.server_away(server);
        let mut actions = Vec::new();
        let before = self.spaces.rhs.has_active().then(|| self.spaces.clone());
        if self.voted && self.spaces.is_last(server) {
            self.waited.insert(server);
            // It has still to be copied from, or to.
            self.copy_anew("a server was lost");
        } else if self.spaces.fault(server, clock) {
            if !self.spaces.rhs.has_active() && before.is_some() {
                self.outage = before;
            }
            self.copy_anew("a server was lost");
            actions = vec![Action::SyncPartner, Action::SyncServers, Action::PushClients];
        }
        if self.replace.as_mut().is_some_and(|replace| replace.forget(server)) {
            actions.extend(self.phase_complete());
        }
        // Remembered only as long as it means something.
        let (spaces, servers) = (&self.spaces, &self.servers);
        self.seen.retain(|node| servers.contains(node) || spaces.contain(*node));
        self.waited.retain(|node| spaces.contain(*node));
        actions
    }

    /// The partner cannot be reached any more: a replace that it had under way is left half done.
    pub(super) fn partner_lost(&mut self) {
        if self.replace.is_none() && self.spaces.whs.clocktime != self.spaces.rhs.clocktime {
            self.unfinished = Some(self.spaces.whs.clocktime);
        }
    }

    /// The partner has sent its hash spaces.
    pub(super) fn partner_spaces(&mut self, whs: Seed, rhs: Seed, clock: &Clock) -> (Merge, Vec<Action>) {
        let merge = self.spaces.merge(whs, rhs, clock);
        let mut actions = Vec::new();
        if merge.partner_lags {
            actions.push(Action::SyncPartner);
        }
        if merge.taken {
            self.void_copy("the other manager has a newer hash space");
            if self.spaces.whs == self.spaces.rhs {
                self.unfinished = None;
            }
            if self.spaces.rhs.has_active() {
                self.outage = None;
            }
            // The partner itself tells the servers.
            actions.push(Action::PushClients);
        }
        (merge, actions)
    }

    /// A server has told which hash spaces it holds.
    pub(super) fn server_spaces(&mut self, whs: Seed, rhs: Seed, clock: &Clock) -> Vec<Action> {
        if self.spaces.merge(whs, rhs, clock).taken {
            if self.spaces.rhs.has_active() {
                self.outage = None;
            }
            self.void_copy("a server has a newer hash space");
            vec![Action::SyncPartner, Action::SyncServers, Action::PushClients]
        } else {
            Vec::new()
        }
    }

    /// A server that holds no hash spaces has told which it held last.
    pub(super) fn server_remembers(&mut self, server: NodeAddress, whs: Seed, rhs: Seed) {
        if self.servers.contains(&server) {
            self.remembered.insert(server, (whs, rhs));
        }
    }

    /// Goes on with the last hash spaces of a cluster of which every server had ended.
    ///
    /// Only if each server that was active in the newest of them is here, and remembers if this manager does not: then
    /// nobody is left who could know of newer ones, or have lost its records.
    pub(super) fn recall(&mut self, clock: &Clock) -> Vec<Action> {
        if self.missing().is_some() { Vec::new() } else { self.take_up(clock) }
    }

    /// A server without which the last hash spaces must not be taken up by themselves.
    pub(super) fn missing(&self) -> Option<NodeAddress> {
        self.last().active().into_iter().find(|node| !self.has_returned(*node))
    }

    /// The last hash spaces in which a server was active, if none is now; else empty ones.
    fn last(&self) -> Spaces {
        let mut last = self.outage.clone().unwrap_or_default();
        if self.spaces.whs.nodes.is_empty() {
            for (whs, rhs) in self.remembered.values() {
                last.take_newer(whs.clone(), rhs.clone());
            }
        }
        last
    }

    fn has_returned(&self, node: NodeAddress) -> bool {
        if self.outage.is_some() { self.servers.contains(&node) } else { self.remembered.contains_key(&node) }
    }

    /// Takes the last hash spaces up; servers that were active in them and have not returned are faulty from now on.
    fn take_up(&mut self, clock: &Clock) -> Vec<Action> {
        let last = self.last();
        if !last.are_ready() {
            return Vec::new();
        }
        let missing: Vec<_> = last.active().into_iter().filter(|node| !self.has_returned(*node)).collect();
        self.void_copy("the last hash space is taken up again");
        if self.outage.take().is_some() {
            self.spaces.restore(last, clock);
        } else {
            self.spaces.merge(last.whs, last.rhs, clock);
        }
        self.remembered.clear();
        for node in missing {
            tracing::warn!(peer = %node, "was active when the cluster ended, and is given up");
            self.spaces.fault(node, clock);
        }
        vec![Action::SyncPartner, Action::SyncServers, Action::PushClients]
    }

    /// Attaches every connected server that is not, and starts a replace if asked to.
    ///
    /// After the end of all servers this is the word of the operator that those who are missing will not come back.
    pub(super) fn attach(&mut self, replace: bool, clock: &Clock) -> Outcome {
        self.attach_servers(None, replace, clock)
    }

    /// The same for `chosen` alone, who must be connected.
    fn attach_servers(&mut self, chosen: Option<Vec<NodeAddress>>, replace: bool, clock: &Clock) -> Outcome {
        let mut actions = if self.servers.is_empty() { Vec::new() } else { self.take_up(clock) };
        let servers = chosen.unwrap_or_else(|| self.detached());
        let changed = self.spaces.attach(servers, clock);
        actions.extend(self.after_change(changed, replace, clock)?);
        Ok(actions)
    }

    /// Removes the faulty servers, and starts a replace if asked to.
    pub(super) fn detach(&mut self, replace: bool, clock: &Clock) -> Outcome {
        let changed = self.spaces.detach(clock);
        self.after_change(changed, replace, clock)
    }

    fn after_change(&mut self, changed: bool, replace: bool, clock: &Clock) -> Outcome {
        if !self.spaces.are_ready() {
            return Err(Impossible::NoServer);
        }
        if replace {
            return self.start_replace(false, clock);
        }
        if !changed {
            return Ok(Vec::new());
        }
        self.void_copy("the set of attached servers was changed");
        Ok(vec![Action::SyncPartner, Action::SyncServers, Action::PushClients])
    }

    /// Starts the copying, by all connected servers, towards the hash space for writing.
    pub(super) fn start_replace(&mut self, full: bool, clock: &Clock) -> Outcome {
        if !self.spaces.are_ready() || self.servers.is_empty() {
            return Err(Impossible::NoServer);
        }
        if let Some(absent) = self.absent() {
            return Err(Impossible::Absent(absent));
        }
        if self.unfinished == Some(self.spaces.whs.clocktime) {
            // A report of that replace may still be on its way; it must not count for this one.
            self.spaces.restamp(clock);
        }
        let seed = self.spaces.whs.clone();
        self.unfinished = Some(seed.clocktime);
        self.given_up = None;
        tracing::info!(clocktime = %seed.clocktime, servers = self.servers.len(), full, "replace: copying");
        self.replace = Some(Replace::new(seed, full, self.servers.clone()));
        Ok(vec![Action::SyncPartner, Action::StartCopy, Action::PushClients])
    }

    /// A server has ended a phase of the replace towards the hash space of `clocktime`.
    pub(super) fn ended(&mut self, server: NodeAddress, phase: Phase, clocktime: ClockTime) -> Vec<Action> {
        let last = self.replace.as_mut().is_some_and(|replace| replace.ended(server, phase, clocktime));
        if last { self.phase_complete() } else { Vec::new() }
    }

    /// A server will not do its part. After such a copying, deleting could lose records: it is given up.
    pub(super) fn refused(&mut self, server: NodeAddress, phase: Phase, clocktime: ClockTime) -> Vec<Action> {
        match &mut self.replace {
            Some(replace) if replace.awaits(server, phase, clocktime) => match phase {
                Phase::Copy => self.void_copy("a server refused to copy"),
                Phase::Delete => {
                    if replace.refused(server) {
                        return self.phase_complete();
                    }
                }
            },
            _ => {}
        }
        Vec::new()
    }

    fn phase_complete(&mut self) -> Vec<Action> {
        let Some(replace) = &mut self.replace else { return Vec::new() };
        let clocktime = replace.seed().clocktime;
        match replace.phase() {
            Phase::Copy => {
                replace.delete();
                self.spaces.settle();
                tracing::info!(%clocktime, "replace: copied, deleting");
                vec![Action::SyncPartner, Action::StartDelete, Action::PushClients]
            }
            Phase::Delete => {
                if replace.is_incomplete() {
                    tracing::warn!(%clocktime, "replace: ended, but not on all servers: it should be run again");
                } else {
                    tracing::info!(%clocktime, "replace: finished");
                    self.unfinished = None;
                    self.finished = self.finished.saturating_add(1);
                }
                self.replace = None;
                Vec::new()
            }
        }
    }

    /// Gives up a copying under way: the hash space that it was for is no longer the one.
    fn void_copy(&mut self, reason: &str) {
        if let Some(replace) = self.replace.take_if(|replace| replace.phase() == Phase::Copy) {
            tracing::warn!(clocktime = %replace.seed().clocktime, "replace: given up: {reason}");
        }
    }

    /// As [`Self::void_copy`]; where servers vote the copying is begun anew when all who are active are there.
    fn copy_anew(&mut self, reason: &str) {
        let copying = self.replace.as_ref().filter(|replace| self.voted && replace.phase() == Phase::Copy);
        self.given_up = copying.map(Replace::is_full).or(self.given_up);
        self.void_copy(reason);
    }

    /// Whether a copying is to be begun anew now.
    pub(super) fn may_copy_anew(&self) -> bool {
        self.given_up.is_some() && self.replace.is_none() && self.spaces.are_ready() && self.absent().is_none()
    }

    /// Begins a copying anew that was given up, if that is still called for.
    pub(super) fn begin_anew(&mut self, clock: &Clock) -> Outcome {
        match self.given_up {
            Some(full) if self.may_copy_anew() => self.start_replace(full, clock),
            _ => Ok(Vec::new()),
        }
    }

    /// Replaces that this process has brought to a good end.
    pub(super) fn finished(&self) -> u64 {
        self.finished
    }

    /// What is under way, as the flags of `GetStatus`.
    pub(super) fn flags(&self) -> u32 {
        let different = if self.spaces.whs.nodes == self.spaces.rhs.nodes { 0 } else { FLAG_DIFFERENT };
        let replace = match &self.replace {
            Some(replace) if replace.phase() == Phase::Copy => FLAG_COPYING,
            Some(_) => FLAG_DELETING,
            None if self.unfinished.is_some() => FLAG_UNFINISHED,
            None => 0,
        };
        different | replace
    }

    /// Whether an automatic replace would change anything.
    pub(super) fn has_work(&self) -> bool {
        let unfinished = self.unfinished.is_some() && self.spaces.are_ready();
        let work = || !self.detached().is_empty() || unfinished || self.may_detach();
        self.replace.is_none() && self.missing().is_none() && work()
    }

    /// Whether there are faulty servers that nobody needs any more.
    fn may_detach(&self) -> bool {
        !self.spaces.faulty().is_empty() && self.spaces.are_ready() && self.spaces.are_covered()
    }

    /// Attaches, detaches and replaces at once: what an automatic replace does. Nobody is given up by that whose records
    /// may be nowhere else.
    pub(super) fn rearrange(&mut self, clock: &Clock) -> Outcome {
        if let Some(missing) = self.missing() {
            return Err(Impossible::Missing(missing));
        }
        let may_detach = self.may_detach();
        self.spaces.attach(self.detached(), clock);
        if may_detach {
            self.spaces.detach(clock);
        }
        self.start_replace(false, clock)
    }
}

mod members;
#[cfg(test)]
mod tests;
