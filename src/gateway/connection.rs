//! The memcached protocols on one connection: requests to their servers, answers out in order.
//!
//! All requests that one read has brought are sent before anything is waited for; all answers that are ready leave
//! together. The stream belongs to [`crate::net::driver`].

use std::sync::Arc;
use std::task::Waker;

use super::dispatch::dispatch;
use super::failure::Failure;
use super::flush::{self, Moment};
use super::job::{Job, Reply};
use super::operation::Operation;
use super::outcome::Outcome;
use super::pipeline::{Pipeline, REQUEST_WEIGHT, Standing};
use super::protocol::{Codec, Form, Next, Request, Section, Task};
use super::report;
use super::shared::Shared;
use super::stats::{Kind, Stats};
use crate::client::RawKey;
use crate::env::Stream;
use crate::net::driver::{Bounds, Closed, Protocol, Taken, drive};
use crate::net::output::Output;
use crate::net::registry::{Connected, Registry};
use crate::net::task;

/// The last words to a client that is turned away; memcached says the same.
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

/// The connections of clients that are open.
pub(super) type Clients = Registry<Pipeline<Job>>;

/// Serves a client on a task of its own, or turns it away if as many as may be are connected.
pub(super) fn accept(shared: &Arc<Shared>, clients: &Arc<Clients>, mut stream: Stream, peer: String) {
    let limits = &shared.config.limits;
    let pipeline = Arc::new(Pipeline::new(shared.budget.clone(), shared.asked.clone(), shared.env.time(), dispatch));
    let id = clients.next_id();
    if !clients.insert(id, pipeline.clone(), limits.connections) {
        Stats::add(&shared.stats.rejected);
        clients.warn_turned_away(&peer, limits.connections);
        return stream.send_at_once(TOO_MANY);
    }
    Stats::add(&shared.stats.connections);
    let ended = {
        let (clients, pipeline) = (clients.clone(), pipeline.clone());
        move || {
            pipeline.leave();
            clients.remove(id);
        }
    };
    let (env, silence) = (&shared.env, limits.stalled);
    let (shared, clients) = (shared.clone(), clients.clone());
    let serve = async move |stream| serve(stream, &shared, &clients, &pipeline).await;
    task::spawn(env, stream, peer, silence, serve, ended);
}

/// Serves a client until it or this side closes.
async fn serve(mut stream: Stream, shared: &Arc<Shared>, clients: &Clients, pipeline: &Arc<Pipeline<Job>>) -> Closed {
    let mut connection = Connection {
        shared,
        clients,
        pipeline,
        codec: Codec::new(),
        standing: Standing::default(),
        room: (0, 0),
        flushing: false,
    };
    // What may have to be sent is bounded before the requests are taken that ask for it.
    let bounds = Bounds { input: &shared.budget, backlog: usize::MAX };
    drive(&mut stream, &mut connection, pipeline.control(), bounds, || clients.uptime_seconds()).await
}

struct Connection<'a> {
    shared: &'a Arc<Shared>,
    clients: &'a Clients,
    pipeline: &'a Arc<Pipeline<Job>>,
    codec: Codec,
    /// How the connection stood when answers were last collected.
    standing: Standing,
    /// Requests, and bytes that they keep, which may be taken before some are answered.
    room: (usize, usize),
    /// A flush is under way, or a request waits for all those before it.
    flushing: bool,
}

impl Protocol for Connection<'_> {
    /// Sends every whole request in `input` on its way, as far as there is room.
    fn receive(&mut self, input: &[u8], _: &mut Vec<u8>) -> Result<Taken, Closed> {
        let mut taken = Taken::default();
        let (mut count, mut held) = (0, 0);
        let mut jobs = Vec::new();
        while let Some(rest) = input.get(taken.used..).filter(|rest| !rest.is_empty()) {
            let crowded = self.shared.asked.is_full() && self.standing.in_flight + count > 0;
            if count >= self.room.0 || held >= self.room.1 || crowded || self.flushing {
                taken.paused = true;
                break;
            }
            match self.codec.next(rest, &self.shared.config.rules) {
                Next::NotYet { needed } => {
                    taken.needed = needed;
                    break;
                }
                Next::Request { request, .. } if self.must_wait(&request) => {
                    (self.flushing, taken.paused) = (true, true);
                    break;
                }
                Next::Request { length, request } => {
                    taken.used += length;
                    count += 1;
                    taken.last = request.close;
                    held += self.take(request, &mut jobs);
                    if taken.last {
                        break;
                    }
                }
            }
        }
        if !jobs.is_empty() {
            dispatch(jobs);
        }
        Ok(taken)
    }

    fn collect(&mut self, _: &mut Vec<u8>, out: &mut Output) {
        self.standing = self.pipeline.collect(out);
    }

    fn may_read(&mut self, unsent: usize, _: &Waker) -> bool {
        let Standing { in_flight, held } = self.standing;
        self.flushing &= in_flight > 0;
        if self.flushing {
            return false;
        }
        let limits = &self.shared.config.limits;
        let scarce = self.shared.budget.is_tight() || self.shared.asked.is_full();
        if scarce && (in_flight > 0 || unsent > 0) {
            return false;
        }
        let most = if scarce { 1 } else { limits.in_flight };
        let requests = most.saturating_sub(in_flight);
        let bytes = limits.in_flight_bytes.saturating_sub(held);
        self.room = (requests, bytes);
        requests > 0 && bytes > 0 && unsent < limits.unread_answers
    }

    fn is_idle(&self) -> bool {
        self.standing.in_flight == 0
    }

    fn answers_after_end(&self) -> bool {
        true
    }

    fn arrived(&self, bytes: usize) {
        Stats::add_many(&self.shared.stats.bytes_read, bytes);
    }

    fn sent(&self, bytes: usize) {
        Stats::add_many(&self.shared.stats.bytes_written, bytes);
        self.shared.budget.release(bytes);
    }

    fn left_unsent(&self, bytes: usize) {
        self.shared.budget.release(bytes);
    }
}

impl Connection<'_> {
    /// Takes one request: answers it, or adds it to `jobs` if its turn is now. Returns the bytes it holds and may bring.
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
        let weight = (REQUEST_WEIGHT + operation.weight(), operation.reads());
        let (job, taken) = self.pipeline.enqueue(weight, (hash, writes), |number, weight| {
            let reply = Reply::new(self.shared, self.pipeline, number, key, form, (kind, writes), weight);
            Job { reply, operation }
        });
        jobs.extend(job);
        taken
    }

    /// Shows what is counted, those requests included that stand before this one: all of them are answered.
    fn stats(&self, form: Form, section: Section) -> usize {
        let shared = self.shared;
        let outcome = match section {
            Section::General => {
                let (shared, pipeline, number) = (shared.clone(), self.pipeline.clone(), self.pipeline.open());
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
        let (pipeline, number) = (self.pipeline.clone(), self.pipeline.open());
        self.shared.env.spawn(async move {
            let flushed = under_way.finish().await;
            pipeline.answer(number, &form, &flushed.map_or_else(Outcome::Failed, |()| Outcome::Done));
        });
        0
    }

    /// Output at once, in its place behind those before.
    fn answer(&self, key: &[u8], form: &Form, outcome: &Outcome<'_>) -> usize {
        self.pipeline.answer_at_once(form, key, outcome);
        0
    }
}
