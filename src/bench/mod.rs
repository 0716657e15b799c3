//! The load generator: requests as applications send them, in a closed loop, and a check of every answer.
//!
//! Closed loop: a connection sends a batch and waits for all of its answers before it sends the next, so a slow server
//! receives less load. Latency runs from the write that sent the batch. Whatever is needed per request is kept small,
//! since the generator usually shares a machine with what it measures. Knows no flags and prints nothing.

mod batch;
mod choice;
mod config;
mod connection;
mod exchange;
mod intervals;
mod ledger;
mod manager;
mod memcached;
mod node;
mod report;
mod routes;
mod tally;
mod value;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use config::{Config, Distribution, Extent, KEYS_LIMIT, Mistake, Mix, Target};
pub(crate) use ledger::ENTRY_LEN;
pub(crate) use report::{Load, Report, Section};

use crate::clock::{Clock, unix_seconds};
use crate::time::Time;
use exchange::Exchange;
use intervals::{Cuts, Interval, Intervals, Part};
use ledger::Ledger;
use manager::Manager;
use report::RunFacts;
use routes::{Router, Routes};
use tally::Tally;
use worker::{Done, Shared, Stage, Task, Worker};

/// How often a run says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// Counts that threads may have handed over before anybody adds them up; beyond it they wait.
const PARTS_WAITING: usize = 16;
/// Passes over all keys of a load: what a change of the hash space made one pass miss, the next one writes.
const LOAD_PASSES: usize = 4;

/// Why a run did not come to a result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The settings contradict each other.
    #[error(transparent)]
    Mistake(#[from] Mistake),
    /// No manager gives a hash space.
    #[error("{}", each(.0))]
    Manager(Vec<(SocketAddr, manager::Error)>),
    /// A server cannot be reached.
    #[error("server {0}: {1}")]
    Server(SocketAddr, io::Error),
    /// Some servers would get no requests.
    #[error("{servers} servers need as many connections, not {connections}")]
    TooFewConnections {
        /// Servers that the manager names.
        servers: usize,
        /// Connections asked for.
        connections: usize,
    },
    /// Some keys could not be written.
    #[error("{missing} of {keys} keys could not be loaded{}", reasons(.failures))]
    Load {
        /// Keys not written.
        missing: u64,
        /// Keys in use.
        keys: u64,
        /// Why, with counts.
        failures: Vec<String>,
    },
    /// The system refuses something.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A thread has ended before its time.
    #[error("a thread has panicked")]
    Panicked,
}

fn each(failures: &[(SocketAddr, manager::Error)]) -> String {
    let failures: Vec<_> = failures.iter().map(|(address, error)| format!("manager {address}: {error}")).collect();
    failures.join("; ")
}

fn reasons(failures: &[String]) -> String {
    if failures.is_empty() { String::new() } else { format!(": {}", failures.join(", ")) }
}

/// How far a run is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// The stage.
    pub stage: &'static str,
    /// Since it began.
    pub elapsed: Duration,
    /// Answers so far.
    pub answers: u64,
    /// Answers in a second, lately.
    pub rate: f64,
}

/// Runs to the end, or until `stop` is set; what was measured until then is the result.
///
/// `progress` is called about twice a second.
pub(crate) fn run(config: &Config, stop: &AtomicBool, progress: impl FnMut(Progress)) -> Result<Report, Error> {
    config.check()?;
    let (manager, first) = match &config.target {
        Target::Server(server) | Target::Memcached { address: server, .. } => (None, Routes::to(*server)),
        Target::Managers(managers) => {
            let (manager, first) = Manager::connect_any(managers).map_err(Error::Manager)?;
            (Some((manager, managers)), first)
        }
    };
    let (servers, connections) = (first.servers().len(), config.connections);
    if servers > connections {
        return Err(Error::TooFewConnections { servers, connections });
    }
    let router = Arc::new(Router::new(first));
    let shared = Shared { router: router.clone(), answered: Arc::new(AtomicU64::new(0)) };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        if let Some((manager, managers)) = manager {
            let (router, over) = (&router, &over);
            scope.spawn(move || manager.follow(managers, router, || over.load(Ordering::Relaxed)));
        }
        let result = Run::new(config, &shared, stop, progress).and_then(Run::stages);
        over.store(true, Ordering::Relaxed);
        result
    })
}

