//! Which method a request names, and whether this kind of connection may call it (protocol, sections 4 and 7).

use std::sync::Arc;

use super::state::Shared;
use super::work::{Refused, Work};
use super::{control, network, rebalance};
use crate::net::{Link, LinkKind, Reply, Service, Session};
use crate::wire::method::{ErrorCode, Method, Role};
use crate::wire::{NodeAddress, Request, pack, params};

/// A server's face towards its connections.
pub(super) struct Dispatch(pub(super) Arc<Shared>);

impl Service for Dispatch {
    fn handle(&self, link: &Arc<Link>, requests: &mut dyn Iterator<Item = Request<'_>>, out: &mut Vec<u8>) {
        handle(&self.0, link, requests, out);
    }

    fn bound(&self, session: &Arc<Session>, _role: Option<Role>) {
        self.0.note_reachable(session.address());
        if self.0.is_manager(session.address()) {
            network::greet_manager(&self.0, session);
        }
    }

    fn keeps(&self, address: NodeAddress) -> bool {
        self.0.is_manager(address) || self.0.spaces().contains(address)
    }

    fn lost(&self, address: NodeAddress) {
        self.0.note_unreachable(address);
    }
}

/// Who is asked for what, and where the answer goes.
struct Asked<'a> {
    server: &'a Arc<Shared>,
    link: &'a Arc<Link>,
    method: Method,
}

fn handle(server: &Arc<Shared>, link: &Arc<Link>, requests: &mut dyn Iterator<Item = Request<'_>>, out: &mut Vec<u8>) {
    let mut work = Work::new(server, link, out);
    let cluster = link.kind() == LinkKind::Cluster;
    for request in requests {
        let result = match Method::from_number(request.method) {
            Some(method) if cluster => from_node(&Asked { server, link, method }, &mut work, request),
            Some(method) => from_client(&Asked { server, link, method }, &mut work, request),
            None => Err(Refused(ErrorCode::Protocol)),
        };
        work.settle(request.msgid, &result);
        if work.answered_bytes() > server.config.limits.unread_answers {
            link.enough();
        }
    }
    work.finish();
}

/// A request on a client connection.
fn from_client<'r>(asked: &Asked<'_>, work: &mut Work<'_, 'r>, request: Request<'r>) -> Result<(), Refused> {
    let Request { msgid, params, .. } = request;
    match asked.method {
        Method::Get => return work.get(msgid, params::get(params)?, None),
        Method::GetIfModified => {
            let (key, clocktime) = params::get_if_modified(params)?;
            return work.get(msgid, key, Some(clocktime));
        }
        Method::Set => return work.set(request),
        Method::Delete => return work.delete(request),
        Method::GetStatus => control::status(asked.server, params::status(params)?, Reply::new(asked.link, msgid)),
        Method::SetConfig => {
            let changed = control::set_config(asked.server, params)?;
            work.answer(msgid, |out| pack::uint(out, changed));
        }
        _ => return Err(Refused(ErrorCode::Protocol)),
    }
    Ok(())
}

/// A request on a cluster connection.
fn from_node<'r>(asked: &Asked<'_>, work: &mut Work<'_, 'r>, request: Request<'r>) -> Result<(), Refused> {
    let Request { msgid, params, .. } = request;
    let Asked { server, link, method } = *asked;
    match method {
        Method::ReplicateSet => return work.replicate_set(request),
        Method::ReplicateDelete => return work.replicate_delete(request),
        Method::KeepAlive => {
            server.clock.adjust(params::keep_alive(params)?);
            work.answer(msgid, pack::nil);
        }
        Method::HashSpaceSync => {
            let manager = only_manager(server, link, method)?;
            let (whs, rhs, clock) = params::hash_space_sync(params)?;
            server.clock.adjust(clock);
            let taken = network::take_synced(server, manager, whs, rhs);
            work.answer(msgid, |out| if taken { pack::bool(out, true) } else { pack::nil(out) });
        }
        Method::ReplaceCopyStart => {
            let manager = only_manager(server, link, method)?;
            let (seed, clock, full) = params::replace_copy_start(params)?;
            server.clock.adjust(clock);
            work.answer(msgid, |out| pack::bool(out, true));
            rebalance::copy_start(server, seed, full, manager);
        }
        Method::ReplaceDeleteStart => {
            let manager = only_manager(server, link, method)?;
            let (seed, clock) = params::seed_and_clock(params)?;
            server.clock.adjust(clock);
            work.answer(msgid, |out| pack::bool(out, true));
            rebalance::delete_start(server, &seed, manager);
        }
        Method::ReplaceOffer => {
            if !work.sender_is_member() {
                return Err(refuse(link, method));
            }
            rebalance::take_offer(server, params::replace_offer(params)?, Reply::new(link, msgid));
        }
        Method::CreateBackup => {
            only_manager(server, link, method)?;
            control::backup(server, params::backup_suffix(params)?, Reply::new(link, msgid));
        }
        _ => return Err(Refused(ErrorCode::Protocol)),
    }
    Ok(())
}

/// The manager at the other end; anybody else is refused.
fn only_manager(server: &Shared, link: &Link, method: Method) -> Result<NodeAddress, Refused> {
    let node = link.session().map(|session| session.address());
    node.filter(|node| server.is_manager(*node)).ok_or_else(|| refuse(link, method))
}

fn refuse(link: &Link, method: Method) -> Refused {
    tracing::warn!(peer = %link.peer(), ?method, "refused: not from a manager or member of this cluster");
    Refused(ErrorCode::Server)
}
