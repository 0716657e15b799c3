//! What a manager does with what arrives: connections, losses, and requests of nodes and clients.

use std::sync::Arc;

use tokio::time::Instant;

use super::replace::Phase;
use super::shell::{Inner, Shell};
use super::state::{Action, Impossible, State};
use crate::binlog::Record;
use crate::clock::Clock;
use crate::env::Group;
use crate::net::{Link, Moved, Reply, Service, Session};
use crate::wire::extension::{self, Ask, BackupEnd, Changed, Choice, ManagerState};
use crate::wire::method::{ErrorCode, Method, Role, STATUS_FLAGS, STATUS_RHS, STATUS_WHS};
use crate::wire::{self, Extension, NodeAddress, Request, pack, params};

/// Steps that a backup may take: it takes as long as it takes, or until the connection is lost.
const BACKUP_STEPS: u16 = u16::MAX;

impl Service for Shell {
    fn handle(&self, link: &Arc<Link>, requests: &mut dyn Iterator<Item = Request<'_>>, _: &mut Vec<u8>) {
        for request in requests {
            let answered = match (Method::from_number(request.method), link.session()) {
                (None, _) => Err(Refused::Unknown),
                (Some(method), Some(session)) => self.node_asks(session.address(), method, request.params),
                (Some(method), None) => self.client_asks(link, method, &request),
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

    fn lost(&self, address: NodeAddress) {
        let inner = &mut *self.lock();
        // Under the lock: a connection that stands now has been, or will be, reported as bound.
        if self.peers.known_session(address).is_some_and(|session| session.is_connected()) {
            return;
        }
        if self.is_partner(address) {
            self.lose_partner(inner, address, "cannot be reached");
            self.look_up_partner(None);
        } else if inner.state.was_seen(address) {
            self.lose_server(inner, address, "cannot be reached");
        }
    }
}

impl Shell {
    fn server_bound(&self, inner: &mut Inner, server: NodeAddress) {
        if inner.state.server_bound(server) {
            let attached = inner.state.spaces().is_attached(server);
            tracing::info!(peer = %server, attached, "server connected");
            self.binlog.write(&Record::ServerFound { address: server });
            inner.pulses.remove(&server);
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
            inner.pulses.remove(&partner);
        }
        if inner.state.spaces().whs.nodes.is_empty() {
            self.ask_partner(inner, partner);
        } else {
            self.perform(inner, vec![Action::SyncPartner]);
        }
    }

    /// A request on a cluster connection.
    fn node_asks(&self, node: NodeAddress, method: Method, bytes: &[u8]) -> Result<Answered, Refused> {
        let inner = &mut *self.lock();
        match method {
            Method::KeepAlive => {
                self.clock.adjust(params::keep_alive(bytes)?);
                if let Some(told) = Extension::behind(bytes, 1) {
                    self.note_message_limit(inner, node, told.message_limit);
                }
                Ok(now(pack::nil))
            }
            Method::WhsRequest => Ok(now(|out| inner.state.spaces().whs.write(out))),
            Method::RhsRequest => Ok(now(|out| inner.state.spaces().rhs.write(out))),
            Method::HashSpaceSync => {
                let (whs, rhs, clock) = params::hash_space_sync(bytes)?;
                self.check_partner(node)?;
                self.clock.adjust(clock);
                let (merge, actions) = inner.state.partner_spaces(whs, rhs, &self.clock);
                self.perform(inner, actions);
                Ok(now(|out| if merge.taken { pack::bool(out, true) } else { pack::nil(out) }))
            }
            Method::ReplaceElection => {
                let (seed, clock) = params::seed_and_clock(bytes)?;
                self.check_partner(node)?;
                self.clock.adjust(clock);
                let rhs = inner.state.spaces().rhs.clone();
                let (_, actions) = inner.state.partner_spaces(seed, rhs, &self.clock);
                self.perform(inner, actions);
                let taken_over = self.take_over(inner, node);
                Ok(now(|out| if taken_over { pack::bool(out, true) } else { pack::nil(out) }))
            }
            Method::ReplaceCopyEnd => self.phase_ended(inner, node, Phase::Copy, bytes),
            Method::ReplaceDeleteEnd => self.phase_ended(inner, node, Phase::Delete, bytes),
            _ => Err(Refused::Unknown),
        }
    }

    /// A request of a gateway or a tool.
    fn client_asks(&self, link: &Arc<Link>, method: Method, request: &Request<'_>) -> Result<Answered, Refused> {
        let bytes = request.params;
        match method {
            Method::HashSpaceRequest => {
                let inner = self.lock();
                let spaces = inner.state.spaces();
                let write = |out: &mut Vec<u8>| params::write_hash_spaces(out, &spaces.whs, &spaces.rhs);
                if Extension::behind(bytes, 0).is_none() {
                    return Ok(now(write));
                }
                link.note_extension();
                Ok(now(|out| inner.message_limits().append_to(out, write)))
            }
            Method::GetNodesInfo => {
                let inner = self.lock();
                let state = extension::read::<Ask>(bytes, 0)?
                    .map(|_| ManagerState { flags: inner.state.flags(), replaces: inner.state.finished() });
                let (whs, detached) = (&inner.state.spaces().whs, inner.state.detached());
                Ok(now(|out| params::write_nodes_info(out, whs, &detached, state)))
            }
            // Not in the original, which answers error 5.
            Method::GetStatus => {
                let number = params::status(bytes)?;
                let inner = self.lock();
                let spaces = inner.state.spaces();
                Ok(now(|out| match number {
                    STATUS_RHS => spaces.rhs.write(out),
                    STATUS_WHS => spaces.whs.write(out),
                    STATUS_FLAGS => pack::uint(out, inner.state.flags().into()),
                    _ => pack::nil(out),
                }))
            }
            Method::AttachNewServers => {
                let replace = params::switch(bytes, None)?;
                match extension::read::<Choice>(bytes, 1)? {
                    None => self.change(link, request, move |state, clock| state.attach(replace, clock).map(silent)),
                    Some(choice) => self.change(link, request, move |state, clock| {
                        state.attach_chosen(&choice, replace, clock).map(telling)
                    }),
                }
            }
            Method::DetachFaultServers => {
                let replace = params::switch(bytes, None)?;
                match extension::read::<Choice>(bytes, 1)? {
                    None => self.change(link, request, move |state, clock| state.detach(replace, clock).map(silent)),
                    Some(choice) => self.change(link, request, move |state, clock| {
                        state.detach_chosen(&choice, replace, clock).map(telling)
                    }),
                }
            }
            Method::StartReplace => {
                let full = params::switch(bytes, Some(false))?;
                self.change(link, request, move |state, clock| state.start_replace(full, clock).map(silent))
            }
            Method::SetAutoReplace => {
                let enabled = params::switch(bytes, None)?;
                tracing::info!(enabled, "automatic replace switched");
                self.lock().auto.enable(enabled);
                Ok(now(pack::nil))
            }
            Method::ManagerBackup => {
                let suffix = params::backup_suffix(bytes)?;
                if !params::is_backup_suffix(suffix) {
                    tracing::warn!(peer = %link.peer(), suffix = %suffix.escape_ascii(), "backup suffix refused");
                    return Err(Refused::NotAllowed);
                }
                let ask = extension::read::<Ask>(bytes, 1)?;
                self.back_up(suffix, ask.map(|_| Reply::new(link, request.msgid)))
            }
            _ => Err(Refused::Unknown),
        }
    }

    /// Changes the cluster as a control tool asks: at once, or when it is settled what there is to change.
    fn change(&self, link: &Arc<Link>, request: &Request<'_>, change: impl Change) -> Result<Answered, Refused> {
        let inner = &mut *self.lock();
        self.recall(inner);
        if inner.is_settled(Instant::now()) {
            let (result, actions) = change(&mut inner.state, &self.clock)?;
            // Clients hear of the hash space before the one that asked gets its answer.
            self.perform(inner, actions);
            return Ok(Answered::Now(result));
        }
        let (reply, method) = (Reply::new(link, request.msgid), request.method);
        self.spawn(async move |shell| {
            shell.settled().await;
            let inner = &mut *shell.lock();
            shell.recall(inner);
            match change(&mut inner.state, &shell.clock) {
                Ok((result, actions)) => {
                    shell.perform(inner, actions);
                    reply.ok(|out| out.extend_from_slice(&result));
                }
                Err(impossible) => {
                    let refused = Refused::from(impossible);
                    refused.log(reply.link(), method);
                    reply.error(refused.code());
                }
            }
        });
        Ok(Answered::Later)
    }

    fn phase_ended(
        &self,
        inner: &mut Inner,
        node: NodeAddress,
        phase: Phase,
        bytes: &[u8],
    ) -> Result<Answered, Refused> {
        let (clocktime, clock) = params::replace_end(bytes)?;
        if !inner.state.is_member(node) {
            return Err(Refused::NotAllowed);
        }
        self.clock.adjust(clock);
        let actions = inner.state.ended(node, phase, clocktime);
        self.perform(inner, actions);
        Ok(now(|out| pack::bool(out, true)))
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
        let answered = if reply.is_some() { Answered::Later } else { now(pack::nil) };
        let mut backups = Group::new(&self.env);
        for server in servers {
            let session = self.peers.session(server);
            let answer =
                session.ask(Method::CreateBackup, BACKUP_STEPS, |out| params::write_backup_suffix(out, suffix));
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
                reply.ok(|out| extension::write(out, &end));
            }
        });
        Ok(answered)
    }

    fn check_partner(&self, node: NodeAddress) -> Result<(), Refused> {
        if self.is_partner(node) { Ok(()) } else { Err(Refused::NotAllowed) }
    }
}

/// Says that `node` is neither a server nor the other manager.
fn stranger(node: NodeAddress, role: Option<Role>) {
    tracing::warn!(peer = %node, ?role, "a node that does not belong here has connected");
}

/// A change of the cluster that may be refused: the result object, and what there is to do.
trait Change: FnOnce(&mut State, &Clock) -> Result<(Vec<u8>, Vec<Action>), Impossible> + Send + 'static {}

impl<F> Change for F where F: FnOnce(&mut State, &Clock) -> Result<(Vec<u8>, Vec<Action>), Impossible> + Send + 'static {}

/// A change whose result is nil.
fn silent(actions: Vec<Action>) -> (Vec<u8>, Vec<Action>) {
    let mut result = Vec::new();
    pack::nil(&mut result);
    (result, actions)
}

/// A change whose result says what was done.
fn telling((changed, actions): (Changed, Vec<Action>)) -> (Vec<u8>, Vec<Action>) {
    let mut result = Vec::new();
    extension::write(&mut result, &changed);
    (result, actions)
}

/// How a request was dealt with.
enum Answered {
    /// The result object.
    Now(Vec<u8>),
    /// The answer comes by itself.
    Later,
}

fn now(write: impl FnOnce(&mut Vec<u8>)) -> Answered {
    let mut result = Vec::new();
    write(&mut result);
    Answered::Now(result)
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no such method on this kind of connection")]
    Unknown,
    #[error(transparent)]
    Malformed(#[from] wire::Error),
    #[error("not allowed")]
    NotAllowed,
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

impl Refused {
    /// Nonsense is common and harmless; what is forbidden or cannot be done concerns the operator.
    fn log(&self, link: &Link, method: u32) {
        let peer = link.peer();
        match self {
            Self::Unknown | Self::Malformed(_) => tracing::debug!(%peer, method, "request refused: {self}"),
            Self::NotAllowed | Self::Impossible(_) => tracing::warn!(%peer, method, "request refused: {self}"),
        }
    }

    fn code(&self) -> ErrorCode {
        match self {
            Self::Unknown | Self::Malformed(_) => ErrorCode::Protocol,
            Self::NotAllowed | Self::Impossible(_) => ErrorCode::Server,
        }
    }
}
