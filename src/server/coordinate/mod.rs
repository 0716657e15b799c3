//! Writes by their coordinator: decided by the store, sent to the other owners, answered (protocol, section 7).

pub(super) mod arriving;
mod later;
mod operation;
mod owners;
pub(super) mod settle;

use std::sync::Arc;

use parking_lot::Mutex;

use super::key_order::Job;
use super::shared::Shared;
use super::spaces::{Spaces, Target};
use super::submission::{Submission, answer_to, replicates};
use crate::store::{Outcome, WriteJob};
use crate::wire::RecordKey;
use crate::wire::method::ErrorCode;
use crate::wire::params::{Encode, Written};
pub(super) use operation::Operation;

/// Sends a decided write to `targets`, those by `spaces`. Its local part stays open until [`Operation::committed`].
pub(super) fn replicate(
    server: &Arc<Shared>,
    submission: Submission,
    outcome: Outcome,
    spaces: &Arc<Spaces>,
    targets: Vec<Target>,
) -> Arc<Operation> {
    Operation::start(server, submission, outcome, spaces, targets, submit)
}

/// Decides writes on the store's write threads, each after those to its key that came before.
pub(super) fn submit(server: &Arc<Shared>, submissions: Vec<Submission>) {
    decide(server, server.key_order.begin(submissions));
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
    let (mut ours, refused): (Vec<_>, Vec<_>) = submissions
        .into_iter()
        .partition(|submission| spaces.may_store() && spaces.takes(own, submission.hash(), submission.route));
    for submission in refused {
        refuse(server, submission);
    }
    for submission in &mut ours {
        if submission.mark.is_none() && !spaces.is_alone() {
            submission.mark = Some(server.marks.mark(submission.hash()));
        }
    }
    let writes = ours.iter().filter_map(Submission::to_write).collect();
    let waiting: Vec<_> = ours.into_iter().map(Some).collect();
    let started = Arc::new(Mutex::new((waiting, Vec::<Started>::new())));
    let (deciding, server, ending) = (started.clone(), server.clone(), server.clone());
    let store = server.store.clone();
    let (token, joins) = (spaces.token(), spaces.joins());
    server.clone().writes.enter(&server.env.clone(), move |permit| {
        let job = WriteJob::new(
            writes,
            move |index, outcome| {
                let mut state = deciding.lock();
                let Some(submission) = state.0.get_mut(index).and_then(Option::take) else { return };
                if let Ok(key) = RecordKey::new(&submission.key) {
                    server.late_writes.note(key);
                }
                state.1.extend(begin(&server, joins, submission, outcome));
            },
            move |result| {
                drop(permit);
                let next = ending.key_order.end(hashes);
                if !next.submissions.is_empty() {
                    // Not on this thread of the store: it must not wait for a place in its own queue.
                    let server = ending.clone();
                    ending.env.spawn(async move { decide(&server, next) });
                }
                let (undecided, begun) = std::mem::take(&mut *started.lock());
                for submission in undecided.into_iter().flatten() {
                    refuse(&ending, submission);
                }
                for begun in begun {
                    match begun {
                        Started::Replicated(operation) => operation.committed(result.is_ok()),
                        Started::Alone(submission, outcome) => {
                            end_alone(&ending, joins, submission, outcome, result.is_ok());
                        }
                    }
                }
            },
        );
        store.submit_write(job.fenced(token));
    });
}

/// Answers a write that this server may not decide, since it is not the coordinator any more, or could not: error 6, unless it
/// is stored under an earlier clocktime here or at another owner.
fn refuse(server: &Shared, submission: Submission) {
    if submission.stamps == 0 {
        return;
    }
    server.unsettled.keep(&submission.key, submission.mark, server.spaces().joins());
    if let Some(reply) = submission.reply {
        reply.ok(|out| Written::Partly.encode(out));
    }
}

/// Sends a decided write to the other owners of this moment, if there are any and it has changed something. `joins`: of the
/// hash spaces by which it was decided; if this server was given up since and is back, what it has decided counts no more.
fn begin(server: &Arc<Shared>, joins: u32, submission: Submission, outcome: Outcome) -> Option<Started> {
    let spaces = server.spaces();
    let mut targets = Vec::new();
    if replicates(outcome) {
        if spaces.joins() != joins {
            refuse(server, Submission { stamps: submission.stamps.saturating_add(1), ..submission });
            return None;
        }
        spaces.targets(server.address, submission.hash(), |target| targets.push(target));
    }
    Some(if targets.is_empty() {
        Started::Alone(submission, outcome)
    } else {
        Started::Replicated(replicate(server, submission, outcome, &spaces, targets))
    })
}

/// A write that had no other owners when it was decided has been committed, or failed to. There may be some by now.
fn end_alone(server: &Arc<Shared>, joins: u32, submission: Submission, outcome: Outcome, durable: bool) {
    match begin(server, joins, submission, outcome) {
        None => {}
        Some(Started::Replicated(operation)) => operation.committed(durable),
        Some(Started::Alone(submission, outcome)) => {
            let hash = submission.hash();
            let Submission { key, reply, deleted, mark, .. } = submission;
            if !durable {
                // It can be seen here, and may become durable yet; nobody is told of it before.
                server.unsettled.keep(&key, mark, joins);
                if let Some(reply) = reply {
                    reply.error(ErrorCode::Unknown);
                }
                return;
            }
            drop(mark);
            let Some(reply) = reply else { return };
            let mut answer = Vec::new();
            answer_to(outcome, deleted).encode(&mut answer);
            // A swap that did not match tells of the record that is there.
            match server.marks.wait(hash) {
                Some(wait) => {
                    server.unsettled.hurry(&key);
                    settle::answer(server, wait, reply, answer);
                }
                None => reply.ok(|out| out.extend_from_slice(&answer)),
            }
        }
    }
}

enum Started {
    /// Nobody else is to have it: answered when committed.
    Alone(Submission, Outcome),
    Replicated(Arc<Operation>),
}
