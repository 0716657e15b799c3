//! Replaces: the work of a server between a manager's `ReplaceCopyStart` and its own `ReplaceDeleteEnd`.
//!
//! [`Replace`] holds the phase and runs at most one copy or deletion at a time; [`plan`] decides, [`copy`], [`delete`]
//! and the streams of [`super::stream`] carry out. It reaches the rest of the server through [`Host`] only, and knows
//! nothing of requests and who may send them. `docs/replace.md` tells the whole story.

mod context;
mod copy;
mod delete;
mod deliver;
mod fill;
mod gather;
mod job;
mod late;
pub mod plan;
mod progress;
mod sink;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::stream::{self, Offers, Receiver};
use crate::clock::ClockTime;
use crate::env::{Backoff, Listener, Task};
use crate::net::STEPS;
use crate::ring::HashSpace;
use crate::store;
use crate::wire::extension::Fence;
use crate::wire::method::{ErrorCode, FLAG_COPYING, FLAG_DELETING, ReplaceCopyEnd, ReplaceDeleteEnd};
use crate::wire::params::Seed;
use crate::wire::{Call, NodeAddress};

pub(crate) use context::TOMBSTONE_LEASE;
use context::{Context, Failure, Settling};
pub use context::{Fenced, Host, Settings};
use job::{Job, Ledger};
pub use late::LateWrites;
use late::Watch;
use plan::Plan;
use progress::Counters;
pub use progress::Progress;
use sink::StoreSink;

/// Offers that may be waiting or under way; more are refused, and offered again.
const OFFER_LIMIT: usize = 256;
/// Pause before an end is reported again; doubled each time, up to [`REPORT_PAUSE_MAX`].
const REPORT_PAUSE_MIN: Duration = Duration::from_millis(100);
/// See [`REPORT_PAUSE_MIN`].
const REPORT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long a hash space may be on its way.
const SPACE_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two looks whether it is there.
const SPACE_PAUSE: Duration = Duration::from_millis(10);

/// Where this server is in a replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing is under way, or it did not end well.
    Idle,
    Copying,
    /// Copied without fault; the manager is being informed, and may have things deleted.
    Copied,
    Deleting,
}

struct State {
    phase: Phase,
    /// The replace that has been copied for without fault.
    job: Option<Job>,
    /// Of the hash space that the last copy was begun for; it may not have been taken yet.
    newest: ClockTime,
    /// Counts what has been begun: whoever was cancelled has no say any more.
    run: u64,
    task: Option<Task>,
}

impl State {
    /// Cancels what is under way and begins something; the number is that of the new run.
    fn begin(&mut self, phase: Phase) -> u64 {
        self.cancel();
        self.phase = phase;
        self.run += 1;
        self.run
    }

    fn cancel(&mut self) {
        if let Some(task) = self.task.take() {
            task.stop();
        }
    }
}

/// A server's part in replaces.
pub struct Replace {
    context: Arc<Context>,
    ledger: Ledger,
    receiver: Receiver,
    offers_taken: Semaphore,
    state: Mutex<State>,
    listening: Task,
}

impl std::fmt::Debug for Replace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replace({:?})", self.state.lock().phase)
    }
}

impl Replace {
    /// Starts listening for targets and takes up what a restart has interrupted.
    ///
    /// `listener` and `port` are those of the stream port, from [`stream::listen`]. Reads the store: may block for a moment.
    pub fn start(
        host: Arc<dyn Host>,
        settings: Settings,
        listener: Listener,
        port: u16,
    ) -> Result<Arc<Self>, store::Error> {
        let job = Job::load(host.store())?;
        let stream_address = NodeAddress::new(SocketAddr::new(host.address().socket().ip(), port));
        let offers = Arc::new(Offers::default());
        let listening = host.env().spawn(offers.clone().run(host.env().clone(), listener));
        let env = host.env().clone();
        let ledger = Ledger::new(&env, host.store().clone(), job.as_ref());
        let job = job.filter(|job| job.copied);
        let phase = if job.is_some() { Phase::Copied } else { Phase::Idle };
        let (address, settings_) = (host.address(), settings.clone());
        let context = Arc::new(Context { host, settings, offers, stream_address, progress: Counters::default() });
        let receiver =
            Receiver::new(&env, address, settings_.record_limit, settings_.connect_timeout, settings_.silence);
        Ok(Arc::new(Self {
            context,
            ledger,
            receiver,
            offers_taken: Semaphore::new(OFFER_LIMIT),
            state: Mutex::new(State { phase, job, newest: ClockTime::default(), run: 0, task: None }),
            listening,
        }))
    }

