//! The flushes of this gateway: under way, in effect, and to come. Asks the servers for their clocktimes; what these mean
//! for a record is decided in [`super::flush`].
//!
//! A write that is acknowledged while a flush is under way, or later, must stay, though its server may have stamped it
//! before. So its answer waits for the flush, and if the flush hides it, it is written again, see `work`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::Shared;
use super::flush::Boundary;
use super::outcome::Failure;
use crate::client::Routes;
use crate::clock::ClockTime;
use crate::env::{Group, Task};
use crate::wire::method::STATUS_CLOCKTIME;

/// How long a flush waits for a server that does not answer. Clients may wait for half a second only.
const PATIENCE: Duration = Duration::from_millis(250);
/// Pause before the servers are asked again if none has answered.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What has been flushed, is being flushed, and will be.
#[derive(Debug, Default)]
pub(super) struct Flushes {
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
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.shared.flushes.state.lock().under_way.remove(&self.number);
        self.shared.flushes.ended.notify_waiters();
    }
}

impl Flushes {
    /// Whether there has been any.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// Whether a record must not be seen.
    pub(super) fn hides(&self, hash: u64, written: ClockTime, routes: &Routes) -> bool {
        let (boundary, before) = {
            let state = self.state.lock();
            (state.boundary.as_ref().map(|(_, boundary)| boundary.clone()), state.before)
        };
        written.seconds() < before
            || boundary.is_some_and(|boundary| boundary.hides(hash, written, routes.whs().clocktime()))
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
}

/// Begins a flush that takes the place of the one to come. Writes that are answered from now on stay.
pub(super) fn begin(shared: &Arc<Shared>) -> UnderWay {
    shared.flushes.replace_later(None);
    begin_next(shared)
}

fn begin_next(shared: &Arc<Shared>) -> UnderWay {
    let flushes = &shared.flushes;
    flushes.used.store(true, Ordering::Release);
    let mut state = flushes.state.lock();
    state.last += 1;
    let number = state.last;
    state.under_way.insert(number);
    UnderWay { shared: shared.clone(), number }
}

/// Carries a flush through: it is in effect when this returns, unless no server has answered for as long as a write
/// is tried.
pub(super) async fn finish(under_way: UnderWay) -> Result<(), Failure> {
    let router = &under_way.shared.router;
    let deadline = Instant::now() + under_way.shared.config.set_limit;
    let boundary = loop {
        let mut changes = router.changes();
        if let Some(boundary) = ask(&under_way.shared, &router.routes()).await {
            break boundary;
        }
        if Instant::now() >= deadline {
            return Err(Failure::Unavailable);
        }
        let next = deadline.min(Instant::now() + RETRY_PAUSE);
        let _ = timeout_at(next, changes.changed()).await;
    };
    let mut state = under_way.shared.flushes.state.lock();
    // One that has begun later and ended before hides all that this one does.
    if state.boundary.as_ref().is_none_or(|(number, _)| *number < under_way.number) {
        state.boundary = Some((under_way.number, Arc::new(boundary)));
    }
    drop(state);
    Ok(())
}

/// Flushes in so many seconds, instead of the flush to come if there is one. Goes on until servers answer.
pub(super) fn schedule(shared: &Arc<Shared>, seconds: u32) {
    let flushing = shared.clone();
    let later = shared.router.env().spawn(async move {
        tokio::time::sleep(Duration::from_secs(seconds.into())).await;
        while finish(begin_next(&flushing)).await.is_err() {
            tracing::warn!("delayed flush: no server answers, trying again");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    });
    shared.flushes.replace_later(Some(later));
}

/// Asks all active servers for their clocktimes; `None` if none answers.
async fn ask(shared: &Arc<Shared>, routes: &Routes) -> Option<Boundary> {
    let mut asking = Group::new(shared.router.env());
    for server in routes.whs().active_nodes() {
        let shared = shared.clone();
        asking.add(async move { (server, shared.router.caller().number(server, STATUS_CLOCKTIME).await) });
    }
    let mut told = HashMap::new();
    let hear = async {
        while let Some(answer) = asking.next().await {
            match answer {
                Ok((server, Ok(clocktime))) => {
                    told.insert(server, ClockTime(clocktime));
                }
                Ok((server, Err(error))) => tracing::debug!(peer = %server, "flush: clock not learned: {error}"),
                Err(_) => {}
            }
        }
    };
    // Whoever does not answer in time is judged by the others.
    let _ = timeout(PATIENCE, hear).await;
    (!told.is_empty()).then(|| Boundary::new(routes.whs().clone(), told))
}
