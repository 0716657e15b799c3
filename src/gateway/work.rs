//! A request on its way: sent to its server with all others for it, answered when that one has, and handed to a task
//! of its own only if its first try has failed or it must be read before it can be written.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::change::{Change, Current, Decision, Reward};
use super::desk::Desk;
use super::item::Item;
use super::layout::Layout;
use super::outcome::{Failure, Outcome};
use super::protocol::Form;
use super::stats::{Kind, Stats};
use super::swap::swap;
use crate::binlog::Record;
use crate::client::verdict::{self, Verdict};
use crate::client::{Error, Node, RawKey, Routes, Swapped, Tried, set_length, steps, write_delete, write_set};
use crate::clock::{ClockTime, unix_seconds};
use crate::net::{Call, OnReply};
use crate::wire::RecordValue;
use crate::wire::method::{ErrorCode, Method};
use crate::wire::params::{self, SetOp};

/// Times that a change is decided anew because others have changed its item meanwhile.
const CONTENTION_LIMIT: u32 = 200;
/// The longest that a change waits for those to the same item from other connections.
const TURN_LIMIT: Duration = Duration::from_secs(1);
/// The CAS unique of what somebody else has overwritten already: nothing has it.
const OVERWRITTEN: ClockTime = ClockTime(0);
/// The first pause before what a flush hides is written again; doubled each time.
const REWRITE_PAUSE: Duration = Duration::from_millis(1);
/// The longest such pause.
const REWRITE_PAUSE_MAX: Duration = Duration::from_millis(250);
/// The longest pause between two of them, in microseconds; they grow up to it.
const CONTENTION_PAUSE_MAX: u32 = 20_000;

/// The duty to answer one request, exactly once: dropped unanswered, it answers that nobody could be reached.
#[derive(Debug)]
pub(super) struct Ticket {
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    number: u64,
    key: RawKey,
    form: Form,
    kind: Kind,
    writes: bool,
    weight: usize,
    answered: bool,
}

