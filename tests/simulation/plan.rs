//! What happens to a cluster while clients work, made from a seed by a small grammar: a scenario names the kinds of faults,
//! chance chooses among them, and when, to whom and for how long.

use std::fmt;
use std::time::Duration;

use kumo_server::store::SyncMode;

use super::cluster::{Node, Shape};
use super::network::Settings;
use super::operator::Command;
use super::scenario::Scenario;

/// What a node's process finds on its disk when it starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    Same,
    Empty,
    /// As it was so long before the kill.
    Older(Duration),
}

/// Something that happens.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// A process is killed, or its machine switched off, and started again after `down`.
    Kill { node: Node, down: Duration, contents: Contents, power: bool },
    /// Every server is killed at one moment, and started again one after the other.
    KillAll { down: Duration },
    /// A process stops and goes on.
    Stop { node: Node, time: Duration },
    /// Nothing of the first arrives at the second.
    Cut { shape: &'static str, pairs: Vec<(Node, Node)>, time: Duration },
    /// The network of all is slow and loses packets.
    Weather { settings: Settings, time: Duration },
    /// A machine refuses to be dialled.
    Refuse { node: Node, time: Duration },
    /// Some connections of a machine are known to one end only; the other dials anew.
    HalfOpen { node: Node },
    /// A clock is set.
    Clock { node: Node, millis: i64 },
    /// A disk takes up to so many milliseconds for each job.
    Slow { server: usize, millis: u64, time: Duration },
    /// A disk takes nothing.
    Full { server: usize, time: Duration },
    /// An operator gives a command.
    Order(Command),
    /// A server is killed, and `after` that the first manager, at work on the change that follows, which a slow network
    /// draws out. The server is back soon.
    HalfDone { server: usize, after: Duration, away: Duration, down: Duration },
}

/// The kinds of faults that a scenario chooses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    KillServer,
    KillManager,
    KillGateway,
    PowerLoss,
    KillAll,
    EmptyDisk,
    OlderDisk,
    StopServer,
    StopManager,
    /// One server cut off from everybody.
    Isolate,
    /// A server cut off from the managers alone.
    FromManagers,
    /// Servers cut off from each other alone.
    FromPeers,
    /// A server cut off from all but the gateways.
    AllButGateways,
    /// Some machines do not hear some others.
    OneWay,
    /// All machines in two parts.
    Halves,
    /// All machines in three parts.
    Thirds,
    /// Any pairs of machines.
    Scattered,
    Weather,
    Refuse,
    HalfOpen,
    Clock,
    SlowDisk,
    FullDisk,
    Attach,
    Detach,
    Replace,
    FullReplace,
    Backup,
    HalfDone,
}

/// A fault, and when it begins.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
}

/// A run as it is planned.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    /// Servers that are attached before clients begin.
    pub(crate) first: usize,
    /// How far each node's clock is wrong from the beginning, in milliseconds.
    pub(crate) skews: Vec<(Node, i64)>,
    /// Beside each other if the scenario says so; else each begins when the cluster is well again, `at` is then the pause.
    pub(crate) events: Vec<Event>,
    pub(crate) overlap: bool,
}

/// Milliseconds as a duration.
const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

struct Dice<'a> {
    rng: fastrand::Rng,
    scenario: &'a Scenario,
    shape: Shape,
}

impl Plan {
    /// The plan of a scenario with this seed.
    pub(crate) fn new(scenario: &Scenario, seed: u64, votes: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x706c_616e);
        let shape = Shape {
            managers: rng.usize(scenario.managers.clone()),
            servers: rng.usize(scenario.servers.clone()),
            gateways: 2,
            clients: 4,
            auto_replace: scenario.auto_replace && rng.bool(),
            sync: *rng.choice(&[SyncMode::Os, SyncMode::Everysec, SyncMode::Always]).unwrap_or(&SyncMode::Os),
            tombstones: scenario.tombstones,
            votes,
        };
        let first = shape.servers - scenario.spare.min(shape.servers - 1);
        let mut dice = Dice { rng, scenario, shape };
        let count = dice.rng.usize(scenario.events.clone());
        let mut events: Vec<_> = (0..count).map(|_| dice.event()).collect();
        if scenario.overlap {
            events.sort_by_key(|event| event.at);
            keep_disks(&mut events);
        }
        let skews = if scenario.skewed { dice.skews() } else { Vec::new() };
        Self { shape, first, skews, events, overlap: scenario.overlap }
    }
}

/// Disks stay as they are: one of the last active owner of a range could be lost, and what no disk holds no rule brings back.
fn keep_disks(events: &mut [Event]) {
    for event in events {
        if let Fault::Kill { contents, power, .. } = &mut event.fault {
            (*contents, *power) = (Contents::Same, false);
        }
    }
}

