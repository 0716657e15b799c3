//! A session: calls to one node, whichever of its connections carry them (protocol, section 4).
//!
//! Pending calls belong to the node's address: a response may arrive on any of its connections. A call fails with
//! error 1 when the connection that carried it drops, 2 when the node cannot be reached, 3 when its time is up, 7 when it
//! is larger than the node takes.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::limits::Limits;
use crate::wire::method::{ErrorCode, Method};
use crate::wire::{Call, Message, NodeAddress, Response, frame};

/// A connection of the node.
pub(super) trait Carrier: Send + Sync {
    /// Its number among all of this process.
    fn id(&self) -> u64;

    /// Appends to what will be sent; `false` if the connection is closed or its peer has left too much unread.
    fn push(&self, write: &mut dyn FnMut(&mut Vec<u8>)) -> bool;

    /// Asks the connection's task to end.
    fn close(&self);
}

/// Whoever makes connections to nodes.
pub(super) trait Dialer: Send + Sync {
    /// The bounds.
    fn limits(&self) -> &Limits;

    /// Dials until a connection stands or the tries are used up. The caller has claimed it in the session.
    fn dial(self: Arc<Self>, session: Arc<Session>);
}

/// Gets the result object's bytes, or why there is none. Runs on a network thread: must not block.
pub type OnReply = Box<dyn FnOnce(Result<&[u8], ErrorCode>) + Send>;

/// Steps of the clock interval that an ordinary call may take (protocol, section 4).
pub const STEPS: u16 = 10;
/// Steps that a `ReplaceOffer` may take: its answer comes after the stream.
pub(crate) const OFFER_STEPS: u16 = 160;

/// A call that is made together with others; see [`Session::call_all`].
pub trait Outgoing {
    /// Steps of the clock interval that it may take.
    fn steps(&self) -> u16;
    /// Appends the request; see [`frame::request`].
    fn write(&self, out: &mut Vec<u8>, msgid: u32);
    /// Who gets the answer.
    fn on_reply(self) -> OnReply;
}

/// Calls to one node.
pub struct Session {
    address: NodeAddress,
    dialer: Weak<dyn Dialer>,
    /// See [`Session::message_limit`].
    message_limit: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Number of the last call; the first is 1.
    last: u32,
    pending: HashMap<u32, Pending>,
    links: Vec<Arc<dyn Carrier>>,
    /// Requests that wait for a first connection.
    unsent: Vec<u8>,
    dialing: bool,
}

struct Pending {
    steps: u16,
    /// The connection that carried the call; `None` while it waits for one.
    link: Option<u64>,
    on_reply: OnReply,
}

/// The answer to come of [`Session::ask`]: the result object's bytes, or why there is none.
#[derive(Debug)]
#[must_use = "a request whose answer does not matter is made with `call`"]
pub struct Answer(oneshot::Receiver<Result<Vec<u8>, ErrorCode>>);

impl Future for Answer {
    type Output = Result<Vec<u8>, ErrorCode>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(ErrorCode::Unknown)))
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.address)
    }
}

impl Session {
    pub(super) fn new(address: NodeAddress, dialer: Weak<dyn Dialer>, limits: &Limits) -> Self {
        let message_limit = AtomicUsize::new(limits.message);
        Self { address, dialer, message_limit, state: Mutex::default() }
    }

    /// The largest message that is sent to the node, in bytes; as long as it is not known what the node takes, as much as
    /// this side takes itself. Longer calls fail with [`ErrorCode::TooLarge`], at once: the node would close the
    /// connection, and with it fail the calls of others.
    pub(crate) fn message_limit(&self) -> usize {
        self.message_limit.load(Ordering::Relaxed)
    }

    /// Says what the node takes.
    pub(crate) fn set_message_limit(&self, bytes: usize) {
        self.message_limit.store(bytes, Ordering::Relaxed);
    }

    /// Appends a request, unless it is too large; says whether it did.
    fn fits(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let start = out.len();
        write(out);
        let (length, limit) = (out.len().saturating_sub(start), self.message_limit());
        if length > limit {
            let method = match out.get(start..).map(Message::parse) {
                Some(Ok(Message::Request(request))) => Method::from_number(request.method),
                _ => None,
            };
            let name = method.map_or("message", Method::name);
            out.truncate(start);
            tracing::warn!(peer = %self.address, "not sent: {name} of {length} bytes is too large, its limit is {limit}");
        }
        length <= limit
    }

