//! The requests of one read of a connection: checked, stored, replicated, answered.
//!
//! Everything that memory can answer is answered on the network thread. What needs the disk goes to the store's pools
//! in one batch for the whole read. Writes become durable together, with one commit, and only then are answered.

mod reads;
mod replicas;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(super) use self::reads::Wanted;
use self::reads::{Miss, read_misses, write_found};
use self::replicas::{store_replicas, was_stored};
use super::coordinate::{self, Operation, arriving, settle};
use super::marks::{Mark, Wait};
use super::refusal::Refusal;
use super::register;
use super::shared::Shared;
use super::spaces::Spaces;
use super::submission::{Change, Submission, answer_to, replicates};
use crate::net::{InFlight, Link, Reply};
use crate::rules::Rule;
use crate::store::{Applied, Batch, Outcome, OwnedWrite, Write};
use crate::wire::extension::{Extension, Fence, Route};
use crate::wire::method::{DELETE_ASYNC, Delete, ErrorCode, REPLICATE_BY_RHS, ReplicateDelete, ReplicateSet, Set};
use crate::wire::params::{COPY_OVERHEAD, Encode, SetOp, Written};
use crate::wire::{MESSAGE_LIMIT_MIN, RecordKey, RecordValue, frame, record};

/// Handles the requests of one read.
pub(super) struct Handler<'a, 'r> {
    server: &'a Arc<Shared>,
    link: &'a Arc<Link>,
    out: &'a mut Vec<u8>,
    spaces: Arc<Spaces>,
    batch: Option<Batch<'a>>,
    /// Writes by this coordinator that are decided and not replicated yet.
    decided: Vec<Decided<'r>>,
    /// Copies for the owners that vote, with their clocks.
    copies: Vec<(&'r [u8], u32)>,
    /// Answers that wait for the commit.
    answers: Vec<Answer>,
    /// Answers that wait for the commit, and until the record that they tell of is settled.
    unsettled: Vec<Unsettled>,
    misses: Vec<Miss>,
    deferred: Vec<Deferred>,
    /// Hashes of deferred writes by this coordinator.
    busy: HashSet<u64>,
    gets: u64,
    sets: u64,
    deletes: u64,
    /// See [`Self::sender_is_member`].
    sender: Option<bool>,
    /// Whether this server may answer reads and coordinate writes.
    permitted: bool,
}

/// An answer that waits for the commit.
struct Answer {
    msgid: u32,
    written: Written,
    /// A write that has no owners but this server.
    alone: Option<Alone>,
}

/// A write that is nowhere else.
struct Alone {
    hash: u64,
    /// Its key, and what keeps reads waiting until it is durable; of a server that is the only one, nothing.
    mark: Option<(Box<[u8]>, Mark)>,
}

/// An answer that waits for more than the commit.
struct Unsettled {
    wait: Arc<Wait>,
    reply: Reply,
    written: Written,
}

/// A write that a client asks for.
struct Asked<'r> {
    msgid: u32,
    change: Change,
    wait: bool,
    key: RecordKey<'r>,
    body: &'r [u8],
    route: Option<Route>,
}

impl Asked<'_> {
    fn submission(&self, link: &Arc<Link>) -> Submission {
        Submission::new(self.change, self.wait, self.key, self.body, self.route, Reply::new(link, self.msgid))
    }
}

/// A write that memory has decided.
struct Decided<'r> {
    asked: Asked<'r>,
    outcome: Outcome,
    mark: Option<Mark>,
}

/// A write whose decision needs the disk.
enum Deferred {
    Coordinate(Submission),
    Replica(OwnedWrite, Reply),
}

/// The sender goes by a hash space that is not ours.
const OBSOLETE: Refusal = Refusal(ErrorCode::Server);

impl<'a, 'r> Handler<'a, 'r> {
    /// Answers that are known at once go to `out`.
    pub(super) fn new(server: &'a Arc<Shared>, link: &'a Arc<Link>, out: &'a mut Vec<u8>) -> Self {
        let spaces = server.spaces();
        Self {
            server,
            link,
            out,
            permitted: spaces.permit.holds(server.env.time()),
            spaces,
            batch: None,
            decided: Vec::new(),
            copies: Vec::new(),
            answers: Vec::new(),
            unsettled: Vec::new(),
            misses: Vec::new(),
            deferred: Vec::new(),
            busy: HashSet::new(),
            gets: 0,
            sets: 0,
            deletes: 0,
            sender: None,
        }
    }

    /// Answers `request` with an error if `result` is one.
    pub(super) fn answer_refusal(&mut self, msgid: u32, result: &Result<(), Refusal>) {
        if let Err(Refusal(error)) = result {
            frame::error_response(self.out, msgid, *error);
        }
    }

