//! What a manager does with what arrives: connections, losses, and requests of nodes and clients.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_bytes::ByteBuf;
use tokio::time::Instant;

use super::job::Job;
use super::replace::Phase;
use super::shell::{Inner, Shell};
use super::state::{Action, Impossible, State};
use crate::binlog::Record;
use crate::clock::{Clock, ClockTime};
use crate::env::Group;
use crate::net::{Admission, Link, Moved, Reply, Service, Session};
use crate::register::{self, Question, pack};
use crate::wire::extension::{BackupEnd, Changed, Extension, ManagerState};
use crate::wire::method::{
    AttachNewServers, CreateBackup, DetachFaultServers, ErrorCode, ManagerBackup, Method, Role, STATUS_FLAGS,
    STATUS_JSON, STATUS_RHS, STATUS_WHS, SetAutoReplace,
};
use crate::wire::params::{Encode, Nil, NodesInfo, Packed, Spaces, TrueOrNil, is_backup_suffix};
use crate::wire::requests::{By, ClientToManager, NodeToManager, Rejected};
use crate::wire::{Init, NodeAddress, Request};

/// Steps that a backup may take: it takes as long as it takes, or until the connection is lost.
const BACKUP_STEPS: u16 = u16::MAX;

impl Service for Shell {
    fn handle(&self, link: &Arc<Link>, requests: &mut dyn Iterator<Item = Request<'_>>, _: &mut Vec<u8>) {
        for request in requests {
            let answered = match link.session() {
                Some(session) => self.node_asks(link, session.address(), &request),
                None => self.client_asks(link, &request),
            };
            match answered {
                Ok(Answered::Now(result)) => {
                    Reply::new(link, request.msgid).ok(|out| out.extend_from_slice(&result));
                }
                Ok(Answered::Later) => {}
                Err(refused) => {
                    refused.log(link, request.method);
                    Reply::new(link, request.msgid).error(refused.code());
                }
            }
        }
    }

    fn admission(&self, init: &Init, peer: SocketAddr) -> Admission {
        self.admit_node(init, peer)
    }

    fn bound(&self, session: &Arc<Session>, role: Option<Role>) {
        let node = session.address();
        let inner = &mut *self.lock();
        match role {
            Some(Role::Manager) if self.is_partner(node) => self.partner_bound(inner, node),
            // The partner, if it has moved.
            Some(Role::Manager) if self.config.partner.is_some() => self.look_up_partner(Some(node)),
            Some(Role::Server) if !self.is_partner(node) && node != self.address => {
                self.server_bound(inner, node);
            }
            _ => stranger(node, role),
        }
    }

    fn lost(&self, address: NodeAddress, refused: bool) {
        let inner = &mut *self.lock();
        // Under the lock: a connection that stands now has been, or will be, reported as bound.
        if self.peers.known_session(address).is_some_and(|session| session.is_connected()) {
            return;
        }
        if self.is_partner(address) {
            self.lose_partner(inner, address, "cannot be reached");
            self.look_up_partner(None);
        } else if !refused && inner.votes.asks(address) {
            // How long it may be silent decides, not how often it was dialled.
        } else if inner.state.was_seen(address) {
            if refused {
                inner.ended.insert(address);
            }
            self.lose_server(inner, address, "cannot be reached");
        }
    }
}

impl Shell {
    pub(super) fn server_bound(&self, inner: &mut Inner, server: NodeAddress) {
        self.found_again(inner, server);
        if inner.note(|state| state.server_bound(server)) {
            inner.fresh.insert(server, Instant::now());
            inner.votes.forget(server);
            let attached = inner.state.spaces().is_attached(server);
            tracing::info!(peer = %server, attached, "server connected");
            self.binlog.write(&Record::ServerFound { address: server });
            inner.heartbeats.remove(&server);
            inner.questions.remove(&server);
            self.news.notify_waiters();
            inner.auto.changed(Instant::now());
            if inner.is_learning(Instant::now()) || !inner.state.spaces().are_ready() {
                self.ask_server(inner, server);
            }
        } else if let Some(replace) = inner.state.replace()
            && replace.awaits(server, replace.phase(), replace.seed().clocktime)
        {
            // It may have been restarted, and then knows nothing of what it was doing.
            self.start_phase_of(server, replace.phase(), replace.seed(), replace.is_full());
        }
    }

