//! One write by its coordinator: stored here, sent to the other owners, retried, answered (protocol, section 7).
//!
//! An [`Operation`] counts the parts that are still open, the local commit and one for each target; whoever ends the
//! last one answers. No task waits for it.

mod lag;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use self::lag::Held;
use super::order::Job;
use super::state::{Shared, Target};
use super::takeover;
use super::work::Answer;
use crate::binlog::Record;
use crate::clock::ClockTime;
use crate::net::{InFlight, Reply, STEPS};
use crate::store::{Outcome, OwnedWrite, Write};
use crate::wire::method::{ErrorCode, Method};
use crate::wire::{NodeAddress, RecordKey, RecordValue, params};

/// The pause before a failed replica is tried again; it doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// See [`RETRY_PAUSE`].
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The local commit failed.
const LOCAL_FAILED: u8 = 1;
/// A replica that must have the write does not.
const REPLICA_FAILED: u8 = 2;
/// A replica holds something later: our clock lags.
const LAGGING: u8 = 4;
/// A replica reached by rhs has taken the deletion.
const DELETED_BY_RHS: u8 = 8;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Set,
    /// Only if the stored clocktime is this one.
    Cas(ClockTime),
    Delete,
}

impl Change {
    /// The store's write for it.
    pub(super) fn as_write<'a>(self, key: RecordKey<'a>, body: &'a [u8]) -> Write<'a> {
        match self {
            Self::Set => Write::Set { key, body },
            Self::Cas(expected) => Write::Cas { key, body, expected },
            Self::Delete => Write::Delete { key },
        }
    }
}

/// Whether a decided write goes to the other owners: all but a swap that did not match.
pub(super) fn replicates(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Stored { .. } | Outcome::Deleted { .. })
}

/// The answer to a write that has succeeded everywhere.
pub(super) fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Stored { clocktime } => Answer::Clocktime(clocktime),
        Outcome::Deleted { live, .. } => Answer::Bool(live),
        _ => Answer::Bool(false),
    }
}

/// A client's write, owned: it waits for the disk, for clocks, or for a new clocktime.
pub(super) struct Submission {
    change: Change,
    /// Whether the client waits for the replicas.
    wait: bool,
    key: Box<[u8]>,
    body: Box<[u8]>,
    reply: Option<Reply>,
    /// Counts an answered asynchronous write until its replicas are done.
    in_flight: Option<InFlight>,
    /// Clocktimes that it has had.
    stamps: u8,
    /// Under an earlier one of them a live value was deleted.
    deleted: bool,
}

impl Submission {
    pub(super) fn new(change: Change, wait: bool, key: RecordKey<'_>, body: &[u8], reply: Reply) -> Self {
        Self {
            change,
            wait,
            key: key.bytes().into(),
            body: body.into(),
            reply: Some(reply.weighing(key.bytes().len() + body.len())),
            in_flight: None,
            stamps: 0,
            deleted: false,
        }
    }

    /// The raw key.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(super) fn hash(&self) -> u64 {
        RecordKey::new(&self.key).map_or(0, |key| key.hash())
    }

    fn to_write(&self) -> Option<OwnedWrite> {
        let key = RecordKey::new(&self.key).ok()?;
        Some(OwnedWrite::from(&self.change.as_write(key, &self.body)))
    }
}

/// Decides writes on the store's write threads, each after those to its key that came before.
pub(super) fn submit(server: &Arc<Shared>, submissions: Vec<Submission>) {
    decide(server, server.order.begin(submissions));
}

/// Decides the writes of `job`, then goes on with each as with one that memory decided.
pub(super) fn decide(server: &Arc<Shared>, job: Job) {
    let Job { submissions, hashes } = job;
    if submissions.is_empty() {
        return;
    }
    let own = server.address;
    let spaces = server.spaces();
    // They may have waited while the hash space changed.
    let (ours, _refused): (Vec<_>, Vec<_>) =
        submissions.into_iter().partition(|submission| spaces.whs.owners(submission.hash()).coordinator() == Some(own));
    let writes = ours.iter().filter_map(Submission::to_write).collect();
    let waiting: Vec<_> = ours.into_iter().map(Some).collect();
    let started = Arc::new(Mutex::new((waiting, Vec::<Started>::new())));
    let (deciding, server, ending) = (started.clone(), server.clone(), server.clone());
    let store = server.store.clone();
    server.clone().writes.enter(&server.runtime.clone(), move |turn| {
        store.write(
            writes,
            move |index, outcome| {
                let mut state = deciding.lock();
                let Some(submission) = state.0.get_mut(index).and_then(Option::take) else { return };
                if let Ok(key) = RecordKey::new(&submission.key) {
                    server.late_writes.note(key);
                }
                let mut targets = Vec::new();
                if replicates(outcome) {
                    server.spaces().targets(own, submission.hash(), |target| targets.push(target));
                }
                let begun = if targets.is_empty() {
                    Started::Alone(submission, outcome)
                } else {
                    Started::Replicated(Operation::start(&server, submission, outcome, targets))
                };
                state.1.push(begun);
            },
            move |result| {
                drop(turn);
                let next = ending.order.end(hashes);
                if !next.submissions.is_empty() {
                    // Not on this thread of the store: it must not wait for a place in its own queue.
                    ending.runtime.clone().spawn(async move { decide(&ending, next) });
                }
                // What was not decided is dropped here, and its reply answers error 6.
                let begun = std::mem::take(&mut started.lock().1);
                for begun in begun {
                    match begun {
                        Started::Replicated(operation) => operation.committed(result.is_ok()),
                        Started::Alone(submission, outcome) => {
                            let answer = answer(outcome).or_deleted(submission.deleted);
                            if let Some(reply) = submission.reply.filter(|_| result.is_ok()) {
                                reply.ok(|out| answer.write(out));
                            }
                        }
                    }
                }
            },
        );
    });
}

