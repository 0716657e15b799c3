//! What one read has brought, on its way: check, store, replicate, answer.
//!
//! Everything that memory can answer is answered on the network thread. What needs the disk goes to the store's pools
//! in one batch for the whole read. Writes become durable together, with one commit, and only then are answered.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::coordinate::{self, Change, Operation, Submission};
use super::state::{Shared, Spaces};
use super::takeover;
use crate::clock::ClockTime;
use crate::net::{InFlight, Link, Reply};
use crate::store::{Applied, Batch, Outcome, OwnedWrite, Write};
use crate::wire::method::{DELETE_ASYNC, ErrorCode, REPLICATE_BY_RHS};
use crate::wire::params::SetOp;
use crate::wire::record::{self, TOMBSTONE_LEN};
use crate::wire::{self, RecordKey, RecordValue, Request, frame, pack, params};

/// The state of handling one read's requests.
pub(super) struct Work<'a, 'r> {
    server: &'a Arc<Shared>,
    link: &'a Arc<Link>,
    out: &'a mut Vec<u8>,
    spaces: Arc<Spaces>,
    batch: Option<Batch<'a>>,
    /// Writes by this coordinator that are decided and not replicated yet.
    decided: Vec<Decided<'r>>,
    /// Answers that wait for the commit.
    answers: Vec<(u32, Answer)>,
    misses: Vec<Miss>,
    deferred: Vec<Deferred>,
    /// Hashes of deferred writes by this coordinator.
    late: HashSet<u64>,
    gets: u64,
    sets: u64,
    deletes: u64,
    sender: Option<bool>,
}

struct Decided<'r> {
    msgid: u32,
    change: Change,
    wait: bool,
    key: RecordKey<'r>,
    body: &'r [u8],
    outcome: Outcome,
}

/// What a write is answered when it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Clocktime(ClockTime),
    Bool(bool),
    Nil,
}

impl Answer {
    /// True instead of false, if a live value was `deleted` before.
    pub(super) fn or_deleted(self, deleted: bool) -> Self {
        if let Self::Bool(live) = self { Self::Bool(live || deleted) } else { self }
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Clocktime(clocktime) => pack::uint(out, clocktime.0),
            Self::Bool(value) => pack::bool(out, value),
            Self::Nil => pack::nil(out),
        }
    }
}

struct Miss {
    key: Box<[u8]>,
    reply: Reply,
    /// Of `GetIfModified`.
    unless_after: Option<ClockTime>,
}

/// A write whose decision needs the disk.
enum Deferred {
    Coordinate(Submission),
    Replica(OwnedWrite, Reply),
}

/// Why a request is refused.
pub(super) struct Refused(pub(super) ErrorCode);

impl From<wire::Error> for Refused {
    fn from(_: wire::Error) -> Self {
        Self(ErrorCode::Protocol)
    }
}

const OBSOLETE: Refused = Refused(ErrorCode::Server);

impl<'a, 'r> Work<'a, 'r> {
    pub(super) fn new(server: &'a Arc<Shared>, link: &'a Arc<Link>, out: &'a mut Vec<u8>) -> Self {
        Self {
            server,
            link,
            out,
            spaces: server.spaces(),
            batch: None,
            decided: Vec::new(),
            answers: Vec::new(),
            misses: Vec::new(),
            deferred: Vec::new(),
            late: HashSet::new(),
            gets: 0,
            sets: 0,
            deletes: 0,
            sender: None,
        }
    }

    /// Answers `request` with an error if `result` is one.
    pub(super) fn settle(&mut self, msgid: u32, result: &Result<(), Refused>) {
        if let Err(Refused(error)) = result {
            frame::error_response(self.out, msgid, *error);
        }
    }

    /// Bytes of answers so far, to this read's requests.
    pub(super) fn answered_bytes(&self) -> usize {
        self.out.len()
    }

    /// Appends an answer that is known at once.
    pub(super) fn answer(&mut self, msgid: u32, write: impl FnOnce(&mut Vec<u8>)) {
        frame::response_head(self.out, msgid);
        write(self.out);
    }

