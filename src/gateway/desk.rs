//! One connection as its requests see it: a place for each answer in order, and turns at each key.
//!
//! The socket belongs to the task in [`super::connection`]; answers come from wherever they become known. What the
//! front of the line has is written into one buffer, so that what one wake brings leaves in one write.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

use super::budget::Budget;
use super::outcome::Outcome;
use super::protocol::{Early, Form, Writer};
use super::turns::Turns;
use super::work::Job;
use crate::clock::unix_seconds;
use crate::net::output::Output;

/// Memory that an unanswered request takes beyond what it carries, roughly.
pub(super) const REQUEST_WEIGHT: usize = 512;
/// How long the answers of a new connection are expected to be, in bytes, until some are known.
const FIRST_ESTIMATE: usize = 16 << 10;

/// The answers of one connection in order, and what is under way.
#[derive(Debug)]
pub(super) struct Desk {
    state: Mutex<State>,
    budget: Arc<Budget>,
    draining: AtomicBool,
    closing: AtomicBool,
    /// Seconds of the reaper's clock since when the client has owed us progress; zero: it owes nothing.
    pub(super) owing_since: AtomicU32,
}

#[derive(Debug)]
struct State {
    /// Requests that are not answered, or whose answers wait for those before.
    slots: VecDeque<Option<Early>>,
    /// Number of the first slot.
    first: u64,
    writer: Writer,
    /// Output to be sent.
    ready: Output,
    /// How long the answers of this connection are lately: the longest of the last few.
    estimate: usize,
    turns: Turns<Job>,
    /// Bytes that unanswered requests hold.
    held: usize,
    waker: Option<Waker>,
    gone: bool,
}

impl State {
    /// An answer has had this length: those to come may have it, too.
    fn expect(&mut self, len: usize) {
        self.estimate = len.max(self.estimate - self.estimate / 8);
    }
}

/// The time in unix seconds, which only answers of the meta protocol tell: asking for it takes as long as the others do.
fn now_for(form: &Form) -> u32 {
    if matches!(form, Form::Meta(_)) { unix_seconds() } else { 0 }
}

/// How a connection stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// Requests that are not answered, or whose answers wait for those before.
    pub(super) in_flight: usize,
    /// Bytes that they hold.
    pub(super) held: usize,
    /// How long each answer may become, in bytes, as far as that can be told.
    pub(super) estimate: usize,
}

