//! Scenarios: the events that a cluster meets while clients work, each made from one seed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::application::Application;
use super::cluster::{Cluster, Shape};
use super::history::{self, Verdict};
use super::load::{self, Ledger};
use super::network::Settings;
use super::world::World;

/// A kind of run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// Nothing but a slow network and wrong clocks.
    Calm,
    /// A server is attached while clients work.
    Attach,
    /// Servers are killed and come back.
    Kill,
    /// Servers stop and go on.
    Stop,
    /// Managers are killed, and come back with no memory.
    Managers,
    /// The clients' gateway is killed and comes back.
    Gateway,
    /// Machines are cut off from each other in every shape.
    Cut,
    /// A server comes back with an empty disk.
    Empty,
}

impl Scenario {
    /// Those in which this program keeps its promises.
    pub(crate) const KEPT: &[Self] = &[Self::Calm, Self::Attach, Self::Stop, Self::Managers, Self::Gateway];
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
}

/// Clients, operations of each, and keys.
const CLIENTS: u8 = 4;
const OPERATIONS: usize = 80;
const KEYS: u64 = 8;

/// Runs a scenario from its seed, with stores in `directory`.
pub(crate) fn run(scenario: Scenario, seed: u64, directory: &Path) -> Report {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let world = World::new(seed);
        let mut run = Run {
            cluster: Cluster::new(&world, Shape { managers: 2, servers: 4, clients: CLIENTS }, directory),
            world,
            report: Report::default(),
        };
        run.play(scenario).await;
        run.report
    })
}

struct Run {
    world: Arc<World>,
    cluster: Cluster,
    report: Report,
}

impl Run {
    async fn play(&mut self, scenario: Scenario) {
        for number in 0..self.cluster.managers.len() {
            self.cluster.start_manager(number);
        }
        let first = if scenario == Scenario::Attach { 3 } else { self.cluster.servers.len() };
        for number in 0..first {
            self.cluster.start_server(number).await;
        }
        let operator = self.cluster.operator();
        if !operator.wait_detached(first, Duration::from_secs(30)).await {
            return self.violation("the servers have not found their managers");
        }
        if operator.attach().await.is_err() || !operator.wait_settled(first, Duration::from_mins(1)).await {
            return self.violation("the servers could not be attached");
        }
        if scenario == Scenario::Calm {
            let slow = Settings { delay: Duration::from_millis(1), jitter: Duration::from_millis(20), loss: 50 };
            self.cluster.world.network().set(slow);
        }
        let ledger = Arc::new(Ledger::default());
        if scenario == Scenario::Gateway {
            self.cluster.start_gateway();
        }
        let working = self.start_clients(scenario, &ledger).await;
        self.disturb(scenario).await;
        let ended = tokio::time::timeout(Duration::from_mins(10), async {
            for client in working {
                let _ = client.await;
            }
        });
        if ended.await.is_err() {
            self.violation("the clients have not ended");
        }
        self.judge(&ledger).await;
    }

    async fn start_clients(&self, scenario: Scenario, ledger: &Arc<Ledger>) -> Vec<tokio::sync::oneshot::Receiver<()>> {
        let mut working = Vec::new();
        for number in 0..self.cluster.clients.len() {
            let application = if scenario == Scenario::Gateway {
                self.cluster.memcached_client(number)
            } else {
                let Some(client) = self.cluster.client(number).await else { continue };
                Application::Cluster(client)
            };
            let (ended, end) = tokio::sync::oneshot::channel();
            let work = load::work(self.world.clone(), ledger.clone(), application, number, OPERATIONS, KEYS);
            self.cluster.clients[number].env().spawn(async move {
                work.await;
                let _ = ended.send(());
            });
            working.push(end);
        }
        working
    }

