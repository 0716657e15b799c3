//! Writes that are decided in memory and go to the log together.

use super::cache::{Before, Change, split_value};
use super::core::{Core, LogWaiter};
use super::error::Error;
use super::guard::AbortOnPanic;
use super::options::SyncMode;
use super::redo::{Append, Entry, Kind};
use super::write::{Decision, Outcome, Previous, Write, decide};
use crate::wire::RecordValue;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Bytes in the log's buffer at which a batch writes them out before its end.
const WRITE_OUT_BYTES: u64 = 1 << 20;

/// How long a batch waits for another's write before it leaves its own to the log's thread.
const PATIENCE: Duration = Duration::from_millis(1);

/// The result of [`Batch::apply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// Decided, and visible to all who read from now on. Durable when the batch's commit says so.
    Done(Outcome),
    /// Not decided: the previous record is not in memory, there is no space just now, or a floor is being set. Hand it to [`Store::write`],
    /// and any later write to the same key behind it.
    ///
    /// [`Store::write`]: super::Store::write
    Later,
    /// Refused; nothing changed.
    Failed(Error),
}

/// The record that the tree holds under a key, and the cache's epoch when it was read.
pub(super) struct Base<'a> {
    pub(super) value: Option<&'a [u8]>,
    pub(super) generation: u32,
    pub(super) epoch: u64,
}

/// Writes of everything one network read has brought.
///
/// A batch that is dropped without a commit leaves its writes to the next one, or to the log thread within a second.
#[must_use = "writes are durable only after a commit"]
pub struct Batch<'s> {
    core: &'s Core,
    /// Greatest sequence number that an outcome rests on, ours and others'.
    need: u64,
    /// Made by the store's own threads, which have waited for the throttle themselves.
    unthrottled: bool,
    /// See [`Batch::fenced`].
    token: Option<u64>,
}

impl<'s> Batch<'s> {
    pub(super) fn new(core: &'s Core) -> Self {
        Self { core, need: 0, unthrottled: false, token: None }
    }

    /// Has writes refused, with [`Error::Fenced`], that are decided when `token` is not the store's fencing token any more.
    pub(crate) fn fenced(mut self, token: u64) -> Self {
        self.token = Some(token);
        self
    }

    /// A batch that the throttle does not hold back.
    pub(super) fn unthrottled(core: &'s Core) -> Self {
        Self { core, need: 0, unthrottled: true, token: None }
    }

    /// Decides a write under its record's lock. Does not wait, and does not read from disk.
    #[inline]
    pub fn apply(&mut self, write: &Write<'_>) -> Applied {
        self.apply_on(write, None)
    }

