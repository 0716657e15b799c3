//! Doing what was decided: telling servers, partner and clients, and asking again where it failed.
//!
//! One lock guards the decisions; messages are handed to the connections under it, so that every peer is told in the
//! order in which things were decided. Answers are awaited outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Config;
use super::addresses::Addresses;
use super::auto::Auto;
use super::heartbeat::Heartbeat;
use super::job::{Changes, Job};
use super::mode::{INTRODUCTION, Why};
use super::replace::Phase;
use super::state::{Action, State};
use super::votes::Votes;
use crate::binlog::Binlog;
use crate::clock::Clock;
use crate::env::{Env, Seldom};
use crate::net::{Answer, Link, LinkKind, NamedNode, Peers, STEPS};
use crate::register::Reports;
use crate::wire::method::{ErrorCode, HashSpacePush, HashSpaceSync, ReplaceCopyStart, ReplaceDeleteStart, Role};
use crate::wire::params::{Seed, TrueOrNil, decode};
use crate::wire::{Extension, Init, NodeAddress, frame};

/// A manager at work.
pub(super) struct Shell {
    me: Weak<Self>,
    pub(super) env: Env,
    pub(super) config: Config,
    pub(super) address: NodeAddress,
    pub(super) clock: Clock,
    pub(super) peers: Arc<Peers>,
    pub(super) binlog: Binlog,
    inner: Mutex<Inner>,
    /// Notified when [`Inner::is_settled`] may have changed.
    pub(super) news: Notify,
}

/// What the lock guards.
pub(super) struct Inner {
    pub(super) state: State,
    pub(super) votes: Votes,
    pub(super) changes: Changes,
    pub(super) addresses: Addresses,
    /// Who was heard, and whom each server reaches.
    pub(super) reports: Reports,
    /// Why servers were given up.
    pub(super) given_up: BTreeMap<NodeAddress, String>,
    /// What was logged lately, of which node.
    pub(super) said: Seldom<(NodeAddress, &'static str)>,
    /// Servers whose processes have ended: their machine refuses connections.
    pub(super) ended: BTreeSet<NodeAddress>,
    pub(super) auto: Auto,
    pub(super) heartbeats: BTreeMap<NodeAddress, Heartbeat>,
    pub(super) partner_connected: bool,
    /// When it connected, was lost, or was found to be another program.
    pub(super) partner_changed: Instant,
    /// When the last configuration was taken.
    pub(super) configured: Instant,
    /// Why servers do not vote, as it was last said in the log.
    pub(super) without: Option<Why>,
    /// The questions to each voter that it has answered, and not.
    pub(super) questions: BTreeMap<NodeAddress, Heartbeat>,
    /// Servers that have connected and not yet said whether they can vote.
    pub(super) fresh: BTreeMap<NodeAddress, Instant>,
    /// Questions for hash spaces from before this process that are still out.
    pub(super) asking: usize,
    /// Until when servers of a cluster that is older than this process may still turn up.
    pub(super) settle_until: Instant,
    /// Nodes that a hash space did not reach.
    unsynced: BTreeSet<NodeAddress>,
    /// Number of the last push on each client connection.
    pushed: BTreeMap<u64, u32>,
    /// The longest message from a client that a server takes, in bytes, of those that have said so.
    pub(super) message_limits: BTreeMap<NodeAddress, u64>,
}

impl Inner {
    /// Whether there may be a newer hash space than the one known: nodes that were there before this process have not
    /// all connected, or not all answered.
    pub(super) fn is_learning(&self, now: Instant) -> bool {
        self.asking > 0 || now < self.settle_until
    }

    /// Whether `node` is told of hash spaces by configurations.
    fn hears_of_configurations(&self, node: NodeAddress) -> bool {
        self.votes.are_held() && self.votes.heard(node).is_some()
    }

    /// What servers and clients of this program are told beside the hash spaces.
    pub(super) fn beside_spaces(&self) -> Extension {
        let message_limits = self.message_limits.iter().map(|(node, limit)| (*node, *limit)).collect();
        Extension { message_limits, votes: self.votes.are_held(), ..Extension::default() }
    }

    /// Whether it is known what there is to change: the newest hash space, and of each active server whether it lives.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        let unknown = |since: &Instant| self.votes.are_held() && now < *since + INTRODUCTION;
        !self.is_learning(now) && self.state.absent().is_none() && !self.fresh.values().any(unknown)
    }
}

