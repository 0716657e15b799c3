//! Byte streams and listeners, whatever carries them.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::net::{SendFlags, send};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::socket;
use super::unix::SocketFile;

/// Nobody can listen at a place: it is taken, or not one of this machine.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {place}")]
pub struct ListenError {
    place: String,
    source: io::Error,
}

impl ListenError {
    /// Makes errors of a place: a port or a path, as it is shown.
    pub fn at(place: impl fmt::Display) -> impl Fn(io::Error) -> Self {
        move |source| Self { place: place.to_string(), source }
    }
}

/// A future that may be sent to another thread.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A stream of bytes in both directions that is none of the kernel's: encrypted, or simulated.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> ByteStream for S {}

/// A connection.
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over anything else.
    Other(Box<dyn ByteStream>),
}

impl Stream {
    /// Switches `TCP_NODELAY`; streams that are not TCP never wait to fill a packet.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(on),
            Self::Unix(_) | Self::Other(_) => Ok(()),
        }
    }

    /// Makes the connection fail when the other machine has not been heard of for `limit`. The kernel would go on for a
    /// quarter of an hour, or for ever on an idle connection.
    pub(crate) fn set_silence_limit(&self, limit: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => socket::set_silence_limit(stream, limit),
            Self::Unix(_) | Self::Other(_) => Ok(()),
        }
    }

    /// Whether the other side has gone, so that it will take nothing more; `false` if it has only said that it sends nothing
    /// more. Takes no input. Of streams that are not the kernel's only reading and writing can tell.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Tcp(stream) => socket::is_lost(stream),
            Self::Unix(stream) => socket::is_lost(stream),
            Self::Other(_) => false,
        }
    }

    /// Sends as much of `bytes` as the stream takes without waiting; the last words before it is closed.
    pub(crate) fn send_at_once(&mut self, bytes: &[u8]) {
        // Whoever has gone needs no word. A new socket of the runtime would first have to be polled.
        match self {
            Self::Tcp(stream) => drop(send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)),
            Self::Unix(stream) => drop(send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)),
            Self::Other(stream) => {
                drop(Pin::new(stream).poll_write(&mut Context::from_waker(Waker::noop()), bytes));
            }
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Stream(TCP)",
            Self::Unix(_) => "Stream(Unix)",
            Self::Other(_) => "Stream",
        })
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Other(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Other(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Other(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Other(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Takes the next connection of a listener that is none of the kernel's.
type Accept = Box<dyn FnMut(&mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> + Send>;

/// A listening socket, or its like.
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket; its file goes with it.
    Unix(UnixListener, SocketFile),
    /// Anything else, with the address that it listens on.
    Other(SocketAddr, Accept),
}

impl Listener {
    /// A listener at `address` whose connections come from `accept`.
    pub fn other(
        address: SocketAddr,
        accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> + Send + 'static,
    ) -> Self {
        Self::Other(address, Box::new(accept))
    }

    /// The port that it listens on; not of a Unix socket.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Unix(..) => Err(io::ErrorKind::Unsupported.into()),
            Self::Other(address, _) => Ok(*address),
        }
    }

    /// Waits for the next connection. The address of its other end is unspecified for a Unix socket.
    pub async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        poll_fn(|cx| match self {
            Self::Tcp(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(cx))?;
                Poll::Ready(Ok((Stream::Tcp(stream), socket::canonical(peer))))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                Poll::Ready(Ok((Stream::Unix(stream), SocketAddr::from(([0; 4], 0)))))
            }
            Self::Other(_, accept) => accept(cx),
        })
        .await
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => listener.fmt(f),
            Self::Unix(listener, _) => listener.fmt(f),
            Self::Other(address, _) => write!(f, "Listener({address})"),
        }
    }
}
