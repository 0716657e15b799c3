//! One connection as the rest of the program sees it: where to put answers, how much is under way, whom it joins.
//!
//! The stream itself belongs to the task that drives it; a link outlives it harmlessly.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use parking_lot::Mutex;

use super::budget::Budget;
use super::control::Control;
use super::limits::Limits;
use super::registry::Connected;
use super::session::{Carrier, Session};
use crate::wire::frame;
use crate::wire::method::ErrorCode;

/// Whom a connection joins; decided by its first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// Nothing has arrived yet.
    Undecided,
    /// An application, a gateway or a tool.
    Client,
    /// A node of the cluster.
    Cluster,
}

const UNDECIDED: u8 = 0;
const CLIENT: u8 = 1;
const CLUSTER: u8 = 2;

/// Bytes that wait to be sent on a connection.
#[derive(Debug, Default)]
struct Outbox {
    bytes: Vec<u8>,
    closed: bool,
}

/// Capacity that an empty outbox keeps; more is given back, since most connections are idle.
const OUTBOX_KEPT: usize = 4096;

/// One connection.
#[derive(Debug)]
pub struct Link {
    id: u64,
    peer: SocketAddr,
    kind: AtomicU8,
    /// Set when `kind` becomes cluster, and for connections that this side has dialled.
    session: OnceLock<Arc<Session>>,
    outbox: Mutex<Outbox>,
    in_flight: AtomicUsize,
    in_flight_limit: usize,
    in_flight_bytes: AtomicUsize,
    in_flight_bytes_limit: usize,
    /// Memory held by the requests in progress on all connections.
    in_flight_total: Arc<Budget>,
    outbox_limit: usize,
    control: Control,
    /// The answers to what one read has brought take much memory already.
    enough: AtomicBool,
    /// See [`Link::reads_extensions`].
    extensions: AtomicBool,
    standing: AtomicU8,
}

/// The link carries no calls to the node: it is not proven that the node is at the other end.
const UNPROVEN: u8 = 0;
/// The link is one of the node's.
const PROVEN: u8 = 1;
/// Another machine is at the other end.
const REFUSED: u8 = 2;

impl Link {
    pub(super) fn new(id: u64, peer: SocketAddr, limits: &Limits, in_flight_total: &Arc<Budget>) -> Self {
        Self {
            id,
            peer,
            kind: AtomicU8::new(UNDECIDED),
            session: OnceLock::new(),
            outbox: Mutex::new(Outbox::default()),
            in_flight: AtomicUsize::new(0),
            in_flight_limit: limits.in_flight,
            in_flight_bytes: AtomicUsize::new(0),
            in_flight_bytes_limit: limits.in_flight_bytes,
            in_flight_total: in_flight_total.clone(),
            outbox_limit: limits.backlog,
            control: Control::default(),
            enough: AtomicBool::new(false),
            extensions: AtomicBool::new(false),
            standing: AtomicU8::new(UNPROVEN),
        }
    }

    /// Unique among the connections of this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The other end of the socket.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whom it joins.
    #[inline]
    pub fn kind(&self) -> LinkKind {
        match self.kind.load(Ordering::Acquire) {
            UNDECIDED => LinkKind::Undecided,
            CLUSTER => LinkKind::Cluster,
            _ => LinkKind::Client,
        }
    }

    /// The node at the other end, of a cluster connection or of one that this side has dialled.
    #[inline]
    pub(crate) fn session(&self) -> Option<&Arc<Session>> {
        self.session.get()
    }

    pub(super) fn become_client(&self) {
        self.kind.store(CLIENT, Ordering::Release);
    }

    /// Binds the link to a node, by a cluster connection or as a client of the node.
    pub(super) fn bind(&self, session: Arc<Session>, cluster: bool) {
        if self.session.set(session).is_ok() {
            self.kind.store(if cluster { CLUSTER } else { CLIENT }, Ordering::Release);
        }
    }