impl Shell {
    pub(super) fn new(
        env: &Env,
        config: Config,
        address: NodeAddress,
        binlog: Binlog,
        settle_until: Instant,
    ) -> Arc<Self> {
        let init = Init { address, role: Role::Manager };
        let now = Instant::now();
        let inner = Inner {
            state: State::default(),
            votes: Votes::new(env.random(), !config.votes),
            changes: Changes::default(),
            addresses: Addresses::default(),
            reports: Reports::default(),
            given_up: BTreeMap::new(),
            said: Seldom::default(),
            ended: BTreeSet::new(),
            auto: Auto::new(config.auto_replace, config.replace_delay),
            heartbeats: BTreeMap::new(),
            partner_connected: false,
            partner_changed: now,
            configured: now,
            without: None,
            questions: BTreeMap::new(),
            fresh: BTreeMap::new(),
            asking: 0,
            settle_until,
            unsynced: BTreeSet::new(),
            pushed: BTreeMap::new(),
            message_limits: BTreeMap::new(),
        };
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            peers: Peers::new(env, Some(init), config.dial.clone(), config.limits.clone()),
            binlog,
            address,
            clock: Clock::new(env.time(), 0),
            env: env.clone(),
            inner: Mutex::new(inner),
            news: Notify::new(),
            config,
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// The address of the other manager, if there are two and its name has been resolved.
    pub(super) fn partner(&self) -> Option<NodeAddress> {
        self.config.partner.as_ref().and_then(NamedNode::address)
    }

    /// Whether `node` is the other manager.
    pub(super) fn is_partner(&self, node: NodeAddress) -> bool {
        self.partner() == Some(node)
    }

    /// Runs `task` with this shell unless it is being dropped.
    pub(super) fn spawn<F>(&self, task: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(me) = self.me.upgrade() {
            self.env.spawn(task(me));
        }
    }

    /// Carries out what was decided.
    pub(super) fn perform(&self, inner: &mut Inner, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::SyncServers => {
                    for server in inner.state.servers().iter().filter(|server| !inner.hears_of_configurations(**server))
                    {
                        self.sync(inner, *server);
                    }
                }
                Action::SyncPartner => {
                    let partner = self.partner().filter(|_| inner.partner_connected);
                    if let Some(partner) = partner.filter(|partner| !inner.hears_of_configurations(*partner)) {
                        self.sync(inner, partner);
                    }
                }
                Action::PushClients => self.push(inner, |_| true),
                Action::StartCopy | Action::StartDelete => self.start_phase(inner),
            }
        }
        self.news.notify_waiters();
    }

    /// Sends both hash spaces to a server or the partner; if it does not get them, again at the next keep-alive.
    fn sync(&self, inner: &Inner, node: NodeAddress) {
        let spaces = inner.state.spaces();
        let sync = HashSpaceSync { whs: &spaces.whs, rhs: &spaces.rhs, clock: self.clock.take() };
        let answer = self.peers.session(node).ask(&sync, STEPS);
        self.spawn(async move |shell| match answer.await {
            Ok(result) if decode(&result) == Ok(TrueOrNil(false)) => {
                tracing::debug!(peer = %node, "has a newer hash space");
                // A server that is not attached might belong to another cluster.
                let attached = shell.lock().state.spaces().is_attached(node);
                if attached {
                    shell.learn_from(node).await;
                }
            }
            Ok(_) => {}
            Err(error @ (ErrorCode::TransportLost | ErrorCode::NodeLost | ErrorCode::TimedOut)) => {
                tracing::debug!(peer = %node, "hash space not delivered: {error}");
                shell.lock().unsynced.insert(node);
            }
            Err(error) => tracing::warn!(peer = %node, "refuses the hash space: {error}"),
        });
    }

    /// Sends the hash spaces to those whom they did not reach, as far as they are there.
    pub(super) fn sync_again(&self, inner: &mut Inner) {
        for node in std::mem::take(&mut inner.unsynced) {
            let partner = self.is_partner(node) && inner.partner_connected;
            if partner || inner.state.servers().contains(&node) {
                self.sync(inner, node);
            }
        }
    }

    /// Sends both hash spaces to the client connections that `which` picks; they may or may not answer.
    pub(super) fn push(&self, inner: &mut Inner, which: impl Fn(&Link) -> bool) {
        let spaces = inner.state.spaces();
        let beside = inner.beside_spaces();
        let mut pushed = BTreeMap::new();
        for link in self.peers.links() {
            if link.kind() != LinkKind::Client {
                continue;
            }
            let last = inner.pushed.get(&link.id()).copied();
            if !which(&link) {
                pushed.extend(last.map(|last| (link.id(), last)));
                continue;
            }
            let msgid = last.map_or(1, |last| last.wrapping_add(1));
            let extension = link.reads_extensions().then(|| beside.clone());
            let push = HashSpacePush { whs: &spaces.whs, rhs: &spaces.rhs, extension };
            let taken = link.push(|out| frame::request(out, msgid, &push));
            if taken {
                pushed.insert(link.id(), msgid);
            }
        }
        inner.pushed = pushed;
    }

    /// Tells every server of the replace that its present phase has begun.
    fn start_phase(&self, inner: &Inner) {
        if let Some(replace) = inner.state.replace() {
            for server in replace.servers() {
                self.start_phase_of(*server, replace.phase(), replace.seed(), replace.is_full());
            }
        }
    }

    /// Tells one server, again and again until it has answered or it no longer matters.
    pub(super) fn start_phase_of(&self, server: NodeAddress, phase: Phase, seed: &Seed, full: bool) {
        let answer = self.tell_phase(server, phase, seed, full);
        let seed = seed.clone();
        self.spawn(async move |shell| {
            let mut result = answer.await;
            while let Err(error) = result {
                tracing::warn!(peer = %server, "start of {phase:?} not accepted: {error}");
                if matches!(error, ErrorCode::Server | ErrorCode::Protocol | ErrorCode::Unknown) {
                    let inner = &mut *shell.lock();
                    let change = move |state: &mut State, _: &Clock| {
                        Ok((Vec::new(), state.refused(server, phase, seed.clocktime)))
                    };
                    return shell
                        .decide(inner, Job::new("end of a replace that a server refuses", Box::new(change), None));
                }
                tokio::time::sleep(shell.config.keepalive_interval).await;
                let awaited = {
                    let inner = shell.lock();
                    inner.state.replace().is_some_and(|replace| replace.awaits(server, phase, seed.clocktime))
                };
                if !awaited {
                    return;
                }
                result = shell.tell_phase(server, phase, &seed, full).await;
            }
        });
    }

    fn tell_phase(&self, server: NodeAddress, phase: Phase, seed: &Seed, full: bool) -> Answer {
        let session = self.peers.session(server);
        let clock = self.clock.take();
        match phase {
            Phase::Copy => session.ask(&ReplaceCopyStart { seed, clock, full }, STEPS),
            Phase::Delete => session.ask(&ReplaceDeleteStart { seed, clock }, STEPS),
        }
    }
}
