//! Hands each request to the part of the server that carries it out. [`crate::wire::method`] says which methods there are,
//! and who may call them.

use std::net::SocketAddr;
use std::sync::Arc;

use super::refusal::Refusal;
use super::requests::{Handler, Wanted};
use super::shared::Shared;
use super::{claims, control, membership, register, replace_host};
use crate::net::{Admission, Link, LinkKind, Reply, Service, Session};
use crate::register::Question;
use crate::wire::extension::Look;
use crate::wire::method::{ErrorCode, Role};
use crate::wire::params::{Nil, TrueOrNil};
use crate::wire::requests::{By, ClientToServer, NodeToServer, Rejected};
use crate::wire::{Init, NodeAddress, Request};

/// A server's face towards its connections.
pub(super) struct Dispatch(pub(super) Arc<Shared>);

impl Service for Dispatch {
    fn handle(&self, link: &Arc<Link>, requests: &mut dyn Iterator<Item = Request<'_>>, out: &mut Vec<u8>) {
        handle(&self.0, link, requests, out);
    }

    fn admission(&self, init: &Init, peer: SocketAddr) -> Admission {
        claims::admission(&self.0, init, peer)
    }

    fn bound(&self, session: &Arc<Session>, role: Option<Role>) {
        self.0.note_reachable(session.address());
        if self.0.is_manager(session.address()) {
            membership::greet_manager(&self.0, session);
        } else if role == Some(Role::Manager) {
            membership::look_up_all(&self.0);
        }
    }

    fn keeps(&self, address: NodeAddress) -> bool {
        self.0.is_manager(address) || self.0.spaces().contains(address)
    }

    fn lost(&self, address: NodeAddress, _refused: bool) {
        self.0.note_unreachable(address);
        for manager in self.0.config.managers.iter().filter(|manager| manager.is(address)) {
            membership::look_up(&self.0, manager);
        }
    }
}

fn handle(server: &Arc<Shared>, link: &Arc<Link>, requests: &mut dyn Iterator<Item = Request<'_>>, out: &mut Vec<u8>) {
    let mut handler = Handler::new(server, link, out);
    let cluster = link.kind() == LinkKind::Cluster;
    for request in requests {
        let msgid = request.msgid;
        let result = if cluster {
            from_node(server, link, &mut handler, request)
        } else {
            from_client(server, link, &mut handler, request)
        };
        handler.answer_refusal(msgid, &result);
        if handler.answered_bytes() > server.config.limits.unread_answers {
            link.enough();
        }
    }
    handler.finish();
}

/// A request on a client connection.
fn from_client<'r>(
    server: &Arc<Shared>,
    link: &Arc<Link>,
    handler: &mut Handler<'_, 'r>,
    Request { msgid, method, params }: Request<'r>,
) -> Result<(), Refusal> {
    match ClientToServer::read(method, params, |_| true)? {
        ClientToServer::Get(call) => {
            let wanted = match call.look {
                None => Wanted::Value,
                Some(Look { unsettled: false }) => Wanted::Record,
                Some(Look { unsettled: true }) => Wanted::Unsettled,
            };
            return handler.get(msgid, call.key, wanted);
        }
        ClientToServer::GetIfModified(call) => return handler.get(msgid, call.key, Wanted::After(call.clocktime)),
        ClientToServer::Set(call) => return handler.set(msgid, &call),
        ClientToServer::Delete(call) => return handler.delete(msgid, &call),
        ClientToServer::GetStatus(call) => control::status(server, call.number, Reply::new(link, msgid)),
        ClientToServer::SetConfig(call) => {
            let changed = control::set_config(server, &call)?;
            handler.answer(msgid, &changed);
        }
    }
    Ok(())
}

/// A request on a cluster connection.
fn from_node<'r>(
    server: &Arc<Shared>,
    link: &Arc<Link>,
    handler: &mut Handler<'_, 'r>,
    Request { msgid, method, params }: Request<'r>,
) -> Result<(), Refusal> {
    // Every cluster connection has a session.
    let Some(node) = link.session().map(|session| session.address()) else { return Err(Refusal(ErrorCode::Server)) };
    let permits = |by| match by {
        By::Any => true,
        _ if link.is_refused() => false,
        By::Manager => server.is_manager(node),
        By::Member => handler.sender_is_member(),
        By::Partner => false,
    };
    let request = NodeToServer::read(method, params, permits).inspect_err(|rejected| {
        if let Rejected::NotAllowed(method) = rejected {
            tracing::warn!(peer = %link.peer(), ?method, "refused: not from a manager or member of this cluster");
        }
    })?;
    match request {
        NodeToServer::ReplicateSet(call) => return handler.replicate_set(msgid, &call),
        NodeToServer::ReplicateDelete(call) => return handler.replicate_delete(msgid, &call),
        NodeToServer::KeepAlive(call) => {
            server.clock.adjust(call.clock);
            let Some(extension) = call.extension else {
                handler.answer(msgid, &Nil);
                return Ok(());
            };
            if server.is_manager(node) {
                server.note_message_limits(&extension);
            }
            match extension.register.as_deref().and_then(|bytes| Question::read(bytes)) {
                Some(question) => register::answer(server, node, question, Reply::new(link, msgid)),
                None => handler.answer(msgid, &Nil),
            }
        }
        NodeToServer::HashSpaceSync(call) => {
            server.clock.adjust(call.clock);
            let taken = membership::take_synced(server, node, call.whs, call.rhs);
            handler.answer(msgid, &TrueOrNil(taken));
        }
        NodeToServer::ReplaceCopyStart(call) => {
            server.clock.adjust(call.clock);
            handler.answer(msgid, &true);
            replace_host::copy_start(server, call.seed, call.full, node);
        }
        NodeToServer::ReplaceDeleteStart(call) => {
            server.clock.adjust(call.clock);
            handler.answer(msgid, &true);
            replace_host::delete_start(server, &call.seed, node);
        }
        NodeToServer::ReplaceOffer(call) => replace_host::take_offer(server, &call, Reply::new(link, msgid)),
        NodeToServer::CreateBackup(call) => control::backup(server, call.suffix, Reply::new(link, msgid)),
    }
    Ok(())
}
