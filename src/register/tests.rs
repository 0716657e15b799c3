//! A randomized model: voters and proposers whose messages are lost, late and twice, who crash, pause and are cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;

use super::*;
use crate::clock::ClockTime;
use crate::ring::HashSpace;
use crate::time::Moment;
use crate::wire::NodeAddress;
use crate::wire::params::Seed;

/// Rules of the register that a run may be without, to see that it is missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Without {
    Nothing,
    /// The highest proposal accepted before is taken over.
    TakeOver,
    /// A majority accepts, not one voter.
    Majority,
    /// Votes survive a restart.
    Durability,
    /// The proposer waits for leases.
    LeaseWait,
    /// A lease counts from the question, not from its answer.
    SentTime,
    /// Who has accepted a successor does not act.
    Leaving,
    /// A restarted voter takes its confirmations for lasting.
    Forgetting,
}

/// Most messages under way; beyond it some are lost.
const UNDER_WAY: usize = 24;

struct Server {
    address: NodeAddress,
    store: u64,
    acceptor: Acceptor,
    lease: Lease,
    confirmations: Confirmations,
    up: bool,
}

struct Manager {
    start: u64,
    known: Configuration,
    proposer: Option<Proposer>,
    round: u64,
}

#[derive(Clone)]
enum Message {
    Prepare { manager: usize, voter: usize, version: Version, ballot: Ballot },
    Accept { manager: usize, voter: usize, version: Version, ballot: Ballot, next: Box<Configuration> },
    Answer { manager: usize, version: Version, ballot: Ballot, voter: Voter, answer: Box<Answer> },
    Question { server: usize, voter: usize, version: Version, sent: Moment },
    Confirmed { server: usize, voter: Voter, version: Version, sent: Moment },
    Sync { server: usize, configuration: Box<Configuration> },
}

struct Model {
    rng: Rng,
    without: Without,
    now: Moment,
    servers: Vec<Server>,
    managers: Vec<Manager>,
    messages: Vec<Message>,
    /// Each configuration's successor, as it came into force.
    line: BTreeMap<u64, Configuration>,
    violation: Option<String>,
    /// Hash spaces by their clocktimes: they take long to work out.
    spaces: BTreeMap<u64, Rc<HashSpace>>,
    /// Each configuration has another timing than the one before.
    timings: bool,
}

fn node(number: u8) -> NodeAddress {
    NodeAddress::new(([127, 0, 0, number], 19800).into())
}

/// The leases of every other configuration are long.
fn timing(counter: u64) -> Timing {
    let lease = Duration::from_millis(if counter.is_multiple_of(2) { 2500 } else { 250 });
    Timing::new(lease, lease).unwrap()
}

impl Model {
    fn new(seed: u64, without: Without) -> Self {
        let mut rng = Rng::with_seed(seed);
        let count = rng.u8(3..6);
        let nodes: Vec<_> = (1..=count).map(|number| (node(number), true)).collect();
        let stores = (1..=count).map(|number| (node(number), u64::from(number))).collect();
        let whs = Seed { nodes, clocktime: ClockTime(1) };
        let first = Configuration::default().next(whs.clone(), whs, &stores, &BTreeSet::new()).unwrap();
        let server = |number: u8| Server {
            address: node(number),
            store: u64::from(number),
            acceptor: Acceptor::new(first.clone(), Vote::default()),
            lease: Lease::default(),
            confirmations: Confirmations::default(),
            up: true,
        };
        let manager = |start| Manager { start, known: first.clone(), proposer: None, round: 0 };
        Self {
            without,
            now: Moment::from_nanos(1_000_000_000),
            servers: (1..=count).map(server).collect(),
            managers: vec![manager(100), manager(200)],
            messages: Vec::new(),
            line: BTreeMap::from([(first.counter, first)]),
            violation: None,
            rng,
            spaces: BTreeMap::new(),
            timings: false,
        }
    }

    fn server_of(&self, voter: Voter) -> Option<usize> {
        self.servers.iter().position(|server| Voter::Server(server.store) == voter)
    }