    /// Bytes of answers so far, to this read's requests.
    pub(super) fn answered_bytes(&self) -> usize {
        self.out.len()
    }

    /// Appends an answer that is known at once.
    pub(super) fn answer(&mut self, msgid: u32, result: &impl Encode) {
        frame::response(self.out, msgid, result);
    }

    /// Get and `GetIfModified`.
    pub(super) fn get(&mut self, msgid: u32, key: RecordKey<'r>, wanted: Wanted) -> Result<(), Refusal> {
        let owners = self.spaces.rhs.owners(key.hash());
        if !self.permitted || !self.spaces.may_store() || !owners.is_active_owner(self.server.address) {
            return Err(OBSOLETE);
        }
        self.gets += 1;
        let out = &mut *self.out;
        let start = out.len();
        let mut clock = None;
        let seen = self.server.store.peek(key, |value| {
            clock = value.map(|value| value.clocktime().clock());
            frame::response_head(out, msgid);
            let head = out.len();
            write_found(out, value, wanted);
            head
        });
        let Some(head) = seen else {
            let weight = key.bytes().len() + self.server.miss_weight.load(Ordering::Relaxed);
            let reply = Reply::new(self.link, msgid).weighing(weight);
            self.misses.push(Miss { key: key.bytes().into(), reply, wanted });
            return Ok(());
        };
        let wait = if matches!(wanted, Wanted::Unsettled) {
            None
        } else if owners.coordinator() == Some(self.server.address) {
            self.server.marks.wait(key.hash())
        } else {
            settle::copy(self.server, &self.spaces, key, clock)
        };
        if let Some(wait) = wait {
            let result = out.split_off(head);
            out.truncate(start);
            let reply = Reply::new(self.link, msgid).weighing(result.len());
            self.server.unsettled.hurry(key.bytes());
            settle::answer(self.server, wait, reply, result);
        }
        Ok(())
    }

    /// Set in its three kinds.
    pub(super) fn set(&mut self, msgid: u32, call: &Set<RecordKey<'r>, RecordValue<'r>>) -> Result<(), Refusal> {
        let change = match call.op {
            SetOp::Cas => Change::Cas(call.value.clocktime()),
            SetOp::Sync | SetOp::Async => Change::Set,
        };
        let (wait, key, body) = (call.op != SetOp::Async, call.key, call.value.body());
        self.coordinate(Asked { msgid, change, wait, key, body, route: self.route(call.route) })
    }

    /// Delete.
    pub(super) fn delete(&mut self, msgid: u32, call: &Delete<RecordKey<'r>>) -> Result<(), Refusal> {
        let wait = call.flags & DELETE_ASYNC == 0;
        self.coordinate(Asked {
            msgid,
            change: Change::Delete,
            wait,
            key: call.key,
            body: &[],
            route: self.route(call.route),
        })
    }

    /// By which hash space a client has sent a write, as far as that is looked at.
    fn route(&self, route: Option<Route>) -> Option<Route> {
        route.filter(|_| self.server.env.rules().follow(Rule::LateWrites))
    }

    fn coordinate(&mut self, asked: Asked<'r>) -> Result<(), Refusal> {
        let (change, key, hash) = (asked.change, asked.key, asked.key.hash());
        if !self.permitted || !self.spaces.takes(self.server.address, hash, asked.route) {
            return Err(OBSOLETE);
        }
        self.check_size(key, asked.body)?;
        match change {
            Change::Delete => self.deletes += 1,
            Change::Set | Change::Cas(_) => self.sets += 1,
        }
        if matches!(change, Change::Cas(_)) && self.spaces.is_arriving(self.server.address, hash) {
            arriving::swap(self.server, asked.submission(self.link));
            return Ok(());
        }
        if self.server.is_learning() {
            self.deferred.extend(self.server.hold(asked.submission(self.link)).map(Deferred::Coordinate));
            return Ok(());
        }
        if !self.spaces.may_store() {
            return Err(OBSOLETE);
        }
        if self.must_follow(hash) {
            self.defer(&asked);
            return Ok(());
        }
        let mark = (!self.spaces.is_alone()).then(|| self.server.marks.mark(hash));
        match self.batch().apply(&change.as_write(key, asked.body)) {
            Applied::Done(outcome) => {
                self.server.late_writes.note(key);
                self.decided.push(Decided { asked, outcome, mark });
            }
            Applied::Later => self.defer(&asked),
            Applied::Failed(_) => return Err(Refusal(ErrorCode::Server)),
        }
        Ok(())
    }

