//! Operations that need more than one call to a server: one whose first try has failed, and a change that reads a record
//! before it writes. Each runs on a task of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::acknowledge::acknowledge;
use super::change::{Change, Decision, Reward};
use super::failure::Failure;
use super::job::{Job, Reply};
use super::operation::Operation;
use super::outcome::Outcome;
use super::stats::Stats;
use super::swap::swap;
use super::view;
use crate::client::{Error, Stored, Swapped, Tried};
use crate::clock::ClockTime;
use crate::net::budget::Budget;

/// Times that a change is decided anew because others have changed its item meanwhile.
const CONTENTION_LIMIT: u32 = 200;
/// The pause before the second try is shorter than this; the bound grows by as much with each try.
const CONTENTION_PAUSE: Duration = Duration::from_micros(100);
/// Up to this bound.
const CONTENTION_PAUSE_MAX: Duration = Duration::from_millis(20);
/// The longest that a change waits for those to the same item from other connections.
const LOCK_LIMIT: Duration = Duration::from_secs(1);
/// The CAS unique of a value that somebody else has overwritten already: nothing has it.
const OVERWRITTEN: ClockTime = ClockTime(0);

/// Carries a job out on a task of its own; `first` is what came of its first try, if it has been sent.
pub(super) fn execute(job: Job, first: Option<Tried>) {
    if !job.operation.writes() && job.reply.is_abandoned() {
        return job.reply.abandon();
    }
    let (env, budget) = (job.reply.shared.env.clone(), job.reply.shared.budget.clone());
    let kept = first.as_ref().and_then(|tried| tried.answer.as_ref().ok()).map_or(0, Vec::len);
    let task = carry_out(job, first);
    let held = Held::new(budget, size_of_val(&task).saturating_add(kept));
    env.spawn(async move {
        task.await;
        drop(held);
    });
}

/// Bytes that a task takes, which count while this is there.
struct Held(Arc<Budget>, usize);