    /// One more thing happens.
    fn step(&mut self) {
        match self.rng.u32(0..100) {
            0..50 => self.deliver(),
            50..68 => self.ask(),
            68..76 => self.propose(),
            76..92 => self.go_on(),
            92..97 => self.now = self.now + Duration::from_millis(self.rng.u64(1..400)),
            97..99 => self.restart(),
            _ => self.lose(),
        }
        // Else most of what is delivered would be of no interest any more.
        while self.messages.len() > UNDER_WAY {
            self.lose();
        }
        self.check();
    }

    fn lose(&mut self) {
        if !self.messages.is_empty() {
            let lost = self.rng.usize(0..self.messages.len());
            self.messages.swap_remove(lost);
        }
    }

    fn deliver(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let at = self.rng.usize(0..self.messages.len());
        let message = if self.rng.u8(0..10) == 0 { self.messages[at].clone() } else { self.messages.swap_remove(at) };
        match message {
            Message::Prepare { manager, voter, version, ballot } => self.vote(voter, manager, (version, ballot), None),
            Message::Accept { manager, voter, version, ballot, next } => {
                self.vote(voter, manager, (version, ballot), Some(&next));
            }
            Message::Answer { manager, version, ballot, voter, mut answer } => {
                if let (Without::TakeOver, Answer::Promised(before)) = (self.without, &mut *answer) {
                    *before = None;
                }
                let now = self.now;
                if let Some(proposer) = &mut self.managers[manager].proposer {
                    proposer.hear((version, ballot), voter, *answer, now);
                }
            }
            Message::Question { server, voter, version, sent } => {
                let store = self.servers[server].store;
                let one = &mut self.servers[voter];
                let confirms = one.acceptor.configuration().version() == version && !one.acceptor.is_leaving();
                if one.up && confirms {
                    one.confirmations.confirm(store, self.now, one.acceptor.configuration().timing.lease());
                    let voter = Voter::Server(one.store);
                    self.messages.push(Message::Confirmed { server, voter, version, sent });
                }
            }
            Message::Confirmed { server, voter, version, sent } => {
                let sent = if self.without == Without::SentTime { self.now } else { sent };
                let one = &mut self.servers[server];
                let held = one.acceptor.configuration();
                if one.up && held.version() == version {
                    one.lease.confirmed(version, voter, sent, held.timing.lease());
                }
            }
            Message::Sync { server, configuration } => {
                if self.servers[server].up {
                    self.servers[server].acceptor.adopt(&configuration);
                }
            }
        }
    }

    fn vote(
        &mut self,
        voter: usize,
        manager: usize,
        (version, ballot): (Version, Ballot),
        next: Option<&Configuration>,
    ) {
        let now = self.now;
        let one = &mut self.servers[voter];
        if !one.up {
            return;
        }
        let mut answer = match next {
            None => one.acceptor.prepare(version, ballot),
            Some(next) => one.acceptor.accept(version, ballot, next, &one.confirmations, now),
        };
        if let (Without::LeaseWait, Answer::Accepted(leases)) = (self.without, &mut answer) {
            leases.clear();
        }
        let (voter, answer) = (Voter::Server(one.store), Box::new(answer));
        self.messages.push(Message::Answer { manager, version, ballot, voter, answer });
    }

    /// A server asks all voters for confirmation.
    fn ask(&mut self) {
        let server = self.rng.usize(0..self.servers.len());
        let one = &self.servers[server];
        if !one.up {
            return;
        }
        let (version, sent) = (one.acceptor.configuration().version(), self.now);
        for voter in &one.acceptor.configuration().voters {
            if let Some(voter) = self.server_of(*voter).filter(|voter| *voter != server) {
                self.messages.push(Message::Question { server, voter, version, sent });
            }
        }
    }