/// What a request does.
#[derive(Debug)]
pub(super) enum Work {
    /// Read.
    Get,
    /// Write in any case.
    Set { data: Vec<u8>, reward: Reward },
    /// Write if the clocktime is `expected`; if not, `change` decides what that means.
    Swap { expected: ClockTime, data: Vec<u8>, reward: Reward, change: Change<'static> },
    /// Delete in any case; `refused` is the answer then, if there is one already.
    Delete { refused: Option<Failure> },
    /// Read; if there is nothing, the change decides.
    Vivify(Change<'static>),
    /// Read, decide, write.
    Change(Change<'static>),
}

impl Work {
    /// The work of a change.
    pub(super) fn of(change: Change<'_>, shared: &Shared) -> Result<Self, Outcome<'static>> {
        // What a flush hides must be read to be known.
        let direct = change.direct(unix_seconds(), &shared.config.rules);
        let blind = matches!(
            direct,
            Some(Decision::Store { expected: None, .. } | Decision::Delete { refused: Some(_) } | Decision::Answer(_))
        );
        Ok(match direct.filter(|_| blind || !shared.flushes.is_used()) {
            None => match change {
                Change::Vivify { exptime: None, .. } => Self::Vivify(change.into_owned()),
                change => Self::Change(change.into_owned()),
            },
            Some(Decision::Store { expected: None, data, reward }) => Self::Set { data, reward },
            Some(Decision::Store { expected: Some(expected), data, reward }) => {
                Self::Swap { expected, data, reward, change: change.into_owned() }
            }
            Some(Decision::Delete { refused }) => Self::Delete { refused },
            Some(Decision::Answer(outcome)) => return Err(outcome),
        })
    }

    /// Bytes that it keeps.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Get | Self::Delete { .. } => 0,
            Self::Set { data, .. } => data.len(),
            Self::Swap { data, change, .. } => data.len() + change.weight(),
            Self::Vivify(change) | Self::Change(change) => change.weight(),
        }
    }

    /// Whether it may write: a request behind it for the same key waits.
    pub(super) fn writes(&self) -> bool {
        !matches!(self, Self::Get)
    }

    fn method(&self) -> Method {
        match self {
            Self::Get | Self::Vivify(_) | Self::Change(_) => Method::Get,
            Self::Set { .. } | Self::Swap { .. } => Method::Set,
            Self::Delete { .. } => Method::Delete,
        }
    }
}

/// A request with what it does.
#[derive(Debug)]
pub(super) struct Job {
    ticket: Ticket,
    work: Work,
}

impl Job {
    pub(super) fn new(ticket: Ticket, work: Work) -> Self {
        Self { ticket, work }
    }

    /// Refuses what is too large for a server that must store it; a set removes what it was to replace, as one that is
    /// too large for the gateway does.
    fn checked(self, routes: &Routes) -> Option<Self> {
        let Self { ticket, work } = self;
        let too_large = |data: &[u8]| {
            let found = routes.too_large(ticket.key.hash(), set_length(&ticket.key, data));
            found.map(|(server, limit)| Failure::TooLargeFor(server, limit))
        };
        let refused = match &work {
            Work::Set { data, .. } | Work::Swap { data, .. } => too_large(data),
            Work::Get | Work::Delete { .. } | Work::Vivify(_) | Work::Change(_) => None,
        };
        match (refused, work) {
            (None, work) => Some(Self { ticket, work }),
            (Some(refused), Work::Set { .. }) => Some(Self { ticket, work: Work::Delete { refused: Some(refused) } }),
            (Some(refused), _) => {
                ticket.answer(&Outcome::Failed(refused));
                None
            }
        }
    }
}

impl Ticket {
    /// Takes on the duty for the request `number` of a connection, which has been opened with this weight.
    pub(super) fn new(
        shared: &Arc<Shared>,
        desk: &Arc<Desk>,
        number: u64,
        key: RawKey,
        form: Form,
        (kind, writes): (Kind, bool),
        weight: usize,
    ) -> Self {
        Self { shared: shared.clone(), desk: desk.clone(), number, key, form, kind, writes, weight, answered: false }
    }

    /// Whether a flush hides the request's record, which was written then.
    fn is_hidden(&self, written: ClockTime) -> bool {
        self.shared.is_hidden(self.key.hash(), written)
    }

    /// Answers, and starts what has waited for it.
    fn answer(mut self, outcome: &Outcome<'_>) {
        self.answer_with(outcome);
    }

    fn answer_with(&mut self, outcome: &Outcome<'_>) {
        self.answered = true;
        let shared = &self.shared;
        let refused = Outcome::Failed(Failure::Overloaded);
        let outcome = match outcome {
            Outcome::Found(item) if shared.budget.is_exceeded_by(item.data.len()) => &refused,
            outcome => outcome,
        };
        shared.stats.count(self.kind, outcome);
        let key = self.key.key().get(shared.config.key_prefix.len()..).unwrap_or_default();
        self.desk.answer(self.number, self.weight, &self.form, key, outcome);
        let next = self.desk.end(self.key.hash(), self.writes);
        if !next.is_empty() {
            start(shared, next);
        }
    }

    /// Answers that it has failed, with a line in the logs.
    fn fail(self, error: &Error, data: Option<&[u8]>) {
        let key = self.key.key();
        let record = match (self.writes, data) {
            (false, _) => Record::GetFailed { key, error: error.code() },
            (true, Some(value)) => Record::SetFailed { key, value, error: error.code() },
            (true, None) => Record::DeleteFailed { key, error: error.code() },
        };
        self.shared.binary_log.write(&record);
        if self.shared.stats.may_warn(self.shared.uptime_seconds()) {
            tracing::warn!(key = %key.escape_ascii(), "given up: {error} (one line a second; see stats for how many)");
        }
        self.answer(&Outcome::Failed(match error {
            Error::TooLarge(server, limit) => Failure::TooLargeFor(*server, *limit),
            Error::Partial(_) => Failure::Partial,
            Error::Doubtful(..) => Failure::Unknown,
            _ => Failure::Unavailable,
        }));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            self.answer_with(&Outcome::Failed(Failure::Unavailable));
        }
    }
}

/// Jobs to be started, and what they share.
type Start = (Arc<Shared>, Vec<Job>);

thread_local! {
    /// What the [`start`] that runs on this thread is still to start; `None`: none runs.
    static STARTING: RefCell<Option<Vec<Start>>> = const { RefCell::new(None) };
}

/// Clears [`STARTING`], also when a panic ends it.
struct Starting;

impl Drop for Starting {
    fn drop(&mut self) {
        // Not within the borrow: jobs that are dropped start those behind them.
        drop(STARTING.take());
    }
}

/// Sends each job to its server, all for one server together.
///
/// A job that fails or is dropped right here starts those behind it. They get their turn one after the other: if each
/// were started from within the one before, a long line for one key would overflow the stack.
pub(super) fn start(shared: &Arc<Shared>, jobs: Vec<Job>) {
    let own = STARTING.with_borrow_mut(|starting| match starting {
        Some(waiting) => {
            waiting.push((shared.clone(), jobs));
            None
        }
        None => {
            *starting = Some(Vec::new());
            Some(jobs)
        }
    });
    let Some(jobs) = own else { return };
    let _starting = Starting;
    start_now(shared, jobs);
    while let Some((shared, jobs)) = STARTING.with_borrow_mut(|starting| starting.as_mut().and_then(Vec::pop)) {
        start_now(&shared, jobs);
    }
}

fn start_now(shared: &Arc<Shared>, jobs: Vec<Job>) {
    let routes = shared.router.routes();
    let mut batches: Vec<(Arc<Node>, Vec<Sent>)> = Vec::new();
    for job in jobs {
        let Some(job) = job.checked(&routes) else { continue };
        let hash = job.ticket.key.hash();
        let node = match job.work {
            Work::Change(_) => None,
            Work::Get | Work::Vivify(_) => routes.readers(hash).next(),
            Work::Set { .. } | Work::Swap { .. } | Work::Delete { .. } => routes.coordinator(hash),
        };
        let Some(node) = node else {
            go_on(job, None);
            continue;
        };
        let sent = Sent { job, node: node.clone() };
        match batches.iter_mut().find(|(other, _)| Arc::ptr_eq(other, node)) {
            Some((_, batch)) => batch.push(sent),
            None => batches.push((node.clone(), vec![sent])),
        }
    }
    for (node, batch) in batches {
        node.session().call_all(batch);
    }
}

/// A job on its way to a server.
struct Sent {
    job: Job,
    node: Arc<Node>,
}

impl Call for Sent {
    fn method(&self) -> Method {
        self.job.work.method()
    }