/// The stages of a run.
struct Run<'a, P> {
    config: &'a Config,
    shared: &'a Shared,
    stop: &'a AtomicBool,
    progress: P,
    ledger: Arc<Ledger>,
    workers: Vec<Worker>,
}

/// The result of a stage of all threads.
struct Outcome {
    tally: Tally,
    elapsed: Duration,
    sections: Vec<Section>,
    gave_up: bool,
}

impl<'a, P: FnMut(Progress)> Run<'a, P> {
    fn new(config: &'a Config, shared: &'a Shared, stop: &'a AtomicBool, progress: P) -> Result<Self, Error> {
        let ledger = Arc::new(Ledger::new(config.keys, config.loaded));
        let (stride, first) = (config.threads as u64, u64::from(unix_seconds()) << 32);
        let clock = match config.replicate_as {
            Some(_) => node::clock_ahead_of(shared.router.routes().servers(), config.timeout)
                .map_err(|(server, error)| Error::Server(server, error))?,
            None => Arc::new(Clock::new(&Time::real(), 1)),
        };
        let mut workers = Vec::new();
        for thread in 0..config.threads {
            let first = first + 1 + thread as u64;
            let mut exchange = Exchange::new(ledger.clone(), clock.clone(), config.value_size, first, stride, tally()?);
            if let Target::Memcached { multiget, .. } = config.target {
                exchange.speak_text(multiget);
            }
            let worker = Worker::connect(config, thread, shared, exchange);
            workers.push(worker.map_err(|(server, error)| Error::Server(server, error))?);
        }
        Ok(Self { config, shared, stop, progress, ledger, workers })
    }

