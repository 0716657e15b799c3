//! The protocol of the cluster on one connection: messages to their receivers, answers back.
//!
//! Requests go to the role's service, responses to whoever waits for them, inits to the sessions.

use std::sync::Arc;
use std::task::Waker;

use super::budget::Budget;
use super::driver::{self, Bounds, Closed, Protocol, Taken};
use super::limits::Limits;
use super::link::{Link, LinkKind};
use super::output::Output;
use super::registry::Connected;
use super::service::Service;
use crate::env::Stream;
use crate::wire::{self, Init, Message, NODE_MARGIN, Request, Scanner};

/// All connections of the process, as each of them sees them.
pub(super) trait Connections: Send + Sync {
    /// The bounds.
    fn limits(&self) -> &Limits;

    /// Memory held by the incomplete messages of all connections.
    fn partial(&self) -> &Budget;

    /// The clock by which peers owe progress.
    fn uptime_seconds(&self) -> u32;

    /// The first message of an accepted connection is a client's: whether there is a place for it.
    fn admit_client(&self, link: &Link) -> bool;

    /// An init has arrived on `link`: binds it to the node's session. If this side accepted, ours is appended to `out`,
    /// which must be sent before everything that is pushed to the link from now on. `false`: it has no place here.
    fn accept_init(self: &Arc<Self>, link: &Arc<Link>, init: Init, service: &dyn Service, out: &mut Vec<u8>) -> bool;
}

/// Serves `stream` until it closes; `link` is how others reach it.
pub(super) async fn serve<C: Connections>(
    mut stream: Stream,
    link: &Arc<Link>,
    peers: &Arc<C>,
    service: &dyn Service,
) -> Closed {
    let limits = peers.limits();
    let mut connection = Connection { link, peers, service, scanner: Scanner::new(message_limit(link, &**peers)) };
    let bounds = Bounds { input: peers.partial(), backlog: limits.backlog };
    driver::drive(&mut stream, &mut connection, link.control(), bounds, || peers.uptime_seconds()).await
}

/// The largest message that the peer may send, in bytes.
fn message_limit(link: &Link, peers: &impl Connections) -> usize {
    let margin = if link.kind() == LinkKind::Cluster { NODE_MARGIN } else { 0 };
    peers.limits().message.saturating_add(margin)
}

struct Connection<'a, C> {
    link: &'a Arc<Link>,
    peers: &'a Arc<C>,
    service: &'a dyn Service,
    scanner: Scanner,
}

impl<C: Connections> Protocol for Connection<'_, C> {
    fn receive(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Taken, Closed> {
        self.link.wants_more();
        let mut incoming = Incoming {
            bytes: input,
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
            None => Ok(Taken { used: incoming.used, paused: incoming.paused, ..Taken::default() }),
        }
    }

    fn collect(&mut self, direct: &mut Vec<u8>, _: &mut Output) {
        self.link.collect(direct);
    }

    /// From nodes always: their responses are what others wait for.
    fn may_read(&mut self, unsent: usize, waker: &Waker) -> bool {
        self.link.session().is_some() || (unsent < self.peers.limits().unread_answers && self.link.may_read_for(waker))
    }

    fn is_idle(&self) -> bool {
        self.link.in_flight() == 0 && self.link.backlog() == 0
    }

    fn awaits_message(&self) -> bool {
        self.link.kind() == LinkKind::Undecided
    }
}

/// The requests among the messages of one read; responses and inits are dealt with as they pass.
struct Incoming<'a, C> {
    bytes: &'a [u8],
    used: usize,
    scanner: &'a mut Scanner,
    link: &'a Arc<Link>,
    peers: &'a Arc<C>,
    service: &'a dyn Service,
    /// Our answer to the init of this read. An init is the first message of its connection, so the read-ahead meets it.
    own_init: Vec<u8>,
    broken: Option<Closed>,
    /// The first request, read ahead so that a read without any does not reach the service.
    waiting: Option<Request<'a>>,
    /// The rest must wait.
    paused: bool,
}

impl<'a, C: Connections> Incoming<'a, C> {
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
                    self.scanner.set_limit(message_limit(self.link, &**self.peers));
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

impl<'a, C: Connections> Iterator for Incoming<'a, C> {
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