    /// Get and, with a clocktime, `GetIfModified`.
    pub(super) fn get(
        &mut self,
        msgid: u32,
        key: RecordKey<'r>,
        unless_after: Option<ClockTime>,
    ) -> Result<(), Refused> {
        if !self.spaces.rhs.owners(key.hash()).is_active_owner(self.server.address) {
            return Err(OBSOLETE);
        }
        self.gets += 1;
        let out = &mut *self.out;
        let seen = self.server.store.peek(key, |value| {
            frame::response_head(out, msgid);
            write_found(out, value, unless_after);
        });
        if seen.is_none() {
            let weight = key.bytes().len() + self.server.miss_weight.load(Ordering::Relaxed);
            let reply = Reply::new(self.link, msgid).weighing(weight);
            self.misses.push(Miss { key: key.bytes().into(), reply, unless_after });
        }
        Ok(())
    }

    /// Set in its three kinds.
    pub(super) fn set(&mut self, request: Request<'r>) -> Result<(), Refused> {
        let (op, key, value) = params::set(request.params)?;
        let change = match op {
            SetOp::Cas => Change::Cas(value.clocktime()),
            SetOp::Sync | SetOp::Async => Change::Set,
        };
        self.coordinate(request.msgid, change, op != SetOp::Async, key, value.body())
    }

    /// Delete.
    pub(super) fn delete(&mut self, request: Request<'r>) -> Result<(), Refused> {
        let (flags, key) = params::delete(request.params)?;
        self.coordinate(request.msgid, Change::Delete, flags & DELETE_ASYNC == 0, key, &[])
    }

    fn coordinate(
        &mut self,
        msgid: u32,
        change: Change,
        wait: bool,
        key: RecordKey<'r>,
        body: &'r [u8],
    ) -> Result<(), Refused> {
        if self.spaces.whs.owners(key.hash()).coordinator() != Some(self.server.address) {
            return Err(OBSOLETE);
        }
        match change {
            Change::Delete => self.deletes += 1,
            Change::Set | Change::Cas(_) => self.sets += 1,
        }
        if matches!(change, Change::Cas(_)) && self.spaces.is_arriving(self.server.address, key.hash()) {
            takeover::swap(self.server, Submission::new(change, wait, key, body, Reply::new(self.link, msgid)));
            return Ok(());
        }
        if self.server.is_learning() {
            match self.server.hold(Submission::new(change, wait, key, body, Reply::new(self.link, msgid))) {
                Ok(()) => {}
                Err(submission) => self.deferred.push(Deferred::Coordinate(submission)),
            }
            return Ok(());
        }
        if self.must_follow(key.hash()) {
            self.defer(change, wait, key, body, msgid);
            return Ok(());
        }
        match self.batch().apply(&change.as_write(key, body)) {
            Applied::Done(outcome) => {
                self.server.late_writes.note(key);
                self.decided.push(Decided { msgid, change, wait, key, body, outcome });
            }
            Applied::Later => self.defer(change, wait, key, body, msgid),
            Applied::Failed(_) => return Err(Refused(ErrorCode::Server)),
        }
        Ok(())
    }

    /// Whether an earlier write to this hash waits for the disk.
    fn must_follow(&self, hash: u64) -> bool {
        self.late.contains(&hash) || self.server.order.is_busy(hash)
    }

    fn defer(&mut self, change: Change, wait: bool, key: RecordKey<'r>, body: &'r [u8], msgid: u32) {
        self.late.insert(key.hash());
        let submission = Submission::new(change, wait, key, body, Reply::new(self.link, msgid));
        self.deferred.push(Deferred::Coordinate(submission));
    }

    /// `ReplicateSet`: the coordinator of a key sends a copy.
    pub(super) fn replicate_set(&mut self, request: Request<'r>) -> Result<(), Refused> {
        let call = params::replicate_set(request.params)?;
        self.server.note_peer_time(self.link, call.value.clocktime());
        self.replicate(request.msgid, call.clock, call.flags, call.key, call.value.bytes())
    }