    fn steps(&self) -> u16 {
        let options = self.job.ticket.shared.router.options();
        steps(match self.job.work {
            Work::Get | Work::Vivify(_) => options.read_patience,
            _ => options.call_timeout,
        })
    }

    fn params(&self, out: &mut Vec<u8>) {
        let Job { ticket, work } = &self.job;
        let config = &ticket.shared.config;
        match work {
            Work::Get | Work::Vivify(_) | Work::Change(_) => params::write_get(out, ticket.key.bytes()),
            Work::Set { data, reward } => {
                write_set(
                    out,
                    set_op(config.async_set),
                    &ticket.key,
                    ClockTime(0),
                    (reward.meta(config.rules.layout), data),
                );
            }
            Work::Swap { expected, data, reward, .. } => {
                write_set(out, SetOp::Cas, &ticket.key, *expected, (reward.meta(config.rules.layout), data));
            }
            Work::Delete { .. } => write_delete(out, &ticket.key, !config.async_delete),
        }
    }

    fn on_reply(self) -> OnReply {
        Box::new(move |result| self.heard(result))
    }
}

fn set_op(asynchronous: bool) -> SetOp {
    if asynchronous { SetOp::Async } else { SetOp::Sync }
}

impl Sent {
    /// The server has answered: in the ordinary case this is the end of it.
    fn heard(self, result: Result<&[u8], ErrorCode>) {
        let Self { job: Job { ticket, work }, node } = self;
        let server = node.address();
        if node.is_suspect() && result.is_ok() {
            node.trust();
        }
        let rules = &ticket.shared.config.rules;
        match &work {
            Work::Get => {
                if let Verdict::Done(value) = verdict::get(server, result) {
                    let outcome = found(value, ticket.key.hash(), &ticket.shared);
                    return ticket.answer(&outcome);
                }
            }
            Work::Vivify(change) => {
                if let Verdict::Done(value) = verdict::get(server, result) {
                    return match found(value, ticket.key.hash(), &ticket.shared) {
                        Outcome::Missing => go_on(Job { ticket, work: Work::Change(change.clone()) }, None),
                        outcome => ticket.answer(&outcome),
                    };
                }
            }
            Work::Set { data, reward } | Work::Swap { data, reward, .. } => {
                if let Verdict::Done(Some(clocktime)) = verdict::set(server, result) {
                    if ticket.shared.flushes.is_under_way() || ticket.is_hidden(clocktime) {
                        let (reward, env) = (*reward, ticket.shared.router.env().clone());
                        let (Work::Set { data, .. } | Work::Swap { data, .. }) = work else { return };
                        env.spawn(async move { written(ticket, clocktime, &data, reward, Instant::now()).await });
                        return;
                    }
                    let outcome = reward.outcome(clocktime, data, rules);
                    return ticket.answer(&outcome);
                }
            }
            Work::Delete { refused } => {
                if let Verdict::Done(found) = verdict::delete(server, result) {
                    return ticket.answer(&deleted(found, *refused));
                }
            }
            Work::Change(_) => {}
        }
        go_on(Job { ticket, work }, Some((node, result.map(<[u8]>::to_vec))));
    }
}

/// Carries a job through on a task of its own; `first` is what came of its first try.
fn go_on(job: Job, first: Option<Tried>) {
    let env = job.ticket.shared.router.env().clone();
    env.spawn(carry_through(job, first));
}

async fn carry_through(job: Job, first: Option<Tried>) {
    let Job { ticket, work } = job;
    let shared = ticket.shared.clone();
    let (router, config) = (&shared.router, &shared.config);
    let started = Instant::now();
    match work {
        Work::Get => match router.get(&ticket.key, config.get_limit, first).await {
            Ok(read) => {
                let outcome = seen_as(read.as_ref(), &ticket);
                ticket.answer(&outcome);
            }
            Err(error) => ticket.fail(&error, None),
        },
        Work::Vivify(change) => match router.get(&ticket.key, config.get_limit, first).await {
            Ok(read) => match seen_as(read.as_ref(), &ticket) {
                Outcome::Missing => carry_change(ticket, &change, started).await,
                outcome => ticket.answer(&outcome),
            },
            Err(error) => ticket.fail(&error, None),
        },
        Work::Set { data, reward } => {
            let op = set_op(config.async_set);
            match router.set(&ticket.key, op, (reward.meta(config.rules.layout), &data), config.set_limit, first).await
            {
                Ok(clocktime) => written(ticket, clocktime, &data, reward, started).await,
                Err(error) => ticket.fail(&error, Some(&data)),
            }
        }
        Work::Delete { refused } => {
            match router.delete(&ticket.key, !config.async_delete, config.delete_limit, first).await {
                Ok(found) => ticket.answer(&deleted(found, refused)),
                Err(error) => ticket.fail(&error, None),
            }
        }
        Work::Swap { expected, data, reward, change } => {
            match router
                .swap(&ticket.key, expected, (reward.meta(config.rules.layout), &data), config.set_limit, first)
                .await
            {
                Ok(Swapped::Mismatch) => carry_change(ticket, &change, started).await,
                Ok(Swapped::At(clocktime)) => written(ticket, clocktime, &data, reward, started).await,
                Ok(Swapped::Overwritten) => ticket.answer(&reward.outcome(OVERWRITTEN, &data, &config.rules)),
                Err(error) => ticket.fail(&error, Some(&data)),
            }
        }
        Work::Change(change) => carry_change(ticket, &change, started).await,
    }
}

/// Reads, decides and writes until nobody else comes between. All of it together has the time of one operation.
async fn carry_change(ticket: Ticket, change: &Change<'_>, started: Instant) {
    let shared = ticket.shared.clone();
    let (router, config) = (&shared.router, &shared.config);
    let deletes = matches!(change, Change::Delete { .. });
    let limit = if deletes { config.delete_limit } else { config.set_limit };
    let left = || limit.saturating_sub(started.elapsed());
    // One after the other in this gateway. Waiting for long would add up where the server is the one that hangs.
    let _turn = tokio::time::timeout(TURN_LIMIT, shared.changes.turn(ticket.key.hash())).await;
    for attempt in 0..CONTENTION_LIMIT {
        let read = match router.get_to_change(&ticket.key, left()).await {
            Ok(read) => read,
            Err(error) => return ticket.fail(&error, Some(&[])),
        };
        let current = read.as_ref().map(current);
        if let Some((_, meta, _)) = current {
            compare_layouts(meta, &shared);
        }
        let now = unix_seconds();
        let hidden = current.map(|(clocktime, ..)| clocktime).filter(|clocktime| ticket.is_hidden(*clocktime));
        let mut decision = change.decide(current.filter(|_| hidden.is_none()), now, &config.rules);
        // What is hidden counts as absent, but is there.
        if let (Some(hidden), Decision::Store { expected: Some(expected), .. }) = (hidden, &mut decision) {
            *expected = hidden;
        }
        match decision {
            Decision::Answer(outcome) => return ticket.answer(&outcome),
            Decision::Delete { refused } => {
                return match router.delete(&ticket.key, !config.async_delete, left(), None).await {
                    Ok(found) => ticket.answer(&deleted(found, refused)),
                    Err(error) => ticket.fail(&error, None),
                };
            }
            Decision::Store { expected: None, data, reward } => {
                let op = set_op(config.async_set);
                return match router.set(&ticket.key, op, (reward.meta(config.rules.layout), &data), left(), None).await
                {
                    Ok(clocktime) => written(ticket, clocktime, &data, reward, started).await,
                    Err(error) => ticket.fail(&error, Some(&data)),
                };
            }
            Decision::Store { expected: Some(expected), data, reward } => {
                match swap(&shared, &ticket.key, expected, (reward.meta(config.rules.layout), &data), left()).await {
                    Ok(Swapped::Mismatch) => {}
                    Ok(Swapped::At(clocktime)) => return written(ticket, clocktime, &data, reward, started).await,
                    Ok(Swapped::Overwritten) => {
                        return ticket.answer(&reward.outcome(OVERWRITTEN, &data, &config.rules));
                    }
                    Err(error) => return ticket.fail(&error, Some(&data)),
                }
            }
        }
        Stats::add(&shared.stats.contended);
        if left().is_zero() {
            break;
        }
        let longest = 100_u32.saturating_mul(attempt + 1).min(CONTENTION_PAUSE_MAX);
        tokio::time::sleep(Duration::from_micros(fastrand::u32(0..longest).into())).await;
    }
    ticket.answer(&Outcome::Failed(Failure::Contended));
}

/// Answers a write that is done at `clocktime`, when no flush can hide it any more.
///
/// A flush that was under way meanwhile may have come after it on its server, but its client learns of both in the other
/// order, and must find what it has written. So it is written again, behind the flush, unless somebody else has already
/// overwritten it.
async fn written(ticket: Ticket, mut clocktime: ClockTime, data: &[u8], reward: Reward, started: Instant) {
    let shared = ticket.shared.clone();
    let (config, mut pause) = (&shared.config, REWRITE_PAUSE);
    shared.flushes.settled().await;
    while ticket.is_hidden(clocktime) {
        let left = config.set_limit.saturating_sub(started.elapsed());
        if left.is_zero() {
            return ticket.answer(&Outcome::Failed(Failure::Hidden));
        }
        let body = (reward.meta(config.rules.layout), data);
        match shared.router.swap(&ticket.key, clocktime, body, left, None).await {
            Ok(Swapped::At(later)) => clocktime = later,
            Ok(Swapped::Overwritten | Swapped::Mismatch) => break,
            Err(error) => return ticket.fail(&error, Some(data)),
        }
        shared.flushes.settled().await;
        if ticket.is_hidden(clocktime) {
            // Another flush came, or the server's clock lags: it learns those of others in a while.
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(REWRITE_PAUSE_MAX);
        }
    }
    ticket.answer(&reward.outcome(clocktime, data, &config.rules));
}

fn deleted(found: bool, refused: Option<Failure>) -> Outcome<'static> {
    refused.map_or(if found { Outcome::Deleted } else { Outcome::NotFound }, Outcome::Failed)
}

