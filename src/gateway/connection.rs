//! The task that owns one client's socket: bytes in, requests to their servers, answers out in order.
//!
//! All requests that one read has brought are sent before anything is waited for; all answers that are ready are
//! written together. Reading uses a buffer of the thread: an idle connection holds none.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clients::Clients;
use super::dispatch::dispatch;
use super::flush::{self, Moment};
use super::job::{Job, Reply};
use super::operation::Operation;
use super::outcome::{Failure, Outcome};
use super::pipeline::{Pipeline, REQUEST_WEIGHT, Standing};
use super::protocol::{Codec, Form, Next, Request, Section, Task};
use super::report;
use super::shared::Shared;
use super::stats::{Kind, Stats};
use crate::client::RawKey;
use crate::net::output::Output;

/// Bytes taken from a socket at a time.
const READ_SIZE: usize = 64 << 10;

thread_local! {
    static INPUT: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_SIZE]);
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    #[error("closed by peer")]
    ByPeer,
    #[error("closed by this side")]
    BySelf,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("all connections together hold more than the limit")]
    MemoryLimit,
}

/// Serves a client on a task of its own; beyond the limit of connections the stream is given back.
pub(super) fn accept<S>(shared: &Arc<Shared>, clients: &Arc<Clients>, stream: S, peer: String) -> Result<(), S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let pipeline = Arc::new(Pipeline::new(shared.budget.clone(), shared.env.time(), dispatch));
    let Some(id) = clients.add(&pipeline, shared.config.limits.connections) else { return Err(stream) };
    Stats::add(&shared.stats.connections);
    let (shared, leaving) = (shared.clone(), Leaving { clients: clients.clone(), pipeline, id });
    shared.env.clone().spawn(async move {
        match serve(stream, &shared, &leaving.clients, &leaving.pipeline).await {
            closed @ Closed::MemoryLimit => tracing::warn!(peer, "closed: {closed}"),
            closed => tracing::debug!(peer, "closed: {closed}"),
        }
    });
    Ok(())
}

/// Cleans up after a connection, also when a panic ends its task.
struct Leaving {
    clients: Arc<Clients>,
    pipeline: Arc<Pipeline<Job>>,
    id: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("closed: a request of this client caused a panic");
        }
        self.pipeline.leave();
        self.clients.remove(self.id);
    }
}

/// Serves a client until it or this side closes.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    shared: &Arc<Shared>,
    clients: &Clients,
    pipeline: &Arc<Pipeline<Job>>,
) -> Closed {
    let mut connection = Connection {
        stream,
        shared,
        clients,
        pipeline,
        codec: Codec::new(),
        input: BytesMut::new(),
        needed: 0,
        skip: 0,
        out: Output::default(),
        paused: false,
        room: (0, 0),
        flushing: false,
        ending: false,
    };
    let closed = poll_fn(|cx| connection.poll(cx)).await;
    shared.budget.release(connection.input.len() + connection.out.len());
    closed
}