impl Dice<'_> {
    fn time(&mut self, from: u64, to: u64) -> Duration {
        millis(self.rng.u64(from..=to))
    }

    fn server(&mut self) -> Node {
        Node::Server(self.rng.usize(0..self.shape.servers))
    }

    fn manager(&mut self) -> Node {
        Node::Manager(self.rng.usize(0..self.shape.managers))
    }

    fn servers(&self) -> Vec<Node> {
        (0..self.shape.servers).map(Node::Server).collect()
    }

    fn managers(&self) -> Vec<Node> {
        (0..self.shape.managers).map(Node::Manager).collect()
    }

    fn all(&self) -> Vec<Node> {
        let gateways = (0..self.shape.gateways).map(Node::Gateway);
        self.managers().into_iter().chain(self.servers()).chain(gateways).collect()
    }

    fn skews(&mut self) -> Vec<(Node, i64)> {
        self.all().into_iter().map(|node| (node, self.rng.i64(-10_000..10_000))).collect()
    }

    fn event(&mut self) -> Event {
        let choice = *self.rng.choice(self.scenario.choices).expect("a choice");
        let at = if self.scenario.overlap { self.time(200, 9000) } else { self.time(200, 2000) };
        Event { at, fault: self.fault(choice) }
    }

    /// How long something lasts: shorter than it takes to be noticed, about that, or longer.
    fn outage(&mut self) -> Duration {
        match self.rng.u8(0..4) {
            0 => self.time(50, 1000),
            1 => self.time(500, 4000),
            _ => self.time(2000, 16_000),
        }
    }

    fn kill(&mut self, node: Node, contents: Contents, power: bool) -> Fault {
        let down = if contents == Contents::Same { self.outage() } else { self.time(20, 6000) };
        Fault::Kill { node, down, contents, power }
    }

    fn fault(&mut self, choice: Choice) -> Fault {
        match choice {
            Choice::KillServer => {
                let node = self.server();
                self.kill(node, Contents::Same, false)
            }
            Choice::KillManager => {
                let node = self.manager();
                self.kill(node, Contents::Same, false)
            }
            Choice::KillGateway => {
                let node = Node::Gateway(self.rng.usize(0..self.shape.gateways));
                Fault::Kill { node, down: self.time(20, 2000), contents: Contents::Same, power: false }
            }
            Choice::PowerLoss => {
                let node = if self.rng.u8(0..4) == 0 { self.manager() } else { self.server() };
                self.kill(node, Contents::Same, true)
            }
            Choice::KillAll => Fault::KillAll { down: self.time(100, 8000) },
            Choice::EmptyDisk => {
                let node = self.server();
                self.kill(node, Contents::Empty, false)
            }
            Choice::OlderDisk => {
                let (node, age) = (self.server(), self.time(500, 5000));
                self.kill(node, Contents::Older(age), false)
            }
            Choice::StopServer => {
                Fault::Stop { node: self.server(), time: self.outage().min(self.scenario.longest_stop) }
            }
            Choice::StopManager => Fault::Stop { node: self.manager(), time: self.outage() },
            Choice::Isolate
            | Choice::FromManagers
            | Choice::FromPeers
            | Choice::AllButGateways
            | Choice::OneWay
            | Choice::Halves
            | Choice::Thirds
            | Choice::Scattered => self.cut(choice),
            Choice::Weather => {
                let loss = if self.rng.bool() { self.rng.u64(5..100) } else { 0 };
                let settings = Settings { delay: self.time(0, 20), jitter: self.time(1, 60), loss };
                Fault::Weather { settings, time: self.time(500, 5000) }
            }
            Choice::Refuse => {
                let node = if self.rng.bool() { self.server() } else { self.manager() };
                Fault::Refuse { node, time: self.outage() }
            }
            Choice::HalfOpen => {
                let all = self.all();
                Fault::HalfOpen { node: *self.rng.choice(&all).expect("a node") }
            }
            Choice::Clock => {
                let all = self.all();
                let reach = *self.rng.choice(&[100, 3000, 10_000, 60_000]).expect("a number");
                Fault::Clock { node: *self.rng.choice(&all).expect("a node"), millis: self.rng.i64(-reach..=reach) }
            }
            Choice::SlowDisk => {
                let (server, millis) = (self.rng.usize(0..self.shape.servers), self.rng.u64(10..1500));
                Fault::Slow { server, millis, time: self.outage() }
            }
            Choice::FullDisk => Fault::Full { server: self.rng.usize(0..self.shape.servers), time: self.outage() },
            Choice::Attach => Fault::Order(Command::Attach(self.rng.u8(0..4) > 0)),
            Choice::Detach => Fault::Order(Command::Detach(self.rng.u8(0..4) > 0)),
            Choice::Replace => Fault::Order(Command::Replace),
            Choice::FullReplace => Fault::Order(Command::FullReplace),
            Choice::Backup => Fault::Order(Command::Backup),
            Choice::HalfDone => {
                let server = self.rng.usize(0..self.shape.servers);
                let (after, away) = (self.time(100, 600), self.time(200, 2000));
                Fault::HalfDone { server, after, away, down: self.time(6000, 16_000) }
            }
        }
    }

    fn cut(&mut self, choice: Choice) -> Fault {
        let server = self.server();
        let others = |nodes: Vec<Node>| nodes.into_iter().filter(|node| *node != server).collect::<Vec<_>>();
        let gateways = |node: &Node| matches!(node, Node::Gateway(_));
        let (shape, groups): (_, Vec<Vec<Node>>) = match choice {
            Choice::FromManagers => ("a server from managers", vec![vec![server], self.managers()]),
            Choice::FromPeers => ("a server from peers", vec![vec![server], others(self.servers())]),
            Choice::AllButGateways => {
                let cut_off = others(self.all()).into_iter().filter(|node| !gateways(node)).collect();
                ("a server from all but gateways", vec![vec![server], cut_off])
            }
            Choice::Halves => ("halves", self.parts(2)),
            Choice::Thirds => ("thirds", self.parts(3)),
            Choice::Scattered => ("scattered", self.all().into_iter().map(|node| vec![node]).collect()),
            Choice::OneWay => ("one way", self.parts(2)),
            _ => ("a server from all", vec![vec![server], others(self.all())]),
        };
        let mut pairs = Vec::new();
        for (number, from) in groups.iter().enumerate() {
            for (other, to) in groups.iter().enumerate().filter(|(other, _)| *other != number) {
                let one_way = choice == Choice::OneWay && other < number;
                let scattered = choice == Choice::Scattered && self.rng.u8(0..5) > 0;
                if !one_way && !scattered {
                    pairs.extend(from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to))));
                }
            }
        }
        Fault::Cut { shape, pairs, time: self.outage() }
    }

    /// All machines in so many parts.
    fn parts(&mut self, count: usize) -> Vec<Vec<Node>> {
        let mut parts = vec![Vec::new(); count];
        for node in self.all() {
            parts[self.rng.usize(0..count)].push(node);
        }
        parts
    }
}

