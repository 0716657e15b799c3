//! Writes by their coordinator: decided by the store, sent to the other owners, answered (protocol, section 7).

pub(super) mod arriving;
mod later;
mod operation;

use std::sync::Arc;

use parking_lot::Mutex;

use super::key_order::Job;
use super::shared::Shared;
use super::spaces::Target;
use super::submission::{Submission, answer_to, replicates};
use crate::store::Outcome;
use crate::wire::RecordKey;
use crate::wire::params::Encode;
pub(super) use operation::Operation;

/// Sends a decided write to `targets`. Its local part stays open until [`Operation::committed`].
pub(super) fn replicate(
    server: &Arc<Shared>,
    submission: Submission,
    outcome: Outcome,
    targets: Vec<Target>,
) -> Arc<Operation> {
    Operation::start(server, submission, outcome, targets, submit)
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
    let (ours, _refused): (Vec<_>, Vec<_>) =
        submissions.into_iter().partition(|submission| spaces.whs.owners(submission.hash()).coordinator() == Some(own));
    let writes = ours.iter().filter_map(Submission::to_write).collect();
    let waiting: Vec<_> = ours.into_iter().map(Some).collect();
    let started = Arc::new(Mutex::new((waiting, Vec::<Started>::new())));
    let (deciding, server, ending) = (started.clone(), server.clone(), server.clone());
    let store = server.store.clone();
    server.clone().writes.enter(&server.env.clone(), move |permit| {
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
                    Started::Replicated(replicate(&server, submission, outcome, targets))
                };
                state.1.push(begun);
            },
            move |result| {
                drop(permit);
                let next = ending.key_order.end(hashes);
                if !next.submissions.is_empty() {
                    // Not on this thread of the store: it must not wait for a place in its own queue.
                    ending.env.clone().spawn(async move { decide(&ending, next) });
                }
                // What was not decided is dropped here, and its reply answers error 6.
                let begun = std::mem::take(&mut started.lock().1);
                for begun in begun {
                    match begun {
                        Started::Replicated(operation) => operation.committed(result.is_ok()),
                        Started::Alone(submission, outcome) => {
                            let answer = answer_to(outcome, submission.deleted);
                            if let Some(reply) = submission.reply.filter(|_| result.is_ok()) {
                                reply.ok(|out| answer.encode(out));
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
