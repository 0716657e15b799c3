//! The pipeline of one connection: its unanswered requests, with a place for each answer in order, and the order of the
//! requests for each key.
//!
//! Answers come from wherever they become known. All that are next in order are written into one buffer, so that those
//! that become known together leave in one write. Knows neither the stream nor how a request is carried out.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::key_order::KeyOrder;
use super::outcome::Outcome;
use super::protocol::{Early, Form, Writer};
use crate::net::budget::Budget;
use crate::net::control::Control;
use crate::net::output::Output;
use crate::net::registry::Connected;
use crate::time::Time;

/// Memory that an unanswered request takes beyond what it carries, roughly.
pub(super) const REQUEST_WEIGHT: usize = 512;
/// How long the answers of a new connection are expected to be, in bytes, until some are known. What is asked of servers must
/// be read from them, and keeps others waiting, even if there is no room for it; yet the first multi-get should not wait
/// for itself.
const FIRST_ESTIMATE: usize = 128 << 10;
/// Answers that are expected to be shorter are not counted before they come: as many as may be under way take little.
const COUNTED: usize = 4 << 10;

/// The unanswered requests of one connection; `J` is a request that may wait for others with the same key.
#[derive(Debug)]
pub(super) struct Pipeline<J> {
    state: Mutex<State<J>>,
    budget: Arc<Budget>,
    /// Bytes that are expected from servers.
    asked: Arc<Budget>,
    time: Time,
    /// Starts requests that have waited for others with the same key.
    dispatch: fn(Vec<J>),
    control: Control,
}

#[derive(Debug)]
struct State<J> {
    /// Requests that are not answered, or whose answers wait for those before.
    slots: VecDeque<Option<Early>>,
    /// Number of the first slot.
    first: u64,
    writer: Writer,
    /// Output to be sent.
    ready: Output,
    /// How long the answers of this connection are lately: the longest of the last few.
    estimate: usize,
    key_order: KeyOrder<J>,
    /// Bytes that unanswered requests hold.
    held: usize,
    /// Bytes that unanswered requests are expected to bring.
    expected: usize,
    /// The connection has ended.
    gone: bool,
}

impl<J> State<J> {
    /// A new request, behind all others: its number.
    fn open(&mut self, weight: Weight) -> u64 {
        self.held += weight.held;
        self.expected += weight.expected;
        self.slots.push_back(None);
        self.first + self.slots.len() as u64 - 1
    }

    /// An answer has had this length: those to come may have it, too.
    fn expect(&mut self, len: usize) {
        self.estimate = len.max(self.estimate - self.estimate / 8);
    }

    /// Puts the answer to a request in its place; says whether output has become ready. `now` is in unix seconds.
    fn place(
        &mut self,
        number: u64,
        (form, key, outcome): (&Form, &[u8], &Outcome<'_>),
        now: u32,
        budget: &Budget,
    ) -> bool {
        let Some(place) = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok()) else {
            return false;
        };
        if place > 0 {
            let early = Early::new(form, key, outcome, now);
            self.expect(early.len());
            budget.hold(early.len());
            if let Some(slot) = self.slots.get_mut(place) {
                *slot = Some(early);
            }
            return false;
        }
        let Self { writer, ready, .. } = self;
        let len = ready.write(|out| writer.write(form, key, outcome, now, out));
        budget.hold(len);
        self.expect(len);
        self.slots.pop_front();
        self.first += 1;
        while let Some(Some(_)) = self.slots.front() {
            let Some(Some(early)) = self.slots.pop_front() else { break };
            self.first += 1;
            let Self { writer, ready, .. } = self;
            let len = early.len();
            let kept = ready.write(|out| writer.append(early, out));
            // What follows an error is dropped.
            budget.release(len.saturating_sub(kept));
        }
        true
    }
}

/// Memory that a request accounts for until it is answered, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weight {
    /// What it takes itself.
    held: usize,
    /// What the answer of a server is expected to bring, if that is worth counting.
    expected: usize,
}

/// How a connection stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    /// Requests that are not answered, or whose answers wait for those before.
    pub(super) in_flight: usize,
    /// Bytes that they hold, and are expected to bring.
    pub(super) held: usize,
}

