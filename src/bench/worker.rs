//! One thread's loop: its connections, each of which sends a batch, waits for all answers, and sends the next.
//!
//! Nothing is allocated for a request: buffers, batches and histograms are there from the beginning.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventFlags};

use super::batch::Batch;
use super::choice::{Keys, Operation};
use super::config::{Config, Mix};
use super::connection::{Broken, Connection};
use super::exchange::{Exchange, Follow};
use super::intervals::{Cuts, Part};
use super::ledger::Known;
use super::memcached::Reply;
use super::routes::{Router, Routes};
use super::tally::Failure;
use crate::wire::method::Role;
use crate::wire::{Init, NodeAddress};

/// Bytes read at once.
const INPUT_LEN: usize = 256 << 10;
/// Events taken at once.
const EVENTS: usize = 256;
/// How often time-outs, lost connections and idle ones are looked after.
const TICK: Duration = Duration::from_millis(50);
/// Random choices for one request before its connection rests until the next tick: its server may own next to nothing.
const DRAWS: usize = 10_000;

/// The result of a Get that found nothing.
const NIL: &[u8] = &[0xc0];

/// The requests of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// A Set of every key that has not been written.
    Fill,
    /// Requests that the mix and the distribution choose.
    Mix,
}

/// A part of a run: what to send, and for how long.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    /// The requests.
    pub(super) task: Task,
    /// End then.
    pub(super) until: Option<Instant>,
    /// End after so many requests of this thread.
    pub(super) requests: u64,
    /// End now.
    pub(super) stop: &'a AtomicBool,
}

/// The result of a stage.
#[derive(Debug)]
pub(super) struct Done {
    /// The counts that were not handed over.
    pub(super) part: Part,
    /// When the last answer came.
    pub(super) last: Instant,
    /// No answer came for too long.
    pub(super) gave_up: bool,
}

/// A thread's connections and everything they share.
#[derive(Debug)]
pub(super) struct Worker {
    epoll: OwnedFd,
    links: Vec<Link>,
    input: Box<[u8]>,
    group: Group,
}

/// The state that all connections of a thread share.
#[derive(Debug)]
struct Group {
    exchange: Exchange,
    rng: Rng,
    mix: Mix,
    /// The first bytes of a connection; empty unless it sends copies.
    greeting: Vec<u8>,
    keys: Keys,
    pipeline: usize,
    timeout: Duration,
    connections: usize,
    router: Arc<Router>,
    routes: Arc<Routes>,
    generation: u64,
    output: Vec<u8>,
    task: Task,
    /// Requests still to be sent in this stage.
    left: u64,
    /// No more are sent.
    ending: bool,
    unanswered: usize,
    last: Instant,
    answered: Arc<AtomicU64>,
}

/// One connection's place: it is dialled again when lost, and elsewhere when the routes change.
#[derive(Debug)]
struct Link {
    /// Among the connections of all threads.
    number: usize,
    server: SocketAddr,
    /// Where the connection leads, if there is one.
    dialled: SocketAddr,
    connection: Option<Connection>,
    /// When it was dialled or lost.
    since: Instant,
    batch: Batch,
    follow: VecDeque<Follow>,
    /// The value of the Get whose end has not come is there already.
    valued: bool,
    /// Part of the batch was refused: the next one waits for the tick, so as not to hammer a server that is not ready.
    refused: bool,
    /// The next key to fill, and how far the one after it lies.
    cursor: u64,
    step: u64,
}

/// The state that the threads of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Where requests go.
    pub(super) router: Arc<Router>,
    /// Answers of all threads so far.
    pub(super) answered: Arc<AtomicU64>,
}