    /// A manager that does not propose yet begins to: it marks a server faulty, or active again.
    fn propose(&mut self) {
        let index = self.rng.usize(0..self.managers.len());
        let changed = self.rng.usize(0..self.servers.len());
        let stores: BTreeMap<_, _> = self.servers.iter().map(|server| (server.address, server.store)).collect();
        let manager = &mut self.managers[index];
        if manager.proposer.is_some() {
            return;
        }
        let mut whs = manager.known.whs.clone();
        let place = &mut whs.nodes[changed].1;
        *place = !*place;
        if whs.nodes.iter().filter(|(_, active)| *active).count() < 2 {
            return;
        }
        whs.clocktime = ClockTime(manager.known.whs.clocktime.0 + 1 + manager.start);
        // An odd number of voters without managers: this model has them propose only.
        let Some(mut next) = manager.known.next(whs.clone(), whs, &stores, &BTreeSet::new()) else { return };
        if next.voters.len().is_multiple_of(2) {
            next.voters.pop_last();
        }
        if self.timings {
            next.timing = timing(next.counter);
        }
        let ballot = Ballot { round: manager.round, proposer: manager.start };
        manager.proposer = Some(Proposer::new(manager.known.clone(), ballot, next));
    }

    /// A manager does what its proposal needs next.
    fn go_on(&mut self) {
        let index = self.rng.usize(0..self.managers.len());
        let now = self.now;
        let manager = &mut self.managers[index];
        let Some(proposer) = &mut manager.proposer else { return };
        let (version, ballot) = (proposer.base().version(), proposer.ballot());
        let unheard: Vec<_> = proposer.unheard().collect();
        let asks = proposer.asks().map(Option::<&_>::cloned);
        let mut progress = proposer.progress(now);
        if let (Without::Majority, Progress::Asking, Some(Some(next))) = (self.without, &progress, &asks)
            && unheard.len() < proposer.base().voters.len()
        {
            progress = Progress::Committed(next.clone());
        }
        match progress {
            Progress::Asking | Progress::Waiting(_) => {
                let next = asks.flatten();
                for voter in unheard {
                    let Some(voter) = self.server_of(voter) else { continue };
                    self.messages.push(match &next {
                        None => Message::Prepare { manager: index, voter, version, ballot },
                        Some(next) => {
                            Message::Accept { manager: index, voter, version, ballot, next: Box::new(next.clone()) }
                        }
                    });
                }
            }
            Progress::Committed(next) => {
                self.commit(&next);
                self.take(index, &next);
            }
            Progress::Outbid(round) => {
                let manager = &mut self.managers[index];
                (manager.proposer, manager.round) = (None, round);
            }
            Progress::Overtaken(configuration) => self.take(index, &configuration),
        }
    }

    fn take(&mut self, index: usize, configuration: &Configuration) {
        let manager = &mut self.managers[index];
        manager.proposer = None;
        if configuration.version().is_after(manager.known.version()) {
            manager.known = configuration.clone();
        }
        for server in 0..self.servers.len() {
            self.messages.push(Message::Sync { server, configuration: Box::new(configuration.clone()) });
        }
    }

    fn commit(&mut self, next: &Configuration) {
        let known = self.line.entry(next.counter).or_insert_with(|| next.clone());
        if known != next {
            self.violation = Some(format!("two configurations with the counter {}", next.counter));
        }
    }

    /// A server stops, or comes back with what it kept.
    fn restart(&mut self) {
        // Seldom are two down at a time.
        let down = self.servers.iter().position(|server| !server.up).filter(|_| self.rng.u8(0..5) > 0);
        let index = down.unwrap_or_else(|| self.rng.usize(0..self.servers.len()));
        let now = self.now;
        let server = &mut self.servers[index];
        // Only a fast one finds leases that still last.
        server.up = !server.up || self.without == Without::Forgetting;
        if server.up {
            let configuration = server.acceptor.configuration().clone();
            let vote =
                if self.without == Without::Durability { Vote::default() } else { server.acceptor.vote().clone() };
            server.lease = Lease::default();
            let stores = 1..=u64::try_from(self.servers.len()).unwrap();
            let forget = self.without != Without::Forgetting;
            let server = &mut self.servers[index];
            let lease = configuration.timing.lease();
            server.confirmations =
                if forget { Confirmations::forget(stores, now, lease) } else { Confirmations::default() };
            server.acceptor = Acceptor::new(configuration, vote);
        }
    }