impl Held {
    fn new(budget: Arc<Budget>, bytes: usize) -> Self {
        budget.hold(bytes);
        Self(budget, bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.release(self.1);
    }
}

async fn carry_out(job: Job, first: Option<Tried>) {
    let Job { reply, operation } = job;
    let shared = reply.shared.clone();
    let (router, config) = (&shared.router, &shared.config);
    let started = Instant::now();
    match operation {
        Operation::Get => match router.get(&reply.key, config.get_limit, first).await {
            Ok(found) => {
                let outcome = view::of_read(&found, reply.key.hash(), &shared);
                reply.answer(&outcome);
            }
            Err(error) => reply.fail(&error, None),
        },
        Operation::Vivify(change) => match router.get(&reply.key, config.get_limit, first).await {
            Ok(found) => match view::of_read(&found, reply.key.hash(), &shared) {
                Outcome::Missing => modify(reply, &change, started).await,
                outcome => reply.answer(&outcome),
            },
            Err(error) => reply.fail(&error, None),
        },
        Operation::Set { data, reward } => {
            let record = (reward.meta(config.rules.layout), &*data);
            let written = router.set(&reply.key, shared.set_op(), record, config.set_limit, first).await;
            finish_set(reply, written, &data, reward, started).await;
        }
        Operation::Delete { refused } => {
            let deleted = router.delete(&reply.key, !config.async_delete, config.delete_limit, first).await;
            finish_delete(reply, deleted, refused);
        }
        Operation::Swap { expected, data, reward, change } => {
            let record = (reward.meta(config.rules.layout), &*data);
            let swapped = router.swap(&reply.key, expected, record, config.set_limit, first).await;
            if let Some(reply) = finish_swap(reply, swapped, &data, reward, started).await {
                modify(reply, &change, started).await;
            }
        }
        Operation::Change(change) => modify(reply, &change, started).await,
    }
}

/// Reads, decides and writes until nobody else comes between. All of it together has the time of one operation.
async fn modify(mut reply: Reply, change: &Change<'_>, started: Instant) {
    let shared = reply.shared.clone();
    let (router, config) = (&shared.router, &shared.config);
    let is_deletion = matches!(change, Change::Delete { .. });
    let limit = if is_deletion { config.delete_limit } else { config.set_limit };
    let left = || limit.saturating_sub(started.elapsed());
    // One after the other in this gateway. Waiting for long would add up where the server is the one that hangs.
    let _lock = tokio::time::timeout(LOCK_LIMIT, shared.item_locks.lock(reply.key.hash())).await;
    for attempt in 0..CONTENTION_LIMIT {
        let read = match router.get_to_change(&reply.key, left()).await {
            Ok(read) => read,
            Err(error) => return reply.fail(&error, Some(&[])),
        };
        let current = read.as_ref().map(view::current);
        if let Some((_, meta, _)) = current {
            view::compare_layouts(meta, &shared);
        }
        let hidden = current.map(|(clocktime, ..)| clocktime).filter(|clocktime| reply.is_hidden(*clocktime));
        let visible = current.filter(|_| hidden.is_none());
        let mut decision = change.decide(visible, shared.unix_seconds(), &config.rules);
        // What is hidden counts as absent, but is there.
        if let (Some(hidden), Decision::Store { expected: Some(expected), .. }) = (hidden, &mut decision) {
            *expected = hidden;
        }
        match decision {
            Decision::Answer(outcome) => return reply.answer(&outcome),
            Decision::Delete { refused } => {
                let deleted = router.delete(&reply.key, !config.async_delete, left(), None).await;
                return finish_delete(reply, deleted, refused);
            }
            Decision::Store { expected: None, data, reward } => {
                let record = (reward.meta(config.rules.layout), &*data);
                let written = router.set(&reply.key, shared.set_op(), record, left(), None).await;
                return finish_set(reply, written, &data, reward, started).await;
            }
            Decision::Store { expected: Some(expected), data, reward } => {
                let record = (reward.meta(config.rules.layout), &*data);
                let swapped = swap(router, &config.rules, &reply.key, expected, record, left()).await;
                match finish_swap(reply, swapped, &data, reward, started).await {
                    Some(unanswered) => reply = unanswered,
                    None => return,
                }
            }
        }
        Stats::add(&shared.stats.contended);
        if left().is_zero() {
            break;
        }
        let longest = CONTENTION_PAUSE.saturating_mul(attempt + 1).min(CONTENTION_PAUSE_MAX);
        tokio::time::sleep(shared.env.random_share(longest)).await;
    }
    reply.answer(&Outcome::Failed(Failure::Contended));
}

/// Answers what has become of writing `data`.
async fn finish_set(reply: Reply, written: Result<Stored, Error>, data: &[u8], reward: Reward, started: Instant) {
    match written {
        Ok(Stored::At(clocktime)) => acknowledge(reply, clocktime, data, reward, started).await,
        Ok(Stored::Overwritten) => answer_overwritten(reply, data, reward),
        Err(error) => reply.fail(&error, Some(data)),
    }
}

/// Answers that `data` was written, and has been overwritten.
fn answer_overwritten(reply: Reply, data: &[u8], reward: Reward) {
    let outcome = reward.outcome(OVERWRITTEN, data, &reply.shared.config.rules);
    reply.answer(&outcome);
}

/// Answers what has become of swapping `data` in, unless the clocktime has not matched: the duty to answer is given back.
async fn finish_swap(
    reply: Reply,
    swapped: Result<Swapped, Error>,
    data: &[u8],
    reward: Reward,
    started: Instant,
) -> Option<Reply> {
    match swapped {
        Ok(Swapped::Mismatch) => return Some(reply),
        Ok(Swapped::At(clocktime)) => acknowledge(reply, clocktime, data, reward, started).await,
        Ok(Swapped::Overwritten) => answer_overwritten(reply, data, reward),
        Err(error) => reply.fail(&error, Some(data)),
    }
    None
}

/// Answers what has become of a deletion.
fn finish_delete(reply: Reply, deleted: Result<bool, Error>, refused: Option<Failure>) {
    match deleted {
        Ok(found) => reply.answer(&view::of_deletion(found, refused)),
        Err(error) => reply.fail(&error, None),
    }
}
