//! A replica has ignored a write: what it holds instead, and what becomes of the write.

use std::sync::Arc;

use super::{Change, LAGGING, Operation, Submission, submit};
use crate::clock::ClockTime;
use crate::net::STEPS;
use crate::server::takeover;
use crate::server::work::Answer;
use crate::store::Outcome;
use crate::wire::method::Method;
use crate::wire::{NodeAddress, RecordKey, RecordValue, params, record};

/// How often a write is stamped anew because a replica holds something later.
const STAMP_TRIES: u8 = 4;

/// What a replica that has ignored a write holds.
pub(super) enum Held {
    /// This very write: an earlier try, or the stream of a replace, has brought it.
    Same,
    /// A later value.
    Later(Vec<u8>),
    /// A deletion.
    Deleted,
    /// It was not asked, or has not told.
    Unknown,
}

impl Operation {
    /// The replica at `node` has ignored the write: it holds something later, or has it already.
    ///
    /// A set or deletion sent for the first time is taken to be late, since it costs little to stamp it anew. A swap
    /// must not be called failed when it is stored, nor a retried write be taken for two.
    pub(super) fn ignored(self: Arc<Self>, node: NodeAddress, tries_left: u32) {
        let retried = tries_left < self.retries();
        if !retried && !matches!(self.change, Change::Cas(_)) {
            *self.later.lock() = Some((node, Held::Unknown));
            return self.ended(LAGGING);
        }
        self.server.runtime.clone().spawn(async move {
            match (self.held_by(node).await, self.change) {
                (Held::Same, _) | (Held::Deleted, Change::Delete) => self.ended(0),
                (held, _) => {
                    *self.later.lock() = Some((node, held));
                    self.ended(LAGGING);
                }
            }
        });
    }

    /// A replica holds something later than our clocktime: a set is stamped and written anew, a swap has failed.
    pub(super) fn lagged(self: &Arc<Self>) {
        let operation = self.clone();
        self.server.clock.raise_beyond(self.clocktime.clock());
        tracing::debug!(stamp = %self.clocktime, "a replica holds a later record");
        self.server.runtime.spawn(async move {
            let later = operation.later.lock().take();
            if let Change::Cas(_) = operation.change {
                let given_up = match later {
                    Some((_, held)) => operation.give_way(held).await,
                    None => false,
                };
                // Where the swap stays stored, with the replica in doubt, it has not failed either.
                return operation.reply(if given_up { Answer::Bool(false) } else { Answer::Nil });
            }
            if operation.stamps > 1
                && let Some((node, _)) = later
            {
                operation.follow_time(node).await;
            }
            if operation.stamps >= STAMP_TRIES {
                return operation.reply(Answer::Nil);
            }
            let (reply, in_flight) = std::mem::take(&mut *operation.reply.lock());
            let submission = Submission {
                change: operation.change,
                wait: operation.wait,
                key: operation.key.clone(),
                body: operation.body.clone(),
                reply,
                in_flight,
                stamps: operation.stamps,
                deleted: operation.has_deleted(),
            };
            submit(&operation.server, vec![submission]);
        });
    }

    /// Raising the clock was not enough, since the later record's time is ahead of ours: takes that record over, so that
    /// what is stamped next here is after it.
    async fn follow_time(&self, node: NodeAddress) {
        if let Held::Later(value) = self.held_by(node).await
            && let (Ok(key), Ok(value)) = (RecordKey::new(&self.key), RecordValue::new(&value))
        {
            takeover::store(&self.server, key, value).await;
        }
    }

    /// Replaces what a swap has stored by the later record of a replica, here and at the other owners. Says whether it
    /// is replaced here.
    async fn give_way(&self, held: Held) -> bool {
        let value = match held {
            Held::Later(value) => value,
            // When it was deleted is not known: just after this swap, which nothing else that is later minds.
            Held::Deleted => {
                let stamp = self.clocktime;
                let after = ClockTime::new(stamp.seconds(), stamp.clock().wrapping_add(1));
                record::tombstone(after).to_vec()
            }
            Held::Same | Held::Unknown => return false,
        };
        let (Ok(key), Ok(value)) = (RecordKey::new(&self.key), RecordValue::new(&value)) else { return false };
        // Else what is stored is the swap's value still, or nobody knows.
        let replaced = |outcome| !matches!(outcome, Outcome::Ignored { stored } if stored == self.clocktime);
        if !takeover::store(&self.server, key, value).await.is_some_and(replaced) {
            tracing::warn!(key = %self.key.escape_ascii(), "a replica's later record could not be stored");
            return false;
        }
        self.spread(key, value);
        true
    }

    /// Sends a later record to the other owners, of which some have taken the swap's value.
    fn spread(&self, key: RecordKey<'_>, value: RecordValue<'_>) {
        let clocktime = value.clocktime();
        let clock = clocktime.clock();
        self.server.spaces().targets(self.server.address, key.hash(), |target| {
            let flags = target.flags();
            let ignore = Box::new(|_: Result<&[u8], _>| ());
            if value.is_tombstone() {
                let params =
                    |out: &mut Vec<u8>| params::write_replicate_delete(out, clock, flags, clocktime, key.bytes());
                target.session.call(Method::ReplicateDelete, STEPS, params, ignore);
            } else {
                let params = |out: &mut Vec<u8>| {
                    params::write_replicate_set(out, clock, flags, key.bytes(), clocktime, value.body());
                };
                target.session.call(Method::ReplicateSet, STEPS, params, ignore);
            }
        });
    }

    async fn held_by(&self, node: NodeAddress) -> Held {
        match takeover::get(&self.server, node, &self.key).await {
            Ok(None) => Held::Deleted,
            Ok(Some(value)) if RecordValue::new(&value).is_ok_and(|value| value.clocktime() == self.clocktime) => {
                Held::Same
            }
            Ok(Some(value)) => Held::Later(value),
            Err(_) => Held::Unknown,
        }
    }
}
