//! The flushes of this gateway: under way, in effect, and to come. Asks the servers for their clocktimes; what these mean
//! for a record is decided in [`super::flush`].
//!
//! A write that is acknowledged while a flush is under way, or later, must stay, though its server may have stamped it
//! before. So its answer waits for the flush, and if the flush hides it, it is written again, see `acknowledge`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::failure::Failure;
use super::flush::Boundary;
use crate::client::Router;
use crate::clock::ClockTime;
use crate::env::{Group, Task};
use crate::wire::method::STATUS_CLOCKTIME;

/// How long a flush waits for a server that does not answer. Clients may wait for half a second only.
const PATIENCE: Duration = Duration::from_millis(250);
/// Pause before the servers are asked again if none has answered.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Flushes in effect, under way, and to come.
#[derive(Debug)]
pub(super) struct Flushes {
    router: Arc<Router>,
    /// How long a flush goes on asking while no server answers.
    limit: Duration,
    /// Whether there has been any: most gateways never flush.
    used: AtomicBool,
    state: Mutex<State>,
    /// Wakes whoever waits for flushes to end.
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the last flush that has begun.
    last: u64,
    under_way: BTreeSet<u64>,
    /// In effect: the boundary of the last flush that has ended well, and that flush's number.
    boundary: Option<(u64, Arc<Boundary>)>,
    /// Records from before this unix second are hidden; zero: none.
    before: u32,
    /// The flush to come.
    later: Option<Task>,
}

/// A flush that has begun; dropped, it has ended.
pub(super) struct UnderWay {
    flushes: Arc<Flushes>,
    number: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.flushes.state.lock().under_way.remove(&self.number);
        self.flushes.ended.notify_waiters();
    }
}

impl Flushes {
    /// No flush yet. One that finds no server goes on asking for as long as `limit`.
    pub(super) fn new(router: &Arc<Router>, limit: Duration) -> Self {
        Self {
            router: router.clone(),
            limit,
            used: AtomicBool::new(false),
            state: Mutex::default(),
            ended: Notify::new(),
        }
    }

    /// Whether there has been any.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// Whether a record of this hash that was written then must not be seen.
    pub(super) fn hides(&self, hash: u64, written: ClockTime) -> bool {
        if !self.is_used() {
            return false;
        }
        let (boundary, before) = {
            let state = self.state.lock();
            (state.boundary.as_ref().map(|(_, boundary)| boundary.clone()), state.before)
        };
        written.seconds() < before
            || boundary.is_some_and(|boundary| boundary.hides(hash, written, self.router.routes().whs().clocktime()))
    }

    /// Whether the answer to a write must wait: a flush is under way.
    pub(super) fn is_under_way(&self) -> bool {
        self.is_used() && !self.state.lock().under_way.is_empty()
    }

    /// Waits until all flushes that have begun by now have ended.
    pub(super) async fn settled(&self) {
        let last = self.state.lock().last;
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.state.lock().under_way.first().is_none_or(|first| *first > last) {
                return;
            }
            ended.await;
        }
    }

    /// Hides what was written before a unix second that is over.
    pub(super) fn hide_before(&self, second: u32) {
        let mut state = self.state.lock();
        state.before = state.before.max(second);
        self.used.store(true, Ordering::Release);
    }

    /// Takes the place of the flush to come, if there is one.
    fn replace_later(&self, later: Option<Task>) {
        if let Some(replaced) = std::mem::replace(&mut self.state.lock().later, later) {
            replaced.stop();
        }
    }

    /// Begins a flush that takes the place of the one to come. Writes that are answered from now on stay.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.replace_later(None);
        self.begin_next()
    }

    fn begin_next(self: &Arc<Self>) -> UnderWay {
        self.used.store(true, Ordering::Release);
        let mut state = self.state.lock();
        state.last += 1;
        let number = state.last;
        state.under_way.insert(number);
        UnderWay { flushes: self.clone(), number }
    }

    /// Flushes in so many seconds, instead of the flush to come if there is one. Goes on until servers answer.
    pub(super) fn schedule(self: &Arc<Self>, seconds: u32) {
        let flushes = self.clone();
        let later = self.router.env().spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds.into())).await;
            while flushes.begin_next().finish().await.is_err() {
                tracing::warn!("delayed flush: no server answers, trying again");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        });
        self.replace_later(Some(later));
    }
}

impl UnderWay {
    /// Carries the flush through: it is in effect when this returns, unless no server has answered for as long as a
    /// write is tried.
    pub(super) async fn finish(self) -> Result<(), Failure> {
        let Self { flushes, number } = &self;
        let router = &flushes.router;
        let deadline = Instant::now() + flushes.limit;
        let boundary = loop {
            let mut changes = router.changes();
            if let Some(boundary) = ask(router).await {
                break boundary;
            }
            if Instant::now() >= deadline {
                return Err(Failure::Unavailable);
            }
            let next = deadline.min(Instant::now() + RETRY_PAUSE);
            let _ = timeout_at(next, changes.changed()).await;
        };
        let mut state = flushes.state.lock();
        // One that has begun later and ended before hides all that this one does.
        if state.boundary.as_ref().is_none_or(|(last, _)| last < number) {
            state.boundary = Some((*number, Arc::new(boundary)));
        }
        drop(state);
        Ok(())
    }
}

/// Asks all active servers for their clocktimes; `None` if none answers.
async fn ask(router: &Arc<Router>) -> Option<Boundary> {
    let known = router.routes();
    let mut asking = Group::new(router.env());
    for server in known.whs().active_nodes() {
        let router = router.clone();
        asking.add(async move { (server, router.caller().number(server, STATUS_CLOCKTIME).await) });
    }
    let mut clocktimes = HashMap::new();
    let hear = async {
        while let Some(answer) = asking.next().await {
            match answer {
                Ok((server, Ok(clocktime))) => {
                    clocktimes.insert(server, ClockTime(clocktime));
                }
                Ok((server, Err(error))) => {
                    tracing::debug!(peer = %server, "flush: cannot read the clock of a server: {error}");
                }
                Err(_) => {}
            }
        }
    };
    // Whoever does not answer in time is judged by the others.
    let _ = timeout(PATIENCE, hear).await;
    (!clocktimes.is_empty()).then(|| Boundary::new(known.whs().clone(), clocktimes))
}
