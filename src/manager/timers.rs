//! What a manager does regularly: keep-alives and counting those that are missed, automatic replaces, time-outs of calls.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;
use tokio::time::Instant;

use super::heartbeat::LIMIT;
use super::job::Job;
use super::shell::{Inner, Shell};
use super::state::State;
use super::votes::Standing;
use crate::binlog::Record;
use crate::clock::Clock;
use crate::env::{every, every_while};
use crate::net::{STEPS, Session};
use crate::register::{Reply, pack};
use crate::wire::method::{KeepAlive, ReplaceElection};
use crate::wire::params::{Packed, TrueOrNil, decode};
use crate::wire::{Call, Extension, NodeAddress};

/// How often connections are looked through for stalled ones.
const REAP_INTERVAL: Duration = Duration::from_secs(1);
/// Longest pause between two looks at the delay of an automatic replace.
const AUTO_INTERVAL: Duration = Duration::from_millis(200);

/// How long the second of two managers leaves the loss of a server to the first.
const SECOND_PAUSE: Duration = Duration::from_millis(200);

/// Does all of it, until the future is dropped.
pub(super) async fn run(shell: Arc<Shell>) {
    let config = &shell.config;
    let auto_period = (config.replace_delay / 4).clamp(Duration::from_millis(1), AUTO_INTERVAL);
    tokio::join!(
        every(config.keepalive_interval, || shell.keep_alive()),
        every(config.clock_interval, || shell.peers.step()),
        every(REAP_INTERVAL, || shell.peers.reap()),
        every_while(|| shell.question_interval(), || shell.ask_voters()),
        every(auto_period, || shell.consider_replace()),
    );
}

impl Shell {
    /// Sends a keep-alive to every server, attached or not, and to the partner; declares lost who has missed too many.
    pub(super) fn keep_alive(&self) {
        let inner = &mut *self.lock();
        let mut watched = inner.state.watched();
        match self.partner() {
            Some(partner) => _ = watched.insert(partner),
            None => self.look_up_partner(None),
        }
        inner.heartbeats.retain(|node, _| watched.contains(node));
        for node in watched {
            let asked = inner.votes.asks(node);
            if inner.heartbeats.entry(node).or_default().beat(LIMIT) && !asked {
                inner.heartbeats.remove(&node);
                self.silent(inner, node);
            } else {
                self.keep_alive_of(inner, node);
            }
        }
        self.sync_again(inner);
    }

    /// Sends a keep-alive to a node; to one of this program with what is known of all servers, and a question.
    pub(super) fn keep_alive_of(&self, inner: &Inner, node: NodeAddress) {
        let clock = self.clock.take();
        let session = self.peers.session(node);
        let own =
            inner.message_limits.contains_key(&node) || inner.votes.heard(node).is_some() || self.is_partner(node);
        let question = inner.votes.question(node);
        let extension = own.then(|| {
            let register = Some(ByteBuf::from(pack(&question)));
            Extension { register, ..inner.beside_spaces() }
        });
        let answer = session.ask(&KeepAlive { clock, extension }, STEPS);
        self.spawn(async move |shell| {
            let Ok(result) = answer.await else { return };
            let inner = &mut *shell.lock();
            for heartbeats in [&mut inner.heartbeats, &mut inner.questions] {
                if let Some(heartbeat) = heartbeats.get_mut(&node) {
                    heartbeat.answered();
                }
            }
            let Ok(answer) = KeepAlive::answer(&result) else { return };
            let register = answer.and_then(|Packed(extension)| extension.register);
            let Some(reply) = register.as_deref().and_then(|bytes| Reply::read(bytes)) else {
                if own {
                    inner.says_nothing(node, shell.is_partner(node), Instant::now());
                }
                return;
            };
            inner.fresh.remove(&node);
            if let Some(configuration) = &reply.configuration {
                shell.shown(inner, node, configuration);
            }
            inner.votes.hear(node, &question, reply, shell.env.time().now());
            shell.look_for_exchange(inner, node);
            shell.consider_votes(inner);
        });
    }

    /// Sends a keep-alive with a question to all nodes that can vote.
    pub(super) fn ask_all(&self, inner: &Inner) {
        for node in inner.votes.nodes() {
            self.keep_alive_of(inner, node);
        }
    }

    /// A member with another store, or an older one, is given up: it must be attached, and gets what it should have.
    pub(super) fn look_for_exchange(&self, inner: &mut Inner, server: NodeAddress) {
        let Inner { votes, state, .. } = &mut *inner;
        if !state.spaces().active().contains(&server) {
            return;
        }
        let changed = match votes.look_at(server, |node| state.servers().contains(&node)) {
            Standing::GivenUp(changed) => changed,
            Standing::Settled => {
                return tracing::error!(
                    "all servers have come back with older stores: they go on with what they have, and what was acknowledged last may be lost"
                );
            }
            Standing::Sound | Standing::Waits => return,
        };
        if inner.changes.pending.is_none() && inner.changes.waiting.is_empty() {
            tracing::error!(peer = %server, "server given up: {changed}; attach it to have its records copied");
            inner.note_reason(server, changed.to_string());
            self.decide(inner, Job::exchange(server));
        }
    }

    fn question_interval(&self) -> Duration {
        self.timing(&self.lock()).question_interval()
    }

