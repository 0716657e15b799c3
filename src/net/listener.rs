//! Listening: a bound socket, and the loop that accepts from it.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::Peers;

/// Connections that the kernel may keep waiting to be accepted.
const BACKLOG: i32 = 1024;
/// How long to wait when accepting fails for want of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Binds a listening socket. `[::]` stands for all addresses of this machine, IPv4 ones included.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    listen(address, false)
}

/// The same, where `[::]` stands for all IPv6 addresses.
pub fn bind_ipv6_only(address: SocketAddr) -> io::Result<StdListener> {
    listen(address, true)
}

/// Whether an attempt to bind `[::]` has failed because the kernel has no IPv6.
pub fn is_without_ipv6(error: &io::Error) -> bool {
    let missing = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|number| missing.contains(&number))
}

fn listen(address: SocketAddr, ipv6_only: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(ipv6_only)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The address of a peer as people know it: IPv4 ones come through an IPv6 socket in a longer form.
pub fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, peer.port()),
        IpAddr::V6(_) => peer,
    }
}

/// Accepts connections for a [`Peers`].
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
}

impl Listener {
    /// Takes over a bound socket; must be called within a runtime.
    pub fn new(listener: StdListener) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::from_std(listener)? })
    }

    /// Accepts until the future is dropped.
    pub async fn run(self, peers: Arc<Peers>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => peers.accept(stream, canonical(peer)),
                // The connection was gone before it was accepted: no matter.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::error!(%error, "accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