    /// Looks up the name of the partner, which cannot be reached, or may be the manager `come` that has connected from an
    /// address which is not the partner's, as far as is known.
    pub(super) fn look_up_partner(&self, come: Option<NodeAddress>) {
        let Some(partner) = self.config.partner.clone() else { return };
        self.spawn(async move |shell| {
            let moved = partner.look_up(&shell.env, Some(shell.address)).await;
            let inner = &mut *shell.lock();
            if let Some(from) = moved.and_then(|moved| moved.from) {
                shell.lose_partner(inner, from, "its name stands for another address");
                if let Some(session) = shell.peers.known_session(from) {
                    session.close();
                }
            }
            // It has found this manager before this one knew its address. Else it is dialled at the next keep-alive.
            if let Some(Moved { to, .. }) = moved
                && shell.peers.known_session(to).is_some_and(|session| session.is_connected())
            {
                shell.partner_bound(inner, to);
            }
            // While another look-up is under way, that one will tell.
            if let Some(node) = come.filter(|node| !shell.is_partner(*node) && !partner.is_looked_up()) {
                stranger(node, Some(Role::Manager));
            }
        });
    }

    /// A server has said how long a message it takes. If that is news, servers and clients of this program are told at
    /// once: before the server is attached, or as soon as can be if it is.
    fn note_message_limit(&self, inner: &mut Inner, server: NodeAddress, limit: Option<u64>) {
        let Some(limit) = limit.filter(|_| inner.state.servers().contains(&server)) else { return };
        let before = inner.message_limits.insert(server, limit);
        if before == Some(limit) {
            return;
        }
        let spaces = inner.state.spaces();
        let servers = inner.state.servers();
        inner.message_limits.retain(|node, _| servers.contains(node) || spaces.is_attached(*node));
        for node in inner.message_limits.keys().filter(|node| servers.contains(*node)) {
            self.keep_alive_of(inner, *node);
        }
        self.push(inner, Link::reads_extensions);
    }

    fn partner_bound(&self, inner: &mut Inner, partner: NodeAddress) {
        if !std::mem::replace(&mut inner.partner_connected, true) {
            tracing::info!(peer = %partner, "the other manager connected");
            inner.heartbeats.remove(&partner);
            inner.questions.remove(&partner);
            inner.partner_changed = Instant::now();
            self.keep_alive_of(inner, partner);
        }
        if inner.votes.are_held() {
            return;
        }
        if inner.state.spaces().whs.nodes.is_empty() {
            self.ask_partner(inner, partner);
        } else {
            self.perform(inner, vec![Action::SyncPartner]);
        }
    }

    /// A request on a cluster connection.
    fn node_asks(&self, link: &Arc<Link>, node: NodeAddress, request: &Request<'_>) -> Result<Answered, Refused> {
        let inner = &mut *self.lock();
        let permits = |by| match by {
            By::Any => true,
            _ if link.is_refused() => false,
            By::Partner => self.is_partner(node),
            By::Member => inner.state.is_member(node),
            By::Manager => false,
        };
        match NodeToManager::read(request.method, request.params, permits)? {
            NodeToManager::KeepAlive(call) => {
                self.clock.adjust(call.clock);
                let Some(extension) = call.extension else { return Ok(now(&Nil)) };
                let question = extension.register.as_deref().and_then(|bytes| Question::read(bytes));
                if let Some(identity) = question.as_ref().and_then(|question| question.speaker.identity())
                    && let Some(owner) = self.claim(inner, link, node, identity)
                {
                    return Ok(with_register(&inner.votes.refusal(owner)));
                }
                self.note_message_limit(inner, node, extension.message_limit);
                let Some(question) = question else { return Ok(now(&Nil)) };
                inner.fresh.remove(&node);
                if let Some(configuration) = &question.configuration {
                    self.shown(inner, node, configuration);
                }
                let known = inner.state.watched().contains(&node) || self.is_partner(node);
                let reply = if known {
                    inner.reports.note(node, &question.unreached, self.env.time().now());
                    inner.votes.answer(node, &question, self.env.time().now())
                } else {
                    return Ok(now(&Nil));
                };
                self.look_for_exchange(inner, node);
                Ok(with_register(&reply))
            }
            NodeToManager::WhsRequest(_) => Ok(now(&inner.state.spaces().whs)),
            NodeToManager::RhsRequest(_) => Ok(now(&inner.state.spaces().rhs)),
            NodeToManager::HashSpaceSync(call) => {
                self.clock.adjust(call.clock);
                if inner.votes.are_held() {
                    return Ok(now(&TrueOrNil(false)));
                }
                let (merge, actions) = inner.state.partner_spaces(call.whs, call.rhs, &self.clock);
                self.perform(inner, actions);
                Ok(now(&TrueOrNil(merge.taken)))
            }
            NodeToManager::ReplaceElection(call) => {
                self.clock.adjust(call.clock);
                if !inner.votes.are_held() {
                    let rhs = inner.state.spaces().rhs.clone();
                    let (_, actions) = inner.state.partner_spaces(call.seed, rhs, &self.clock);
                    self.perform(inner, actions);
                }
                Ok(now(&TrueOrNil(self.take_over(inner, node))))
            }
            NodeToManager::ReplaceCopyEnd(call) => {
                Ok(self.phase_ended(inner, node, Phase::Copy, call.clocktime, call.clock))
            }
            NodeToManager::ReplaceDeleteEnd(call) => {
                Ok(self.phase_ended(inner, node, Phase::Delete, call.clocktime, call.clock))
            }
        }
    }

