//! One connection without a runtime: a socket that never blocks, what it has not taken, what has not arrived in full.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::memcached::{self, Reply};
use crate::env::{dial_blocking, outgoing, refuse_itself};
use crate::wire::{self, MESSAGE_LIMIT, Message, Response, Scanner};

/// A connection to one server.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    token: u64,
    /// Whether a dial is still under way.
    connecting: bool,
    scanner: Scanner,
    /// The beginning of an answer whose rest has not arrived.
    partial: Vec<u8>,
    /// Room for one answer of a memcached server.
    scratch: Vec<u8>,
    /// Requests that the socket has not taken.
    unsent: Vec<u8>,
}

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The server has closed it.
    #[error("closed by the server")]
    Closed,
    /// The system reports an error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes received are no message.
    #[error(transparent)]
    Wire(#[from] wire::Error),
}

impl From<rustix::io::Errno> for Broken {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

impl Connection {
    /// Dials and waits until the connection stands, at most `timeout`. `greeting` is sent first.
    pub(super) fn dial_and_wait(
        server: SocketAddr,
        timeout: Duration,
        greeting: &[u8],
        epoll: &OwnedFd,
        token: u64,
    ) -> io::Result<Self> {
        let stream = dial_blocking(server, timeout)?;
        stream.set_nonblocking(true)?;
        Self::register(stream, false, greeting, epoll, token)
    }

    /// Starts to dial; [`Self::ready_to_write`] tells whether it came about, and sends `greeting` then.
    pub(super) fn dial(server: SocketAddr, greeting: &[u8], epoll: &OwnedFd, token: u64) -> io::Result<Self> {
        let socket = outgoing(server)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&server.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        Self::register(socket.into(), true, greeting, epoll, token)
    }

    fn register(stream: TcpStream, connecting: bool, greeting: &[u8], epoll: &OwnedFd, token: u64) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let wait_until_writable = connecting || !greeting.is_empty();
        epoll::add(epoll, stream.as_fd(), EventData::new_u64(token), interest(wait_until_writable))?;
        Ok(Self {
            stream,
            token,
            connecting,
            scanner: Scanner::new(MESSAGE_LIMIT),
            partial: Vec::new(),
            scratch: Vec::new(),
            unsent: greeting.to_vec(),
        })
    }

    /// Whether requests can be sent.
    pub(super) fn is_open(&self) -> bool {
        !self.connecting
    }

    /// Sends `bytes`, or keeps what the socket does not take.
    #[inline]
    pub(super) fn send(&mut self, bytes: &[u8], epoll: &OwnedFd) -> Result<(), Broken> {
        let rest = if self.unsent.is_empty() { write_some(&mut self.stream, bytes)? } else { bytes };
        if rest.is_empty() {
            return Ok(());
        }
        self.unsent.extend_from_slice(rest);
        self.wait_until_writable(epoll, true)
    }

    /// The socket takes bytes again, or a dial has ended. The result says whether the connection has just opened.
    pub(super) fn ready_to_write(&mut self, epoll: &OwnedFd) -> Result<bool, Broken> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error.into());
        }
        let opened = std::mem::take(&mut self.connecting);
        if opened {
            refuse_itself(&self.stream, self.stream.local_addr()?, self.stream.peer_addr()?)?;
        }
        let left = write_some(&mut self.stream, &self.unsent)?.len();
        self.unsent.drain(..self.unsent.len() - left);
        self.wait_until_writable(epoll, left > 0)?;
        Ok(opened)
    }

    fn wait_until_writable(&mut self, epoll: &OwnedFd, wait: bool) -> Result<(), Broken> {
        Ok(epoll::modify(epoll, self.stream.as_fd(), EventData::new_u64(self.token), interest(wait))?)
    }

    /// Reads once into `buffer`; the result is how much there was, `None` if nothing.
    #[inline]
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Broken> {
        match self.stream.read(buffer) {
            Ok(0) => Err(Broken::Closed),
            Ok(len) => Ok(Some(len)),
            Err(error) if retry_later(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Hands every answer that is complete with `bytes` to `take`. Anything that is no answer is passed over.
    #[inline]
    pub(super) fn feed(&mut self, bytes: &[u8], take: impl FnMut(Response<'_>)) -> Result<(), Broken> {
        feed(&mut self.partial, bytes, |bytes| answers(&mut self.scanner, bytes, take))
    }

    /// The same with the answers of a memcached server.
    #[inline]
    pub(super) fn feed_text(&mut self, bytes: &[u8], take: impl FnMut(Reply<'_>)) -> Result<(), Broken> {
        feed(&mut self.partial, bytes, |bytes| memcached::answers(bytes, &mut self.scratch, take))
    }
}

/// Has `parse` take what is whole of `partial` and `bytes`, and keeps the rest.
#[inline]
fn feed(
    partial: &mut Vec<u8>,
    bytes: &[u8],
    parse: impl FnOnce(&[u8]) -> Result<usize, wire::Error>,
) -> Result<(), Broken> {
    if partial.is_empty() {
        let used = parse(bytes)?;
        partial.extend_from_slice(bytes.get(used..).unwrap_or_default());
    } else {
        partial.extend_from_slice(bytes);
        let used = parse(partial)?;
        partial.drain(..used);
    }
    Ok(())
}

/// Writes as much of `bytes` as the socket takes; the result is the rest.
#[inline]
fn write_some<'b>(stream: &mut TcpStream, bytes: &'b [u8]) -> io::Result<&'b [u8]> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(len) => rest = rest.get(len..).unwrap_or_default(),
            Err(error) if retry_later(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(rest)
}

fn retry_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn interest(writable: bool) -> EventFlags {
    if writable { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN }
}

/// The answers in `bytes`; the result is how many bytes whole messages took.
#[inline]
fn answers(scanner: &mut Scanner, bytes: &[u8], mut take: impl FnMut(Response<'_>)) -> Result<usize, wire::Error> {
    let mut used = 0;
    loop {
        let rest = bytes.get(used..).unwrap_or_default();
        let Some(len) = scanner.advance(rest)? else { return Ok(used) };
        if let Message::Response(response) = Message::parse(rest.get(..len).unwrap_or_default())? {
            take(response);
        }
        used += len;
    }
}
