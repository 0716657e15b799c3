//! Requests on their way to the servers: all that one read has brought leave together, in one batch for each server, and
//! are answered when that has answered. Whatever takes more than this one call is handed to [`execute`].

use std::cell::RefCell;
use std::sync::Arc;

use tokio::time::Instant;

use super::acknowledge::{acknowledge, must_wait};
use super::execute::execute;
use super::failure::Failure;
use super::job::Job;
use super::operation::Operation;
use super::outcome::Outcome;
use super::view;
use crate::client::verdict::{self, Verdict};
use crate::client::{Node, RawKey, Routes, Tried, delete_flags, set_length, steps};
use crate::clock::ClockTime;
use crate::net::{OnReply, Outgoing};
use crate::wire::extension::Route;
use crate::wire::frame;
use crate::wire::method::{Delete, ErrorCode, Get, Set};
use crate::wire::params::{Parts, SetOp};

thread_local! {
    /// Batches of jobs that the [`dispatch`] that runs on this thread is still to send; `None`: none runs.
    static WAITING: RefCell<Option<Vec<Vec<Job>>>> = const { RefCell::new(None) };
}

/// Clears [`WAITING`], also when a panic ends it.
struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        // Not within the borrow: jobs that are dropped dispatch those behind them.
        drop(WAITING.take());
    }
}

/// Sends jobs of one gateway to their servers, all for one server together.
///
/// A job that fails or is dropped right here dispatches those behind it. They are sent one after the other: if each were
/// sent from within the one before, a long line for one key would overflow the stack.
pub(super) fn dispatch(jobs: Vec<Job>) {
    let own = WAITING.with_borrow_mut(|waiting| match waiting {
        Some(waiting) => {
            waiting.push(jobs);
            None
        }
        None => {
            *waiting = Some(Vec::new());
            Some(jobs)
        }
    });
    let Some(jobs) = own else { return };
    let _running = Running;
    send(jobs);
    while let Some(jobs) = WAITING.with_borrow_mut(|waiting| waiting.as_mut().and_then(Vec::pop)) {
        send(jobs);
    }
}

fn send(jobs: Vec<Job>) {
    let Some(routes) = jobs.first().map(|job| job.reply.shared.router.routes()) else { return };
    let mut batches: Vec<(Arc<Node>, Vec<Sent>)> = Vec::new();
    for job in jobs {
        let Some(job) = within_limits(job, &routes) else { continue };
        let hash = job.reply.key.hash();
        let node = match job.operation {
            Operation::Change(_) => None,
            Operation::Get | Operation::Vivify(_) => routes.readers(hash).next(),
            Operation::Set { .. } | Operation::Swap { .. } | Operation::Delete { .. } => routes.coordinator(hash),
        };
        let Some(node) = node else {
            execute(job, None);
            continue;
        };
        let sent = Sent { job, node: node.clone(), clock: node.clock(), route: routes.route() };
        match batches.iter_mut().find(|(other, _)| Arc::ptr_eq(other, node)) {
            Some((_, batch)) => batch.push(sent),
            None => batches.push((node.clone(), vec![sent])),
        }
    }
    for (node, batch) in batches {
        node.session().call_all(batch);
    }
}

/// Refuses a value that is too large for a server that must store it; a set removes what it was to replace, as one that is
/// too large for the gateway does.
fn within_limits(job: Job, routes: &Routes) -> Option<Job> {
    let Job { reply, operation } = job;
    let refused = match &operation {
        Operation::Set { data, .. } | Operation::Swap { data, .. } => too_large(&reply.key, data, routes),
        Operation::Get | Operation::Delete { .. } | Operation::Vivify(_) | Operation::Change(_) => None,
    };
    match (refused, operation) {
        (None, operation) => Some(Job { reply, operation }),
        (Some(refused), Operation::Set { .. }) => {
            Some(Job { reply, operation: Operation::Delete { refused: Some(refused) } })
        }
        (Some(refused), _) => {
            reply.answer(&Outcome::Failed(refused));
            None
        }
    }
}