    /// A request of a gateway or a tool.
    fn client_asks(&self, link: &Arc<Link>, request: &Request<'_>) -> Result<Answered, Refused> {
        match ClientToManager::read(request.method, request.params, |_| true)? {
            ClientToManager::HashSpaceRequest(call) => {
                let inner = self.lock();
                let extension = call.extension.map(|_| {
                    link.note_extension();
                    inner.beside_spaces()
                });
                let spaces = inner.state.spaces();
                Ok(now(&Spaces { whs: &spaces.whs, rhs: &spaces.rhs, extension }))
            }
            ClientToManager::GetNodesInfo(call) => {
                let inner = self.lock();
                let state =
                    call.ask.map(|_| ManagerState { flags: inner.state.flags(), replaces: inner.state.finished() });
                let (whs, detached) = (&inner.state.spaces().whs, inner.state.detached());
                Ok(now(&NodesInfo { whs, detached, state }))
            }
            // Not in the original, which answers error 5.
            ClientToManager::GetStatus(call) => {
                let inner = self.lock();
                let spaces = inner.state.spaces();
                Ok(match call.number {
                    STATUS_RHS => now(&spaces.rhs),
                    STATUS_WHS => now(&spaces.whs),
                    STATUS_FLAGS => now(&inner.state.flags()),
                    STATUS_JSON => now(&self.figures(&inner).to_json().as_bytes()),
                    _ => now(&Nil),
                })
            }
            ClientToManager::AttachNewServers(AttachNewServers { replace, choice }) => Ok(match choice {
                None => self.change(link, request, move |state, clock| state.attach(replace, clock).map(silent)),
                Some(choice) => self.change(link, request, move |state, clock| {
                    state.attach_chosen(&choice, replace, clock).map(telling)
                }),
            }),
            ClientToManager::DetachFaultServers(DetachFaultServers { replace, choice }) => Ok(match choice {
                None => self.change(link, request, move |state, clock| state.detach(replace, clock).map(silent)),
                Some(choice) if choice.force => {
                    self.force(link, request, &choice.servers.unwrap_or_default(), replace);
                    Answered::Later
                }
                Some(choice) => self.change(link, request, move |state, clock| {
                    state.detach_chosen(&choice, replace, clock).map(telling)
                }),
            }),
            ClientToManager::StartReplace(call) => {
                Ok(self.change(link, request, move |state, clock| state.start_replace(call.full, clock).map(silent)))
            }
            ClientToManager::SetAutoReplace(SetAutoReplace { enabled }) => {
                tracing::info!(enabled, "automatic replace switched");
                self.lock().auto.enable(enabled);
                Ok(now(&Nil))
            }
            ClientToManager::ManagerBackup(ManagerBackup { suffix, ask }) => {
                if !is_backup_suffix(suffix) {
                    tracing::warn!(peer = %link.peer(), suffix = %suffix.escape_ascii(), "backup suffix refused");
                    return Err(Rejected::NotAllowed(Method::ManagerBackup).into());
                }
                self.back_up(suffix, ask.map(|_| Reply::new(link, request.msgid)))
            }
        }
    }