    /// Appends to what will be sent; `false` if the connection is closed or its peer has left too much unread.
    pub fn push(&self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut outbox = self.outbox.lock();
        if outbox.closed {
            return false;
        }
        write(&mut outbox.bytes);
        let overfull = outbox.bytes.len() > self.outbox_limit;
        drop(outbox);
        if overfull {
            tracing::warn!(peer = %self.peer, "closing: {} bytes of messages left unread", self.outbox_limit);
            self.close();
            return false;
        }
        self.control.wake();
        true
    }

    /// Moves what waits to the end of `out`.
    pub(super) fn collect(&self, out: &mut Vec<u8>) {
        let mut outbox = self.outbox.lock();
        if out.is_empty() && outbox.bytes.len() > OUTBOX_KEPT {
            std::mem::swap(out, &mut outbox.bytes);
        } else {
            out.extend_from_slice(&outbox.bytes);
            outbox.bytes.clear();
        }
        if outbox.bytes.capacity() > OUTBOX_KEPT {
            outbox.bytes = Vec::new();
        }
    }

    /// Bytes that wait in the outbox.
    pub(crate) fn backlog(&self) -> usize {
        self.outbox.lock().bytes.len()
    }

    /// Asks the connection's task to end, without waiting for anything under way.
    pub fn close(&self) {
        self.control.close();
    }

    /// Marks the outbox closed: nothing pushed from now on is kept.
    pub(super) fn shut(&self) {
        let mut outbox = self.outbox.lock();
        outbox.closed = true;
        outbox.bytes = Vec::new();
    }

    /// Requests from this connection that have not been answered yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Says that the answers given at once take so much memory that the next request should wait until they are sent.
    ///
    /// For clients only: a node's messages are always taken.
    pub fn enough(&self) {
        self.enough.store(true, Ordering::Relaxed);
    }

    /// Whether the next request must wait.
    #[inline]
    pub(super) fn has_enough(&self) -> bool {
        self.session.get().is_none() && (self.enough.load(Ordering::Relaxed) || !self.may_read(Budget::is_full))
    }

    pub(super) fn wants_more(&self) {
        self.enough.store(false, Ordering::Relaxed);
    }

    /// Whether another request may be taken from a client.
    ///
    /// Where all connections together hold too much, one that holds nothing still gets its turn: else requests that
    /// wait for a node that hangs would keep everybody out.
    #[inline]
    fn may_read(&self, is_full: impl FnOnce(&Budget) -> bool) -> bool {
        if self.in_flight() >= self.in_flight_limit {
            return false;
        }
        let bytes = self.in_flight_bytes.load(Ordering::SeqCst);
        bytes < self.in_flight_bytes_limit && (bytes == 0 || !is_full(&self.in_flight_total))
    }

    /// As [`Self::may_read`]; if only the others' requests are in the way, `waker` is woken when they are so no more.
    pub(super) fn may_read_for(&self, waker: &Waker) -> bool {
        self.may_read(|total| total.is_full_for(waker))
    }

    /// Asks for `TCP_NODELAY` to be switched.
    pub fn set_nodelay(&self, on: bool) {
        self.control.set_nodelay(on);
    }

    /// Whether the peer has sent an additional element ([`crate::wire::Extension`]), and may be sent some.
    pub(crate) fn reads_extensions(&self) -> bool {
        self.extensions.load(Ordering::Relaxed)
    }

    /// The node that it is bound to is at the other end: it may carry calls from now on. Says whether that is news.
    pub(crate) fn admit(self: &Arc<Self>) -> bool {
        let Some(session) = self.session() else { return false };
        let news = self.standing.swap(PROVEN, Ordering::AcqRel) != PROVEN;
        if news {
            session.attach(self.clone());
        }
        news
    }

    /// Another machine is at the other end, which announces the node's address.
    pub(super) fn set_refused(&self) {
        self.standing.store(REFUSED, Ordering::Release);
    }