    /// Where targets fetch their streams.
    pub fn stream_address(&self) -> NodeAddress {
        self.context.stream_address
    }

    /// `ReplaceCopyStart` of a manager: takes `seed` as whs and copies what it calls for.
    ///
    /// Cancels what was under way. A seed older than the hash space held is ignored.
    pub(crate) fn copy_start(self: &Arc<Self>, seed: Seed, full: bool, manager: NodeAddress) {
        let host = &self.context.host;
        let mut state = self.state.lock();
        let (whs, _) = host.spaces();
        let clocktime = seed.clocktime;
        if clocktime.is_before(whs.clocktime()) || clocktime.is_before(state.newest) {
            tracing::warn!(%manager, seed = %clocktime, whs = %whs.clocktime(), "replace for an old hash space ignored");
            return;
        }
        let run = state.begin(Phase::Copying);
        state.newest = clocktime;
        state.job = None;
        let watch = host.late_writes().watch();
        host.store().hold_tombstones(TOMBSTONE_LEASE);
        self.context.progress.reset();
        tracing::info!(%manager, seed = %clocktime, full, "replace: copying");
        let replace = self.clone();
        let copying = async move {
            let begun = Instant::now();
            let copied = replace.copy(seed, full, manager, watch).await;
            replace.context.host.late_writes().take(watch);
            match copied {
                Ok(job) => {
                    replace.ended(run, Phase::Copied, Some(job));
                    tracing::info!(seed = %clocktime, "replace: copied in {:.1?} {}", begun.elapsed(), replace.progress());
                    replace.report(manager, |clock| ReplaceCopyEnd { clocktime, clock }).await;
                }
                Err(error) => {
                    replace.ended(run, Phase::Idle, None);
                    if matches!(error, Failure::Void) {
                        // Whoever has changed the hash space sees to the copying for the new one.
                        tracing::warn!(seed = %clocktime, "replace: copying given up, nothing will be deleted: {error}");
                    } else {
                        tracing::error!(seed = %clocktime, "replace: copying failed, nothing will be deleted: {error}");
                    }
                }
            }
        };
        state.task = Some(host.env().spawn(copying));
    }

    async fn copy(&self, seed: Seed, full: bool, manager: NodeAddress, watch: Watch) -> Result<Job, Failure> {
        let host = &self.context.host;
        // Before the hash space is taken: what is written here by it is of this generation.
        let (generation, was_empty) = self.ledger.begin(seed.clocktime).await?;
        if seed.has_active() {
            let is_later = || host.spaces().0.clocktime().is_before(seed.clocktime);
            self.taken(|| host.take_whs(&seed, manager), is_later).await?;
        }
        self.admitted(seed.clocktime).await?;
        let settling = Settling { until: Instant::now() + self.context.settings.settle, watch };
        let (_, old) = host.spaces();
        let newcomer = was_empty && !old.is_active(host.address());
        let mut job = Job { generation, full, newcomer, copied: false, old: old.seed().clone(), new: seed };
        // From here on until all is copied, a restart finds that nothing may be deleted.
        self.ledger.store(Some(&job)).await?;
        let plan = self.plan(&job).await?;
        copy::run(&self.context, &job, &plan, settling).await?;
        job.copied = true;
        self.ledger.store(Some(&job)).await?;
        Ok(job)
    }