    /// Changes the cluster as a control tool asks: at once, or when it is settled what there is to change.
    fn change<F>(&self, link: &Arc<Link>, request: &Request<'_>, change: F) -> Answered
    where
        F: Fn(&mut State, &Clock) -> Result<(Vec<u8>, Vec<Action>), Impossible> + Send + 'static,
    {
        let inner = &mut *self.lock();
        let name = Method::from_number(request.method).map_or("change", Method::name);
        let job = Job::new(name, Box::new(change), Some((Reply::new(link, request.msgid), request.method)));
        self.recall(inner);
        if inner.is_settled(Instant::now()) {
            self.decide(inner, job);
        } else {
            self.spawn(async move |shell| {
                shell.settled().await;
                let inner = &mut *shell.lock();
                shell.recall(inner);
                shell.decide(inner, job);
            });
        }
        Answered::Later
    }

    fn phase_ended(
        &self,
        inner: &mut Inner,
        node: NodeAddress,
        phase: Phase,
        clocktime: ClockTime,
        clock: u32,
    ) -> Answered {
        self.clock.adjust(clock);
        let change = move |state: &mut State, _: &Clock| Ok((Vec::new(), state.ended(node, phase, clocktime)));
        self.decide(inner, Job::new("end of a phase of the replace", Box::new(change), None));
        now(&true)
    }

    /// Whether this manager runs the automatic replace that its partner would otherwise run.
    fn take_over(&self, inner: &mut Inner, partner: NodeAddress) -> bool {
        if inner.state.replace().is_some() {
            return true;
        }
        self.address < partner
            && inner.auto.is_enabled()
            && inner.is_settled(Instant::now())
            && (!inner.state.has_work() || self.rearrange(inner))
    }

    /// Has every active server write a backup. How that ends is in the log, and in `reply` if there is one.
    fn back_up(&self, suffix: &[u8], reply: Option<Reply>) -> Result<Answered, Refused> {
        let servers: Vec<_> = self.lock().state.spaces().whs.active().collect();
        if servers.is_empty() {
            return Err(Impossible::NoServer.into());
        }
        let answered = if reply.is_some() { Answered::Later } else { now(&Nil) };
        let mut backups = Group::new(&self.env);
        for server in servers {
            let session = self.peers.session(server);
            let answer = session.ask(&CreateBackup { suffix }, BACKUP_STEPS);
            backups.add(async move {
                let answer = answer.await;
                match &answer {
                    Ok(_) => tracing::info!(peer = %server, "backup complete"),
                    Err(error) => tracing::error!(peer = %server, "backup failed: {error}"),
                }
                (server, answer.is_ok())
            });
        }
        self.spawn(async move |_| {
            let mut end = BackupEnd::default();
            while let Some(backup) = backups.next().await {
                match backup {
                    Ok((server, true)) => end.complete.push(server),
                    Ok((server, false)) => end.failed.push(server),
                    Err(error) => tracing::error!("backup task ended: {error}"),
                }
            }
            if let Some(reply) = reply {
                reply.ok(|out| Packed(end).encode(out));
            }
        });
        Ok(answered)
    }
}

/// Says that `node` is neither a server nor the other manager.
fn stranger(node: NodeAddress, role: Option<Role>) {
    tracing::warn!(peer = %node, ?role, "a node that does not belong here has connected");
}

/// A change whose result is nil.
fn silent(actions: Vec<Action>) -> (Vec<u8>, Vec<Action>) {
    (encoded(&Nil), actions)
}

/// A change whose result says what was done.
fn telling((changed, actions): (Changed, Vec<Action>)) -> (Vec<u8>, Vec<Action>) {
    (encoded(&Packed(changed)), actions)
}

/// How a request was dealt with.
enum Answered {
    /// The result object.
    Now(Vec<u8>),
    /// The answer comes by itself.
    Later,
}

/// An object as its bytes.
fn encoded(value: &impl Encode) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}

/// The answer to a keep-alive with a question.
fn with_register(reply: &register::Reply) -> Answered {
    let register = Some(ByteBuf::from(pack(reply)));
    now(&Packed(Extension { register, ..Extension::default() }))
}

fn now(answer: &impl Encode) -> Answered {
    Answered::Now(encoded(answer))
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Rejected(#[from] Rejected),
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

impl Refused {
    /// Nonsense is common and harmless; what is forbidden or cannot be done concerns the operator.
    fn log(&self, link: &Link, method: u32) {
        let peer = link.peer();
        match self {
            Self::Rejected(Rejected::Unknown | Rejected::Malformed(_)) => {
                tracing::debug!(%peer, method, "request refused: {self}");
            }
            Self::Rejected(Rejected::NotAllowed(_)) | Self::Impossible(_) => {
                tracing::warn!(%peer, method, "request refused: {self}");
            }
        }
    }

    fn code(&self) -> ErrorCode {
        match self {
            Self::Rejected(rejected) => rejected.code(),
            Self::Impossible(_) => ErrorCode::Server,
        }
    }
}