impl Desk {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            state: Mutex::new(State {
                slots: VecDeque::new(),
                first: 0,
                writer: Writer::default(),
                ready: Output::default(),
                estimate: FIRST_ESTIMATE,
                turns: Turns::default(),
                held: 0,
                waker: None,
                gone: false,
            }),
            budget,
            draining: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            owing_since: AtomicU32::new(0),
        }
    }

    /// A new request, behind all others: its number.
    pub(super) fn open(&self, weight: usize) -> u64 {
        self.budget.hold(weight);
        let mut state = self.state.lock();
        state.held += weight;
        state.slots.push_back(None);
        state.first + state.slots.len() as u64 - 1
    }

    /// Gives a request its turn at its key: it is given back if it may start now.
    pub(super) fn begin(&self, hash: u64, write: bool, job: Job) -> Option<Job> {
        self.state.lock().turns.begin(hash, write, job)
    }

    /// A request is over at its key: those that may start now.
    pub(super) fn end(&self, hash: u64, write: bool) -> Vec<Job> {
        let mut next = Vec::new();
        self.state.lock().turns.end(hash, write, &mut next);
        next
    }

    /// Takes the answer to a request.
    pub(super) fn answer(&self, number: u64, weight: usize, form: &Form, key: &[u8], outcome: &Outcome<'_>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.held = state.held.saturating_sub(weight);
        self.budget.release(weight);
        if state.gone {
            return;
        }
        let Some(place) = number.checked_sub(state.first).and_then(|place| usize::try_from(place).ok()) else { return };
        if place > 0 {
            let early = Early::new(form, key, outcome, now_for(form));
            state.expect(early.len());
            self.budget.hold(early.len());
            if let Some(slot) = state.slots.get_mut(place) {
                *slot = Some(early);
            }
            return;
        }
        let State { writer, ready, .. } = state;
        let len = ready.write(|out| writer.write(form, key, outcome, now_for(form), out));
        self.budget.hold(len);
        state.expect(len);
        state.slots.pop_front();
        state.first += 1;
        while let Some(Some(_)) = state.slots.front() {
            let Some(Some(early)) = state.slots.pop_front() else { break };
            state.first += 1;
            let State { writer, ready, .. } = state;
            let len = early.len();
            let kept = ready.write(|out| writer.append(early, out));
            // What follows an error is dropped.
            self.budget.release(len.saturating_sub(kept));
        }
        let waker = state.waker.take();
        drop(guard);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether every request is answered.
    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().slots.is_empty()
    }

    /// Moves the answers that are ready to the end of `out`; from now on more of them wake `waker`.
    pub(super) fn collect(&self, waker: &Waker, out: &mut Output) -> Standing {
        let mut state = self.state.lock();
        out.take(&mut state.ready);
        match &mut state.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        Standing { in_flight: state.slots.len(), held: state.held, estimate: state.estimate }
    }

    /// Says that the connection's task will look again before it sleeps.
    pub(super) fn attend(&self) {
        self.state.lock().waker = None;
    }

    /// The connection has gone: answers are kept no more.
    pub(super) fn leave(&self) {
        let mut state = self.state.lock();
        state.gone = true;
        state.waker = None;
        let early: usize = state.slots.iter().flatten().map(Early::len).sum();
        self.budget.release(state.ready.len() + early);
        state.ready = Output::default();
        state.slots.clear();
    }

    /// Asks the connection's task to read no more, and to end when everything under way is answered and sent.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Asks the connection's task to end, without waiting for anything under way.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn wake(&self) {
        let waker = self.state.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Failure;
    use super::*;

    const LINE: Form = Form::Line { quiet: false };

    fn desk() -> (Desk, Arc<Budget>) {
        let budget = Arc::new(Budget::new(1000));
        (Desk::new(budget.clone()), budget)
    }

    #[test]
    fn answers_leave_in_the_order_of_the_requests() {
        let (desk, budget) = desk();
        let mut out = Output::default();
        let numbers: Vec<_> = (0..4).map(|_| desk.open(10)).collect();
        let outcomes = [Outcome::Deleted, Outcome::NotFound, Outcome::Done, Outcome::Exists];
        for (place, ready) in [(2, 0), (1, 0), (0, 1), (3, 1)] {
            desk.answer(numbers[place], 10, &LINE, b"", &outcomes[place]);
            desk.collect(Waker::noop(), &mut out);
            assert_eq!(!out.next().is_empty(), ready > 0, "after {place}");
        }
        assert_eq!(budget.held(), out.len());
        let mut sent = Vec::new();
        while !out.next().is_empty() {
            sent.extend_from_slice(out.next());
            out.advance(out.next().len());
        }
        assert_eq!(sent, b"DELETED\r\nNOT_FOUND\r\nOK\r\nEXISTS\r\n");
    }

    #[test]
    fn what_nobody_takes_any_more_is_given_back() {
        let (desk, budget) = desk();
        let numbers: Vec<_> = (0..3).map(|_| desk.open(10)).collect();
        desk.answer(numbers[0], 10, &LINE, b"", &Outcome::Done);
        desk.answer(numbers[2], 10, &LINE, b"", &Outcome::Failed(Failure::Unavailable));
        assert!(budget.held() > 10);
        desk.leave();
        assert_eq!(budget.held(), 10);
        desk.answer(numbers[1], 10, &LINE, b"", &Outcome::Done);
        assert_eq!(budget.held(), 0);
    }
}
