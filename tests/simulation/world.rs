//! A world of simulated machines: one thread, one clock, one seed.
//!
//! Every task of a machine runs behind its gate: a machine that is stopped runs none of them, one that is killed has
//! lost them. The runtime's clock is paused and jumps to the next timer when nothing is left to do.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use kumo_server::env::{BoxFuture, Env, Host, Listener, Stream, Task, Work};
use kumo_server::rules::Rules;
use kumo_server::time::{Moment, Source, Time};
use parking_lot::Mutex;

use super::journal::{self, Journal, Line};
use super::network::Network;
use super::scheduler::{Handle, Scheduler};

/// Unix time at which every simulation begins.
const EPOCH: Duration = Duration::from_hours(500_000);

/// The simulated world.
pub(crate) struct World {
    random: Mutex<fastrand::Rng>,
    started: tokio::time::Instant,
    network: Network,
    scheduler: Scheduler,
    journal: Journal,
    /// The rules that its nodes follow.
    rules: Rules,
}

impl World {
    /// Must be called within a runtime whose clock is paused.
    pub(crate) fn new(seed: u64, rules: Rules, journal: Journal) -> Arc<Self> {
        Arc::new(Self {
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            started: tokio::time::Instant::now(),
            network: Network::default(),
            // Other numbers than those of the world.
            scheduler: Scheduler::new(!seed),
            journal,
            rules,
        })
    }

    /// What happens here.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Notes an event of the simulation.
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.journal.add(Line { at: self.now(), machine: None, text: text.into() });
    }

    /// Tasks of machines that have panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.scheduler.panics()
    }

    /// What the machines are connected by.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// Sixty-four bits of chance.
    pub(crate) fn random(&self) -> u64 {
        self.random.lock().u64(..)
    }

    /// A number below `limit`.
    pub(crate) fn below(&self, limit: u64) -> u64 {
        self.random.lock().u64(0..limit.max(1))
    }

    /// Whether something that happens `share` times in a thousand happens now.
    pub(crate) fn happens(&self, share: u64) -> bool {
        self.below(1000) < share
    }

    /// Time since the world began.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// One machine; its address stays when its process is killed and started again.
pub(crate) struct Machine {
    world: Arc<World>,
    ip: IpAddr,
    skew: Arc<AtomicI64>,
    process: Mutex<Arc<Process>>,
}

/// What runs on a machine until it is killed.
struct Process {
    stopped: AtomicBool,
    dead: AtomicBool,
    /// Tasks that wait for the process to be continued.
    parked: Mutex<Vec<Waker>>,
    tasks: Mutex<BTreeMap<u64, Handle>>,
    last: AtomicU64,
}

impl Process {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            stopped: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            parked: Mutex::default(),
            tasks: Mutex::default(),
            last: AtomicU64::new(0),
        })
    }
}

impl Machine {
    /// A machine with this address.
    pub(crate) fn new(world: &Arc<World>, ip: IpAddr) -> Self {
        Self { world: world.clone(), ip, skew: Arc::default(), process: Mutex::new(Process::new()) }
    }

    /// Its address.
    pub(crate) fn ip(&self) -> IpAddr {
        self.ip
    }

    /// What a process that is started now is given.
    pub(crate) fn env(&self) -> Env {
        let clocks = Clocks { world: self.world.clone(), skew: self.skew.clone() };
        let process = self.process.lock().clone();
        let host = Simulated { world: self.world.clone(), ip: self.ip, process };
        Env::new(Time::new(clocks), host).with_rules(self.world.rules)
    }

    /// Sets its clock, as far from the true time as given, in milliseconds.
    pub(crate) fn set_skew(&self, millis: i64) {
        self.skew.store(millis, Ordering::Relaxed);
    }

    /// Runs nothing until it is continued; the kernel goes on to take connections and bytes.
    pub(crate) fn stop(&self) {
        self.process.lock().stopped.store(true, Ordering::Relaxed);
    }

    /// Goes on where it was stopped.
    pub(crate) fn proceed(&self) {
        let process = self.process.lock().clone();
        process.stopped.store(false, Ordering::Relaxed);
        for task in std::mem::take(&mut *process.parked.lock()) {
            task.wake();
        }
    }

    /// Ends the process at once. The kernel closes its connections, as far as others can hear of it.
    pub(crate) fn kill(&self) {
        self.end_process();
        self.world.network.close_all_of(self.ip);
    }

    /// Switches the machine off: nobody hears of it.
    pub(crate) fn switch_off(&self) {
        self.end_process();
        self.world.network.switch_off(self.ip);
    }

    /// Switches it on again.
    pub(crate) fn switch_on(&self) {
        self.world.network.switch_on(&self.world, self.ip);
    }

    fn end_process(&self) {
        let process = std::mem::replace(&mut *self.process.lock(), Process::new());
        process.dead.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut *process.tasks.lock()).into_values() {
            task.stop();
        }
    }
}

/// The clocks of a machine.
struct Clocks {
    world: Arc<World>,
    skew: Arc<AtomicI64>,
}

impl Source for Clocks {
    fn now(&self) -> Moment {
        Moment::from_nanos(u64::try_from(self.world.now().as_nanos()).unwrap_or(u64::MAX).saturating_add(1))
    }

    fn unix(&self) -> Duration {
        let skew = self.skew.load(Ordering::Relaxed);
        let true_time = EPOCH + self.world.now();
        let apart = Duration::from_millis(skew.unsigned_abs());
        if skew < 0 { true_time.saturating_sub(apart) } else { true_time + apart }
    }
}

/// A process's view of its machine.
struct Simulated {
    world: Arc<World>,
    ip: IpAddr,
    process: Arc<Process>,
}

impl Host for Simulated {
    fn random(&self) -> u64 {
        self.world.random()
    }

    fn process_id(&self) -> u32 {
        1
    }

    fn spawn(&self, work: Work) -> Task {
        if self.process.dead.load(Ordering::Relaxed) {
            return Task::new(|| ());
        }
        let id = self.process.last.fetch_add(1, Ordering::Relaxed);
        let gated = Gated { process: Arc::downgrade(&self.process), work, id, ip: self.ip };
        let handle = self.world.scheduler.spawn(Box::pin(gated));
        self.process.tasks.lock().insert(id, handle.clone());
        Task::new(move || handle.stop())
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        // A turn of its own, as a thread would: the caller may hold a lock.
        let task = self.spawn(Box::pin(async move { work() }));
        drop(task);
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Stream>> {
        let (world, from) = (self.world.clone(), self.ip);
        Box::pin(async move { world.network.connect(&world, from, address).await })
    }

    fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        self.world.network.listen(&self.world, self.ip, address.port())
    }
}

/// A task that runs only while its process does.
struct Gated {
    process: Weak<Process>,
    work: Work,
    id: u64,
    ip: IpAddr,
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(process) = self.process.upgrade() else { return Poll::Ready(()) };
        if process.dead.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        if process.stopped.load(Ordering::Relaxed) {
            process.parked.lock().push(cx.waker().clone());
            return Poll::Pending;
        }
        let before = journal::enter(Some(self.ip));
        let polled = self.work.as_mut().poll(cx);
        journal::enter(before);
        polled
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        if let Some(process) = self.process.upgrade() {
            process.tasks.lock().remove(&self.id);
        }
    }
}
