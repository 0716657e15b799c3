//! The replace as a part of a server: what it may reach of the rest, and the requests that lead to it.

use std::sync::Arc;

use super::replace::{Fenced, Host, LateWrites, Replace, Settings};
use super::shared::Shared;
use super::taking;
use crate::clock::Clock;
use crate::env::{Env, Listener};
use crate::net::{Peers, Reply};
use crate::ring::HashSpace;
use crate::store::{self, Store};
use crate::wire::extension::Fence;
use crate::wire::method::{ErrorCode, ReplaceOffer};
use crate::wire::params::{Encode, Seed};
use crate::wire::{NODE_MARGIN, NodeAddress};

/// The parts of the server that a replace uses.
struct Access(Arc<Shared>);

impl Host for Access {
    fn store(&self) -> &Store {
        &self.0.store
    }

    fn peers(&self) -> &Arc<Peers> {
        &self.0.peers
    }

    fn env(&self) -> &Env {
        &self.0.env
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn is_manager(&self, node: NodeAddress) -> bool {
        self.0.is_manager(node)
    }

    fn address(&self) -> NodeAddress {
        self.0.address
    }

    fn late_writes(&self) -> &LateWrites {
        &self.0.late_writes
    }

    fn fence(&self) -> Option<Fence> {
        self.0.spaces().fence()
    }

    fn fenced(&self, fence: Option<Fence>) -> Fenced {
        let spaces = self.0.spaces();
        if spaces.admits(fence) {
            Fenced::Admitted(spaces.token())
        } else if spaces.may_admit(fence) {
            Fenced::Pending
        } else {
            Fenced::Refused
        }
    }

    fn spaces(&self) -> (Arc<HashSpace>, Arc<HashSpace>) {
        let spaces = self.0.spaces();
        (spaces.whs.clone(), spaces.rhs.clone())
    }

    fn take_whs(&self, seed: &Seed, manager: NodeAddress) -> bool {
        if self.0.votes.is_voted() {
            return self.0.spaces().whs.clocktime() == seed.clocktime;
        }
        taking::take(&self.0, manager, |whs, _| (newer(whs, seed), None))
    }

    fn take_rhs(&self, seed: &Seed, manager: NodeAddress) -> bool {
        if self.0.votes.is_voted() {
            return self.0.spaces().rhs.clocktime() == seed.clocktime;
        }
        taking::take(&self.0, manager, |_, rhs| (None, newer(rhs, seed)))
    }
}

/// `seed`, unless what is held is newer.
fn newer(held: &HashSpace, seed: &Seed) -> Option<Seed> {
    let obsolete = held.is_ready() && seed.clocktime.is_before(held.clocktime());
    (!obsolete).then(|| seed.clone())
}

/// Starts what serves the stream port `port`, where `listener` listens. Reads the store: may block for a moment.
pub(super) fn start(server: &Arc<Shared>, listener: Listener, port: u16) -> Result<Arc<Replace>, store::Error> {
    let config = &server.config;
    let limit = config.offer_limit.unwrap_or(0);
    let record_limit = config.limits.message.saturating_add(NODE_MARGIN);
    let settings = Settings::new(config.offer_dir.clone(), limit, record_limit, config.dial.timeout);
    let replace = Replace::start(Arc::new(Access(server.clone())), settings, listener, port)?;
    // Set once: a server starts once.
    let _ = server.replace.set(Arc::downgrade(&replace));
    Ok(replace)
}

/// The replace of a server that is not being stopped.
fn running(server: &Shared) -> Option<Arc<Replace>> {
    server.replace.get()?.upgrade()
}

/// `ReplaceCopyStart`.
pub(super) fn copy_start(server: &Shared, seed: Seed, full: bool, manager: NodeAddress) {
    if let Some(replace) = running(server) {
        replace.copy_start(seed, full, manager);
    }
}

/// `ReplaceDeleteStart`.
pub(super) fn delete_start(server: &Shared, seed: &Seed, manager: NodeAddress) {
    if let Some(replace) = running(server) {
        replace.delete_start(seed, manager);
    }
}

/// `ReplaceOffer`: answered when all of the stream is stored. (The original never answers.)
pub(super) fn take_offer(server: &Shared, call: &ReplaceOffer, reply: Reply) {
    let Some(replace) = running(server) else { return reply.error(ErrorCode::Server) };
    let (offerer, fence) = (call.stream, call.fence);
    server.env.spawn(async move {
        match replace.offer(offerer, fence).await {
            Ok(()) => reply.ok(|out| true.encode(out)),
            Err(_) => reply.error(ErrorCode::Server),
        }
    });
}

/// The bits that the replace adds to the flags of `GetStatus` 11.
pub(super) fn flags(server: &Shared) -> u32 {
    running(server).map_or(0, |replace| replace.status_flags())
}

/// Figures of the replace that is under way, or of the last one.
pub(super) fn progress(server: &Shared) -> Option<super::replace::Progress> {
    running(server).map(|replace| replace.progress())
}
