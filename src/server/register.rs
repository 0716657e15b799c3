//! The register's messages of a server: questions to voters in keep-alives, and answers to those of others.
//!
//! The state is in [`super::votes`]; here it meets the connections. A node of 2010 is asked nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;

use super::coordinate::settle;
use super::majority::News;
use super::permit::Permit;
use super::shared::Shared;
use super::{claims, taking};
use crate::net::{Reply as Answering, STEPS, Session};
use crate::register::{Configuration, Question, Reply, pack};
use crate::rules::Rule;
use crate::wire::method::{ErrorCode, KeepAlive};
use crate::wire::params::{Encode, Packed};
use crate::wire::{Call, Extension, NodeAddress, RecordKey};

/// Pause between two questions to a node, by the configuration in force.
pub(super) fn question_interval(server: &Arc<Shared>) -> Duration {
    server.votes.configuration().0.timing.question_interval()
}

/// Goes on from the configuration that the store has kept: hash spaces need no manager then.
pub(super) fn take_up(server: &Arc<Shared>) {
    let (configuration, permit) = server.votes.configuration();
    if configuration.is_voted() {
        tracing::info!(version = configuration.counter, "goes on from the last configuration");
        let change = server.set_configuration(configuration, permit);
        taking::changed(server, server.address, change);
    }
    let recovered = server.store.take_recovered();
    if server.votes.is_voted() {
        // What it had under way may be nowhere else.
        let spaces = server.spaces();
        let coordinator =
            |key: &[u8]| RecordKey::new(key).ok().and_then(|key| spaces.whs.owners(key.hash()).coordinator());
        let own = |key: &[u8]| coordinator(key) == Some(server.address);
        settle::take_over(server, recovered.into_iter().filter(|key| own(key)).collect());
    }
}

/// Asks all other members and the managers, as long as there are votes.
pub(super) fn ask_all(server: &Arc<Shared>) {
    let (configuration, permit) = server.votes.configuration();
    if !configuration.is_voted() {
        return;
    }
    server.votes.renew(server.env.time().now());
    look_for_majority(server, &configuration, &permit);
    let managers = server.config.managers.iter().filter_map(crate::net::NamedNode::address);
    complete(server);
    let members: BTreeSet<_> = configuration.members.keys().copied().filter(|node| *node != server.address).collect();
    let stale = server.reach.lock().ask(&members);
    for session in stale.into_iter().filter_map(|node| server.peers.known_session(node)) {
        session.close();
    }
    let nodes: BTreeSet<_> = members.into_iter().chain(managers).collect();
    for node in nodes.into_iter().filter(|node| *node != server.address) {
        ask(server, &server.peers.session(node), server.clock.take(), Extension::default());
    }
}

/// Says it if this server refuses requests for want of a majority, and who is waited for.
fn look_for_majority(server: &Shared, configuration: &Configuration, permit: &Permit) {
    let (time, version) = (server.env.time(), configuration.counter);
    let refuses = configuration.members.contains_key(&server.address) && !permit.holds(time);
    match server.majority.look(refuses, time.now(), configuration.timing.lease()) {
        Some(News::Refuses) => {
            let missing = server.votes.missing(time.now()).join(", ");
            tracing::warn!(
                version,
                "requests are refused: no majority of the voters confirms that this server may serve; it waits for {missing}"
            );
        }
        Some(News::Over) => tracing::info!(version, "a majority of the voters confirms this server again"),
        None => {}
    }
}

/// Sends a keep-alive with a question.
pub(super) fn ask(server: &Arc<Shared>, node: &Arc<Session>, clock: u32, extension: Extension) {
    let address = node.address();
    let mut question = server.votes.question(address, server.marks.settled(server.clock.peek()));
    if server.is_manager(address) {
        question.unreached = server.reach.lock().unreached();
    }
    let sent = server.env.time().now();
    let extension = Extension { register: Some(ByteBuf::from(pack(&question))), ..extension };
    let asking = server.clone();
    let heard = move |result: Result<&[u8], ErrorCode>| {
        let Ok(Ok(Some(Packed(extension)))) = result.map(KeepAlive::answer) else { return };
        let Some(reply) = extension.register.as_deref().and_then(|bytes| Reply::read(bytes)) else { return };
        asking.reach.lock().answered(address);
        if let Some(owner) = reply.refused {
            return claims::refused(&asking, address, owner);
        }
        if let Some(configuration) = &reply.configuration {
            adopt(&asking, address, configuration);
        }
        asking.votes.heard(address, &question, reply, sent, asking.env.time().now());
    };
    node.call(&KeepAlive { clock, extension: Some(extension) }, STEPS, Box::new(heard));
}