impl Worker {
    /// Dials the connections of thread `thread`. The error names the server.
    pub(super) fn connect(
        config: &Config,
        thread: usize,
        shared: &Shared,
        exchange: Exchange,
    ) -> Result<Self, (SocketAddr, io::Error)> {
        let generation = shared.router.generation();
        let routes = shared.router.routes();
        let now = Instant::now();
        let nowhere = SocketAddr::from(([0; 4], 0));
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| (nowhere, error.into()))?;
        let numbers = (0..config.connections).filter(|number| number % config.threads.max(1) == thread);
        let mut links = Vec::new();
        let mut greeting = Vec::new();
        if let Some(node) = config.replicate_as {
            Init { address: NodeAddress::new(node), role: Role::Server }.write(&mut greeting);
        }
        for (token, number) in (0..).zip(numbers) {
            let server = routes.server(number).unwrap_or(nowhere);
            let connection = Connection::dial_and_wait(server, config.timeout, &greeting, &epoll, token);
            let connection = Some(connection.map_err(|error| (server, error))?);
            let batch = Batch::new(config.pipeline, now);
            let follow = VecDeque::new();
            links.push(Link {
                number,
                server,
                dialled: server,
                connection,
                since: now,
                batch,
                follow,
                valued: false,
                refused: false,
                cursor: 0,
                step: 1,
            });
        }
        let group = Group {
            exchange,
            rng: Rng::with_seed(config.seed.wrapping_add(thread as u64)),
            mix: config.mix,
            greeting,
            keys: Keys::new(config.distribution, config.keys),
            pipeline: config.pipeline,
            timeout: config.timeout,
            connections: config.connections,
            router: shared.router.clone(),
            routes,
            generation,
            output: Vec::new(),
            task: Task::Mix,
            left: 0,
            ending: false,
            unanswered: 0,
            last: now,
            answered: shared.answered.clone(),
        };
        Ok(Self { epoll, links, input: vec![0; INPUT_LEN].into_boxed_slice(), group })
    }

    /// Runs a stage to its end; all answers are in when it returns, or have been given up.
    ///
    /// `cuts` takes what was seen before the part that the stage ends in.
    pub(super) fn run(&mut self, stage: &Stage<'_>, mut cuts: Cuts) -> io::Result<Done> {
        let mut ticked = Instant::now();
        self.begin(stage, ticked);
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        let pause = Timespec::try_from(TICK).map_err(io::Error::other)?;
        let mut gave_up = false;
        loop {
            let now = Instant::now();
            if stage.until.is_some_and(|until| until <= now) || stage.stop.load(Ordering::Relaxed) {
                self.group.ending = true;
            }
            if self.group.unanswered == 0 && (self.group.ending || self.is_finished()) {
                break;
            }
            if cuts.is_due(now) && !self.group.ending {
                cuts.hand_over(self.group.exchange.take_tally()?, now);
            }
            if self.group.router.generation() != self.group.generation {
                self.reroute(now);
            }
            if now.duration_since(ticked) >= TICK {
                ticked = now;
                if now.duration_since(self.group.last) > self.group.timeout * 2 {
                    gave_up = true;
                    self.abandon();
                    break;
                }
                self.tick(now);
            }
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&pause)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let (token, flags) = (event.data.u64(), event.flags);
                if let Some(link) = usize::try_from(token).ok().and_then(|token| self.links.get_mut(token)) {
                    link.attend(&self.epoll, token, flags, &mut self.input, &mut self.group);
                }
            }
        }
        let part = Part { index: cuts.index(), tally: self.group.exchange.take_tally()? };
        Ok(Done { part, last: self.group.last, gave_up })
    }

    fn begin(&mut self, stage: &Stage<'_>, now: Instant) {
        let group = &mut self.group;
        group.task = stage.task;
        group.left = stage.requests;
        group.ending = false;
        group.last = now;
        for (token, link) in (0..).zip(&mut self.links) {
            (link.cursor, link.step) = group.routes.place(link.number, group.connections);
            link.issue(&self.epoll, token, group);
        }
    }

    fn is_finished(&self) -> bool {
        match self.group.task {
            Task::Mix => self.group.left == 0,
            Task::Fill => self.links.iter().all(|link| link.cursor >= self.group.exchange.ledger().keys()),
        }
    }

    /// Gives up every connection that still waits.
    fn abandon(&mut self) {
        for link in self.links.iter_mut().filter(|link| link.batch.unanswered() > 0) {
            link.lose(Failure::TimedOut, &mut self.group);
        }
    }

    /// Looks after connections that nothing happens on.
    fn tick(&mut self, now: Instant) {
        for (token, link) in (0..).zip(&mut self.links) {
            let late = |since| now.duration_since(since) > self.group.timeout;
            match &link.connection {
                Some(open) if open.is_open() => {
                    if link.batch.unanswered() == 0 {
                        link.issue(&self.epoll, token, &mut self.group);
                    } else if late(link.batch.sent) {
                        link.lose(Failure::TimedOut, &mut self.group);
                    }
                }
                Some(_) if late(link.since) => link.lose(Failure::TimedOut, &mut self.group),
                None if !self.group.ending => link.dial(&self.epoll, token, &self.group),
                _ => {}
            }
        }
    }

    /// Moves connections to the servers that the new routes give them, once their answers are in.
    fn reroute(&mut self, now: Instant) {
        self.group.generation = self.group.router.generation();
        self.group.routes = self.group.router.routes();
        for (token, link) in (0..).zip(&mut self.links) {
            let Some(server) = self.group.routes.server(link.number) else { continue };
            link.server = server;
            link.follow.clear();
            if link.server != link.dialled && link.batch.unanswered() == 0 {
                link.since = now;
                link.dial(&self.epoll, token, &self.group);
            }
        }
    }
}