    /// As [`Batch::apply`], knowing what the main tree holds.
    pub(super) fn apply_on(&mut self, write: &Write<'_>, base: Option<&Base<'_>>) -> Applied {
        let core = self.core;
        if core.failures.any()
            && let Some(error) = core.failures.error()
        {
            return Applied::Failed(error);
        }
        let raw_key = write.key().bytes();
        let body = write.body();
        let bytes = (raw_key.len() + body.len()) as u64;
        if bytes > core.record_limit() {
            return Applied::Failed(Error::TooLarge { bytes, limit: core.record_limit() });
        }
        if core.cache.dirty_bytes() + bytes > core.dirty_limit() || (!self.unthrottled && !core.may_write(bytes)) {
            return Applied::Later;
        }
        let _guard = AbortOnPanic::new("deciding a write");
        let mut place = core.cache.find(raw_key);
        // Asked with the shard locked: the last merge either takes this write along or is seen here.
        if core.closing.load(Ordering::Acquire) {
            return Applied::Failed(Error::Closed);
        }
        // Likewise: once there is another token, nothing is decided under this one.
        if self.token.is_some_and(|token| token != core.token.load(Ordering::Acquire)) {
            return Applied::Failed(Error::Fenced);
        }
        // Likewise: what is decided now is seen by whoever holds writes back.
        if core.is_held() {
            return Applied::Later;
        }
        let base = base.filter(|base| base.epoch == core.cache.epoch());
        let (previous, generation) = match (place.slot(), base) {
            (Some(slot), _) => (slot.value().map_or(Previous::Absent, Previous::Present), slot.generation),
            (None, Some(base)) => {
                let value = base.value.and_then(|value| RecordValue::new(value).ok());
                (value.map_or(Previous::Absent, Previous::Present), base.generation)
            }
            (None, None) => (Previous::Unknown, 0),
        };
        let before = match previous {
            Previous::Unknown => Before::Unknown,
            Previous::Absent => Before::Known(false),
            Previous::Present(_) => Before::Known(true),
        };
        // The write that a decision rests on must be in the log before the decision is acknowledged.
        let rests_on = place.slot().map_or(0, super::cache::Slot::seq);
        let newest = place.newest();
        let decision = decide(write, previous, &core.clock, |time| core.cache.is_newest(newest, time));
        let current = core.generation.load(Ordering::Relaxed);
        let stamp;
        let touched;
        let (kind, head, body, outcome) = match decision {
            Decision::Read => return Applied::Later,
            Decision::Keep(outcome) => {
                self.need = self.need.max(rests_on);
                place.touch();
                return Applied::Done(outcome);
            }
            Decision::Put(clocktime, outcome) => {
                stamp = clocktime.0.to_be_bytes();
                if let Write::Update { .. } = write {
                    core.clock.observe(clocktime);
                }
                (Kind::Put, &stamp[..], body, outcome)
            }
            Decision::Touch(outcome) if generation == current => {
                self.need = self.need.max(rests_on);
                return Applied::Done(outcome);
            }
            Decision::Touch(outcome) => {
                touched = match previous {
                    Previous::Present(value) => value.bytes().to_vec(),
                    Previous::Unknown | Previous::Absent => Vec::new(),
                };
                let (head, body) = split_value(&touched);
                (Kind::Put, head, body, outcome)
            }
            Decision::Drop => (Kind::Remove, &[][..], &[][..], Outcome::Removed),
        };
        let entry = Entry { kind, generation: current, key: raw_key, head, body };
        let Append::Buffered(seq) = core.redo.append(&entry) else { return Applied::Later };
        core.cache.write(&mut place, &Change { key: raw_key, head, body, generation: current, seq }, before);
        drop(place);
        self.need = seq;
        core.cache.evict_to_limit();
        if core.redo.buffered() > WRITE_OUT_BYTES {
            // A failure stands in `failures` and meets the commit.
            let _ = core.redo.write_out_within(seq, PATIENCE);
        }
        Applied::Done(outcome)
    }

    /// Writes what was decided to the log, with one `write` for all that is waiting.
    ///
    /// `done` is called when the outcomes may be acknowledged: with [`SyncMode::Always`] on the log's thread after a sync,
    /// otherwise before this returns, or on another thread if the disk holds a write back. It must not block, nor panic. On
    /// an error nothing of the batch may be acknowledged, though some of it may turn out to have been stored, and is visible.
    pub fn commit(self, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        let core = self.core;
        if self.need == 0 {
            return done(Ok(()));
        }
        core.note_write();
        if core.wants_merge() {
            core.wake();
        }
        if core.options.sync == SyncMode::Always {
            if core.redo.synced() >= self.need {
                return done(Ok(()));
            }
        } else if let Some(result) = write_out_soon(core, self.need) {
            core.answer_written();
            return done(result);
        }
        if let Err(done) = leave_to_log(core, self.need, done) {
            return done(core.redo.write_out(self.need).and_then(|()| core.redo.sync()));
        }
        // Whoever was writing may have ended before this batch waited, and knows nothing of it.
        if core.options.sync != SyncMode::Always && write_out_soon(core, self.need).is_some() {
            core.answer_written();
        }
    }
}

/// Writes the log up to `need`, unless another thread is held back by the disk.
fn write_out_soon(core: &Core, need: u64) -> Option<Result<(), Error>> {
    let _guard = AbortOnPanic::new("writing the log");
    // Where some wait already it is known that the disk is slow.
    let patience = if core.has_log_waiters.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
    let result = core.redo.write_out_within(need, patience)?;
    Some(result.and_then(|()| core.failures.error().map_or(Ok(()), Err)))
}

/// Has the log's thread write up to `need`, and sync if that is the mode. Gives `done` back if the thread is gone.
fn leave_to_log<F: FnOnce(Result<(), Error>) + Send + 'static>(core: &Core, need: u64, done: F) -> Result<(), F> {
    let mut waiters = core.log_waiters.lock();
    if core.log_ended.load(Ordering::Relaxed) {
        return Err(done);
    }
    waiters.push(LogWaiter { need, done: Box::new(done) });
    core.has_log_waiters.store(true, Ordering::Release);
    drop(waiters);
    core.log_signal.raise();
    Ok(())
}