    /// Refuses, before anything is stored, what one of the other owners would not take.
    fn check_size(&self, key: RecordKey<'_>, body: &[u8]) -> Result<(), Refusal> {
        let length = key.bytes().len().saturating_add(body.len()).saturating_add(COPY_OVERHEAD);
        if length <= MESSAGE_LIMIT_MIN {
            return Ok(());
        }
        let mut refused = Ok(());
        self.spaces.targets(self.server.address, key.hash(), |target| {
            let limit = target.session.message_limit();
            if length > limit {
                let (key, server) = (key.bytes().get(record::KEY_HEADER..).unwrap_or_default(), target.session.address());
                let size = body.len();
                tracing::warn!(key = %key.escape_ascii(), size, "set refused: too large for server {server}: its limit is {limit}");
                refused = Err(Refusal(ErrorCode::Protocol));
            }
        });
        refused
    }

    /// Whether an earlier write to this hash waits for the disk.
    fn must_follow(&self, hash: u64) -> bool {
        self.busy.contains(&hash) || self.server.key_order.is_busy(hash)
    }

    fn defer(&mut self, asked: &Asked<'r>) {
        self.busy.insert(asked.key.hash());
        self.deferred.push(Deferred::Coordinate(asked.submission(self.link)));
    }

    /// `ReplicateSet`: the coordinator of a key sends a copy.
    pub(super) fn replicate_set(
        &mut self,
        msgid: u32,
        call: &ReplicateSet<RecordKey<'r>, RecordValue<'r>>,
    ) -> Result<(), Refusal> {
        self.server.note_peer_time(self.link, call.value.clocktime());
        self.check_fence(call.fence)?;
        self.replicate(msgid, call.clock, call.flags, call.key, call.value.bytes())
    }

    /// `ReplicateDelete`: likewise of a deletion.
    pub(super) fn replicate_delete(
        &mut self,
        msgid: u32,
        call: &ReplicateDelete<RecordKey<'r>>,
    ) -> Result<(), Refusal> {
        self.check_fence(call.fence)?;
        self.replicate(msgid, call.clock, call.flags, call.key, &record::tombstone(call.clocktime))
    }

    /// Refuses a copy whose coordinator acts by another configuration: it sends it again, once it knows the later one. If this
    /// server is the one that lags, it asks for the configuration.
    fn check_fence(&self, fence: Option<Fence>) -> Result<(), Refusal> {
        if self.spaces.admits(fence) {
            return Ok(());
        }
        if let (Some(fence), Some(sender)) = (fence, self.link.session())
            && fence.version > self.spaces.counter
        {
            register::ask(self.server, sender, self.server.clock.take(), Extension::default());
        }
        Err(OBSOLETE)
    }

