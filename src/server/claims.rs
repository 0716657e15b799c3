//! Servers that announce the address of another machine: their connections carry no calls, and nothing of theirs is taken.
//!
//! Who is right [`crate::register::Claims`] decides.

use std::net::SocketAddr;
use std::sync::Arc;

use super::shared::Shared;
use crate::net::{Admission, Link};
use crate::register::{Arrival, Claim, Identity, Machine};
use crate::wire::method::Role;
use crate::wire::{Init, NodeAddress};

/// What becomes of a connection from `peer` whose other end says that it is `init`.
pub(super) fn admission(server: &Shared, init: &Init, peer: SocketAddr) -> Admission {
    let node = init.address;
    let arrival = server.claims.lock().arrival(node, peer.ip(), server.address.socket().ip());
    match arrival {
        Arrival::Loopback => {
            if server.said.lock().is_due((node, "loopback"), server.env.time().now()) {
                tracing::error!(
                    %peer, "refused: {} announces {node}, where no other machine can reach it; start it with -l and an address of its own", peer.ip()
                );
            }
            Admission::Refused
        }
        // Without votes nobody says which start it is.
        Arrival::Unproven if init.role == Role::Server && server.votes.is_voted() => Admission::Unproven,
        Arrival::Unproven | Arrival::Welcome => Admission::Welcome,
    }
}

/// The server `identity` has spoken on `link` and announces `node`. An error unless it is known to be that node; with the
/// machine that the address belongs to, if that is another.
pub(super) fn claim(
    server: &Shared,
    link: &Arc<Link>,
    node: NodeAddress,
    identity: Identity,
) -> Result<(), Option<Machine>> {
    let ip = link.peer().ip();
    let (claim, others) = {
        let mut claims = server.claims.lock();
        let claim = claims.speaks(node, ip, identity, None);
        let separates = matches!(claim, Claim::Other(_) | Claim::Owner { displaces: true });
        (claim, separates.then(|| claims.clone()))
    };
    if let Some(claims) = others {
        server.peers.separate(node, |ip| claims.belongs(node, ip));
    }
    match claim {
        Claim::Owner { .. } => {
            if link.admit() {
                server.note_reachable(node);
            }
            Ok(())
        }
        Claim::Unproven => Err(None),
        Claim::Other(owner) => {
            if server.said.lock().is_due((node, "another machine"), server.env.time().now()) {
                tracing::error!(
                    peer = %link.peer(),
                    "refused: {ip} (store {:016x}) announces {node}, the address of {} (store {:016x})",
                    identity.store, owner.ip, owner.store
                );
            }
            Err(Some(owner))
        }
    }
}

/// `node` refuses this server: the address that it announces belongs to `owner`.
pub(super) fn refused(server: &Shared, node: NodeAddress, owner: Machine) {
    if server.said.lock().is_due((node, "refuses this server"), server.env.time().now()) {
        tracing::error!(
            peer = %node,
            "refuses this server: {} is the address of the machine {} (store {:016x}), and this is another (store {:016x}); start it with -l and an address of its own",
            server.address, owner.ip, owner.store, server.store.id()
        );
    }
}