    /// Waits until a hash space is taken, as long as it is later than the one held: where it comes with a configuration, that
    /// may be on its way on another connection.
    async fn taken(&self, take: impl Fn() -> bool, is_later: impl Fn() -> bool) -> Result<(), Failure> {
        let until = Instant::now() + SPACE_PATIENCE;
        while !take() {
            if !is_later() || Instant::now() >= until {
                return Err(Failure::Void);
            }
            tokio::time::sleep(SPACE_PAUSE).await;
        }
        Ok(())
    }

    /// Waits until this server may store what it is sent: only then may it say that it has been copied to.
    async fn admitted(&self, clocktime: ClockTime) -> Result<(), Failure> {
        let host = &self.context.host;
        while !matches!(host.fenced(host.fence()), Fenced::Admitted(_)) {
            if host.spaces().0.clocktime() != clocktime {
                return Err(Failure::Void);
            }
            tokio::time::sleep(SPACE_PAUSE).await;
        }
        Ok(())
    }

    /// A run has come to its end, unless it was cancelled before.
    fn ended(&self, run: u64, phase: Phase, job: Option<Job>) {
        let mut state = self.state.lock();
        if state.run == run {
            state.phase = phase;
            state.job = job;
        }
    }

    /// Works out the plan, away from the network threads.
    async fn plan(&self, job: &Job) -> Result<Arc<Plan>, Failure> {
        let (job, me) = (job.clone(), self.context.host.address());
        let plan = move || Plan::new(&HashSpace::new(job.old), &HashSpace::new(job.new), me, job.full);
        self.context.host.env().blocking(plan).await.map(Arc::new).map_err(|_| Failure::Cancelled)
    }

    /// `ReplaceDeleteStart` of a manager: takes `seed` as rhs and drops what this server need not keep.
    ///
    /// Does nothing unless exactly this replace was copied here without fault.
    pub(crate) fn delete_start(self: &Arc<Self>, seed: &Seed, manager: NodeAddress) {
        let host = &self.context.host;
        let mut state = self.state.lock();
        let (whs, _) = host.spaces();
        let job = state.job.clone().filter(|job| job.new.clocktime == seed.clocktime);
        let Some(job) = job.filter(|_| whs.clocktime() == seed.clocktime) else {
            tracing::warn!(%manager, seed = %seed.clocktime, "deletion for a replace that was not copied here ignored");
            return;
        };
        let run = state.begin(Phase::Deleting);
        let watch = host.late_writes().watch();
        host.take_rhs(seed, manager);
        let (replace, seed) = (self.clone(), seed.clone());
        let deleting = async move {
            let (clocktime, begun) = (job.new.clocktime, Instant::now());
            let deleted = replace.delete(&job, &seed, manager, watch).await;
            replace.context.host.late_writes().take(watch);
            match deleted {
                Ok(()) => {
                    replace.ended(run, Phase::Idle, None);
                    tracing::info!(seed = %clocktime, "replace: deleted in {:.1?} {}", begun.elapsed(), replace.progress());
                    replace.report(manager, |clock| ReplaceDeleteEnd { clocktime, clock }).await;
                    // Nobody waits for this: should it be remembered all the same, there is nothing left to delete.
                    if let Err(error) = replace.ledger.store(None).await {
                        tracing::warn!("state of the replace cannot be removed: {error}");
                    }
                }
                Err(error) => {
                    // It may be begun again.
                    replace.ended(run, Phase::Copied, Some(job));
                    tracing::error!(seed = %clocktime, "replace: deleting failed: {error}");
                }
            }
        };
        state.task = Some(host.env().spawn(deleting));
    }