impl<J> Pipeline<J> {
    /// The pipeline of a new connection, which counts against `budget` what is there and against `asked` what is expected
    /// from servers. `dispatch` starts requests that have waited for others with the same key.
    pub(super) fn new(budget: Arc<Budget>, asked: Arc<Budget>, time: &Time, dispatch: fn(Vec<J>)) -> Self {
        Self {
            state: Mutex::new(State {
                slots: VecDeque::new(),
                first: 0,
                writer: Writer::default(),
                ready: Output::default(),
                estimate: FIRST_ESTIMATE,
                key_order: KeyOrder::default(),
                held: 0,
                expected: 0,
                gone: false,
            }),
            budget,
            asked,
            time: time.clone(),
            dispatch,
            control: Control::default(),
        }
    }

    /// A new request without a key, behind all others: its number.
    pub(super) fn open(&self) -> u64 {
        self.state.lock().open(Weight::default())
    }

    /// A new request that takes `held` bytes, and that `job` makes of its number and weight; `reads`: its answer may bring
    /// a value. It is given back if it may start now, else it waits for those with the same key. The result also says
    /// what it takes and brings.
    pub(super) fn enqueue(
        &self,
        (held, reads): (usize, bool),
        (hash, writes): (u64, bool),
        job: impl FnOnce(u64, Weight) -> J,
    ) -> (Option<J>, usize) {
        self.budget.hold(held);
        let mut state = self.state.lock();
        let expected = Some(state.estimate).filter(|estimate| reads && *estimate >= COUNTED).unwrap_or(0);
        if expected > 0 {
            self.asked.hold(expected);
        }
        let weight = Weight { held, expected };
        let number = state.open(weight);
        (state.key_order.begin(hash, writes, job(number, weight)), held.saturating_add(expected))
    }

    /// A new request whose answer is known. Must be called by the connection's task, which is not woken for it.
    pub(super) fn answer_at_once(&self, form: &Form, key: &[u8], outcome: &Outcome<'_>) {
        let now = self.now_for(form);
        let mut state = self.state.lock();
        let number = state.open(Weight::default());
        state.place(number, (form, key, outcome), now, &self.budget);
    }

    /// The time in unix seconds, which only answers of the meta protocol tell: asking for it takes as long as the others
    /// do.
    fn now_for(&self, form: &Form) -> u32 {
        if matches!(form, Form::Meta(_)) { self.time.unix_seconds() } else { 0 }
    }

    /// Takes the answer to a request that has no key.
    pub(super) fn answer(&self, number: u64, form: &Form, outcome: &Outcome<'_>) {
        self.complete(number, Weight::default(), (form, &[], outcome), None);
    }

    /// Takes the answer to a request of this weight. If it had begun, `order` is the hash of its key and whether it writes:
    /// those that have waited for it are started.
    pub(super) fn complete(
        &self,
        number: u64,
        weight: Weight,
        answer: (&Form, &[u8], &Outcome<'_>),
        order: Option<(u64, bool)>,
    ) {
        let now = self.now_for(answer.0);
        let mut next = Vec::new();
        let ready = {
            let mut state = self.state.lock();
            let more = weight.held > state.held || weight.expected > state.expected;
            assert!(!more, "an answered request weighs more than all that are unanswered");
            state.held -= weight.held;
            state.expected -= weight.expected;
            self.budget.release(weight.held);
            if weight.expected > 0 {
                self.asked.release(weight.expected);
            }
            if let Some((hash, writes)) = order {
                state.key_order.end(hash, writes, &mut next);
            }
            let ready = !state.gone && state.place(number, answer, now, &self.budget);
            let idle = state.slots.is_empty() && !state.gone;
            assert!(!idle || (state.held == 0 && state.expected == 0), "all is answered, but some still counted");
            ready
        };
        if ready {
            self.control.wake();
        }
        if !next.is_empty() {
            (self.dispatch)(next);
        }
    }

    /// Whether every request is answered.
    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().slots.is_empty()
    }

    /// Moves the answers that are ready to the end of `out`.
    pub(super) fn collect(&self, out: &mut Output) -> Standing {
        let mut state = self.state.lock();
        out.take(&mut state.ready);
        Standing { in_flight: state.slots.len(), held: state.held.saturating_add(state.expected) }
    }

    /// Whether the connection has gone, so that nobody waits for answers.
    pub(super) fn has_gone(&self) -> bool {
        self.state.lock().gone
    }

    /// The connection has gone: answers are kept no more.
    pub(super) fn leave(&self) {
        let mut state = self.state.lock();
        state.gone = true;
        let early: usize = state.slots.iter().flatten().map(Early::len).sum();
        self.budget.release(state.ready.len() + early);
        state.ready = Output::default();
        state.slots.clear();
    }
}

