//! One run: a cluster is started, clients work, what is planned happens, all is healed, and the outcome is judged.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kumo_server::rules::Rules;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tracing::level_filters::LevelFilter;

use super::cluster::{Cluster, Node};
use super::injector::Injector;
use super::journal::{Capture, Journal, Line};
use super::judge;
use super::load::{self, Ledger};
use super::operator::Command;
use super::plan::Plan;
use super::scenario::Scenario;
use super::world::World;

/// Operations of a client: at least, and at most while faults go on.
const OPERATIONS: (usize, usize) = (80, 200);
/// The longest pause of a client between two operations.
const PAUSE: Duration = Duration::from_millis(300);
/// How long clients may take to end.
const CLIENTS_LIMIT: Duration = Duration::from_mins(10);
/// How long a cluster that is healed may take to be well again, with an operator who attaches what is not attached.
const RECOVERY_LIMIT: Duration = Duration::from_mins(2);

/// How to run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Settings {
    pub(crate) rules: Rules,
    /// Managers are told to be compatible: servers do not vote.
    pub(crate) compatible: bool,
    /// Shows all that the nodes log.
    pub(crate) trace: bool,
    /// And all bytes that they send.
    pub(crate) bytes: bool,
}

/// The outcome of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What was wrong; nothing if the promises were kept.
    pub(crate) violations: Vec<String>,
    pub(crate) operations: usize,
    pub(crate) keys: usize,
    pub(crate) faults: BTreeMap<&'static str, u32>,
    pub(crate) longest_outage: Duration,
    /// What happened.
    pub(crate) events: Vec<Line>,
    /// A sum of everything that travelled: two runs are the same if theirs are.
    pub(crate) sum: u64,
    /// How long it took on the clocks of the simulation.
    pub(crate) time: Duration,
}

/// Runs a scenario from its seed, with stores in `directory`.
pub(crate) fn run(scenario: &'static Scenario, seed: u64, settings: Settings, directory: &Path) -> Report {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let report = runtime.block_on(async {
        let world = World::new(seed, settings.rules, Journal::new(settings.trace, settings.bytes));
        let level = if settings.trace { LevelFilter::DEBUG } else { LevelFilter::WARN };
        let _capture = tracing::subscriber::set_default(Capture { world: world.clone(), level });
        let plan = Plan::new(scenario, seed, !settings.compatible);
        let run = Arc::new(Run {
            cluster: Cluster::new(&world, plan.shape, directory),
            scenario,
            plan,
            world,
            violations: Mutex::default(),
            faults: Mutex::default(),
        });
        let ledger = Arc::new(Ledger::default());
        run.clone().play(&ledger).await;
        run.report(&ledger)
    });
    // Tasks that are left, those of stores for example, end with it.
    drop(runtime);
    report
}

/// A run under way.
pub(crate) struct Run {
    pub(crate) scenario: &'static Scenario,
    pub(crate) plan: Plan,
    pub(crate) world: Arc<World>,
    pub(crate) cluster: Cluster,
    violations: Mutex<Vec<String>>,
    faults: Mutex<BTreeMap<&'static str, u32>>,
}

impl Run {
    /// Notes that a promise was broken.
    pub(crate) fn violation(&self, what: impl Into<String>) {
        let what = what.into();
        self.world.note(format!("VIOLATION {}", what.lines().next().unwrap_or_default()));
        self.violations.lock().push(what);
    }

    /// Counts a fault that has been injected.
    pub(crate) fn count(&self, kind: &'static str) {
        *self.faults.lock().entry(kind).or_default() += 1;
    }