    /// No two servers that act at one time coordinate the same key.
    fn check(&mut self) {
        let acts = |server: &&Server| {
            let (acceptor, own) = (&server.acceptor, Voter::Server(server.store));
            let leaves = acceptor.is_leaving() && self.without != Without::Leaving;
            let member = acceptor.configuration().members.contains_key(&server.address);
            server.up && member && !leaves && server.lease.until(acceptor.configuration(), own) > self.now
        };
        let acting: Vec<_> = self.servers.iter().filter(acts).collect();
        let seeds: Vec<_> = acting.iter().map(|server| &server.acceptor.configuration().whs).collect();
        let versions: BTreeSet<_> = acting.iter().map(|server| server.acceptor.configuration().counter).collect();
        if versions.len() < 2 {
            return;
        }
        let mut spaces = Vec::new();
        for seed in seeds {
            let space = self.spaces.entry(seed.clocktime.0).or_insert_with(|| Rc::new(HashSpace::new(seed.clone())));
            spaces.push(space.clone());
        }
        for point in spaces[0].points() {
            let coordinates = |(server, space): &(&&Server, &Rc<HashSpace>)| {
                space.owners(*point).coordinator() == Some(server.address)
            };
            if acting.iter().zip(&spaces).filter(coordinates).count() > 1 {
                self.violation = Some(format!("two coordinators of {point:016x} at once, by {versions:?}"));
                return;
            }
        }
    }
}

/// Plays until a violation, or to the end; how far the line of configurations came.
fn play(seed: u64, without: Without) -> Result<usize, String> {
    play_model(seed, Model::new(seed, without))
}

fn play_with_timings(seed: u64, without: Without) -> Result<usize, String> {
    play_model(seed, Model { timings: true, ..Model::new(seed, without) })
}

fn play_model(seed: u64, mut model: Model) -> Result<usize, String> {
    for step in 0..1500 {
        model.step();
        if let Some(violation) = model.violation {
            return Err(format!("seed {seed}, step {step}: {violation}"));
        }
    }
    Ok(model.line.len())
}

#[test]
fn there_is_one_line_of_configurations_and_one_coordinator() {
    let lines: Vec<_> = (0..60).map(|seed| play(seed, Without::Nothing).unwrap()).collect();
    let changes: usize = lines.iter().sum();
    assert!(changes > 3 * lines.len(), "{changes} configurations in {} runs: this shows little", lines.len());
}

/// A rule, and the seed from which on it is looked for what goes wrong without it: some need a rare chance.
const RULES: [(Without, u64); 7] = [
    (Without::TakeOver, 0),
    (Without::Majority, 0),
    (Without::Durability, 0),
    (Without::LeaseWait, 250),
    (Without::SentTime, 550),
    (Without::Leaving, 0),
    (Without::Forgetting, 1020),
];

#[test]
fn every_rule_is_missed() {
    for (without, from) in RULES {
        let found = (from..from + 1000).find_map(|seed| play(seed, without).err());
        println!("without {without:?}: {found:?}");
        assert!(found.is_some(), "nothing is wrong without {without:?}");
    }
}

#[test]
fn leases_may_become_longer_and_shorter() {
    let changes: usize = (0..40).map(|seed| play_with_timings(seed, Without::Nothing).unwrap()).sum();
    assert!(changes > 3 * 40, "{changes} configurations: this shows little");
}

/// A voter need not remember them for longer than those of its own configuration.
#[test]
fn longer_leases_of_before_are_waited_for() {
    let model = Model::new(0, Without::Nothing);
    let first = &model.line[&1];
    let stores: BTreeMap<_, _> = first.members.iter().map(|(node, member)| (*node, member.store)).collect();
    let whs = Seed { clocktime: ClockTime(2), ..first.whs.clone() };
    let same = first.next(whs.clone(), whs, &stores, &BTreeSet::new()).unwrap();
    assert!(first.losers(&same).is_empty());
    let [shorter, longer] = [200, 5000].map(|lease| {
        let lease = Duration::from_millis(lease);
        Configuration { timing: Timing::new(lease, lease).unwrap(), ..same.clone() }
    });
    assert!(first.losers(&longer).is_empty());
    assert_eq!(first.losers(&shorter), stores.values().copied().collect());
}