fn too_large(key: &RawKey, data: &[u8], routes: &Routes) -> Option<Failure> {
    let found = routes.too_large(key.hash(), set_length(key, data));
    found.map(|(server, limit)| Failure::TooLargeFor(server, limit))
}

/// A job on its way to a server.
struct Sent {
    job: Job,
    node: Arc<Node>,
    /// Its clock when this was sent.
    clock: Option<u32>,
    /// By which it was chosen.
    route: Option<Route>,
}

impl Outgoing for Sent {
    fn steps(&self) -> u16 {
        let options = self.job.reply.shared.router.options();
        steps(match self.job.operation {
            Operation::Get | Operation::Vivify(_) => options.read_patience,
            _ => options.call_timeout,
        })
    }

    fn write(&self, out: &mut Vec<u8>, msgid: u32) {
        let Self { job: Job { reply, operation }, route, .. } = self;
        let route = *route;
        let (shared, key) = (&reply.shared, &reply.key);
        let layout = shared.config.rules.layout;
        match operation {
            Operation::Get | Operation::Vivify(_) | Operation::Change(_) => {
                frame::request(out, msgid, &Get { key, look: None });
            }
            Operation::Set { data, reward } => {
                let value = Parts { clocktime: ClockTime(0), meta: reward.meta(layout), data };
                frame::request(out, msgid, &Set { op: shared.set_op(), key, value, route });
            }
            Operation::Swap { expected, data, reward, .. } => {
                let value = Parts { clocktime: *expected, meta: reward.meta(layout), data };
                frame::request(out, msgid, &Set { op: SetOp::Cas, key, value, route });
            }
            Operation::Delete { .. } => {
                frame::request(out, msgid, &Delete { flags: delete_flags(!shared.config.async_delete), key, route });
            }
        }
    }

    fn on_reply(self) -> OnReply {
        Box::new(move |result| self.replied(result))
    }
}

impl Sent {
    /// The server has answered: in the ordinary case this is the end of it.
    fn replied(self, result: Result<&[u8], ErrorCode>) {
        let Self { job: Job { reply, operation }, node, clock, .. } = self;
        let server = node.address();
        if node.is_suspect() && result.is_ok() {
            node.trust();
        }
        match &operation {
            Operation::Get => {
                if let Verdict::Done(value) = verdict::get(server, result) {
                    let outcome = view::of_value(value, reply.key.hash(), &reply.shared);
                    return reply.answer(&outcome);
                }
            }
            Operation::Vivify(change) => {
                if let Verdict::Done(value) = verdict::get(server, result) {
                    return match view::of_value(value, reply.key.hash(), &reply.shared) {
                        Outcome::Missing => execute(Job { reply, operation: Operation::Change(change.clone()) }, None),
                        outcome => reply.answer(&outcome),
                    };
                }
            }
            Operation::Set { data, reward } | Operation::Swap { data, reward, .. } => {
                if let Verdict::Done(Some(clocktime)) = verdict::set(server, result) {
                    node.note_write(clocktime.clock());
                    if must_wait(&reply, clocktime) {
                        let (reward, env) = (*reward, reply.shared.env.clone());
                        let (Operation::Set { data, .. } | Operation::Swap { data, .. }) = operation else { return };
                        env.spawn(async move { acknowledge(reply, clocktime, &data, reward, Instant::now()).await });
                        return;
                    }
                    let outcome = reward.outcome(clocktime, data, &reply.shared.config.rules);
                    return reply.answer(&outcome);
                }
            }
            Operation::Delete { refused } => {
                if let Verdict::Done(found) = verdict::delete(server, result) {
                    return reply.answer(&view::of_deletion(found, *refused));
                }
            }
            Operation::Change(_) => {}
        }
        let answer = result.map(<[u8]>::to_vec);
        execute(Job { reply, operation }, Some(Tried { node, clock, answer }));
    }
}
