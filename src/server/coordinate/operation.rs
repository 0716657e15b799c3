//! A decided write on its way to the other owners: sent, retried, answered (protocol, section 7).
//!
//! An [`Operation`] counts the parts that are still open, the local commit and one for each target; whoever ends the
//! last one answers, or sends it on to those who have become owners meanwhile. No task waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::later::{self, Held};
use super::owners::{Look, Owners, Places};
use super::settle;
use crate::binlog::Record;
use crate::clock::{ClockTime, is_behind};
use crate::env::Backoff;
use crate::net::{InFlight, Reply, STEPS};
use crate::rules::Rule;
use crate::server::marks::Mark;
use crate::server::remote;
use crate::server::shared::Shared;
use crate::server::spaces::{Spaces, Target};
use crate::server::submission::{Change, Submission, answer_to};
use crate::store::Outcome;
use crate::wire::method::{ErrorCode, ReplicateDelete, ReplicateSet};
use crate::wire::params::{Encode, Stamped, Written, decode};
use crate::wire::record::{KEY_HEADER, META_LEN};
use crate::wire::{NodeAddress, RecordKey, RecordValue};

/// The pauses before a failed replica is tried again.
const RETRY_PAUSES: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));

/// The local commit failed.
const LOCAL_FAILED: u64 = 1;
/// An owner that must have the write does not.
const REPLICA_FAILED: u64 = 2;
/// A replica holds something later: our clock lags.
const LAGGING: u64 = 4;
/// A replica reached by rhs has taken the deletion.
const DELETED_BY_RHS: u64 = 8;
/// A replica held something later, and before the write was decided: the write was never on all owners.
const TOO_EARLY: u64 = 16;
/// From this bit on: the places of the owners that have the write.
const HAVE_SHIFT: u32 = 16;
const _: () = assert!(HAVE_SHIFT + Places::LIMIT <= u64::BITS, "a bit for each place");

/// The owner at this place has the write.
fn has(place: u32) -> u64 {
    Places::one(place).0 << HAVE_SHIFT
}

/// How often a write is stamped anew because a replica holds something later.
const STAMP_TRIES: u8 = 4;

/// Decides writes anew, under later clocktimes.
pub(super) type Again = fn(&Arc<Shared>, Vec<Submission>);

/// Whether a copy that has failed so is not to be tried again.
fn is_final(error: ErrorCode) -> bool {
    matches!(error, ErrorCode::NodeLost | ErrorCode::TooLarge)
}

/// A decided write on its way to the other owners.
pub(in crate::server) struct Operation {
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
    client: Mutex<Client>,
    /// Parts that have not ended: targets, and the local commit.
    open: AtomicU32,
    flags: AtomicU64,
    owners: Mutex<Owners>,
    /// A replica that holds something later, and what that is if it was asked.
    later: Mutex<Option<(NodeAddress, Held)>>,
    again: Again,
}

/// What is owed to the client, and to those who read the key.
#[derive(Default)]
struct Client {
    reply: Option<Reply>,
    /// Counts an answered asynchronous write.
    in_flight: Option<InFlight>,
    mark: Option<Mark>,
}

