//! The ports of a try-it cluster: their numbers, and waiting until they are free.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use crate::cli::daemon::gateway::TEXT_PORT;
use crate::cli::exit::Stop;
use crate::net::hosts::MANAGER_PORT;

/// From the base port to that of the first server, and of its stream, less one.
const SERVER_PORTS: u16 = 100;
const STREAM_PORTS: u16 = 200;
/// Ports tried for the gateway when the usual one is taken.
const GATEWAY_PORTS: usize = 100;
/// How long ports of a cluster that is just ending may stay taken.
const PORT_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two attempts to take a port.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Where everything listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) base: u16,
    pub(super) gateway: u16,
}

impl Ports {
    pub(super) fn manager(self) -> SocketAddr {
        local(self.base)
    }

    pub(super) fn gateway(self) -> SocketAddr {
        local(self.gateway)
    }

    /// The server with this number, from 1 on.
    pub(super) fn server(self, number: usize) -> SocketAddr {
        local(self.base.saturating_add(SERVER_PORTS).saturating_add(offset(number)))
    }

    pub(super) fn stream(self, number: usize) -> SocketAddr {
        local(self.base.saturating_add(STREAM_PORTS).saturating_add(offset(number)))
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn offset(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// Makes sure that nobody else listens on any port of the cluster.
pub(super) fn check_ports(ports: Ports, servers: usize, has_data: bool) -> Result<(), Stop> {
    let hint = if has_data { "the data of this --dir belongs to these ports" } else { "another --base-port may help" };
    let numbers = 1..=servers;
    let all = std::iter::once(ports.manager()).chain(numbers.flat_map(|i| [ports.server(i), ports.stream(i)]));
    for address in all {
        wait_free(address, hint)?;
    }
    Ok(())
}

/// Waits a moment for a port of a cluster that is just ending; `hint` is what to say if it stays taken.
pub(super) fn wait_free(address: SocketAddr, hint: &str) -> Result<(), Stop> {
    let deadline = Instant::now() + PORT_PATIENCE;
    while let Err(error) = TcpListener::bind(address) {
        if Instant::now() > deadline {
            return Err(Stop::Failed(format!("port {address}: {error}; {hint}")));
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
    Ok(())
}

/// The gateway's port: the one wanted, else that of the last time, else the usual one, which only the cluster with the
/// usual ports takes.
pub(super) fn gateway_port(wanted: Option<u16>, last: Option<u16>, base: u16) -> u16 {
    let usual = if base == MANAGER_PORT { TEXT_PORT } else { base.saturating_add(1) };
    wanted.or(last).unwrap_or(usual)
}

/// A port that nobody listens on and that no process of the cluster will.
pub(super) fn free_port_above(port: u16, ports: Ports, servers: usize) -> Result<u16, Stop> {
    let own = |port: u16| (1..=servers).any(|i| [ports.server(i), ports.stream(i)].contains(&local(port)));
    (port..u16::MAX)
        .skip(1)
        .take(GATEWAY_PORTS)
        .find(|port| !own(*port) && TcpListener::bind(local(*port)).is_ok())
        .ok_or_else(|| Stop::Failed(format!("no free port for the gateway near {port}; see --gateway-port")))
}
