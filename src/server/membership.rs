//! A server's place in the cluster: keep-alives to its managers, and the hash spaces that they send.

use std::sync::Arc;

use super::joining;
use super::register;
use super::shared::Shared;
use super::taking;
use crate::net::{Moved, NamedNode, STEPS, Session};
use crate::ring::HashSpace;
use crate::wire::method::{ErrorCode, KeepAlive, Method, RhsRequest, WhsRequest};
use crate::wire::params::Seed;
use crate::wire::{Call, Extension, NodeAddress};

/// How a manager is asked for its hash spaces, in the original's order.
const SPACE_REQUESTS: [Method; 2] = [Method::RhsRequest, Method::WhsRequest];

/// Sends `KeepAlive` to every manager; one that is away is dialled anew.
pub(super) fn keep_alive(server: &Arc<Shared>) {
    taking::store_if_changed(server);
    joining::look_after(server);
    for manager in &server.config.managers {
        let Some(address) = manager.address() else {
            look_up(server, manager);
            continue;
        };
        let session = server.peers.session(address);
        if session.is_connected() {
            send_keep_alive(server, &session);
            request_spaces(server, &session);
        } else {
            server.peers.connect(address);
        }
    }
}

/// Looks up the name of a manager that cannot be reached, and uses the address that it stands for now.
pub(super) fn look_up(server: &Arc<Shared>, manager: &NamedNode) {
    let (server, manager) = (server.clone(), manager.clone());
    server.env.clone().spawn(async move {
        let Some(Moved { from, to }) = manager.look_up(&server.env, Some(server.address)).await else { return };
        if let Some(from) = from.filter(|from| !server.is_manager(*from)) {
            server.forget_manager(from);
            if let Some(session) = server.peers.known_session(from)
                && !server.spaces().contains(from)
            {
                session.close();
            }
        }
        let session = server.peers.session(to);
        if session.is_connected() {
            // It has found this server before this server knew its address.
            greet_manager(&server, &session);
        } else {
            server.peers.connect(to);
        }
    });
}

/// A manager at an address that none of ours has, as far as is known, has connected: it may be one that has moved.
pub(super) fn look_up_all(server: &Arc<Shared>) {
    server.config.managers.iter().for_each(|manager| look_up(server, manager));
}

/// Tells a manager that this server is there, and how long a message it takes; an original passes over that.
fn send_keep_alive(server: &Arc<Shared>, manager: &Arc<Session>) {
    let clock = server.clock.take();
    let message_limit = Some(server.config.limits.message as u64);
    register::ask(server, manager, clock, Extension { message_limit, ..Extension::default() });
}

/// A manager has been (re)connected: greets it and asks for both hash spaces.
pub(super) fn greet_manager(server: &Arc<Shared>, manager: &Arc<Session>) {
    tracing::info!(peer = %manager.address(), "connected to manager");
    // First what an original server sends.
    let clock = server.clock.take();
    manager.call(&KeepAlive { clock, extension: None }, STEPS, Box::new(|_| ()));
    let both = SPACE_REQUESTS.map(|method| (manager.address(), method));
    server.not_received.lock().extend(both);
    request_spaces(server, manager);
    send_keep_alive(server, manager);
}

/// Asks for the hash spaces that this manager has not sent since it was connected, and for those that nobody has sent.
///
/// A request that fails is repeated at the next keep-alive: one of the connections may have been about to close.
fn request_spaces(server: &Arc<Shared>, manager: &Arc<Session>) {
    let spaces = server.spaces();
    request_space(server, manager, &RhsRequest {}, spaces.rhs.is_ready());
    request_space(server, manager, &WhsRequest {}, spaces.whs.is_ready());
}

fn request_space<C>(server: &Arc<Shared>, manager: &Arc<Session>, request: &C, ready: bool)
where
    C: for<'r> Call<Answer<'r> = Seed>,
{
    let from = manager.address();
    if ready && !server.not_received.lock().contains(&(from, C::METHOD)) {
        return;
    }
    let server = server.clone();
    let take = move |result: Result<&[u8], ErrorCode>| match result.map(C::answer) {
        Ok(Ok(seed)) => {
            server.not_received.lock().remove(&(from, C::METHOD));
            take_requested(&server, from, C::METHOD, &seed);
        }
        Ok(Err(error)) => tracing::warn!(peer = %from, "hash space not taken: {error}"),
        Err(error) => tracing::debug!(peer = %from, "hash space not taken: {error}"),
    };
    manager.call(request, STEPS, Box::new(take));
}

/// Takes a hash space that was asked for if it is newer than the one held, or if none is held.
fn take_requested(server: &Arc<Shared>, from: NodeAddress, method: Method, seed: &Seed) {
    let wanted =
        |held: &HashSpace| seed.has_active() && (!held.is_ready() || held.clocktime().is_before(seed.clocktime));
    taking::take(server, from, |whs, rhs| match method {
        Method::WhsRequest if wanted(whs) => (Some(seed.clone()), None),
        Method::RhsRequest if wanted(rhs) => (None, Some(seed.clone())),
        _ => (None, None),
    });
}

/// Takes each hash space that a manager has sent if it is usable and not older than the one held; says whether any was.
pub(super) fn take_synced(server: &Arc<Shared>, from: NodeAddress, whs: Seed, rhs: Seed) -> bool {
    taking::take(server, from, |held_whs, held_rhs| {
        let current = |held: &HashSpace, seed: &Seed| seed.has_active() && !seed.clocktime.is_before(held.clocktime());
        let whs = Some(whs).filter(|seed| current(held_whs, seed));
        let rhs = Some(rhs).filter(|seed| current(held_rhs, seed));
        (whs, rhs)
    })
}
