//! Servers that announce the address of another machine: they are refused, and shown in the status.
//!
//! Who is right [`crate::register::Claims`] decides; here is what becomes of connections, and what the log says of it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::shell::{Inner, Shell};
use crate::net::{Admission, Link};
use crate::register::{Arrival, Claim, Identity, Machine};
use crate::wire::method::Role;
use crate::wire::{Init, NodeAddress};

impl Shell {
    /// What becomes of a connection from `peer` whose other end says that it is `init`.
    pub(super) fn admit_node(&self, init: &Init, peer: SocketAddr) -> Admission {
        let inner = &mut *self.lock();
        let node = init.address;
        match inner.addresses.claims.arrival(node, peer.ip(), self.address.socket().ip()) {
            Arrival::Loopback => {
                let now = self.env.time().now();
                inner.addresses.refuse(node, Machine { ip: peer.ip(), store: 0 }, None, now);
                if inner.said.is_due((node, "loopback"), now) {
                    tracing::error!(
                        %peer, "refused: {} announces {node}, where no other machine can reach it; start it with -l and an address of its own", peer.ip()
                    );
                }
                Admission::Refused
            }
            Arrival::Unproven if init.role == Role::Server && inner.addresses.claims.is_owned(node) => {
                Admission::Unproven
            }
            Arrival::Unproven | Arrival::Welcome => Admission::Welcome,
        }
    }

    /// The server `identity` has spoken on `link` and announces `node`. Gives the machine that this address belongs to, if that
    /// is another.
    pub(super) fn claim(
        &self,
        inner: &mut Inner,
        link: &Arc<Link>,
        node: NodeAddress,
        identity: Identity,
    ) -> Option<Machine> {
        let ip = link.peer().ip();
        let member = inner.votes.configuration().members.get(&node).map(|member| member.store);
        let addresses = &mut inner.addresses;
        let claim = addresses.claims.speaks(node, ip, identity, member);
        if matches!(claim, Claim::Other(_) | Claim::Owner { displaces: true }) {
            self.peers.separate(node, |ip| addresses.claims.belongs(node, ip));
        }
        let Claim::Other(owner) = claim else {
            if link.admit() {
                self.server_bound(inner, node);
            }
            return None;
        };
        let now = self.env.time().now();
        addresses.refuse(node, Machine { ip, store: identity.store }, Some(owner), now);
        if inner.said.is_due((node, "another machine"), now) {
            tracing::error!(
                peer = %link.peer(),
                "refused: {ip} (store {:016x}) announces {node}, the address of {} (store {:016x}); start it with -l and an address of its own",
                identity.store, owner.ip, owner.store
            );
        }
        Some(owner)
    }
}