    /// As long as servers vote: asks each node that can, and declares lost who has not answered for long.
    fn ask_voters(&self) {
        let inner = &mut *self.lock();
        if inner.votes.are_held() || inner.votes.is_proposing() {
            let (known, watched) = (inner.votes.configuration().members.keys(), inner.state.watched());
            let mut nodes: BTreeSet<_> = known.copied().chain(inner.votes.nodes()).collect();
            nodes.retain(|node| watched.contains(node) || self.is_partner(*node));
            inner.questions.retain(|node, _| nodes.contains(node));
            let limit = inner.votes.configuration().timing.misses();
            for node in nodes {
                if inner.questions.entry(node).or_default().beat(limit) && inner.votes.are_held() {
                    inner.questions.remove(&node);
                    self.silent(inner, node);
                } else {
                    self.keep_alive_of(inner, node);
                }
            }
        }
        self.look_at_reach(inner);
        self.look_at_votes(inner);
    }

    /// A node has missed too many keep-alives: it is lost, whether or not connections to it stand.
    fn silent(&self, inner: &mut Inner, node: NodeAddress) {
        if self.is_partner(node) {
            self.lose_partner(inner, node, "does not answer");
            self.look_up_partner(None);
        } else {
            self.lose_server(inner, node, "does not answer");
        }
        // A new connection makes a node known again; the old ones do not carry anything any more.
        if let Some(session) = self.peers.known_session(node) {
            session.close();
        }
    }

    /// A server is lost: it becomes faulty.
    pub(super) fn lose_server(&self, inner: &mut Inner, server: NodeAddress, why: &str) {
        let now = Instant::now();
        if !inner.state.watched().contains(&server) {
            return;
        }
        // One that must not be given up is found lost again and again.
        let news = inner.state.servers().contains(&server);
        if inner.said.is_due((server, "lost"), self.env.time().now()) || news {
            tracing::warn!(peer = %server, "server lost: {why}");
            self.binlog.write(&Record::ServerLost { address: server });
        }
        inner.note_reason(server, why.to_owned());
        inner.auto.changed(now);
        if inner.is_learning(now) {
            // A change of what may not be the newest hash space could displace the newest: it must wait for its
            // keep-alives to be missed.
            inner.note(|state| state.server_gone(server));
        } else {
            inner.note(|state| state.server_away(server));
            self.decide_loss(inner, server);
        }
    }

    /// Two managers that vote notice a loss at the same moment: the one with the smaller address is first, so that they do not
    /// outbid each other.
    fn decide_loss(&self, inner: &mut Inner, server: NodeAddress) {
        let first = self.partner().filter(|partner| inner.partner_connected && *partner < self.address);
        if first.is_none() || !inner.votes.are_held() {
            return self.decide(inner, Job::loss(server));
        }
        self.spawn(async move |shell| {
            tokio::time::sleep(SECOND_PAUSE).await;
            let inner = &mut *shell.lock();
            // It is done, or the server is back: then nothing changes.
            if !inner.state.servers().contains(&server) {
                shell.decide(inner, Job::loss(server));
            }
        });
    }

    pub(super) fn lose_partner(&self, inner: &mut Inner, partner: NodeAddress, why: &str) {
        if std::mem::replace(&mut inner.partner_connected, false) {
            tracing::warn!(peer = %partner, "the other manager is lost: {why}");
            self.binlog.write(&Record::PartnerLost { address: partner });
            inner.partner_changed = Instant::now();
            // Another may be started in its place. One that keeps the cluster without votes does so while it is away.
            if !inner.votes.is_compatible(partner) {
                inner.votes.forget(partner);
            }
            inner.note(State::partner_lost);
        }
    }

    /// Starts an automatic replace if one is due, or asks the partner to.
    fn consider_replace(&self) {
        let now = Instant::now();
        let inner = &mut *self.lock();
        self.recall(inner);
        let work = inner.is_settled(now) && inner.state.has_work();
        if !inner.auto.poll(now, work) {
            return;
        }
        match self.partner() {
            // Of two managers, the one with the smaller address.
            Some(partner) if inner.partner_connected && partner < self.address => {
                self.elect(inner, &self.peers.session(partner));
            }
            _ => {
                self.rearrange(inner);
            }
        }
    }

    /// Attaches, detaches and replaces. Says whether a replace is under way now.
    pub(super) fn rearrange(&self, inner: &mut Inner) -> bool {
        // Whether it can be done now; what is done may be worked out again.
        if let Err(error) = inner.state.clone().rearrange(&self.clock) {
            tracing::warn!("no automatic replace: {error}");
            return false;
        }
        tracing::info!("automatic replace");
        let change = |state: &mut State, clock: &Clock| Ok((Vec::new(), state.rearrange(clock)?));
        self.decide(inner, Job::new("automatic replace", Box::new(change), None));
        true
    }

    /// Asks the partner to run the automatic replace; runs it here if it will not.
    fn elect(&self, inner: &Inner, partner: &Arc<Session>) {
        let clock = self.clock.take();
        let answer = partner.ask(&ReplaceElection { seed: &inner.state.spaces().whs, clock }, STEPS);
        self.spawn(async move |shell| {
            let accepted = answer.await.is_ok_and(|result| decode(&result) == Ok(TrueOrNil(true)));
            let inner = &mut *shell.lock();
            // Meanwhile the partner may have done it all the same, or somebody has switched it off.
            if !accepted && inner.auto.is_enabled() && inner.state.has_work() {
                shell.rearrange(inner);
            }
        });
    }
}