/// A record that was read.
fn current((clocktime, meta, data): &(ClockTime, u16, Vec<u8>)) -> Current<'_> {
    (*clocktime, *meta, data)
}

/// What a client sees of what was read for it.
fn seen_as<'v>(read: Option<&'v (ClockTime, u16, Vec<u8>)>, ticket: &Ticket) -> Outcome<'v> {
    read.map_or(Outcome::Missing, |read| seen(ticket.key.hash(), current(read), &ticket.shared))
}

/// What a client sees of a record.
fn found<'v>(value: Option<RecordValue<'v>>, hash: u64, shared: &Shared) -> Outcome<'v> {
    value.map_or(Outcome::Missing, |value| seen(hash, (value.clocktime(), value.meta(), value.data()), shared))
}

fn seen<'v>(hash: u64, (clocktime, meta, data): Current<'v>, shared: &Shared) -> Outcome<'v> {
    compare_layouts(meta, shared);
    let item = Item::decode(clocktime, meta, data, &shared.config.rules);
    // Most need not ask for the time.
    let expired = item.expires != 0 && item.is_expired(unix_seconds());
    let flushed = shared.is_hidden(hash, clocktime);
    if flushed {
        Stats::add(&shared.stats.flushed);
    } else if expired {
        Stats::add(&shared.stats.expired);
    }
    let gone = expired || flushed;
    if gone { Outcome::Missing } else { Outcome::Found(item) }
}

/// Counts a record that a gateway with another layout has written; the first is in the log.
fn compare_layouts(meta: u16, shared: &Shared) {
    let own = shared.config.rules.layout;
    if shared.config.rules.disagrees(meta) && shared.stats.count_foreign() {
        let other = Layout::of(meta).map_or("without --flag-bytes 4".to_owned(), |other| format!("with {other}"));
        tracing::warn!(
            "an item was written by a gateway {other}, this one runs with {own}: all gateways of a cluster should have \
             the same (foreign_layout_items of stats says how many such items were read)"
        );
    }
}