impl Operation {
    /// Sends the write to `targets`, those by `spaces`; the local part stays open until [`Self::committed`].
    pub(super) fn start(
        server: &Arc<Shared>,
        submission: Submission,
        outcome: Outcome,
        spaces: &Arc<Spaces>,
        targets: Vec<Target>,
        again: Again,
    ) -> Arc<Self> {
        let clocktime = match outcome {
            Outcome::Stored { clocktime } | Outcome::Deleted { clocktime, .. } => clocktime,
            _ => ClockTime::default(),
        };
        let open = u32::try_from(targets.len()).unwrap_or(u32::MAX).saturating_add(1);
        let Submission { change, wait, key, body, reply, in_flight, stamps, deleted, mark, .. } = submission;
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
            client: Mutex::new(Client { reply, in_flight, mark }),
            open: AtomicU32::new(open),
            flags: AtomicU64::new(0),
            owners: Mutex::new(Owners::new(spaces.clone())),
            later: Mutex::new(None),
            again,
        });
        for (place, target) in (0..).zip(targets) {
            operation.send(place, &target, operation.retries(), RETRY_PAUSES);
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

    fn send(self: &Arc<Self>, place: u32, target: &Target, tries: u32, backoff: Backoff) {
        let (operation, session) = (self.clone(), &target.session);
        let (flags, fence) = (target.flags(), target.fence);
        let owner = (target.session.address(), target.by_rhs);
        let (clock, clocktime) = (self.clocktime.clock(), self.clocktime);
        let done =
            Box::new(move |result: Result<&[u8], ErrorCode>| operation.replied(place, owner, tries, backoff, result));
        if self.change == Change::Delete {
            session.call(&ReplicateDelete { clock, flags, clocktime, key: &self.key, fence }, STEPS, done);
        } else {
            let value = Stamped { clocktime, body: &self.body };
            session.call(&ReplicateSet { clock, flags, key: &self.key, value, fence }, STEPS, done);
        }
    }

    fn replied(
        self: Arc<Self>,
        place: u32,
        (node, by_rhs): (NodeAddress, bool),
        tries: u32,
        backoff: Backoff,
        result: Result<&[u8], ErrorCode>,
    ) {
        match result {
            Ok(result) => match decode(result) {
                Ok(Written::Is(true)) => self.ended(has(place) | if by_rhs { DELETED_BY_RHS } else { 0 }),
                Ok(Written::Is(false)) => self.ignored(place, node, tries, backoff),
                _ => self.failed(place, node, tries, backoff, ErrorCode::Protocol),
            },
            Err(error) => self.failed(place, node, tries, backoff, error),
        }
    }

    /// Tries again after a pause, as long as the node is reachable and still to have the write.
    fn failed(self: Arc<Self>, place: u32, address: NodeAddress, tries: u32, mut backoff: Backoff, error: ErrorCode) {
        // On a task of its own: this may run while the caller holds a lock.
        self.server.env.clone().spawn(async move {
            // Where servers vote, one that cannot be reached is given up before long, or comes back: until then its copy is
            // undecided.
            let undecided = error == ErrorCode::NodeLost && self.server.spaces().fence().is_some();
            let tries = if is_final(error) && !undecided { 0 } else { tries };
            if tries > 0 {
                backoff.pause(&self.server.env).await;
            }
            let spaces = self.server.spaces();
            // By whs before, it may own the key in rhs only now; whoever owns it in neither is not missed.
            let Some(target) = spaces.target(address, self.hash()) else { return self.ended(0) };
            if tries > 0 && self.may_send(&spaces) {
                return self.send(place, &target, tries - 1, backoff);
            }
            tracing::warn!(peer = %address, key = %self.key.escape_ascii(), "replica not written: {error}");
            self.log_failure(address);
            self.ended(REPLICA_FAILED);
        });
    }

    /// Whether replicas take this write from this server: it is active, and was not given up since it was decided.
    fn may_send(&self, present: &Spaces) -> bool {
        present.is_active(self.server.address) && present.joins() == self.joins()
    }

    fn log_failure(&self, to: NodeAddress) {
        let key = self.key.get(KEY_HEADER..).unwrap_or_default();
        let hash = self.hash();
        self.server.binary_log.write(&match self.change {
            Change::Delete => Record::ReplicateDeleteFailed { key, hash, to },
            Change::Set | Change::Cas(_) => {
                let value = self.body.get(META_LEN..).unwrap_or_default();
                Record::ReplicateSetFailed { key, value, hash, clocktime: self.clocktime.0, to }
            }
        });
    }

    fn hash(&self) -> u64 {
        RecordKey::new(&self.key).map_or(0, |key| key.hash())
    }

    /// The local store has committed, or failed to.
    pub(in crate::server) fn committed(self: &Arc<Self>, durable: bool) {
        if durable && !self.wait {
            let mut client = self.client.lock();
            if let Some(answering) = client.reply.take() {
                // Still under way for the bounds, until the replicas have answered.
                let mut in_flight = InFlight::new(answering.link(), 1);
                in_flight.weigh(self.key.len() + self.body.len());
                client.in_flight = Some(in_flight);
                answering.ok(|out| answer_to(self.outcome, false).encode(out));
            }
        }
        self.ended(if durable { 0 } else { LOCAL_FAILED });
    }

    /// One part has ended; the last one finishes the operation.
    fn ended(self: &Arc<Self>, flags: u64) {
        self.flags.fetch_or(flags, Ordering::AcqRel);
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish();
        }
    }

    fn finish(self: &Arc<Self>) {
        let flags = self.flags.load(Ordering::Acquire);
        if flags & LOCAL_FAILED != 0 {
            // It can be seen here, and replicas may have it: not error 6, after which nothing has been done.
            self.keep_unsettled();
            if let Some(reply) = self.client.lock().reply.take() {
                reply.error(ErrorCode::Unknown);
            }
            return;
        }
        let undone = || flags & TOO_EARLY != 0 || !self.is_superseded();
        if flags & LAGGING != 0 && undone() && !self.is_overtaken() {
            return self.lagged();
        }
        if flags & REPLICA_FAILED == 0 && !self.all_have_it(Places(flags >> HAVE_SHIFT)) {
            return;
        }
        let flags = self.flags.load(Ordering::Acquire);
        let rules = self.server.env.rules();
        let spaces = self.server.spaces();
        let given_up = spaces.fence().is_none() && !spaces.is_active(self.server.address);
        if flags & REPLICA_FAILED != 0 && self.wait && given_up {
            return self.take_back();
        }
        let deleted = self.deleted || flags & DELETED_BY_RHS != 0;
        let failed = flags & REPLICA_FAILED != 0 && rules.follow(Rule::AllOwners);
        if failed {
            self.keep_unsettled();
        }
        self.reply(if failed { Written::Partly } else { answer_to(self.outcome, deleted) });
    }

    /// Whether the owners of this moment have the write, or it is to be answered as failed. Otherwise it is on its way to
    /// those that have become owners since it was sent.
    fn all_have_it(self: &Arc<Self>, have: Places) -> bool {
        let present = self.server.spaces();
        let permitted = present.permit.holds(self.server.env.time());
        let look = self.owners.lock().look(present, self.server.address, self.hash(), have);
        match look {
            Look::Complete if permitted => true,
            Look::Complete => {
                // The lease has ended: others may have become the owners.
                self.flags.fetch_or(REPLICA_FAILED, Ordering::AcqRel);
                true
            }
            Look::Failed(nodes) => {
                for node in nodes {
                    let key = self.key.escape_ascii();
                    tracing::warn!(peer = %node, %key, "owner not written: this server was given up meanwhile, or the hash spaces change all the time");
                    self.log_failure(node);
                }
                self.flags.fetch_or(REPLICA_FAILED, Ordering::AcqRel);
                true
            }
            Look::Lacking(targets) => {
                let count = u32::try_from(targets.len()).unwrap_or(u32::MAX);
                // One more, so that nothing ends before all is sent.
                self.open.store(count.saturating_add(1), Ordering::Release);
                for (place, target) in targets {
                    tracing::debug!(peer = %target.session.address(), "owner since a write was decided");
                    self.send(place, &target, self.retries(), RETRY_PAUSES);
                }
                self.ended(0);
                false
            }
        }
    }

    /// This server was given up before the write was anywhere else: forgets it. It may rest on a record that others have
    /// long replaced, and would be the later one when this server is attached again. Where servers vote its next admission
    /// sees to that.
    fn take_back(self: &Arc<Self>) {
        let operation = self.clone();
        self.server.env.spawn(async move {
            if let Ok(key) = RecordKey::new(&operation.key) {
                remote::forget(&operation.server, key, operation.clocktime).await;
            }
            operation.reply(Written::Partly);
        });
    }

    /// Whether a live value has been deleted, under this clocktime or an earlier one.
    fn has_deleted(&self) -> bool {
        self.deleted
            || matches!(self.outcome, Outcome::Deleted { live: true, .. })
            || self.flags.load(Ordering::Acquire) & DELETED_BY_RHS != 0
    }

    fn reply(&self, answer: Written) {
        let Client { reply, in_flight, mark } = std::mem::take(&mut *self.client.lock());
        // First: who has the answer and reads need not wait.
        drop(mark);
        if let Some(reply) = reply {
            reply.ok(|out| answer.encode(out));
        }
        drop(in_flight);
    }

    /// Not all owners have what is stored here of the key: the settling goes on when this has ended.
    fn keep_unsettled(&self) {
        let mark = self.client.lock().mark.take();
        self.server.unsettled.keep(&self.key, mark, self.joins());
    }

    /// Whether this server has been given up since it decided the write, and is back, where servers vote: others may have the
    /// write, and have answered for it, so it must not be done once more.
    fn is_overtaken(&self) -> bool {
        let spaces = self.server.spaces();
        let overtaken = spaces.fence().is_some() && spaces.joins() != self.joins();
        if overtaken {
            self.flags.fetch_or(REPLICA_FAILED, Ordering::AcqRel);
        }
        overtaken
    }

    /// How often this server had become active when the write was decided.
    fn joins(&self) -> u32 {
        self.owners.lock().spaces().joins()
    }

    /// Whether a later write of this coordinator has replaced this one here: that one is what replicas hold.
    ///
    /// Later writes of one coordinator have later clocks. A later time alone is of the record for which this write was too
    /// early, and which a replace has brought here meanwhile.
    fn is_superseded(&self) -> bool {
        let Ok(key) = RecordKey::new(&self.key) else { return false };
        let own = self.clocktime;
        let follows = |there: ClockTime| own.is_before(there) && is_behind(own.clock(), there.clock());
        let later = |value: Option<RecordValue<'_>>| value.is_some_and(|value| follows(value.clocktime()));
        self.server.store.peek(key, later).unwrap_or(false)
    }

    /// The replica at `node` has ignored the write: it holds something later, or has it already.
    ///
    /// Where nobody votes, a set or deletion sent for the first time is taken to be late, since it costs little to stamp it anew. A
    /// swap must not be called failed when it is stored, nor a retried write be taken for two; and to who has become an owner
    /// since, the stream of a replace may have brought it. Where servers vote, any owner may have: and once all have it, it
    /// can be seen, and must not get another clocktime.
    fn ignored(self: Arc<Self>, place: u32, node: NodeAddress, tries_left: u32, backoff: Backoff) {
        let voting = self.server.spaces().fence().is_some();
        let retried = tries_left < self.retries() || self.owners.lock().have_changed();
        if !voting && !retried && !matches!(self.change, Change::Cas(_)) {
            *self.later.lock() = Some((node, Held::Unknown));
            return self.ended(LAGGING | has(place));
        }
        self.server.env.clone().spawn(async move {
            match (later::held_by(&self.server, node, &self.key, self.clocktime).await, self.change) {
                (Held::Same, _) => self.ended(has(place)),
                (held, Change::Delete) if held.is_deleted() => self.ended(has(place)),
                (Held::Unknown, _) if voting => self.failed(place, node, tries_left, backoff, ErrorCode::Server),
                (held, _) => {
                    let too_early = if held.is_earlier_by_clock(self.clocktime) { TOO_EARLY } else { 0 };
                    *self.later.lock() = Some((node, held));
                    self.ended(LAGGING | has(place) | too_early);
                }
            }
        });
    }

    /// A replica holds something later than our clocktime: a set is stamped and written anew, a swap has failed.
    fn lagged(self: &Arc<Self>) {
        let operation = self.clone();
        self.server.clock.raise_beyond(self.clocktime.clock());
        tracing::debug!(stamp = %self.clocktime, "a replica holds a later record");
        self.server.env.spawn(async move {
            let later = operation.later.lock().take();
            if let Change::Cas(_) = operation.change {
                let given_up = match later {
                    Some((_, held)) => {
                        let spaces = operation.owners.lock().spaces().clone();
                        later::give_way(&operation.server, &spaces, &operation.key, operation.clocktime, held).await
                    }
                    None => false,
                };
                // Others may have the swap's value still; and the answer tells of the record that has replaced it.
                if !given_up || !settle::settle(&operation.server, &operation.key, operation.joins()).await {
                    operation.keep_unsettled();
                }
                // Where the swap stays stored, with the replica in doubt, it has not failed either.
                return operation.reply(if given_up { Written::Is(false) } else { Written::Partly });
            }
            if operation.stamps > 1
                && let Some((node, _)) = later
            {
                later::follow_time(&operation.server, node, &operation.key, operation.clocktime).await;
            }
            if operation.stamps >= STAMP_TRIES {
                operation.keep_unsettled();
                return operation.reply(Written::Partly);
            }
            let Client { reply, in_flight, mark } = std::mem::take(&mut *operation.client.lock());
            let submission = Submission {
                change: operation.change,
                wait: operation.wait,
                key: operation.key.clone(),
                body: operation.body.clone(),
                // It was taken in time.
                route: None,
                reply,
                in_flight,
                stamps: operation.stamps,
                deleted: operation.has_deleted(),
                mark,
            };
            (operation.again)(&operation.server, vec![submission]);
        });
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // Not brought to its end, since the server is: a restart must find it.
        let mark = self.client.get_mut().mark.take();
        if mark.is_some() {
            self.server.unsettled.keep(&self.key, mark, self.owners.get_mut().spaces().joins());
        }
    }
}
