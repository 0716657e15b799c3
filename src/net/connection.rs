//! The task that owns one socket: bytes in, messages to their receivers, bytes out.
//!
//! Reading and writing use buffers of the thread, not of the connection: an idle connection holds none, and what one
//! read has brought is parsed, handled and answered while it is in the processor's cache. Only an incomplete message
//! and answers that the peer does not take yet are kept with the connection.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::{Link, LinkKind, Peers, Service};
use crate::wire::{self, Message, Request, Scanner};

/// Bytes taken from a socket at a time.
const READ_SIZE: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch { input: vec![0; READ_SIZE], output: Vec::new() });
}

/// Buffers that the connections of a thread share; nothing stays in them between two polls.
struct Scratch {
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Capacity that the shared output buffer keeps.
const OUTPUT_KEPT: usize = 1 << 20;

/// How long a drained connection waits for its peer to close.
const LINGER: Duration = Duration::from_millis(250);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    #[error("closed by peer")]
    ByPeer,
    #[error("closed by this side")]
    BySelf,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Wire(#[from] wire::Error),
    #[error("incomplete messages of all connections take more than the limit")]
    PartialLimit,
    #[error("too many clients are connected")]
    Crowded,
}

/// Serves `stream` until it closes; `link` is how others reach it.
pub(super) async fn serve(
    mut stream: TcpStream,
    link: &Arc<Link>,
    peers: &Arc<Peers>,
    service: &dyn Service,
) -> Closed {
    let (read, write) = stream.split();
    let mut connection = Connection {
        read,
        write,
        link,
        peers,
        service,
        scanner: Scanner::new(peers.limits().message),
        partial: BytesMut::new(),
        paused: false,
        unsent: BytesMut::new(),
    };
    let closed = match connection.run().await {
        Ok(never) => match never {},
        Err(closed) => closed,
    };
    connection.keep_partial(BytesMut::new());
    if matches!(closed, Closed::BySelf) && link.is_draining() && !link.is_closing() {
        linger(&mut stream).await;
    }
    closed
}

/// Says that nothing more will come, and drops what still arrives, until the peer closes or [`LINGER`] is over.
///
/// To close with input unread would reset the connection: the peer could lose answers that it has not read yet.
async fn linger(stream: &mut TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let until_closed = poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let mut buffer = ReadBuf::new(&mut scratch.input);
                let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer));
                if read.is_err() || buffer.filled().is_empty() {
                    return Poll::Ready(());
                }
            }
        })
    });
    // Whoever goes on sending is cut off.
    let _ = tokio::time::timeout(LINGER, until_closed).await;
}

struct Connection<'a> {
    read: ReadHalf<'a>,
    write: WriteHalf<'a>,
    link: &'a Arc<Link>,
    peers: &'a Arc<Peers>,
    service: &'a dyn Service,
    scanner: Scanner,
    /// The beginning of a message whose rest has not arrived.
    partial: BytesMut,
    /// `partial` may hold whole messages: their turn comes when the answers to those before are sent.
    paused: bool,
    /// Answers that the socket has not taken.
    unsent: BytesMut,
}

