//! Which machine an address belongs to, when more than one announces it: a machine that was cloned with its settings, or
//! one whose name stands for a loopback address.
//!
//! A server is dialled at the address that it announces, so a connection to or from there proves that it is the one.
//! Connections of the same server may come from other addresses of its machine; that it is the same the number shows that
//! it drew when it started. Pure: what becomes of a connection is the affair of others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::wire::NodeAddress;
use crate::wire::params::NODE_LIMIT;

/// Addresses of one machine that are remembered.
const MACHINE_ADDRESSES: usize = 8;

/// A server process: its store, and the number that it drew when it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The id of its store.
    pub store: u64,
    /// Zero from a program that draws none.
    pub start: u64,
}

/// A machine that announces the address of another: where it is, and what is in its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Where its connections come from.
    pub ip: IpAddr,
    /// The id of its store; zero if it is not known.
    pub store: u64,
}

/// What a new connection of a node that announces an address is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It may carry calls to the node.
    Welcome,
    /// Only once the node has shown that it is the one whose address it announces.
    Unproven,
    /// It announces a loopback address from another machine: nobody could reach it there.
    Loopback,
}

/// Who has spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The owner of the address. `displaces`: another machine was taken for it until now.
    Owner {
        /// Connections from elsewhere are not the owner's.
        displaces: bool,
    },
    /// Nobody else has claimed the address, and it is not proven that this is its owner.
    Unproven,
    /// The address belongs to this machine, and another has spoken.
    Other(Machine),
}

/// The owner of an address, as far as is known.
#[derive(Debug, Clone)]
struct Owner {
    identity: Identity,
    /// Where its connections have come from.
    ips: BTreeSet<IpAddr>,
    /// It was reached at the address itself, or came from there.
    proven: bool,
}

/// The owners of all addresses that were heard of.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    owners: BTreeMap<NodeAddress, Owner>,
}

/// All loopback addresses are of one machine.
fn canonical(ip: IpAddr) -> IpAddr {
    let ip = ip.to_canonical();
    if ip.is_loopback() { Ipv4Addr::LOCALHOST.into() } else { ip }
}

impl Claims {
    /// A connection has come from `ip`, of a node that announces `address`; `own` is the address of this machine.
    pub fn arrival(&self, address: NodeAddress, ip: IpAddr, own: IpAddr) -> Arrival {
        let (ip, announced) = (canonical(ip), canonical(address.socket().ip()));
        match self.owners.get(&address) {
            _ if ip == announced => Arrival::Welcome,
            _ if announced.is_loopback() && ip != canonical(own) => Arrival::Loopback,
            Some(owner) if owner.ips.contains(&ip) => Arrival::Welcome,
            _ => Arrival::Unproven,
        }
    }

    /// Whether `address` is known to belong to somebody.
    pub fn is_owned(&self, address: NodeAddress) -> bool {
        self.owners.get(&address).is_some_and(|owner| owner.proven)
    }

    /// Whether the owner of `address` sends from `ip`.
    pub fn belongs(&self, address: NodeAddress, ip: IpAddr) -> bool {
        let ip = canonical(ip);
        ip == canonical(address.socket().ip()) || self.owners.get(&address).is_some_and(|owner| owner.ips.contains(&ip))
    }