    /// `ReplicateDelete`: likewise of a deletion.
    pub(super) fn replicate_delete(&mut self, request: Request<'r>) -> Result<(), Refused> {
        let call = params::replicate_delete(request.params)?;
        self.replicate(request.msgid, call.clock, call.flags, call.key, &record::tombstone(call.value))
    }

    fn replicate(
        &mut self,
        msgid: u32,
        clock: u32,
        flags: u32,
        key: RecordKey<'r>,
        value: &[u8],
    ) -> Result<(), Refused> {
        if !self.sender_is_member() {
            return Err(Refused(ErrorCode::Server));
        }
        let space = if flags & REPLICATE_BY_RHS == 0 { &self.spaces.whs } else { &self.spaces.rhs };
        if !space.owners(key.hash()).is_active_owner(self.server.address) {
            return Err(OBSOLETE);
        }
        self.server.clock.adjust(clock);
        let write = Write::Update { key, value: RecordValue::new(value)?, touch: false };
        match self.batch().apply(&write) {
            Applied::Done(outcome) => {
                self.server.late_writes.note(key);
                self.answers.push((msgid, Answer::Bool(was_stored(outcome))));
            }
            Applied::Later => {
                self.deferred.push(Deferred::Replica(OwnedWrite::from(&write), Reply::new(self.link, msgid)));
            }
            Applied::Failed(_) => return Err(Refused(ErrorCode::Server)),
        }
        Ok(())
    }

    /// Whether the node at the other end is active in a hash space; looked up once a read.
    ///
    /// One that is faulty has been given up: it may just have been hanging, and go on with what it had begun before
    /// others took over its keys.
    pub(super) fn sender_is_member(&mut self) -> bool {
        let (link, spaces) = (self.link, &self.spaces);
        *self.sender.get_or_insert_with(|| link.session().is_some_and(|session| spaces.is_active(session.address())))
    }

    fn batch(&mut self) -> &mut Batch<'a> {
        self.batch.get_or_insert_with(|| self.server.store.batch())
    }

    /// Replicates what was decided, hands over what needs the disk, and commits.
    pub(super) fn finish(mut self) {
        self.count();
        let operations = self.replicate_decided();
        if let Some(batch) = self.batch.take() {
            let answers = std::mem::take(&mut self.answers);
            let in_flight = InFlight::new(self.link, answers.len());
            batch.commit(move |result| {
                answer_all(in_flight.link(), &answers, result.is_ok());
                drop(in_flight);
                for operation in operations {
                    operation.committed(result.is_ok());
                }
            });
        }
        if !self.misses.is_empty() {
            read_misses(self.server, std::mem::take(&mut self.misses));
        }
        if !self.deferred.is_empty() {
            self.submit_deferred();
        }
    }

    fn count(&self) {
        let counters = &self.server.counters;
        for (counter, count) in
            [(&counters.gets, self.gets), (&counters.sets, self.sets), (&counters.deletes, self.deletes)]
        {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// Sends the decided writes to the other owners. The hash spaces are looked up only now, after the writes are in
    /// the store: whoever changes them in between scans a store that holds these.
    fn replicate_decided(&mut self) -> Vec<Arc<Operation>> {
        let mut operations = Vec::new();
        if self.decided.is_empty() {
            return operations;
        }
        let spaces = self.server.spaces();
        for decided in std::mem::take(&mut self.decided) {
            let Decided { msgid, change, wait, key, body, outcome } = decided;
            let mut targets = Vec::new();
            if coordinate::replicates(outcome) {
                spaces.targets(self.server.address, key.hash(), |target| targets.push(target));
            }
            if targets.is_empty() {
                self.answers.push((msgid, coordinate::answer(outcome)));
            } else {
                let submission = Submission::new(change, wait, key, body, Reply::new(self.link, msgid));
                operations.push(Operation::start(self.server, submission, outcome, targets));
            }
        }
        operations
    }

    fn submit_deferred(&mut self) {
        let mut submissions = Vec::new();
        let mut replicas = Vec::new();
        for deferred in std::mem::take(&mut self.deferred) {
            match deferred {
                Deferred::Coordinate(submission) => submissions.push(submission),
                Deferred::Replica(write, reply) => replicas.push((write, reply)),
            }
        }
        if !submissions.is_empty() {
            coordinate::submit(self.server, submissions);
        }
        if !replicas.is_empty() {
            store_replicas(self.server, replicas);
        }
    }
}

fn was_stored(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Stored { .. })
}

