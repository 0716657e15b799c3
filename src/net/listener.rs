//! Listening: a bound socket, and the loop that accepts from it.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::Peers;

/// Connections that the kernel may keep waiting to be accepted.
const BACKLOG: i32 = 1024;
/// How long to wait when accepting fails for want of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Binds a listening socket. IPv6 sockets take IPv6 only.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
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
                Ok((stream, peer)) => peers.accept(stream, peer),
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