enum Started {
    /// Nobody else is to have it: answered when committed.
    Alone(Submission, Outcome),
    Replicated(Arc<Operation>),
}

/// A decided write on its way to the other owners.
pub(super) struct Operation {
    server: Arc<Shared>,
    change: Change,
    wait: bool,
    key: Box<[u8]>,
    body: Box<[u8]>,
    outcome: Outcome,
    clocktime: ClockTime,
    stamps: u8,
    /// See [`Submission::deleted`].
    deleted: bool,
    reply: Mutex<(Option<Reply>, Option<InFlight>)>,
    /// Parts that have not ended: targets, and the local commit.
    open: AtomicU32,
    flags: AtomicU8,
    /// A replica that holds something later, and what that is if it was asked.
    later: Mutex<Option<(NodeAddress, Held)>>,
}

impl Operation {
    /// Sends the write to `targets`; the local part stays open until [`Self::committed`].
    pub(super) fn start(
        server: &Arc<Shared>,
        submission: Submission,
        outcome: Outcome,
        targets: Vec<Target>,
    ) -> Arc<Self> {
        let clocktime = match outcome {
            Outcome::Stored { clocktime } | Outcome::Deleted { clocktime, .. } => clocktime,
            _ => ClockTime::default(),
        };
        let open = u32::try_from(targets.len()).unwrap_or(u32::MAX).saturating_add(1);
        let Submission { change, wait, key, body, reply, in_flight, stamps, deleted } = submission;
        let operation = Arc::new(Self {
            server: server.clone(),
            change,
            wait,
            key,
            body,
            outcome,
            clocktime,
            stamps: stamps.saturating_add(1),
            deleted,
            reply: Mutex::new((reply, in_flight)),
            open: AtomicU32::new(open),
            flags: AtomicU8::new(0),
            later: Mutex::new(None),
        });
        for target in targets {
            operation.send(target, operation.retries(), RETRY_PAUSE);
        }
        operation
    }

    /// How often a failed replica is tried again.
    fn retries(&self) -> u32 {
        match self.change {
            Change::Delete => self.server.config.replicate_delete_retries,
            Change::Set | Change::Cas(_) => self.server.config.replicate_set_retries,
        }
    }

    fn send(self: &Arc<Self>, target: Target, tries: u32, pause: Duration) {
        let (operation, session) = (self.clone(), target.session.clone());
        let flags = target.flags();
        let (clock, clocktime) = (self.clocktime.clock(), self.clocktime);
        let done = Box::new(move |result: Result<&[u8], ErrorCode>| operation.replied(target, tries, pause, result));
        if self.change == Change::Delete {
            let params = |out: &mut Vec<u8>| params::write_replicate_delete(out, clock, flags, clocktime, &self.key);
            session.call(Method::ReplicateDelete, STEPS, params, done);
        } else {
            let params = |out: &mut Vec<u8>| {
                params::write_replicate_set(out, clock, flags, &self.key, clocktime, &self.body);
            };
            session.call(Method::ReplicateSet, STEPS, params, done);
        }
    }

    fn replied(self: Arc<Self>, target: Target, tries: u32, pause: Duration, result: Result<&[u8], ErrorCode>) {
        match result {
            Ok([0xc3]) if target.by_rhs => self.ended(DELETED_BY_RHS),
            Ok([0xc2]) if !target.by_rhs => self.ignored(target.session.address(), tries),
            Ok([0xc2 | 0xc3]) => self.ended(0),
            Ok(_) => self.failed(target, tries, pause, ErrorCode::Protocol),
            Err(error) => self.failed(target, tries, pause, error),
        }
    }