    async fn play(self: Arc<Self>, ledger: &Arc<Ledger>) {
        let shape = self.plan.shape;
        self.world.note(format!("scenario {}: {shape:?}, {} servers attached", self.scenario.name, self.plan.first));
        for (node, millis) in &self.plan.skews {
            self.cluster.machine(*node).set_skew(*millis);
        }
        if !self.start().await {
            return;
        }
        let over = Arc::new(AtomicBool::new(false));
        let working = self.start_clients(ledger, &over);
        Injector::new(&self).inject().await;
        self.world.note("all is healed");
        let recovered = self.recover(RECOVERY_LIMIT).await;
        over.store(true, Ordering::Relaxed);
        let ended = tokio::time::timeout(CLIENTS_LIMIT, async {
            for client in working {
                let _ = client.await;
            }
        });
        if ended.await.is_err() {
            self.violation("the clients have not ended");
        }
        if !recovered && !self.recover(RECOVERY_LIMIT).await {
            self.violation("the cluster is healed, and not whole again: an operator has to do more than attach");
        }
        judge::judge(&self, ledger).await;
    }

    /// Starts everything, and attaches the servers that are to be attached at first.
    async fn start(&self) -> bool {
        let first = |node: &Node| !matches!(node, Node::Server(number) if *number >= self.plan.first);
        for node in self.cluster.nodes().into_iter().filter(first) {
            if let Err(error) = self.cluster.start(node).await {
                self.violation(format!("{node} cannot start: {error}"));
                return false;
            }
        }
        let (operator, count) = (self.cluster.operator(), self.plan.first);
        if !operator.wait_detached(count, Duration::from_secs(30)).await {
            self.violation("the servers have not found their managers");
            return false;
        }
        if operator.order(Command::Attach(true)).await.is_err()
            || !operator.wait_settled(count, Duration::from_mins(1)).await
        {
            self.violation("the servers could not be attached");
            return false;
        }
        for number in self.plan.first..self.plan.shape.servers {
            if let Err(error) = self.cluster.start(Node::Server(number)).await {
                self.violation(format!("{} cannot start: {error}", Node::Server(number)));
                return false;
            }
        }
        true
    }

    fn start_clients(&self, ledger: &Arc<Ledger>, over: &Arc<AtomicBool>) -> Vec<oneshot::Receiver<()>> {
        let mut working = Vec::new();
        let shape = self.plan.shape;
        for number in 0..shape.clients {
            let application = self.cluster.application(number, number % shape.gateways);
            let (ended, end) = oneshot::channel();
            let (least, most) = OPERATIONS;
            let task = load::Task { number, least, most, pause: PAUSE, over: over.clone() };
            let work = load::work(self.world.clone(), ledger.clone(), application, task);
            self.cluster.client(number).env().spawn(async move {
                work.await;
                let _ = ended.send(());
            });
            working.push(end);
        }
        working
    }

    /// Does what an operator does after a fault: attaches what is not attached, until every server is active.
    pub(crate) async fn recover(&self, limit: Duration) -> bool {
        let (operator, servers) = (self.cluster.operator(), self.plan.shape.servers);
        let recovering = async {
            loop {
                // A server may have come back before it was missed.
                if operator.wait_settled(servers, Duration::from_secs(1)).await {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    if operator.is_settled(servers).await {
                        return;
                    }
                }
                let Some(overview) = operator.overview().await else { continue };
                if !overview.detached.is_empty() {
                    let attached = operator.order(Command::Attach(true)).await;
                    self.world.note(format!("an operator attaches {:?}: {attached:?}", overview.detached));
                    operator.wait_settled(servers, Duration::from_secs(10)).await;
                } else if overview.whs.nodes.iter().all(|(_, active)| *active) {
                    // A replace that was given up.
                    let replaced = operator.order(Command::Replace).await;
                    self.world.note(format!("an operator replaces: {replaced:?}"));
                    operator.wait_settled(servers, Duration::from_secs(10)).await;
                }
            }
        };
        tokio::time::timeout(limit, recovering).await.is_ok()
    }

    fn report(&self, ledger: &Ledger) -> Report {
        if self.world.panics() > 0 {
            self.violation("a task has panicked");
        }
        Report {
            violations: std::mem::take(&mut *self.violations.lock()),
            operations: ledger.operations(),
            keys: ledger.histories().len(),
            faults: std::mem::take(&mut *self.faults.lock()),
            longest_outage: ledger.longest_outage(),
            events: self.world.journal().events(),
            sum: self.world.journal().sum(),
            time: self.world.now(),
        }
    }
}