    /// Does what the scenario is about, at random times.
    async fn disturb(&mut self, scenario: Scenario) {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(200 + self.world.below(1500))).await;
            let server = usize::try_from(self.world.below(self.cluster.servers.len() as u64)).unwrap_or(0);
            match scenario {
                Scenario::Calm => {
                    let millis = i64::try_from(self.world.below(20_000)).unwrap_or(0) - 10_000;
                    self.cluster.servers[server].machine.set_skew(millis);
                    self.fault("clock");
                }
                Scenario::Attach => {
                    if !self.cluster.servers[3].is_running() {
                        self.cluster.start_server(3).await;
                        let operator = self.cluster.operator();
                        operator.wait_detached(1, Duration::from_secs(30)).await;
                        if operator.attach().await.is_err() {
                            self.violation("a server could not be attached");
                        }
                        self.fault("attach");
                    }
                }
                Scenario::Kill => self.kill_and_return(server, false).await,
                Scenario::Empty => self.kill_and_return(server, true).await,
                Scenario::Stop => {
                    self.cluster.servers[server].machine.stop();
                    tokio::time::sleep(Duration::from_millis(self.world.below(3000))).await;
                    self.cluster.servers[server].machine.proceed();
                    self.fault("stop");
                }
                Scenario::Managers => {
                    let manager = usize::try_from(self.world.below(2)).unwrap_or(0);
                    self.cluster.kill_manager(manager);
                    tokio::time::sleep(Duration::from_millis(self.world.below(3000))).await;
                    self.cluster.start_manager(manager);
                    self.fault("manager killed");
                }
                Scenario::Gateway => {
                    self.cluster.kill_gateway();
                    tokio::time::sleep(Duration::from_millis(self.world.below(3000))).await;
                    self.cluster.start_gateway();
                    self.fault("gateway killed");
                }
                Scenario::Cut => {
                    let ips = self.cluster.ips();
                    for from in &ips {
                        for to in &ips {
                            if from != to && self.world.happens(200) {
                                self.world.network().cut(*from, *to);
                            }
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(self.world.below(15_000))).await;
                    self.world.network().heal(&self.world);
                    self.fault("cut");
                }
            }
        }
    }

    /// Kills a server, starts it again, and takes it back as an operator would.
    async fn kill_and_return(&mut self, server: usize, empty: bool) {
        self.cluster.kill_server(server);
        self.fault(if empty { "disk lost" } else { "kill" });
        tokio::time::sleep(Duration::from_millis(self.world.below(3000))).await;
        if empty {
            self.cluster.empty_disk(server);
        }
        self.cluster.start_server(server).await;
        let operator = self.cluster.operator();
        // It may have come back before it was missed.
        operator.wait_detached(1, Duration::from_secs(5)).await;
        let _ = operator.attach().await;
        operator.wait_settled(self.cluster.servers.len(), Duration::from_secs(30)).await;
    }

    /// Holds what clients and servers say against the promises.
    async fn judge(&mut self, ledger: &Ledger) {
        tokio::time::sleep(Duration::from_secs(20)).await;
        match self.cluster.client(0).await {
            Some(client) => self.read_all(ledger, &client).await,
            None => self.violation("the managers do not answer at the end"),
        }
        self.report.operations = ledger.len();
        self.report.longest_outage = ledger.longest_outage();
        let histories = ledger.histories();
        self.report.keys = histories.len();
        for (key, history) in &histories {
            match history::check(history) {
                Verdict::Linearizable => {}
                Verdict::Violated => self.violation(&format!("key {key} is not linearizable:\n{}", show(history))),
                Verdict::Undecided => self.violation(&format!("key {key} could not be decided")),
            }
        }
    }

    /// Reads every key once more: what was acknowledged must be there, and the same on all its owners.
    async fn read_all(&mut self, ledger: &Ledger, client: &kumo_server::client::Client) {
        for key in ledger.histories().into_keys() {
            if !load::read_at_the_end(&self.world, ledger, client, key).await {
                self.violation(&format!("key {key} cannot be read at the end"));
            }
            let mut copies = Vec::new();
            for server in &self.cluster.servers {
                // Those that do not own the key refuse to answer.
                if let Ok(copy) = self.cluster.operator().read(server.address, &load::key_name(key)).await {
                    copies.push((server.address, copy));
                }
            }
            let same = copies.windows(2).all(|pair| pair[0].1 == pair[1].1);
            if !same || copies.is_empty() {
                self.violation(&format!("the owners of key {key} hold different records: {copies:?}"));
            }
        }
    }

    fn fault(&mut self, kind: &'static str) {
        *self.report.faults.entry(kind).or_default() += 1;
    }

    fn violation(&mut self, what: &str) {
        self.report.violations.push(what.to_owned());
    }
}

/// A history as people read it.
fn show(history: &[history::Operation]) -> String {
    let mut sorted: Vec<_> = history.iter().collect();
    sorted.sort_by_key(|operation| operation.begun);
    let line = |operation: &&history::Operation| {
        let ended = operation.ended.map_or_else(|| "no answer".to_owned(), |ended| format!("{ended:.3?}"));
        format!("  {:.3?} - {ended}  client {}: {:?}", operation.begun, operation.client, operation.kind)
    };
    sorted.iter().map(line).collect::<Vec<_>>().join("\n")
}