    /// Tries again after a pause, as long as the node is reachable and still to have the write.
    fn failed(self: Arc<Self>, target: Target, tries: u32, pause: Duration, error: ErrorCode) {
        let address = target.session.address();
        // On a task of its own: this may run while the caller holds a lock.
        self.server.runtime.clone().spawn(async move {
            if tries > 0 && error != ErrorCode::NodeLost {
                tokio::time::sleep(pause).await;
            }
            let spaces = self.server.spaces();
            if !spaces.requires(address, target.by_rhs, self.hash()) {
                return self.ended(0);
            }
            // Once this server is given up no replica takes anything from it.
            if tries > 0 && error != ErrorCode::NodeLost && spaces.is_active(self.server.address) {
                return self.send(target, tries - 1, (pause * 2).min(RETRY_PAUSE_MAX));
            }
            tracing::warn!(peer = %address, key = %self.key.escape_ascii(), "replica not written: {error}");
            self.log_failure(address);
            self.ended(if target.by_rhs { 0 } else { REPLICA_FAILED });
        });
    }

    fn log_failure(&self, to: NodeAddress) {
        let key = self.key.get(8..).unwrap_or_default();
        let hash = self.hash();
        self.server.binary_log.write(&match self.change {
            Change::Delete => Record::ReplicateDeleteFailed { key, hash, to },
            Change::Set | Change::Cas(_) => {
                let value = self.body.get(2..).unwrap_or_default();
                Record::ReplicateSetFailed { key, value, hash, clocktime: self.clocktime.0, to }
            }
        });
    }

    fn hash(&self) -> u64 {
        RecordKey::new(&self.key).map_or(0, |key| key.hash())
    }

    /// The local store has committed, or failed to.
    pub(super) fn committed(self: &Arc<Self>, durable: bool) {
        if durable && !self.wait {
            let mut reply = self.reply.lock();
            if let Some(answering) = reply.0.take() {
                // Still under way for the bounds, until the replicas have answered.
                let mut in_flight = InFlight::new(answering.link(), 1);
                in_flight.weigh(self.key.len() + self.body.len());
                reply.1 = Some(in_flight);
                answering.ok(|out| answer(self.outcome).write(out));
            }
        }
        self.ended(if durable { 0 } else { LOCAL_FAILED });
    }

    /// One part has ended; the last one finishes the operation.
    fn ended(self: &Arc<Self>, flags: u8) {
        self.flags.fetch_or(flags, Ordering::AcqRel);
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish();
        }
    }

    fn finish(self: &Arc<Self>) {
        let flags = self.flags.load(Ordering::Acquire);
        if flags & LOCAL_FAILED != 0 {
            // The reply answers error 6 as it is dropped.
            self.reply.lock().0.take();
            return;
        }
        if flags & LAGGING != 0 && !self.is_superseded() {
            return self.lagged();
        }
        if flags & REPLICA_FAILED != 0 && self.wait && !self.server.spaces().is_active(self.server.address) {
            return self.take_back();
        }
        let answer = match answer(self.outcome) {
            _ if flags & REPLICA_FAILED != 0 => Answer::Nil,
            answer => answer.or_deleted(self.deleted || flags & DELETED_BY_RHS != 0),
        };
        self.reply(answer);
    }

    /// This server was given up before the write was anywhere else: forgets it. It may rest on a record that others have
    /// long replaced, and would be the later one when this server is attached again.
    fn take_back(self: &Arc<Self>) {
        let operation = self.clone();
        self.server.runtime.spawn(async move {
            if let Ok(key) = RecordKey::new(&operation.key) {
                takeover::forget(&operation.server, key, operation.clocktime).await;
            }
            operation.reply(Answer::Nil);
        });
    }

    /// Whether a live value has been deleted, under this clocktime or an earlier one.
    fn has_deleted(&self) -> bool {
        self.deleted
            || matches!(self.outcome, Outcome::Deleted { live: true, .. })
            || self.flags.load(Ordering::Acquire) & DELETED_BY_RHS != 0
    }

    fn reply(&self, answer: Answer) {
        let (reply, in_flight) = std::mem::take(&mut *self.reply.lock());
        if let Some(reply) = reply {
            reply.ok(|out| answer.write(out));
        }
        drop(in_flight);
    }

    /// Whether a later write of this coordinator has replaced this one here: that one is what replicas hold.
    fn is_superseded(&self) -> bool {
        let Ok(key) = RecordKey::new(&self.key) else { return false };
        let later =
            |value: Option<RecordValue<'_>>| value.is_some_and(|value| self.clocktime.is_before(value.clocktime()));
        self.server.store.peek(key, later).unwrap_or(false)
    }
}