/// Goes on with a proposal that its manager has left half done.
fn complete(server: &Arc<Shared>) {
    if !server.votes.is_leaving() || !server.env.rules().follow(Rule::Complete) {
        return;
    }
    let server = server.clone();
    server.env.clone().detach_blocking(move || match server.votes.complete(server.env.time().now()) {
        Ok(Some(next)) => take(&server, server.address, &next),
        Ok(None) => {}
        Err(error) => tracing::error!(%error, "a vote cannot be stored, and is not given"),
    });
}

/// Answers the question of a node; to a proposal once the vote is durable.
pub(super) fn answer(server: &Arc<Shared>, node: NodeAddress, question: Question, reply: Answering) {
    if let Some(identity) = question.speaker.identity()
        && let Err(owner) = claims::claim(server, reply.link(), node, identity)
    {
        return send(reply, &server.votes.refusal(owner));
    }
    if let Some(configuration) = &question.configuration {
        adopt(server, node, configuration);
    }
    if let Some(settled) = question.settled.filter(|_| server.spaces().is_active(node)) {
        settle::take_over(server, server.copies.told(node, settled));
    }
    let answer = server.votes.hear(node, &question, server.env.time().now());
    // Servers complete what a manager has begun.
    let may_propose = || server.is_manager(node) || server.votes.configuration().0.members.contains_key(&node);
    let Some(proposal) = question.proposal.filter(|_| may_propose()) else {
        return send(reply, &answer);
    };
    // While the disk stalls the others must hear that this server lives; its vote is asked for again.
    let Ok(voting) = server.voting.clone().try_acquire_owned() else { return send(reply, &answer) };
    let server = server.clone();
    server.env.clone().detach_blocking(move || {
        let spaces = server.spaces();
        let holds = |next: &Configuration| {
            let known = spaces.whs.clocktime() == next.whs.clocktime && spaces.rhs.clocktime() == next.rhs.clocktime;
            // Of a new cluster there is nothing to know.
            known || !spaces.whs.is_ready() && !spaces.rhs.is_ready() && !next.rhs.has_active()
        };
        match server.votes.vote(question.version, &proposal, server.env.time().now(), holds) {
            Ok(vote) => send(reply, &Reply { answer: Some(vote), ..answer }),
            Err(error) => {
                tracing::error!(%error, "a vote cannot be stored, and is not given");
                reply.error(ErrorCode::Server);
            }
        }
        drop(voting);
    });
}

fn send(reply: Answering, answer: &Reply) {
    let register = Some(ByteBuf::from(pack(answer)));
    reply.ok(|out| Packed(Extension { register, ..Extension::default() }).encode(out));
}

/// A node shows a configuration that is in force. It is believed of managers, and of the servers of the one held: anybody
/// else may be of another cluster.
fn adopt(server: &Arc<Shared>, from: NodeAddress, configuration: &Configuration) {
    let (held, _) = server.votes.configuration();
    if server.is_manager(from) || held.contains(from) {
        take(server, from, configuration);
    }
}

/// Goes over to a configuration that is in force, if it is later than the one held.
fn take(server: &Arc<Shared>, from: NodeAddress, configuration: &Configuration) {
    if !server.votes.adopt(configuration, server.env.time().now()) {
        return;
    }
    tracing::info!(peer = %from, version = configuration.counter, voted = configuration.is_voted(), "configuration taken");
    let (latest, permit) = server.votes.configuration();
    let change = server.set_configuration(latest, permit);
    taking::changed(server, from, change);
    // Until a majority has confirmed it this server may do nothing.
    ask_all(server);
    let keeping = server.clone();
    server.env.detach_blocking(move || keeping.votes.keep());
}