impl<J: Send> Connected for Pipeline<J> {
    fn control(&self) -> &Control {
        &self.control
    }
}

#[cfg(test)]
mod tests {
    use super::super::failure::Failure;
    use super::*;

    const LINE: Form = Form::Line { quiet: false };

    impl Pipeline<u64> {
        /// A new write for a key that no other has: its number.
        fn number(&self, weight: usize) -> u64 {
            let hash = self.state.lock().slots.len() as u64;
            self.enqueue((weight, false), (hash, true), |number, _| number).0.expect("nothing to wait for")
        }
    }

    /// What a request weighs that is made by [`Pipeline::number`].
    fn weight(held: usize) -> Weight {
        Weight { held, expected: 0 }
    }

    fn pipeline() -> (Pipeline<u64>, Arc<Budget>) {
        let budget = Arc::new(Budget::new(1000));
        (Pipeline::new(budget.clone(), Arc::new(Budget::new(1 << 30)), &Time::real(), drop), budget)
    }

    #[test]
    fn what_reads_bring_is_counted_before_it_comes_until_it_is_known_to_be_short() {
        let (pipeline, budget) = pipeline();
        let asked = pipeline.asked.clone();
        let mut expected = Vec::new();
        for round in 0..60 {
            let mut weight = Weight::default();
            let read = |number, of| {
                weight = of;
                number
            };
            let (number, taken) = pipeline.enqueue((10, true), (round, false), read);
            assert_eq!((asked.held(), taken), (weight.expected, 10 + weight.expected));
            expected.push(weight.expected);
            let (number, answer) = (number.expect("nothing to wait for"), (&LINE, &b""[..], &Outcome::Done));
            pipeline.complete(number, weight, answer, Some((round, false)));
            assert_eq!(asked.held(), 0);
        }
        assert_eq!(expected[0], FIRST_ESTIMATE);
        assert!(expected.is_sorted_by(|before, after| before >= after) && expected[59] == 0, "{expected:?}");
        // Writes bring nothing, however long answers are.
        pipeline.state.lock().estimate = FIRST_ESTIMATE;
        let written = pipeline.number(10);
        assert_eq!(asked.held(), 0);
        let taken = {
            let state = pipeline.state.lock();
            (state.held, state.expected)
        };
        assert_eq!(taken, (10, 0));
        pipeline.leave();
        assert_eq!(budget.held(), 10);
        assert!(pipeline.has_gone());
        pipeline.complete(written, weight(10), (&LINE, &b""[..], &Outcome::Done), Some((0, true)));
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn answers_leave_in_the_order_of_the_requests() {
        let (pipeline, budget) = pipeline();
        let mut out = Output::default();
        let numbers: Vec<_> = (0..4).map(|_| pipeline.number(10)).collect();
        let outcomes = [Outcome::Deleted, Outcome::NotFound, Outcome::Done, Outcome::Exists];
        for (place, ready) in [(2, 0), (1, 0), (0, 1), (3, 1)] {
            pipeline.complete(numbers[place], weight(10), (&LINE, b"", &outcomes[place]), None);
            pipeline.collect(&mut out);
            assert_eq!(!out.next().is_empty(), ready > 0, "after {place}");
        }
        assert_eq!(budget.held(), out.len());
        let mut sent = Vec::new();
        while !out.next().is_empty() {
            sent.extend_from_slice(out.next());
            let len = out.next().len();
            out.advance(len);
            budget.release(len);
        }
        assert_eq!(sent, b"DELETED\r\nNOT_FOUND\r\nOK\r\nEXISTS\r\n");
    }

    #[test]
    fn what_nobody_takes_any_more_is_given_back() {
        let (pipeline, budget) = pipeline();
        let numbers: Vec<_> = (0..3).map(|_| pipeline.number(10)).collect();
        pipeline.complete(numbers[0], weight(10), (&LINE, b"", &Outcome::Done), None);
        pipeline.complete(numbers[2], weight(10), (&LINE, b"", &Outcome::Failed(Failure::Unavailable)), None);
        assert!(budget.held() > 10);
        pipeline.leave();
        assert_eq!(budget.held(), 10);
        pipeline.complete(numbers[1], weight(10), (&LINE, b"", &Outcome::Done), None);
        assert_eq!(budget.held(), 0);
    }
}