    fn stages(mut self) -> Result<Report, Error> {
        let mut all = tally()?;
        let mut gave_up = false;
        let load = if self.config.load { self.load(&mut all)? } else { None };
        if !self.is_stopped() && !self.config.warm_up.is_zero() {
            let warm = self.stage("warm-up", Task::Mix, Extent::Time(self.config.warm_up), None)?;
            all.add_failures(&warm.tally);
            gave_up = warm.gave_up;
        }
        let mut elapsed = Duration::ZERO;
        let mut sections = Vec::new();
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if !self.is_stopped() && !gave_up {
            let measured = self.stage("measuring", Task::Mix, self.config.extent, self.config.interval)?;
            all.add(&measured.tally);
            (elapsed, gave_up) = (measured.elapsed, measured.gave_up);
            sections = measured.sections;
        }
        let run = RunFacts {
            servers: self.shared.router.routes().servers().len(),
            load,
            began,
            elapsed,
            sections,
            route_changes: self.shared.router.generation(),
            interrupted: self.is_stopped(),
            gave_up,
        };
        Ok(Report::new(self.config, &all, run))
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Writes every key; `None` if that was interrupted.
    fn load(&mut self, all: &mut Tally) -> Result<Option<Load>, Error> {
        let keys = self.ledger.keys();
        let (mut elapsed, mut missing) = (Duration::ZERO, keys);
        let mut failures = Vec::new();
        for _ in 0..LOAD_PASSES {
            let pass = self.stage("loading", Task::Fill, Extent::Requests(u64::MAX), None)?;
            elapsed += pass.elapsed;
            if self.is_stopped() {
                all.add_failures(&pass.tally);
                return Ok(None);
            }
            missing = (0..keys).filter(|index| !self.ledger.is_written(*index)).count() as u64;
            failures = pass.tally.failures.iter().map(|(failure, count)| format!("{count} x {failure}")).collect();
            if missing == 0 {
                return Ok(Some(Load::new(keys, elapsed)));
            }
            if pass.gave_up {
                break;
            }
        }
        Err(Error::Load { missing, keys, failures })
    }

    /// Runs one stage on all threads, in sections of length `interval` if there is one.
    fn stage(
        &mut self,
        name: &'static str,
        task: Task,
        extent: Extent,
        interval: Option<Duration>,
    ) -> Result<Outcome, Error> {
        let began = Instant::now();
        let (until, requests) = match extent {
            Extent::Time(time) => (began.checked_add(time), u64::MAX),
            Extent::Requests(count) => (None, count),
        };
        let threads = self.workers.len() as u64;
        let mut outcome = Outcome { tally: tally()?, elapsed: Duration::ZERO, sections: Vec::new(), gave_up: false };
        let mut intervals = interval.map(|length| Intervals::new(length, Interval::section));
        let (parts, handed_over) = mpsc::sync_channel(PARTS_WAITING);
        let mut watch = Watch::new(name, began, &self.shared.answered);
        let (stop, progress) = (self.stop, &mut self.progress);
        let done: Result<Vec<Done>, Error> = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads)
                .zip(self.workers.iter_mut())
                .map(|(thread, worker)| {
                    let cuts = Cuts::new(began, interval, parts.clone());
                    // The first threads take the remainder.
                    let requests = requests / threads + u64::from(thread < requests % threads);
                    let stage = Stage { task, until, requests, stop };
                    scope.spawn(move || worker.run(&stage, cuts))
                })
                .collect();
            drop(parts);
            // The channel closes when the last thread has ended, also by a panic.
            loop {
                match handed_over.recv_timeout(watch.pause()) {
                    Ok(part) => outcome.take(&part, intervals.as_mut()),
                    Err(mpsc::RecvTimeoutError::Timeout) => progress(watch.look()),
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                }
            }
            threads.into_iter().map(|thread| Ok(thread.join().map_err(|_| Error::Panicked)??)).collect()
        });
        for done in done? {
            outcome.take(&done.part, intervals.as_mut());
            outcome.elapsed = outcome.elapsed.max(done.last.duration_since(began));
            outcome.gave_up |= done.gave_up;
        }
        outcome.sections = intervals.map(|intervals| intervals.finish(outcome.elapsed)).unwrap_or_default();
        Ok(outcome)
    }
}

impl Outcome {
    fn take(&mut self, part: &Part, intervals: Option<&mut Intervals<Section>>) {
        self.tally.add(&part.tally);
        if let Some(intervals) = intervals {
            intervals.add(part);
        }
    }
}

fn tally() -> Result<Tally, Error> {
    Tally::new().map_err(|error| Error::Io(io::Error::other(error)))
}

/// Turns the count of answers into progress.
struct Watch<'a> {
    stage: &'static str,
    began: Instant,
    answered: &'a AtomicU64,
    at_begin: u64,
    last: (Instant, u64),
}

impl<'a> Watch<'a> {
    fn new(stage: &'static str, began: Instant, answered: &'a AtomicU64) -> Self {
        let at_begin = answered.load(Ordering::Relaxed);
        Self { stage, began, answered, at_begin, last: (began, at_begin) }
    }

    /// Until the next look is due.
    fn pause(&self) -> Duration {
        PROGRESS_INTERVAL.saturating_sub(self.last.0.elapsed())
    }

    #[expect(clippy::cast_precision_loss, reason = "a figure to read")]
    fn look(&mut self) -> Progress {
        let (now, answered) = (Instant::now(), self.answered.load(Ordering::Relaxed));
        let (then, before) = std::mem::replace(&mut self.last, (now, answered));
        Progress {
            stage: self.stage,
            elapsed: now.duration_since(self.began),
            answers: answered - self.at_begin,
            rate: (answered - before) as f64 / now.duration_since(then).as_secs_f64().max(1e-9),
        }
    }
}
