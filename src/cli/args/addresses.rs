//! The addresses of nodes that flags name, and what is wrong with those that cannot be one.

use std::net::SocketAddr;

use crate::cli::exit::Stop;
use crate::net::hosts::{HostPort, Resolver};
use crate::net::{NamedNode, names_one_host};
use crate::wire::NodeAddress;

/// The address given with `flag` by which others will know this node.
pub(in crate::cli) fn own_address(
    flag: &str,
    host: &HostPort,
    port: u16,
    resolver: Resolver,
) -> Result<SocketAddr, Stop> {
    let address = resolve(flag, host, port, resolver)?;
    if names_one_host(address.ip()) {
        Ok(address)
    } else {
        Err(Stop::Usage(format!(
            "{flag} {host}: others must be able to dial this address (to listen on every interface, add --bind {})",
            address.ip()
        )))
    }
}

/// The address given with `flag` of another node.
pub(in crate::cli) fn peer_address(
    flag: &str,
    host: &HostPort,
    port: u16,
    resolver: Resolver,
) -> Result<NodeAddress, Stop> {
    dialable(flag, host, resolve(flag, host, port, resolver)?)
}

/// The node that `flag` names. One whose name does not resolve yet is looked up again by whoever needs it.
pub(in crate::cli) fn peer_node(flag: &str, host: &HostPort, port: u16, resolver: Resolver) -> Result<NamedNode, Stop> {
    let address = match host.resolve(port, resolver) {
        Ok(address) => Some(dialable(flag, host, on_an_interface(flag, host, address)?)?),
        Err(_) if host.port(port) == 0 => return Err(no_node(flag, host)),
        Err(_) => None,
    };
    Ok(host.node(port, address))
}

/// `address`, which `host` was resolved to, if it can be a node's.
fn dialable(flag: &str, host: &HostPort, address: SocketAddr) -> Result<NodeAddress, Stop> {
    if address.port() == 0 || !names_one_host(address.ip()) {
        return Err(no_node(flag, host));
    }
    Ok(NodeAddress::new(address))
}

fn no_node(flag: &str, host: &HostPort) -> Stop {
    Stop::Usage(format!("{flag} {host}: not the address of a node"))
}

/// The address given with `flag`, whatever it is for.
pub(in crate::cli) fn resolve(flag: &str, host: &HostPort, port: u16, resolver: Resolver) -> Result<SocketAddr, Stop> {
    let address = host.resolve(port, resolver).map_err(|error| Stop::Failed(format!("{flag} {host}: {error}")))?;
    on_an_interface(flag, host, address)
}

/// `address`, which `host` was resolved to, unless it is one that exists once on each interface and names none.
fn on_an_interface(flag: &str, host: &HostPort, address: SocketAddr) -> Result<SocketAddr, Stop> {
    match address {
        SocketAddr::V6(address) if address.ip().is_unicast_link_local() && address.scope_id() == 0 => {
            let ip = address.ip();
            Err(Stop::Usage(format!("{flag} {host}: a link-local address needs its interface, as in {ip}%eth0")))
        }
        address => Ok(address),
    }
}