/// Sends the answers of one commit; all are errors if it failed.
fn answer_all(link: &Link, answers: &[(u32, Answer)], durable: bool) {
    if answers.is_empty() {
        return;
    }
    link.push(|out| {
        for (msgid, answer) in answers {
            if durable {
                frame::response_head(out, *msgid);
                answer.write(out);
            } else {
                frame::error_response(out, *msgid, ErrorCode::Server);
            }
        }
    });
}

/// The result of a Get: the raw value, nil if there is none, true if it is not after the asker's.
fn write_found(out: &mut Vec<u8>, value: Option<RecordValue<'_>>, unless_after: Option<ClockTime>) {
    match (value.filter(|value| !value.is_tombstone()), unless_after) {
        (None, _) => pack::nil(out),
        (Some(value), Some(known)) if !known.is_before(value.clocktime()) => pack::bool(out, true),
        (Some(value), _) => pack::raw(out, value.bytes()),
    }
}

/// Reads on the store's read threads what memory could not answer.
fn read_misses(server: &Arc<Shared>, misses: Vec<Miss>) {
    let (keys, askers): (Vec<_>, Vec<_>) =
        misses.into_iter().map(|miss| (miss.key, (miss.reply, miss.unless_after))).unzip();
    let (store, noting) = (server.store.clone(), server.clone());
    server.reads.enter(&server.runtime, move |turn| {
        store.read(keys, move |found| {
            drop(turn);
            // Without a result the replies answer error 6 as they are dropped.
            let Ok(found) = found else { return };
            let largest = found.iter().flatten().map(Vec::len).max().unwrap_or(0);
            noting.note_read_length(largest);
            for ((reply, unless_after), value) in askers.into_iter().zip(found) {
                let value = value.as_deref().filter(|value| value.len() >= TOMBSTONE_LEN).map(RecordValue::new);
                match value.transpose() {
                    Ok(value) => reply.ok(|out| write_found(out, value, unless_after)),
                    Err(_) => reply.error(ErrorCode::Server),
                }
            }
        });
    });
}

/// Stores on the store's write threads the copies that need the previous record from the disk.
fn store_replicas(server: &Arc<Shared>, replicas: Vec<(OwnedWrite, Reply)>) {
    let (writes, replies): (Vec<_>, Vec<_>) = replicas.into_iter().unzip();
    let keys: Vec<Box<[u8]>> = writes.iter().map(|write: &OwnedWrite| write.key().into()).collect();
    let noting = server.clone();
    let stored = Arc::new(parking_lot::Mutex::new(vec![None; replies.len()]));
    let decided = stored.clone();
    let store = server.store.clone();
    server.writes.enter(&server.runtime, move |turn| {
        store.write(
            writes,
            move |index, outcome| {
                if let Some(key) = keys.get(index).and_then(|key| RecordKey::new(key).ok()) {
                    noting.late_writes.note(key);
                }
                if let Some(slot) = decided.lock().get_mut(index) {
                    *slot = Some(was_stored(outcome));
                }
            },
            move |result| {
                drop(turn);
                for (reply, stored) in replies.into_iter().zip(stored.lock().iter()) {
                    match (&result, stored) {
                        (Ok(()), Some(stored)) => reply.ok(|out| pack::bool(out, *stored)),
                        _ => reply.error(ErrorCode::Server),
                    }
                }
            },
        );
    });
}