impl Fault {
    /// Its kind, as the table counts it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Kill { contents: Contents::Empty, .. } => "empty disk",
            Self::Kill { contents: Contents::Older(_), .. } => "older disk",
            Self::Kill { power: true, .. } => "power loss",
            Self::Kill { .. } => "kill",
            Self::KillAll { .. } => "kill all",
            Self::Stop { .. } => "stop",
            Self::Cut { shape, .. } => shape,
            Self::Weather { .. } => "weather",
            Self::Refuse { .. } => "refused dials",
            Self::HalfOpen { .. } => "half-open",
            Self::Clock { .. } => "clock",
            Self::Slow { .. } => "slow disk",
            Self::Full { .. } => "full disk",
            Self::Order(Command::Attach(_)) => "attach",
            Self::Order(Command::Detach(_)) => "detach",
            Self::Order(Command::Replace) => "replace",
            Self::Order(Command::FullReplace) => "full-replace",
            Self::Order(Command::Backup) => "backup",
            Self::HalfDone { .. } => "half-done change",
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manager(number) => write!(f, "manager{}", number + 1),
            Self::Server(number) => write!(f, "server{}", number + 1),
            Self::Gateway(number) => write!(f, "gateway{}", number + 1),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { node, down, contents, power } => {
                let how = if *power { "power loss" } else { "kill" };
                write!(f, "{how} {node} for {down:?}, back with {contents:?} disk")
            }
            Self::KillAll { down } => write!(f, "kill all servers for {down:?}"),
            Self::Stop { node, time } => write!(f, "stop {node} for {time:?}"),
            Self::Cut { shape, pairs, time } => {
                write!(f, "cut ({shape}) for {time:?}:")?;
                for (from, to) in pairs {
                    write!(f, " {from}>{to}")?;
                }
                Ok(())
            }
            Self::Weather { settings, time } => {
                let Settings { delay, jitter, loss } = settings;
                write!(f, "packets take {delay:?} to {:?}, {loss} in 1000 are lost, for {time:?}", *delay + *jitter)
            }
            Self::Refuse { node, time } => write!(f, "{node} refuses dials for {time:?}"),
            Self::HalfOpen { node } => write!(f, "half-open connections of {node}"),
            Self::Clock { node, millis } => write!(f, "the clock of {node} is set {millis} ms wrong"),
            Self::Slow { server, millis, time } => {
                write!(f, "the disk of {} takes up to {millis} ms for {time:?}", Node::Server(*server))
            }
            Self::Full { server, time } => write!(f, "the disk of {} is full for {time:?}", Node::Server(*server)),
            Self::Order(command) => write!(f, "order {command:?}"),
            Self::HalfDone { server, after, away, down } => {
                let (server, manager) = (Node::Server(*server), Node::Manager(0));
                write!(f, "kill {server} for {away:?}, and {manager} {after:?} later for {down:?}")
            }
        }
    }
}