impl Group {
    /// Whether a node's copies are sent, and not an application's requests.
    #[inline]
    fn copies(&self) -> bool {
        !self.greeting.is_empty()
    }
}

impl Link {
    /// Something has happened on the connection.
    #[inline]
    fn attend(&mut self, epoll: &OwnedFd, token: u64, flags: EventFlags, input: &mut [u8], group: &mut Group) {
        if let Err(broken) = self.transfer(epoll, token, flags, input, group) {
            let failure = if matches!(broken, Broken::Wire(_)) { Failure::Unexpected } else { Failure::Lost };
            self.lose(failure, group);
        }
    }

    #[inline]
    fn transfer(
        &mut self,
        epoll: &OwnedFd,
        token: u64,
        flags: EventFlags,
        input: &mut [u8],
        group: &mut Group,
    ) -> Result<(), Broken> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let mut opened = false;
        if flags.contains(EventFlags::OUT) {
            opened = connection.ready_to_write(epoll)?;
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR)
            && let Some(len) = connection.read(input)?
        {
            self.take_answers(input.get(..len).unwrap_or_default(), group)?;
        } else if !opened {
            return Ok(());
        }
        if self.batch.unanswered() == 0 {
            if self.server != self.dialled {
                self.dial(epoll, token, group);
            } else if !self.refused {
                self.issue(epoll, token, group);
            }
        }
        Ok(())
    }

    #[inline]
    fn take_answers(&mut self, bytes: &[u8], group: &mut Group) -> Result<(), Broken> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let now = Instant::now();
        let latency = now.duration_since(self.batch.sent);
        let before = self.batch.unanswered();
        let mut stray = false;
        let (batch, follow) = (&mut self.batch, &mut self.follow);
        let fed = match group.exchange.multiget() {
            None => connection.feed(bytes, |response| match batch.take(response.msgid) {
                Some(asked) => follow.extend(group.exchange.answer(asked, response.result, latency)),
                None => stray = true,
            }),
            Some(multiget) => connection.feed_text(bytes, |reply| {
                let mut answer = |batch: &mut Batch, result| match batch.take(batch.next_unanswered()) {
                    Some(asked) => follow.extend(group.exchange.answer(asked, result, latency)),
                    None => stray = true,
                };
                // Keys that are passed over have no value.
                let passed =
                    |batch: &Batch, key| batch.peek(batch.next_unanswered()).is_some_and(|next| next.reads(key));
                match reply {
                    Reply::Value(key, value) => {
                        while multiget && passed(batch, None) && !passed(batch, Some(key)) {
                            answer(batch, Ok(NIL));
                        }
                        answer(batch, Ok(value));
                        self.valued = true;
                    }
                    Reply::End if multiget => {
                        while passed(batch, None) {
                            answer(batch, Ok(NIL));
                        }
                    }
                    Reply::End if std::mem::take(&mut self.valued) => {}
                    Reply::End => answer(batch, Ok(NIL)),
                    Reply::Result(Err(error)) if multiget && passed(batch, None) => {
                        while passed(batch, None) {
                            answer(batch, Err(error));
                        }
                    }
                    Reply::Result(result) => answer(batch, result),
                }
            }),
        };
        let answered = before - self.batch.unanswered();
        self.refused |= std::mem::take(&mut group.exchange.refused);
        if answered > 0 {
            group.unanswered -= answered;
            group.last = now;
            group.answered.fetch_add(answered as u64, Ordering::Relaxed);
        }
        // An answer nobody waits for: message ids can be trusted no more.
        if stray { Err(crate::wire::Error::Malformed.into()) } else { fed }
    }

    /// Sends the next batch, if there is anything to send.
    #[inline]
    fn issue(&mut self, epoll: &OwnedFd, token: u64, group: &mut Group) {
        if group.ending || !self.connection.as_ref().is_some_and(Connection::is_open) {
            return;
        }
        self.refused = false;
        self.batch.clear();
        group.output.clear();
        while self.batch.len() < group.pipeline && group.left > 0 {
            let msgid = self.batch.next_id();
            let asked = if let Some(follow) = self.follow.pop_front() {
                group.exchange.follow(&mut group.output, msgid, follow)
            } else if let Some((operation, index, known)) = self.choose(group) {
                group.exchange.ask(&mut group.output, msgid, operation, index, known)
            } else {
                break;
            };
            self.batch.push(asked);
            group.left -= 1;
        }
        group.exchange.end(&mut group.output);
        group.unanswered += self.batch.unanswered();
        self.batch.sent = Instant::now();
        let sent = match &mut self.connection {
            Some(connection) if self.batch.unanswered() > 0 => connection.send(&group.output, epoll),
            _ => Ok(()),
        };
        if sent.is_err() {
            self.lose(Failure::Lost, group);
            self.dial(epoll, token, group);
        }
    }

    /// The next request for this connection's server.
    #[inline]
    fn choose(&mut self, group: &mut Group) -> Option<(Operation, u64, Known)> {
        let copies = group.copies();
        let ledger = group.exchange.ledger();
        match group.task {
            Task::Mix => (0..DRAWS).find_map(|_| {
                let operation = if copies { Operation::Replicate } else { group.mix.choose(&mut group.rng) };
                let index = group.keys.choose(&mut group.rng);
                let known = ledger.begin(index);
                group.routes.lead_to(self.dialled, operation, known.hash).then_some((operation, index, known))
            }),
            Task::Fill => loop {
                let index = self.cursor;
                if index >= ledger.keys() {
                    return None;
                }
                self.cursor += self.step;
                let known = ledger.begin(index);
                let operation = if copies { Operation::Replicate } else { Operation::Set };
                if !ledger.is_written(index) && group.routes.lead_to(self.dialled, operation, known.hash) {
                    return Some((operation, index, known));
                }
            },
        }
    }

    /// Gives the connection and its unanswered requests up.
    #[cold]
    fn lose(&mut self, failure: Failure, group: &mut Group) {
        group.exchange.tally.failed(failure, self.batch.unanswered() as u64);
        group.unanswered -= self.batch.unanswered();
        self.batch.clear();
        self.follow.clear();
        self.valued = false;
        self.connection = None;
        self.since = Instant::now();
    }

    /// Dials; a failure leaves it to the next tick.
    #[cold]
    fn dial(&mut self, epoll: &OwnedFd, token: u64, group: &Group) {
        self.since = Instant::now();
        self.dialled = self.server;
        self.connection = Connection::dial(self.server, &group.greeting, epoll, token).ok();
    }
}
