//! Makes planned faults happen, and heals them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kumo_server::store::SyncMode;
use tokio::task::JoinSet;

use super::cluster::Node;
use super::network::Settings;
use super::plan::{Contents, Fault};
use super::run::Run;

/// How long a cluster may take to be well again between two faults that do not overlap.
const BETWEEN: Duration = Duration::from_secs(40);
/// How long a packet takes, at least, while a change is to be drawn out.
const SLOW: Duration = Duration::from_millis(20);
/// Pause between two tries to start a process that cannot start.
const START_PAUSE: Duration = Duration::from_secs(1);
/// Tries to start it.
const START_TRIES: u32 = 30;

/// Makes the faults of a run happen.
pub(crate) struct Injector {
    run: Arc<Run>,
    /// A disk has lost something, among faults beside each other: no second one may.
    disk_lost: AtomicBool,
}

impl Injector {
    pub(crate) fn new(run: &Arc<Run>) -> Self {
        Self { run: run.clone(), disk_lost: AtomicBool::new(false) }
    }

    /// Injects everything that is planned; returns when all of it is over.
    pub(crate) async fn inject(self) {
        let this = Arc::new(self);
        let (events, begun) = (this.run.plan.events.clone(), tokio::time::Instant::now());
        if this.run.plan.overlap {
            let mut happening = JoinSet::new();
            for event in events {
                let this = this.clone();
                happening.spawn(async move {
                    tokio::time::sleep_until(begun + event.at).await;
                    this.happen(&event.fault).await;
                });
            }
            while happening.join_next().await.is_some() {}
        } else {
            for event in events {
                tokio::time::sleep(event.at).await;
                this.happen(&event.fault).await;
                this.run.recover(BETWEEN).await;
            }
        }
    }

    /// One fault, from its beginning to its end.
    async fn happen(&self, fault: &Fault) {
        let (run, world) = (&self.run, &self.run.world);
        let cluster = &run.cluster;
        if !self.can_happen(fault) {
            return;
        }
        world.note(fault.to_string());
        run.count(fault.kind());
        match fault {
            Fault::Kill { node, down, contents, power } => {
                let loses = *contents != Contents::Same || *power && run.plan.shape.sync != SyncMode::Always;
                let (contents, power) =
                    if loses && !self.may_lose_a_disk().await { (&Contents::Same, &false) } else { (contents, power) };
                if let (Contents::Older(age), Node::Server(number)) = (contents, node) {
                    cluster.remember_disk(*number);
                    tokio::time::sleep(*age).await;
                    if !cluster.is_running(*node) {
                        return;
                    }
                }
                cluster.kill(*node, *power);
                tokio::time::sleep(*down).await;
                match (contents, node) {
                    (Contents::Empty, Node::Server(number)) => cluster.empty_disk(*number),
                    (Contents::Older(_), Node::Server(number)) => cluster.return_disk(*number),
                    _ => {}
                }
                self.start(*node).await;
            }
            Fault::KillAll { down } => {
                let servers = (0..run.plan.shape.servers).map(Node::Server);
                let killed: Vec<_> = servers.filter(|node| cluster.is_running(*node)).collect();
                for node in &killed {
                    cluster.kill(*node, false);
                }
                tokio::time::sleep(*down).await;
                for node in killed {
                    tokio::time::sleep(Duration::from_millis(world.below(1000))).await;
                    self.start(node).await;
                }
            }
            Fault::Stop { node, time } => {
                cluster.machine(*node).stop();
                tokio::time::sleep(*time).await;
                cluster.machine(*node).proceed();
                world.note(format!("{node} goes on"));
            }
            Fault::Cut { pairs, time, .. } => {
                let ip = |node: &Node| cluster.machine(*node).ip();
                for (from, to) in pairs {
                    world.network().cut(ip(from), ip(to));
                }
                tokio::time::sleep(*time).await;
                for (from, to) in pairs {
                    world.network().mend(world, ip(from), ip(to));
                }
                world.note("the cut is mended");
            }
            Fault::Weather { settings, time } => {
                world.network().set(*settings);
                tokio::time::sleep(*time).await;
                world.network().set(Settings::default());
            }
            Fault::Refuse { node, time } => {
                let ip = cluster.machine(*node).ip();
                world.network().refuse(ip, true);
                tokio::time::sleep(*time).await;
                world.network().refuse(ip, false);
            }
            Fault::HalfOpen { node } => {
                // An application that is not answered would wait: that is its own affair.
                let clients: Vec<_> = (0..run.plan.shape.clients).map(|number| cluster.client(number).ip()).collect();
                let count = world.network().forget_some_of(world, cluster.machine(*node).ip(), &clients);
                world.note(format!("{count} connections of {node} are half open"));
            }
            Fault::Clock { node, millis } => cluster.machine(*node).set_skew(*millis),
            Fault::Slow { server, millis, time } => {
                cluster.disk(*server).set_slow(*millis);
                tokio::time::sleep(*time).await;
                cluster.disk(*server).set_slow(0);
            }
            Fault::Full { server, time } => {
                cluster.disk(*server).set_full(true);
                tokio::time::sleep(*time).await;
                cluster.disk(*server).set_full(false);
            }
            Fault::Order(command) => {
                let result = cluster.operator().order(*command).await;
                world.note(format!("order {command:?}: {result:?}"));
            }
            Fault::HalfDone { server, after, away, down } => self.half_done(*server, *after, *away, *down).await,
        }
    }

    /// Kills a server, and the first manager at work on the change that follows.
    async fn half_done(&self, server: usize, after: Duration, away: Duration, down: Duration) {
        let (world, cluster) = (&self.run.world, &self.run.cluster);
        let (server, manager) = (Node::Server(server), Node::Manager(0));
        world.network().set(Settings { delay: SLOW, jitter: SLOW, loss: 0 });
        cluster.kill(server, false);
        tokio::time::sleep(after).await;
        cluster.kill(manager, false);
        world.network().set(Settings::default());
        tokio::time::sleep(away).await;
        self.start(server).await;
        tokio::time::sleep(down).await;
        self.start(manager).await;
    }

    /// Whether a disk may lose something now: that the only copy of a record is lost is no fault of the program.
    async fn may_lose_a_disk(&self) -> bool {
        let plan = &self.run.plan;
        let whole = !plan.overlap || self.run.cluster.operator().is_settled(plan.shape.servers).await;
        whole && !(plan.overlap && self.disk_lost.swap(true, Ordering::Relaxed))
    }

    /// Whether there is something for the fault to happen to: another one may have come before it.
    fn can_happen(&self, fault: &Fault) -> bool {
        let running = |node: &Node| self.run.cluster.is_running(*node);
        match fault {
            Fault::Kill { node, .. } | Fault::Stop { node, .. } => running(node),
            Fault::HalfDone { server, .. } => running(&Node::Manager(0)) && running(&Node::Server(*server)),
            Fault::Cut { pairs, .. } => !pairs.is_empty(),
            _ => true,
        }
    }

    /// Starts a process again; its disk may be full just now.
    async fn start(&self, node: Node) {
        let (run, cluster) = (&self.run, &self.run.cluster);
        cluster.machine(node).switch_on();
        for _ in 0..START_TRIES {
            match cluster.start(node).await {
                Ok(()) => return run.world.note(format!("{node} is started again")),
                Err(error) => run.world.note(format!("{node} cannot start: {error}")),
            }
            tokio::time::sleep(START_PAUSE).await;
        }
        run.violation(format!("{node} does not start"));
    }
}