    /// The server `identity` that announces `address` has spoken on a connection from `ip`. `member`: the store that the
    /// server of that address has by the configuration in force.
    pub fn speaks(&mut self, address: NodeAddress, ip: IpAddr, identity: Identity, member: Option<u64>) -> Claim {
        let (ip, announced) = (canonical(ip), canonical(address.socket().ip()));
        let home = ip == announced;
        let Some(owner) = self.owners.get_mut(&address) else {
            if let Some(store) = member.filter(|store| !home && *store != identity.store) {
                return Claim::Other(Machine { ip: announced, store });
            }
            if self.owners.len() < 2 * NODE_LIMIT {
                self.owners.insert(address, Owner { identity, ips: BTreeSet::from([ip]), proven: home });
            }
            return if home { Claim::Owner { displaces: false } } else { Claim::Unproven };
        };
        let known = owner.ips.contains(&ip);
        let mut displaces = false;
        if owner.identity == identity {
            if owner.ips.len() < MACHINE_ADDRESSES {
                owner.ips.insert(ip);
            }
            owner.proven |= home;
        } else if home {
            displaces = owner.ips.iter().any(|known| *known != ip);
            *owner = Owner { identity, ips: BTreeSet::from([ip]), proven: true };
        } else if owner.proven && !known {
            return Claim::Other(Machine { ip: announced, store: owner.identity.store });
        } else {
            // Another start of the one that was there.
            owner.identity = identity;
            owner.ips.insert(ip);
        }
        if owner.proven { Claim::Owner { displaces } } else { Claim::Unproven }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Claim = Claim::Owner { displaces: false };

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn node() -> NodeAddress {
        NodeAddress::new((ip(3), 19800).into())
    }

    fn identity(store: u64, start: u64) -> Identity {
        Identity { store, start }
    }

    #[test]
    fn the_second_machine_with_an_address_is_not_its_owner_whatever_its_store() {
        let mut claims = Claims::default();
        assert_eq!(claims.speaks(node(), ip(3), identity(7, 1), None), OWNER);
        assert_eq!(claims.arrival(node(), ip(4), ip(1)), Arrival::Unproven);
        let first = Claim::Other(Machine { ip: ip(3), store: 7 });
        for clone in [identity(8, 2), identity(7, 2)] {
            assert_eq!(claims.speaks(node(), ip(4), clone, Some(7)), first);
        }
        assert_eq!(claims.speaks(node(), ip(3), identity(7, 1), Some(7)), OWNER, "the first goes on");
        // It restarts, with an empty disk, too.
        assert_eq!(claims.speaks(node(), ip(3), identity(9, 3), Some(7)), OWNER);
        assert!(!claims.belongs(node(), ip(4)));
    }

    #[test]
    fn the_one_that_is_at_the_address_displaces_one_that_came_first() {
        let mut claims = Claims::default();
        assert_eq!(claims.speaks(node(), ip(4), identity(7, 1), None), Claim::Unproven);
        assert!(!claims.is_owned(node()));
        assert_eq!(claims.speaks(node(), ip(3), identity(7, 2), None), Claim::Owner { displaces: true });
        assert!(matches!(claims.speaks(node(), ip(4), identity(7, 1), None), Claim::Other(_)));
    }

    #[test]
    fn a_machine_with_several_addresses_is_one() {
        let mut claims = Claims::default();
        assert_eq!(claims.speaks(node(), ip(9), identity(7, 1), None), Claim::Unproven);
        assert_eq!(claims.speaks(node(), ip(3), identity(7, 1), None), OWNER, "the same start");
        assert_eq!(claims.speaks(node(), ip(9), identity(7, 1), None), OWNER);
        assert_eq!(claims.arrival(node(), ip(9), ip(1)), Arrival::Welcome);
        // After a restart it may first be heard from there.
        assert_eq!(claims.speaks(node(), ip(9), identity(7, 2), None), OWNER);
        assert_eq!(claims.speaks(node(), ip(3), identity(7, 2), None), OWNER);
    }

    #[test]
    fn another_store_from_elsewhere_is_not_the_member() {
        let mut claims = Claims::default();
        let member = Claim::Other(Machine { ip: ip(3), store: 7 });
        assert_eq!(claims.speaks(node(), ip(4), identity(8, 1), Some(7)), member);
        assert_eq!(claims.speaks(node(), ip(3), identity(8, 1), Some(7)), OWNER, "its disk was exchanged");
    }

    #[test]
    fn a_loopback_address_is_good_on_its_own_machine_only() {
        let claims = Claims::default();
        let announced = NodeAddress::new(([127, 0, 1, 1], 19800).into());
        let local: IpAddr = [127, 0, 0, 1].into();
        assert_eq!(claims.arrival(announced, ip(4), ip(1)), Arrival::Loopback);
        assert_eq!(claims.arrival(announced, local, local), Arrival::Welcome);
        assert_eq!(claims.arrival(announced, ip(1), ip(1)), Arrival::Unproven, "this machine has other addresses, too");
        let mapped: IpAddr = std::net::Ipv4Addr::new(10, 0, 0, 3).to_ipv6_mapped().into();
        assert_eq!(claims.arrival(node(), mapped, ip(1)), Arrival::Welcome);
    }

    #[test]
    fn programs_that_draw_no_number_are_told_apart_by_their_stores() {
        let mut claims = Claims::default();
        assert_eq!(claims.speaks(node(), ip(3), identity(7, 0), None), OWNER);
        assert_eq!(claims.speaks(node(), ip(9), identity(7, 0), None), OWNER);
        assert!(matches!(claims.speaks(node(), ip(4), identity(8, 0), None), Claim::Other(_)));
    }
}
