//! Going over to other hash spaces, wherever they come from: what is stored of them, and what follows.

use std::sync::Arc;

use super::coordinate::settle;
use super::joining;
use super::shared::Shared;
use super::spaces::SpacesChange;
use crate::ring::HashSpace;
use crate::wire::NodeAddress;
use crate::wire::params::{Encode, Seed};

/// Takes what `which` gives of the hash spaces held; says whether that was any.
pub(super) fn take(
    server: &Arc<Shared>,
    from: NodeAddress,
    which: impl FnOnce(&HashSpace, &HashSpace) -> (Option<Seed>, Option<Seed>),
) -> bool {
    if server.votes.is_voted() {
        // They come with configurations.
        return false;
    }
    let change = server.change_spaces(|spaces| which(&spaces.whs, &spaces.rhs));
    changed(server, from, change)
}

/// The hash spaces may have changed by what `from` has sent; says whether they have.
pub(super) fn changed(server: &Arc<Shared>, from: NodeAddress, change: SpacesChange) -> bool {
    if change.taken {
        store(server);
        let spaces = server.spaces();
        tracing::info!(
            peer = %from, whs = %spaces.whs.clocktime(), rhs = %spaces.rhs.clocktime(),
            active = spaces.whs.active_nodes().count(), "hash space taken"
        );
    }
    if change.taken {
        let spaces = server.spaces();
        settle::take_over(server, server.copies.lose(|sender| spaces.whs.is_active(sender)));
    }
    if change.joined {
        joining::begin(server);
    }
    change.taken
}

/// The hash spaces as they stand, as they are stored.
fn as_stored(server: &Shared) -> Vec<u8> {
    let spaces = server.spaces();
    let mut bytes = Vec::new();
    (spaces.whs.seed(), spaces.rhs.seed()).encode(&mut bytes);
    bytes
}

/// Stores the hash spaces again if that has failed before: those that are stored must not be older than those held.
pub(super) fn store_if_changed(server: &Arc<Shared>) {
    let spaces = server.spaces();
    let held = spaces.whs.is_ready() || spaces.rhs.is_ready();
    // While one is being stored the next look will do.
    if held && server.last_spaces.lacks(&as_stored(server)) {
        store(server);
    }
}

/// The hash spaces have changed: stores them in the background.
fn store(server: &Arc<Shared>) {
    let server = server.clone();
    server.env.clone().detach_blocking(move || server.last_spaces.keep(&server.store, || as_stored(&server)));
}