    fn replicate(
        &mut self,
        msgid: u32,
        clock: u32,
        flags: u32,
        key: RecordKey<'r>,
        value: &[u8],
    ) -> Result<(), Refusal> {
        let space = if flags & REPLICATE_BY_RHS == 0 { &self.spaces.whs } else { &self.spaces.rhs };
        if !space.owners(key.hash()).is_active_owner(self.server.address) {
            return Err(OBSOLETE);
        }
        self.server.clock.adjust(clock);
        let value = RecordValue::new(value)?;
        let write = Write::Update { key, value, touch: false };
        if self.spaces.fence().is_some() {
            self.copies.push((key.bytes(), value.clocktime().clock()));
        }
        match self.batch().apply(&write) {
            Applied::Done(outcome) => {
                self.server.late_writes.note(key);
                self.answers.push(Answer { msgid, written: Written::Is(was_stored(outcome)), alone: None });
            }
            Applied::Later => {
                self.deferred.push(Deferred::Replica(OwnedWrite::from(&write), Reply::new(self.link, msgid)));
            }
            Applied::Failed(_) => return Err(Refusal(ErrorCode::Server)),
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
        self.batch.get_or_insert_with(|| self.server.store.batch().fenced(self.spaces.token()))
    }

    /// Replicates what was decided, hands over what needs the disk, and commits.
    pub(super) fn finish(mut self) {
        self.count();
        if self.gets > 0 && !self.spaces.permit.holds(self.server.env.time()) {
            self.withhold();
        }
        self.note_copies();
        if let Some(batch) = self.batch.take() {
            // Only now, after the writes are in the store: whoever changes the hash spaces in between scans a store that
            // holds them.
            let spaces = self.server.spaces();
            let operations = self.replicate_decided(&spaces);
            let mut answers = std::mem::take(&mut self.answers);
            let in_flight = InFlight::new(self.link, answers.len());
            let unsettled = std::mem::take(&mut self.unsettled);
            let (server, acting) = (self.server.clone(), self.spaces.clone());
            batch.commit(move |result| {
                // It can be seen here, and may become durable yet; or it is stored here, and whether it counts others decide,
                // who have taken over.
                let doubtful = result.is_err() || !acting.permit.holds(server.env.time());
                let error = doubtful.then_some(ErrorCode::Unknown);
                look_for_owners(&server, &spaces, &mut answers);
                if result.is_err() {
                    keep_unsettled(&server, &spaces, &mut answers);
                }
                answer_all(in_flight.link(), answers, error);
                if error.is_none() {
                    for answer in unsettled {
                        answer.give(&server);
                    }
                }
                drop(in_flight);
                for operation in operations {
                    operation.committed(result.is_ok());
                }
            });
        }
        if !self.misses.is_empty() {
            read_misses(self.server, self.spaces.clone(), std::mem::take(&mut self.misses));
        }
        if !self.deferred.is_empty() {
            self.submit_deferred();
        }
    }

    /// Remembers the copies until their coordinator has them on all owners.
    fn note_copies(&mut self) {
        let (copies, sender) = (std::mem::take(&mut self.copies), self.link.session().map(|session| session.address()));
        let Some(sender) = sender.filter(|_| !copies.is_empty()) else { return };
        self.server.copies.note(sender, copies);
        let present = self.server.spaces();
        if !present.whs.is_active(sender) {
            // It has been given up meanwhile.
            settle::take_over(self.server, self.server.copies.lose(|node| present.whs.is_active(node)));
        }
    }

    /// The lease ran out while answers were made: they may be out of date, and are not sent. Nor is anything else that is
    /// on its way on this connection.
    fn withhold(&mut self) {
        tracing::debug!(peer = %self.link.peer(), "answers withheld: the lease has ended meanwhile");
        self.out.clear();
        self.link.close();
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

    /// Sends the decided writes to the other owners by `spaces`.
    fn replicate_decided(&mut self, spaces: &Arc<Spaces>) -> Vec<Arc<Operation>> {
        let mut operations = Vec::new();
        for decided in std::mem::take(&mut self.decided) {
            let Decided { asked, outcome, mark } = decided;
            let (msgid, key) = (asked.msgid, asked.key);
            let mut targets = Vec::new();
            if replicates(outcome) {
                if spaces.joins() != self.spaces.joins() {
                    // Others have taken over in between: what this server held then counts no more.
                    self.answers.push(Answer { msgid, written: Written::Partly, alone: None });
                    continue;
                }
                spaces.targets(self.server.address, key.hash(), |target| targets.push(target));
            }
            if targets.is_empty() {
                let written = answer_to(outcome, false);
                let alone = replicates(outcome).then(|| {
                    let mark = mark.map(|mark| (key.bytes().into(), mark));
                    Alone { hash: key.hash(), mark }
                });
                // A swap that did not match tells of the record that is there.
                if alone.is_none()
                    && let Some(wait) = self.server.marks.wait(key.hash())
                {
                    self.server.unsettled.hurry(key.bytes());
                    self.unsettled.push(Unsettled { wait, reply: Reply::new(self.link, msgid), written });
                } else {
                    self.answers.push(Answer { msgid, written, alone });
                }
            } else {
                let submission = Submission { mark, ..asked.submission(self.link) };
                operations.push(coordinate::replicate(self.server, submission, outcome, spaces, targets));
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
            store_replicas(self.server, self.spaces.token(), replicas);
        }
    }
}

impl Unsettled {
    fn give(self, server: &Arc<Shared>) {
        let mut result = Vec::new();
        self.written.encode(&mut result);
        settle::answer(server, self.wait, self.reply, result);
    }
}

/// Writes that had no owners but this server when they were decided, by `spaces`, have not succeeded if there are others
/// now. Those get the record by the replace that makes them owners, which scans the store after this.
fn look_for_owners(server: &Shared, spaces: &Spaces, answers: &mut [Answer]) {
    if !answers.iter().any(|answer| answer.alone.is_some()) {
        return;
    }
    let present = server.spaces();
    if present.have_the_owners_of(spaces) {
        return;
    }
    for answer in answers {
        if let Some(alone) = &answer.alone {
            present.targets(server.address, alone.hash, |_| answer.written = Written::Partly);
        }
    }
}

/// The disk has refused writes that are nowhere else: nobody is told of them until it takes them after all.
fn keep_unsettled(server: &Shared, spaces: &Spaces, answers: &mut [Answer]) {
    let marked = answers.iter_mut().filter_map(|answer| answer.alone.as_mut()?.mark.take());
    for (key, mark) in marked {
        server.unsettled.keep(&key, Some(mark), spaces.joins());
    }
}

/// Sends the answers of one commit, or to all of them this error. Before: who has an answer need not wait for it.
fn answer_all(link: &Link, answers: Vec<Answer>, error: Option<ErrorCode>) {
    let answers: Vec<_> = answers.into_iter().map(|Answer { msgid, written, .. }| (msgid, written)).collect();
    if answers.is_empty() {
        return;
    }
    link.push(|out| {
        for (msgid, written) in answers {
            match error {
                None => frame::response(out, msgid, &written),
                Some(error) => frame::error_response(out, msgid, error),
            }
        }
    });
}
