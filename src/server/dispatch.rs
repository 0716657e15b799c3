//! Hands each request to the part of the server that carries it out, if this kind of connection may call its method
//! (protocol, sections 4 and 7).

use std::sync::Arc;

use super::refusal::Refusal;
use super::requests::Handler;
use super::shared::Shared;
use super::{control, membership, replace_host};
use crate::net::{Link, LinkKind, Reply, Service, Session};
use crate::wire::method::{ErrorCode, Method, Role};
use crate::wire::{Extension, NodeAddress, Request, pack, params};

/// A server's face towards its connections.
pub(super) struct Dispatch(pub(super) Arc<Shared>);

impl Service for Dispatch {
    fn handle(&self, link: &Arc<Link>, requests: &mut dyn Iterator<Item = Request<'_>>, out: &mut Vec<u8>) {
        handle(&self.0, link, requests, out);
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

    fn lost(&self, address: NodeAddress) {
        self.0.note_unreachable(address);
        for manager in self.0.config.managers.iter().filter(|manager| manager.is(address)) {
            membership::look_up(&self.0, manager);
        }
    }
}

/// The method that is called, and the connection that the answer goes to.
struct Call<'a> {
    server: &'a Arc<Shared>,
    link: &'a Arc<Link>,
    method: Method,
}

fn handle(server: &Arc<Shared>, link: &Arc<Link>, requests: &mut dyn Iterator<Item = Request<'_>>, out: &mut Vec<u8>) {
    let mut handler = Handler::new(server, link, out);
    let cluster = link.kind() == LinkKind::Cluster;
    for request in requests {
        let result = match Method::from_number(request.method) {
            Some(method) if cluster => from_node(&Call { server, link, method }, &mut handler, request),
            Some(method) => from_client(&Call { server, link, method }, &mut handler, request),
            None => Err(Refusal(ErrorCode::Protocol)),
        };
        handler.answer_refusal(request.msgid, &result);
        if handler.answered_bytes() > server.config.limits.unread_answers {
            link.enough();
        }
    }
    handler.finish();
}

/// A request on a client connection.
fn from_client<'r>(call: &Call<'_>, handler: &mut Handler<'_, 'r>, request: Request<'r>) -> Result<(), Refusal> {
    let Request { msgid, params, .. } = request;
    match call.method {
        Method::Get => return handler.get(msgid, params::get(params)?, None),
        Method::GetIfModified => {
            let (key, clocktime) = params::get_if_modified(params)?;
            return handler.get(msgid, key, Some(clocktime));
        }
        Method::Set => return handler.set(request),
        Method::Delete => return handler.delete(request),
        Method::GetStatus => control::status(call.server, params::status(params)?, Reply::new(call.link, msgid)),
        Method::SetConfig => {
            let changed = control::set_config(call.server, params)?;
            handler.answer(msgid, |out| pack::uint(out, changed));
        }
        _ => return Err(Refusal(ErrorCode::Protocol)),
    }
    Ok(())
}

/// A request on a cluster connection.
fn from_node<'r>(call: &Call<'_>, handler: &mut Handler<'_, 'r>, request: Request<'r>) -> Result<(), Refusal> {
    let Request { msgid, params, .. } = request;
    let Call { server, link, method } = *call;
    match method {
        Method::ReplicateSet => return handler.replicate_set(request),
        Method::ReplicateDelete => return handler.replicate_delete(request),
        Method::KeepAlive => {
            server.clock.adjust(params::keep_alive(params)?);
            if let Some(extension) = Extension::behind(params, 1)
                && link.session().is_some_and(|session| server.is_manager(session.address()))
            {
                server.note_message_limits(&extension);
            }
            handler.answer(msgid, pack::nil);
        }
        Method::HashSpaceSync => {
            let manager = only_manager(server, link, method)?;
            let (whs, rhs, clock) = params::hash_space_sync(params)?;
            server.clock.adjust(clock);
            let taken = membership::take_synced(server, manager, whs, rhs);
            handler.answer(msgid, |out| if taken { pack::bool(out, true) } else { pack::nil(out) });
        }
        Method::ReplaceCopyStart => {
            let manager = only_manager(server, link, method)?;
            let (seed, clock, full) = params::replace_copy_start(params)?;
            server.clock.adjust(clock);
            handler.answer(msgid, |out| pack::bool(out, true));
            replace_host::copy_start(server, seed, full, manager);
        }
        Method::ReplaceDeleteStart => {
            let manager = only_manager(server, link, method)?;
            let (seed, clock) = params::seed_and_clock(params)?;
            server.clock.adjust(clock);
            handler.answer(msgid, |out| pack::bool(out, true));
            replace_host::delete_start(server, &seed, manager);
        }
        Method::ReplaceOffer => {
            if !handler.sender_is_member() {
                return Err(refuse(link, method));
            }
            replace_host::take_offer(server, params::replace_offer(params)?, Reply::new(link, msgid));
        }
        Method::CreateBackup => {
            only_manager(server, link, method)?;
            control::backup(server, params::backup_suffix(params)?, Reply::new(link, msgid));
        }
        _ => return Err(Refusal(ErrorCode::Protocol)),
    }
    Ok(())
}

/// The manager at the other end; anybody else is refused.
fn only_manager(server: &Shared, link: &Link, method: Method) -> Result<NodeAddress, Refusal> {
    let node = link.session().map(|session| session.address());
    node.filter(|node| server.is_manager(*node)).ok_or_else(|| refuse(link, method))
}

fn refuse(link: &Link, method: Method) -> Refusal {
    tracing::warn!(peer = %link.peer(), ?method, "refused: not from a manager or member of this cluster");
    Refusal(ErrorCode::Server)
}