    /// Whether the other end is another machine than the node whose address it announces: nothing is taken from it.
    pub(crate) fn is_refused(&self) -> bool {
        self.standing.load(Ordering::Acquire) == REFUSED
    }

    /// The peer has sent an additional element.
    pub(crate) fn note_extension(&self) {
        self.extensions.store(true, Ordering::Relaxed);
    }
}

impl Carrier for Link {
    fn id(&self) -> u64 {
        self.id()
    }

    fn push(&self, write: &mut dyn FnMut(&mut Vec<u8>)) -> bool {
        self.push(write)
    }

    fn close(&self) {
        self.close();
    }
}

impl Connected for Link {
    fn control(&self) -> &Control {
        &self.control
    }
}

/// Requests of a connection that are under way: while it is held they count, and the connection is not drained.
#[derive(Debug)]
pub struct InFlight {
    link: Arc<Link>,
    count: usize,
    bytes: usize,
}

impl InFlight {
    /// Counts `count` requests of `link` until this is dropped.
    pub fn new(link: &Arc<Link>, count: usize) -> Self {
        link.in_flight.fetch_add(count, Ordering::AcqRel);
        Self { link: link.clone(), count, bytes: 0 }
    }

    /// Counts `bytes` that are kept for them, too.
    pub(crate) fn weigh(&mut self, bytes: usize) {
        self.link.in_flight_bytes.fetch_add(bytes, Ordering::AcqRel);
        self.link.in_flight_total.hold(bytes);
        self.bytes += bytes;
    }

    /// The connection that the requests came on.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let before = self.link.in_flight.fetch_sub(self.count, Ordering::AcqRel);
        assert!(before >= self.count, "more requests are answered than were counted");
        self.link.in_flight_total.release(self.bytes);
        let bytes_before = self.link.in_flight_bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        let falls_below = |before: usize, by: usize, limit: usize| before >= limit && before - by < limit;
        if falls_below(before, self.count, self.link.in_flight_limit)
            || falls_below(bytes_before, self.bytes, self.link.in_flight_bytes_limit)
            || self.link.control.is_draining()
            // It has none under way: served, though the memory is full for others.
            || (self.bytes > 0 && bytes_before == self.bytes && self.link.in_flight_total.is_full())
        {
            self.link.control.wake();
        }
    }
}

/// The duty to answer one request, exactly once: dropped unanswered, it answers error 6.
#[derive(Debug)]
pub struct Reply {
    /// Dropped after the answer is in the outbox.
    in_flight: InFlight,
    msgid: u32,
    answered: bool,
}

impl Reply {
    /// Takes on the duty; until it is done the request counts as in flight on its connection.
    pub fn new(link: &Arc<Link>, msgid: u32) -> Self {
        Self { in_flight: InFlight::new(link, 1), msgid, answered: false }
    }

    /// Counts `bytes` that are kept until the answer.
    #[must_use]
    pub(crate) fn weighing(mut self, bytes: usize) -> Self {
        self.in_flight.weigh(bytes);
        self
    }

    /// The connection that the request came on.
    pub fn link(&self) -> &Arc<Link> {
        &self.in_flight.link
    }

    /// Answers with a result, which `write` appends.
    pub fn ok(mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.answer(|out, msgid| {
            frame::response_head(out, msgid);
            write(out);
        });
    }

    /// Answers with an error.
    pub fn error(mut self, error: ErrorCode) {
        self.answer(|out, msgid| frame::error_response(out, msgid, error));
    }

    fn answer(&mut self, write: impl FnOnce(&mut Vec<u8>, u32)) {
        self.answered = true;
        let msgid = self.msgid;
        self.link().push(|out| write(out, msgid));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            self.answer(|out, msgid| frame::error_response(out, msgid, ErrorCode::Server));
        }
    }
}