struct Connection<'a, S> {
    stream: S,
    shared: &'a Arc<Shared>,
    clients: &'a Clients,
    pipeline: &'a Arc<Pipeline<Job>>,
    codec: Codec,
    /// The beginning of a request whose rest has not arrived, or requests whose turn comes later.
    input: BytesMut,
    /// No request can be made of `input` before it has this length.
    needed: usize,
    /// Bytes to drop as they arrive.
    skip: usize,
    /// Output that the socket has not taken.
    out: Output,
    /// `input` may hold whole requests: their turn comes when some of those before are answered.
    paused: bool,
    /// Requests, and bytes that they keep, which may be taken before some are answered.
    room: (usize, usize),
    /// A flush is under way, or a request waits for all those before it.
    flushing: bool,
    /// No more is read: the client has said its last, or what it says is not understood.
    ending: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        loop {
            let standing = self.pipeline.collect(cx.waker(), &mut self.out);
            // Only now: from here on a wake finds this task.
            if self.pipeline.is_closing() {
                return Poll::Ready(Closed::BySelf);
            }
            let blocked = match self.poll_write(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
                Poll::Ready(Ok(())) => false,
                Poll::Pending => true,
            };
            let draining = self.pipeline.is_draining();
            if (self.ending || draining) && !blocked && standing.in_flight == 0 {
                return Poll::Ready(if self.ending { Closed::ByPeer } else { Closed::BySelf });
            }
            let may_read = !self.ending && !draining && self.may_read(standing);
            self.note_owing(blocked, may_read);
            if !may_read {
                return Poll::Pending;
            }
            let fed = if self.paused { self.resume() } else { ready!(self.poll_input(cx)) };
            if let Err(closed) = fed {
                return Poll::Ready(closed);
            }
        }
    }

    /// Sends what is ready, as far as the socket takes it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.next().is_empty() {
            let len = ready!(Pin::new(&mut self.stream).poll_write(cx, self.out.next()))?;
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(len);
            self.shared.budget.release(len);
            Stats::add_many(&self.shared.stats.bytes_written, len);
            self.pipeline.owing_since.store(0, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether to take more requests.
    fn may_read(&mut self, standing: Standing) -> bool {
        self.flushing &= standing.in_flight > 0;
        if self.flushing {
            return false;
        }
        let limits = &self.shared.config.limits;
        let unsent = self.out.len();
        if self.shared.budget.is_tight() && (standing.in_flight > 0 || unsent > 0) {
            return false;
        }
        // No more than what their answers may take; one at least.
        let most = (limits.in_flight_bytes / standing.estimate.max(1)).clamp(1, limits.in_flight);
        let requests = most.saturating_sub(standing.in_flight);
        let bytes = limits.in_flight_bytes.saturating_sub(standing.held);
        self.room = (requests, bytes);
        requests > 0 && bytes > 0 && unsent < limits.unread_answers
    }

    /// Tells the reaper whether the client owes us something: the rest of a request, or taking answers.
    fn note_owing(&self, blocked: bool, may_read: bool) {
        let incomplete = !self.input.is_empty() || self.skip > 0;
        let owing = blocked || (may_read && !self.paused && incomplete);
        let since = &self.pipeline.owing_since;
        if !owing {
            since.store(0, Ordering::Relaxed);
        } else if since.load(Ordering::Relaxed) == 0 {
            since.store(self.shared.uptime_seconds(), Ordering::Relaxed);
        }
    }

    /// Reads once, if there is something, and handles all of it.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        INPUT.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                // Half a request will never be whole; what came before it is answered.
                self.ending = true;
                return Poll::Ready(Ok(()));
            }
            Stats::add_many(&self.shared.stats.bytes_read, buffer.filled().len());
            Poll::Ready(self.feed(buffer.filled()))
        })
    }

    /// Goes on with what was left when enough was under way.
    fn resume(&mut self) -> Result<(), Closed> {
        self.feed(&[])
    }

    /// Handles what has arrived, together with what was kept from before.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        let bytes = self.after_skip(bytes);
        let before = self.input.len();
        if self.input.is_empty() {
            let used = self.handle(bytes);
            let bytes = self.after_used(bytes, used);
            self.input.extend_from_slice(bytes);
        } else {
            let mut all = std::mem::take(&mut self.input);
            all.extend_from_slice(bytes);
            let used = self.handle(&all);
            let kept = self.after_used(&all, used).len();
            all.advance(all.len() - kept);
            // A copy of what is left gives the room of a large request back.
            self.input = if used > kept { BytesMut::from(&all[..]) } else { all };
        }
        let budget = &self.shared.budget;
        budget.hold(self.input.len());
        budget.release(before);
        if !self.input.is_empty() && budget.is_exceeded_by(0) { Err(Closed::MemoryLimit) } else { Ok(()) }
    }

    /// What is left of `bytes` when those to be dropped are.
    fn after_skip<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let dropped = self.skip.min(bytes.len());
        self.skip -= dropped;
        bytes.get(dropped..).unwrap_or_default()
    }

    /// What is left of `bytes` when `used` are dropped, those that have not arrived when they do.
    fn after_used<'b>(&mut self, bytes: &'b [u8], used: usize) -> &'b [u8] {
        self.skip += used.saturating_sub(bytes.len());
        bytes.get(used..).unwrap_or_default()
    }

    /// Sends every whole request in `bytes` on its way; returns how many bytes that were.
    fn handle(&mut self, bytes: &[u8]) -> usize {
        self.pipeline.attend();
        self.paused = false;
        let (mut used, mut count, mut held) = (0, 0, 0);
        let mut jobs = Vec::new();
        while let Some(rest) = bytes.get(used..) {
            if rest.len() < self.needed || rest.is_empty() {
                break;
            }
            if count >= self.room.0 || held >= self.room.1 || self.flushing {
                self.paused = true;
                break;
            }
            match self.codec.next(rest, &self.shared.config.rules) {
                Next::NotYet { needed } => {
                    self.needed = needed;
                    break;
                }
                Next::Request { request, .. } if self.must_wait(&request) => {
                    (self.flushing, self.paused) = (true, true);
                    break;
                }
                Next::Request { length, request } => {
                    self.needed = 0;
                    used += length;
                    count += 1;
                    let close = request.close;
                    let weight = self.take(request, &mut jobs);
                    held += weight;
                    if close {
                        self.ending = true;
                        break;
                    }
                }
            }
        }
        if used > 0 {
            self.pipeline.owing_since.store(0, Ordering::Relaxed);
        }
        if !jobs.is_empty() {
            dispatch(jobs);
        }
        used
    }

    /// Takes one request: answers it, or adds it to `jobs` if its turn is now. Returns the bytes it holds.
    fn take(&mut self, request: Request<'_>, jobs: &mut Vec<Job>) -> usize {
        let Request { task, form, .. } = request;
        match task {
            Task::Get { key } => self.enqueue(&key, form, Operation::Get, Kind::Get, jobs),
            Task::Change { key, change } => {
                let kind = Kind::of(&change);
                let shared = self.shared;
                let (now, flushed) = (shared.unix_seconds(), || shared.flushes.is_used());
                match Operation::of(change, now, &shared.config.rules, flushed) {
                    Ok(operation) => self.enqueue(&key, form, operation, kind, jobs),
                    Err(outcome) => {
                        shared.stats.count(kind, &outcome);
                        self.answer(&key, &form, &outcome)
                    }
                }
            }
            Task::Stats { section } => self.stats(form, section),
            Task::Flush { delay } => self.flush(form, delay),
            Task::Answer(outcome) => {
                if outcome == Outcome::Failed(Failure::TooLarge) {
                    Stats::add(&self.shared.stats.oversized);
                }
                self.answer(&[], &form, &outcome)
            }
        }
    }

    fn enqueue(&self, key: &[u8], form: Form, operation: Operation, kind: Kind, jobs: &mut Vec<Job>) -> usize {
        let key = RawKey::new(&self.shared.config.key_prefix, key);
        let hash = key.hash();
        let writes = operation.writes();
        let weight = REQUEST_WEIGHT + operation.weight();
        let number = self.pipeline.open(weight);
        let reply = Reply::new(self.shared, self.pipeline, number, key, form, (kind, writes), weight);
        jobs.extend(self.pipeline.begin(hash, writes, Job { reply, operation }));
        weight
    }

    /// Shows what is counted, those requests included that stand before this one: all of them are answered.
    fn stats(&self, form: Form, section: Section) -> usize {
        let shared = self.shared;
        let outcome = match section {
            Section::General => {
                let (shared, pipeline, number) = (shared.clone(), self.pipeline.clone(), self.pipeline.open(0));
                let mut rows = report::general(&report::Gateway {
                    config: &shared.config,
                    stats: &shared.stats,
                    budget: &shared.budget,
                    router: &shared.router,
                    uptime: shared.env.time().elapsed(shared.started),
                    open: self.clients.len(),
                });
                self.shared.env.spawn(async move {
                    rows.extend(report::cluster(shared.holdings.get(&shared.router).await));
                    pipeline.answer(number, &form, &Outcome::Stats(rows));
                });
                return 0;
            }
            Section::Settings => Outcome::Stats(report::settings(&shared.config)),
            // Items are the servers' affair; see `kumo-server stat`.
            Section::Items | Section::Connections => Outcome::Stats(Vec::new()),
            Section::Slabs => Outcome::Stats(report::slabs()),
            Section::Sizes => Outcome::Stats(report::sizes()),
            Section::Reset => {
                shared.stats.reset();
                Outcome::Reset
            }
        };
        self.answer(&[], &form, &outcome)
    }

    /// Whether a request must wait until those before it are answered: a flush would hide what they are to see, and
    /// statistics would not count them.
    fn must_wait(&self, request: &Request<'_>) -> bool {
        let waits = match request.task {
            Task::Flush { .. } => self.shared.config.allow_flush,
            Task::Stats { .. } => true,
            _ => false,
        };
        waits && !self.pipeline.is_idle()
    }

    /// Hides what is there, if that is allowed; nothing behind it is taken before it is over.
    fn flush(&mut self, form: Form, delay: i64) -> usize {
        if !self.shared.config.allow_flush {
            return self.answer(&[], &form, &Outcome::Failed(Failure::FlushNotAllowed));
        }
        Stats::add(&self.shared.stats.flushes);
        match flush::moment(delay, self.shared.unix_seconds()) {
            Moment::Now => {}
            Moment::Later(seconds) => {
                self.shared.flushes.schedule(seconds);
                return self.answer(&[], &form, &Outcome::Done);
            }
            Moment::Past(second) => {
                self.shared.flushes.hide_before(second);
                return self.answer(&[], &form, &Outcome::Done);
            }
        }
        self.flushing = true;
        let under_way = self.shared.flushes.begin();
        let (pipeline, number) = (self.pipeline.clone(), self.pipeline.open(0));
        self.shared.env.spawn(async move {
            let flushed = under_way.finish().await;
            pipeline.answer(number, &form, &flushed.map_or_else(Outcome::Failed, |()| Outcome::Done));
        });
        0
    }

    /// Output at once, in its place behind those before.
    fn answer(&self, key: &[u8], form: &Form, outcome: &Outcome<'_>) -> usize {
        let number = self.pipeline.open(0);
        self.pipeline.complete(number, 0, (form, key, outcome), None);
        0
    }
}