    /// The node.
    pub fn address(&self) -> NodeAddress {
        self.address
    }

    /// Calls a method. Dials if there is no connection.
    ///
    /// With too many calls pending the answer is error 6, at once.
    pub fn call(self: &Arc<Self>, call: &impl Call, steps: u16, on_reply: OnReply) {
        let Some(dialer) = self.dialer.upgrade() else {
            return on_reply(Err(ErrorCode::NodeLost));
        };
        let mut state = self.state.lock();
        if state.pending.len() >= dialer.limits().pending_calls {
            drop(state);
            return on_reply(Err(ErrorCode::Server));
        }
        let msgid = state.next_msgid();
        let mut fits = true;
        let mut write = |out: &mut Vec<u8>| fits = self.fits(out, |out| frame::request(out, msgid, call));
        let carrier = state.carrier(msgid);
        let link = carrier.as_ref().map(|link| link.id());
        match carrier {
            // A push fails only when the connection is closing: the call then fails with it.
            Some(link) => {
                link.push(&mut write);
            }
            None => write(&mut state.unsent),
        }
        if !fits {
            drop(state);
            return on_reply(Err(ErrorCode::TooLarge));
        }
        state.pending.insert(msgid, Pending { steps, link, on_reply });
        if link.is_none() && !std::mem::replace(&mut state.dialing, true) {
            dialer.dial(self.clone());
        }
    }

    /// Makes many calls, which leave in one write. Those beyond the limit of pending calls are answered error 6, at once;
    /// likewise those that are too large, as by [`Self::call`].
    pub(crate) fn call_all<C: Outgoing>(self: &Arc<Self>, calls: impl IntoIterator<Item = C>) {
        let mut calls = calls.into_iter();
        let Some(dialer) = self.dialer.upgrade() else {
            return calls.for_each(|call| call.on_reply()(Err(ErrorCode::NodeLost)));
        };
        let mut state = self.state.lock();
        let free = dialer.limits().pending_calls.saturating_sub(state.pending.len());
        let next = state.last.wrapping_add(1);
        let carrier = state.carrier(next);
        let link = carrier.as_ref().map(|link| link.id());
        let mut accepted = calls.by_ref().take(free);
        let mut too_large = Vec::new();
        let mut write = |state: &mut State, out: &mut Vec<u8>| {
            for call in accepted.by_ref() {
                let msgid = state.next_msgid();
                if !self.fits(out, |out| call.write(out, msgid)) {
                    too_large.push(call.on_reply());
                    continue;
                }
                let pending = Pending { steps: call.steps(), link, on_reply: call.on_reply() };
                state.pending.insert(msgid, pending);
            }
        };
        match carrier {
            Some(link) => {
                let closed = !link.push(&mut |out| write(&mut state, out));
                if closed {
                    // As in `call`: they fail with the connection.
                    write(&mut state, &mut Vec::new());
                }
            }
            None => {
                let mut unsent = std::mem::take(&mut state.unsent);
                write(&mut state, &mut unsent);
                state.unsent = unsent;
                if !std::mem::replace(&mut state.dialing, true) {
                    dialer.dial(self.clone());
                }
            }
        }
        drop(state);
        for on_reply in too_large {
            on_reply(Err(ErrorCode::TooLarge));
        }
        calls.for_each(|call| call.on_reply()(Err(ErrorCode::Server)));
    }

    /// [`Self::call`] with the answer as a future. The request is on its way when this returns.
    pub fn ask(self: &Arc<Self>, call: &impl Call, steps: u16) -> Answer {
        let (sender, receiver) = oneshot::channel();
        let on_reply: OnReply = Box::new(move |result| {
            // The asker may have gone.
            let _ = sender.send(result.map(<[u8]>::to_vec));
        });
        self.call(call, steps, on_reply);
        Answer(receiver)
    }

