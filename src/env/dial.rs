//! Dialling: outgoing connections that keep no port from its owner.
//!
//! The kernel chooses the local port of an outgoing connection. While nobody listens at the address that is dialled, it may
//! choose that very port, and the connection then reaches itself: TCP allows that. It would stand as long as both its ends
//! do, and whoever the port belongs to could not listen there. Knows no messages.

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

/// A socket to dial `address` with.
///
/// Its local port, whichever that will be, may be bound by a listener too: the kernel could have given it the port of a
/// daemon that is not running just now.
pub(crate) fn outgoing(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Connects to `address`. It is refused if only the connection itself was to be reached there.
pub(crate) async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = outgoing(address)?;
    socket.set_nonblocking(true)?;
    connect(TcpSocket::from_std_stream(socket.into()), address).await
}

async fn connect(socket: TcpSocket, address: SocketAddr) -> io::Result<TcpStream> {
    let stream = socket.connect(address).await?;
    refuse_itself(&stream, stream.local_addr()?, stream.peer_addr()?)?;
    Ok(stream)
}

/// The same on a thread that may block, for at most `timeout`.
pub(crate) fn dial_blocking(address: SocketAddr, timeout: Duration) -> io::Result<StdStream> {
    let socket = outgoing(address)?;
    socket.connect_timeout(&address.into(), timeout)?;
    let stream = StdStream::from(socket);
    refuse_itself(&stream, stream.local_addr()?, stream.peer_addr()?)?;
    Ok(stream)
}

/// An error if the connection of `socket` from `local` to `peer` has reached itself: when it is dropped then, it is reset,
/// and its port is free at once.
pub(crate) fn refuse_itself<'s>(socket: impl Into<SockRef<'s>>, local: SocketAddr, peer: SocketAddr) -> io::Result<()> {
    if local != peer {
        return Ok(());
    }
    // Without this the port would be taken for a minute more.
    socket.into().set_linger(Some(Duration::ZERO))?;
    Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there: the connection has reached itself"))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_reached_itself_is_refused_and_leaves_the_port_free() {
        // Until one is found that no other process has taken meanwhile.
        for _ in 0..100 {
            let own = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
            let socket = TcpSocket::new_v4().unwrap();
            if socket.bind(own).is_err() {
                continue;
            }
            let error = connect(socket, own).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert!(error.to_string().contains("reached itself"), "{error}");
            // Without SO_REUSEADDR: not even in TIME-WAIT.
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
            socket.bind(&own.into()).unwrap();
            socket.listen(1).unwrap();
            return;
        }
        panic!("no port to be had");
    }

    #[tokio::test]
    async fn a_listener_can_have_the_local_port_of_what_was_dialled() {
        let there = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = there.local_addr().unwrap();
        let (mut free, mut free_blocking) = (false, false);
        // The kernel may choose a port that a connection of another program to another address has, too, and that one may
        // keep it from us: that is luck, but not every time.
        for _ in 0..50 {
            let can_listen = |port| super::super::Env::real().listen(port).is_ok();
            free |= can_listen(dial(address).await.unwrap().local_addr().unwrap());
            let blocking = dial_blocking(address, Duration::from_secs(5)).unwrap();
            free_blocking |= can_listen(blocking.local_addr().unwrap());
            if free && free_blocking {
                return;
            }
        }
        panic!("free: {free}, {free_blocking}");
    }
}