    async fn delete(&self, job: &Job, seed: &Seed, manager: NodeAddress, watch: Watch) -> Result<(), Failure> {
        let host = &self.context.host;
        let is_later = || host.spaces().1.clocktime().is_before(seed.clocktime);
        self.taken(|| host.take_rhs(seed, manager), is_later).await?;
        let settling = Settling { until: Instant::now() + self.context.settings.settle, watch };
        let plan = self.plan(job).await?;
        delete::run(&self.context, job, plan, settling).await?;
        // All streams of the replace have arrived; what is on its way besides is so for moments.
        self.context.host.store().hold_tombstones(2 * self.context.settings.settle);
        Ok(())
    }

    /// Tells the manager that a phase has ended, until it answers, or is no manager of this server any more.
    async fn report<C: Call>(&self, manager: NodeAddress, end: impl Fn(u32) -> C) {
        let (host, method) = (&self.context.host, C::METHOD);
        let mut backoff = Backoff::new(REPORT_PAUSE_MIN, REPORT_PAUSE_MAX);
        while host.is_manager(manager) {
            let end = end(host.clock().take());
            match host.peers().session(manager).ask(&end, STEPS).await {
                Err(error @ (ErrorCode::TransportLost | ErrorCode::NodeLost | ErrorCode::TimedOut)) => {
                    tracing::debug!(%manager, ?method, %error, "no answer from the manager; sending it again");
                }
                Err(error) => {
                    return tracing::warn!(%manager, ?method, "the manager refuses the report of a phase: {error}");
                }
                Ok(_) => return,
            }
            backoff.pause(host.env()).await;
        }
    }

    /// `ReplaceOffer` of another server: fetches the stream and stores it; returns when all of it is stored.
    /// One that is made under an earlier configuration than this server's is refused: what the offerer holds may be out of date.
    pub async fn offer(&self, offerer: NodeAddress, fence: Option<Fence>) -> Result<(), stream::Error> {
        let Ok(_place) = self.offers_taken.try_acquire() else {
            tracing::warn!(peer = %offerer, "offer refused: {OFFER_LIMIT} streams are being received");
            return Err(stream::Error::Busy);
        };
        let Some(token) = self.token(fence).await else {
            tracing::warn!(peer = %offerer, "offer refused: it is not made under the configuration of this server");
            return Err(stream::Error::Fenced);
        };
        self.ledger.before_stream().await?;
        self.context.host.store().hold_tombstones(TOMBSTONE_LEASE);
        let sink = StoreSink::new(self.context.clone(), token);
        let fetched = self.receiver.fetch(offerer, &sink).await;
        match &fetched {
            Ok(records) => tracing::debug!(peer = %offerer, records, "stream stored"),
            Err(error) => tracing::warn!(peer = %offerer, "cannot receive a stream: {error}"),
        }
        fetched.map(drop)
    }

    /// The fencing token for what is offered under `fence`. Who offers may be ahead of this server, by moments.
    async fn token(&self, fence: Option<Fence>) -> Option<u64> {
        let until = Instant::now() + SPACE_PATIENCE;
        loop {
            match self.context.host.fenced(fence) {
                Fenced::Admitted(token) => return Some(token),
                Fenced::Pending if Instant::now() < until => tokio::time::sleep(SPACE_PAUSE).await,
                Fenced::Pending | Fenced::Refused => return None,
            }
        }
    }

    /// [`FLAG_COPYING`] and [`FLAG_DELETING`], as they apply.
    pub(crate) fn status_flags(&self) -> u32 {
        match self.state.lock().phase {
            Phase::Copying => FLAG_COPYING,
            Phase::Deleting => FLAG_DELETING,
            Phase::Idle | Phase::Copied => 0,
        }
    }

    /// Figures of the replace that is under way, or of the last one.
    pub fn progress(&self) -> Progress {
        self.context.progress.read()
    }

    /// Ends everything under way; what was copied without fault is remembered. The store stays open.
    pub fn stop(&self) {
        self.listening.stop();
        self.state.lock().cancel();
    }
}

impl Drop for Replace {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests;