    /// Takes a response that arrived on any connection of this node; one that nobody waits for is dropped.
    pub(super) fn complete(&self, response: Response<'_>) {
        let pending = self.state.lock().pending.remove(&response.msgid);
        match pending {
            Some(pending) => (pending.on_reply)(response.result),
            None => tracing::debug!(peer = %self.address, msgid = response.msgid, "response to no pending call"),
        }
    }

    /// Adds a connection and sends on it what has waited for one.
    pub(super) fn attach(&self, link: Arc<dyn Carrier>) {
        let mut state = self.state.lock();
        state.dialing = false;
        let waited = std::mem::take(&mut state.unsent);
        for pending in state.pending.values_mut().filter(|pending| pending.link.is_none()) {
            pending.link = Some(link.id());
        }
        link.push(&mut |out| out.extend_from_slice(&waited));
        state.links.push(link);
    }

    /// Removes a closed connection and fails the calls it carried. Says whether the node has others.
    pub(super) fn detach(&self, link: u64) -> bool {
        let (failed, connected) = {
            let mut state = self.state.lock();
            state.links.retain(|other| other.id() != link);
            let failed = state.take_pending(|pending| pending.link == Some(link));
            (failed, !state.links.is_empty())
        };
        fail(failed, ErrorCode::TransportLost);
        connected
    }

    /// Fails every pending call: the node is lost, or no longer of interest. Those that were not sent yet fail with error 2,
    /// so that whoever made them knows.
    pub(crate) fn fail_calls(&self, error: ErrorCode) {
        let (unsent, sent) = {
            let mut state = self.state.lock();
            state.unsent = Vec::new();
            (state.take_pending(|pending| pending.link.is_none()), state.take_pending(|_| true))
        };
        fail(unsent, ErrorCode::NodeLost);
        fail(sent, error);
    }

    /// Ends the dialling after the last try has failed.
    pub(super) fn give_up(&self) {
        self.state.lock().dialing = false;
        self.fail_calls(ErrorCode::NodeLost);
    }

    /// Claims the right to dial: `false` if connected, or if somebody is at it.
    pub(super) fn begin_dialing(&self) -> bool {
        let mut state = self.state.lock();
        state.links.is_empty() && !std::mem::replace(&mut state.dialing, true)
    }

    /// One step of the clock interval has passed: fails the calls whose steps are used up.
    pub(super) fn step(&self) {
        let timed_out = {
            let mut state = self.state.lock();
            for pending in state.pending.values_mut() {
                pending.steps = pending.steps.saturating_sub(1);
            }
            state.take_pending(|pending| pending.steps == 0)
        };
        fail(timed_out, ErrorCode::TimedOut);
    }

    /// Whether any connection is there.
    pub(crate) fn is_connected(&self) -> bool {
        !self.state.lock().links.is_empty()
    }

    /// Whether there is neither a connection nor a call nor a try for one.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.links.is_empty() && state.pending.is_empty() && !state.dialing
    }

    /// Calls that wait for their answers.
    #[cfg(test)]
    pub(super) fn pending_calls(&self) -> usize {
        self.state.lock().pending.len()
    }

    /// Closes all connections of this node.
    pub fn close(&self) {
        let links = self.state.lock().links.clone();
        for link in links {
            link.close();
        }
    }
}

impl State {
    /// The next number that no pending call has.
    fn next_msgid(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if !self.pending.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    /// The connection for call `msgid`: calls are spread over them.
    fn carrier(&self, msgid: u32) -> Option<Arc<dyn Carrier>> {
        let place = (msgid as usize).checked_rem(self.links.len())?;
        self.links.get(place).cloned()
    }

    fn take_pending(&mut self, which: impl Fn(&Pending) -> bool) -> Vec<Pending> {
        let mut taken: Vec<_> = self.pending.extract_if(|_, pending| which(pending)).collect();
        // In the order of the calls: what follows from their failing must not depend on the table.
        taken.sort_unstable_by_key(|(msgid, _)| *msgid);
        taken.into_iter().map(|(_, pending)| pending).collect()
    }
}

fn fail(calls: Vec<Pending>, error: ErrorCode) {
    for call in calls {
        (call.on_reply)(Err(error));
    }
}