impl Connection<'_> {
    async fn run(&mut self) -> Result<std::convert::Infallible, Closed> {
        loop {
            if self.link.is_closing() {
                return Err(Closed::BySelf);
            }
            if let Some(on) = self.link.take_nodelay() {
                self.write.as_ref().set_nodelay(on)?;
            }
            self.flush()?;
            let blocked = !self.unsent.is_empty();
            if self.link.is_draining() && !blocked && self.link.in_flight() == 0 && self.link.backlog() == 0 {
                return Err(Closed::BySelf);
            }
            // Made before looking: what is given back from here on is heard.
            let freed = self.link.room.freed();
            let may_read = self.may_read();
            self.note_owing(blocked, may_read);
            let link = self.link;
            let wanted = poll_fn(|cx| {
                if blocked && let Poll::Ready(ready) = self.write.as_ref().poll_write_ready(cx) {
                    return Poll::Ready(ready.map_err(Closed::Io));
                }
                match may_read {
                    true if self.paused => Poll::Ready(self.resume()),
                    true => self.poll_input(cx),
                    false => Poll::Pending,
                }
            });
            tokio::select! {
                biased;
                result = wanted => result?,
                () = link.woken() => {}
                () = freed, if !may_read => {}
            }
        }
    }

    /// Whether to take more requests. From nodes always: their responses are what others wait for.
    fn may_read(&self) -> bool {
        if self.link.session().is_some() {
            return true;
        }
        !self.link.is_draining() && self.link.may_read() && self.unsent.len() < self.peers.limits().unread_answers
    }

    /// Tells the reaper whether the peer owes us something: its first message, the rest of one, or taking answers.
    ///
    /// What is not read because of answers that we owe is no fault of the peer.
    fn note_owing(&self, blocked: bool, may_read: bool) {
        let incomplete = !self.partial.is_empty() || self.link.kind() == LinkKind::Undecided;
        let owing = blocked || (may_read && !self.paused && incomplete);
        let since = &self.link.owing_since;
        if !owing {
            since.store(0, Ordering::Relaxed);
        } else if since.load(Ordering::Relaxed) == 0 {
            since.store(self.peers.uptime_seconds(), Ordering::Relaxed);
        }
    }

    /// Reads once, if there is something, and handles all of it.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch { input, output } = scratch;
            let mut buffer = ReadBuf::new(input);
            ready!(Pin::new(&mut self.read).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(Closed::ByPeer));
            }
            Poll::Ready(self.feed_and_send(buffer.filled(), output))
        })
    }

    /// Goes on with what was left when enough had been answered.
    fn resume(&mut self) -> Result<(), Closed> {
        SCRATCH.with_borrow_mut(|scratch| self.feed_and_send(&[], &mut scratch.output))
    }

    fn feed_and_send(&mut self, bytes: &[u8], output: &mut Vec<u8>) -> Result<(), Closed> {
        self.link.attend();
        self.link.wants_more();
        let fed = self.feed(bytes, output);
        self.link.collect(output);
        let sent = self.send(output);
        output.clear();
        output.shrink_to(OUTPUT_KEPT);
        fed.and(sent)
    }

    /// Handles what has arrived, together with the beginning kept from before.
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Closed> {
        if self.partial.is_empty() {
            let used = self.handle(bytes, out)?;
            if let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
                self.keep_partial(BytesMut::from(rest));
            }
        } else {
            let mut all = std::mem::take(&mut self.partial);
            self.peers.release_partial(all.len());
            all.extend_from_slice(bytes);
            let used = self.handle(&all, out)?;
            all.advance(used);
            // A copy of what is left gives the room of a large message back.
            self.keep_partial(if used > all.len() { BytesMut::from(&all[..]) } else { all });
        }
        if self.peers.partial_overfull() { Err(Closed::PartialLimit) } else { Ok(()) }
    }

    fn keep_partial(&mut self, partial: BytesMut) {
        self.peers.release_partial(self.partial.len());
        self.peers.hold_partial(partial.len());
        self.partial = partial;
    }

    /// Hands every whole message in `bytes` to its receiver; returns how many bytes that were.
    fn handle(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Closed> {
        let mut incoming = Incoming {
            bytes,
            used: 0,
            scanner: &mut self.scanner,
            link: self.link,
            peers: self.peers,
            service: self.service,
            own_init: Vec::new(),
            broken: None,
            waiting: None,
            paused: false,
        };
        incoming.waiting = incoming.next_request();
        // Before any answer: an original that has dialled drops the connection at anything else.
        out.append(&mut incoming.own_init);
        if incoming.waiting.is_some() {
            self.service.handle(self.link, &mut incoming, out);
        }
        match incoming.broken {
            Some(closed) => Err(closed),
            None => {
                self.paused = incoming.paused;
                let used = incoming.used;
                if used > 0 {
                    self.link.owing_since.store(0, Ordering::Relaxed);
                }
                Ok(used)
            }
        }
    }

    /// Sends what is in the outbox and what is left from before, as far as the socket takes it.
    fn flush(&mut self) -> Result<(), Closed> {
        SCRATCH.with_borrow_mut(|scratch| {
            let output = &mut scratch.output;
            self.link.collect(output);
            let sent = self.send_unsent().and_then(|()| self.send(output));
            output.clear();
            output.shrink_to(OUTPUT_KEPT);
            sent
        })
    }

    /// Sends what is left from before, as far as the socket takes it.
    fn send_unsent(&mut self) -> Result<(), Closed> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        while !self.unsent.is_empty() {
            match self.write.try_write(&self.unsent) {
                Ok(len) => {
                    self.unsent.advance(len);
                    self.link.owing_since.store(0, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.unsent = BytesMut::new();
        Ok(())
    }

    /// Sends `bytes`, or keeps them if something is waiting already or the socket is full.
    fn send(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        let mut rest = bytes;
        while self.unsent.is_empty() && !rest.is_empty() {
            match self.write.try_write(rest) {
                Ok(len) => rest = rest.get(len..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.unsent.extend_from_slice(rest);
        let backlog = self.unsent.len();
        if backlog > self.peers.limits().backlog {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, format!("{backlog} bytes left unread")).into());
        }
        Ok(())
    }
}

/// The requests among the messages of one read; responses and inits are dealt with as they pass.
struct Incoming<'a> {
    bytes: &'a [u8],
    used: usize,
    scanner: &'a mut Scanner,
    link: &'a Arc<Link>,
    peers: &'a Arc<Peers>,
    service: &'a dyn Service,
    /// Our answer to the init of this read. An init is the first message of its connection, so the read-ahead meets it.
    own_init: Vec<u8>,
    broken: Option<Closed>,
    /// The first request, read ahead so that a read without any does not reach the service.
    waiting: Option<Request<'a>>,
    /// The rest must wait.
    paused: bool,
}

impl<'a> Incoming<'a> {
    fn next_request(&mut self) -> Option<Request<'a>> {
        while self.broken.is_none() {
            match self.next_message() {
                Ok(None) => return None,
                Err(error) => self.broken = Some(error.into()),
                Ok(Some(Message::Request(request))) => {
                    if self.link.kind() == LinkKind::Undecided && !self.peers.admit_client(self.link) {
                        self.broken = Some(Closed::Crowded);
                        return None;
                    }
                    return Some(request);
                }
                Ok(Some(Message::Response(response))) => match self.link.session() {
                    Some(session) => session.complete(response),
                    // A client that answers what nobody asked.
                    None if self.link.kind() == LinkKind::Client => {}
                    None => self.broken = Some(wire::Error::Malformed.into()),
                },
                Ok(Some(Message::Init(init))) => {
                    if !self.peers.accept_init(self.link, init, self.service, &mut self.own_init) {
                        self.broken = Some(wire::Error::Malformed.into());
                    }
                }
            }
        }
        None
    }

    fn next_message(&mut self) -> Result<Option<Message<'a>>, wire::Error> {
        let rest = self.bytes.get(self.used..).unwrap_or_default();
        let Some(len) = self.scanner.advance(rest)? else { return Ok(None) };
        self.used += len;
        Message::parse(rest.get(..len).unwrap_or_default()).map(Some)
    }
}

impl<'a> Iterator for Incoming<'a> {
    type Item = Request<'a>;

    fn next(&mut self) -> Option<Request<'a>> {
        if self.waiting.is_some() {
            return self.waiting.take();
        }
        assert!(self.own_init.is_empty(), "an init behind a request was taken");
        self.paused = self.link.has_enough();
        if self.paused { None } else { self.next_request() }
    }
}
