//! Single rules, and whole clusters that carry out plans while nodes fail, keys are written, deleted and swept.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::clock::ClockTime;
use crate::wire::params::Seed;

fn node(number: u16) -> NodeAddress {
    NodeAddress::new(([10, 0, 0, 1], number + 1).into())
}

fn space(nodes: &[(u16, bool)]) -> HashSpace {
    let nodes = nodes.iter().map(|(number, active)| (node(*number), *active)).collect();
    HashSpace::new(Seed { nodes, clocktime: ClockTime(1) })
}

fn all_active(numbers: impl IntoIterator<Item = u16>) -> HashSpace {
    space(&numbers.into_iter().map(|number| (number, true)).collect::<Vec<_>>())
}

fn targets(plan: &Plan, hash: u64) -> Vec<NodeAddress> {
    plan.targets(hash).map(|at| plan.all_targets()[at]).collect()
}

const HASHES: std::ops::Range<u64> = 0..200;

fn spread(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[test]
fn a_new_node_gets_its_records_from_the_first_owner_only() {
    let (old, new) = (all_active(0..4), all_active(0..5));
    let plans: Vec<_> = (0..5).map(|me| Plan::new(&old, &new, node(me), false)).collect();
    for hash in HASHES.map(spread) {
        let moves = new.owners(hash).is_active_owner(node(4));
        let first = old.owners(hash).coordinator().unwrap();
        for (me, plan) in (0..).zip(&plans) {
            let expected = if moves && node(me) == first { vec![node(4)] } else { vec![] };
            assert_eq!(targets(plan, hash), expected);
            assert_eq!(plan.sends(hash), !expected.is_empty());
            let owns = new.owners(hash).is_active_owner(node(me));
            assert_eq!(plan.keeps(hash, false, true), owns);
            // The new node's old records go: it has been sent every one that lives.
            assert_eq!(plan.keeps(hash, false, false), owns && me != 4);
            assert_eq!(plan.keeps(hash, true, false), owns);
            assert_eq!(plan.may_drop(hash), !owns || me == 4);
        }
    }
}

#[test]
fn nothing_moves_when_nothing_changes() {
    let same = all_active(0..5);
    let plan = Plan::new(&same, &same, node(1), false);
    assert!(plan.all_targets().is_empty());
    assert!(HASHES.map(spread).all(|hash| !plan.sends(hash)));
}

#[test]
fn full_sends_to_every_owner_but_oneself() {
    let same = all_active(0..5);
    let plan = Plan::new(&same, &same, node(1), true);
    for hash in HASHES.map(spread) {
        let owners: Vec<_> = same.owners(hash).active().collect();
        let others: Vec<_> = owners.iter().copied().filter(|owner| *owner != node(1)).collect();
        assert_eq!(targets(&plan, hash), if owners.contains(&node(1)) { others } else { vec![] });
    }
}

#[test]
fn without_an_active_node_there_is_nothing_to_copy_and_nothing_to_drop() {
    let dead = space(&[(0, false), (1, false), (2, false), (3, false)]);
    for (old, new) in
        [(&dead, &all_active(0..5)), (&HashSpace::default(), &all_active(0..5)), (&all_active(0..4), &dead)]
    {
        for me in 0..6 {
            let plan = Plan::new(old, new, node(me), true);
            assert!(plan.all_targets().is_empty());
            assert!(plan.keeps_all(), "{me}");
        }
    }
}

#[test]
fn a_node_that_leaves_sends_nothing() {
    let (old, new) = (all_active(0..4), space(&[(0, false), (1, true), (2, true), (3, true)]));
    for full in [false, true] {
        assert!(Plan::new(&old, &new, node(0), full).all_targets().is_empty());
    }
}

#[test]
fn records_that_nobody_speaks_for_are_spread_and_stay() {
    // All old owners of every hash are away; what 3 holds from before is all there is.
    let old = space(&[(0, false), (1, false), (2, false), (3, true)]);
    let new = all_active(0..5);
    let plan = Plan::new(&old, &new, node(0), false);
    for hash in HASHES.map(spread).filter(|hash| old.owners(*hash).coordinator().is_none()) {
        let others: Vec<_> = new.owners(hash).active().filter(|owner| *owner != node(0)).collect();
        assert_eq!(targets(&plan, hash), others);
        assert_eq!(plan.keeps(hash, false, false), new.owners(hash).is_active_owner(node(0)));
    }
}

proptest! {
    #[test]
    fn stretches_agree_with_the_rule(
        old in prop::collection::btree_map(0u16..9, any::<bool>(), 0..9),
        new in prop::collection::btree_map(0u16..9, any::<bool>(), 0..9),
        (me, full) in (0u16..9, any::<bool>()),
        hashes in prop::collection::vec(any::<u64>(), 100),
    ) {
        let [old, new] = [old, new].map(|nodes| space(&nodes.into_iter().collect::<Vec<_>>()));
        let plan = Plan::new(&old, &new, node(me), full);
        let rule = Rule::new(&old, &new, node(me), full);
        let points = old.points().iter().chain(new.points()).flat_map(|point| [point.wrapping_sub(1), *point, point.wrapping_add(1)]);
        for hash in points.chain(hashes).chain([0, u64::MAX]) {
            let verdict = rule.judge(hash);
            prop_assert_eq!(targets(&plan, hash), verdict.targets);
            prop_assert_eq!(plan.duty(hash).unwrap().fate, verdict.fate);
        }
    }
}

/// The records a simulated server stores for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    time: u64,
    live: bool,
    generation: u64,
}

#[derive(Debug, Default, Clone)]
struct Server {
    up: bool,
    generation: u64,
    records: BTreeMap<u64, Stored>,
}

impl Server {
    fn update(&mut self, hash: u64, time: u64, live: bool) {
        let generation = self.generation;
        let stored = self.records.entry(hash).or_insert(Stored { time, live, generation });
        if stored.time < time {
            *stored = Stored { time, live, generation };
        }
        stored.generation = generation;
    }
}

/// A cluster with a manager, as sets of states; time is a counter, so that updates have a plain order.
#[derive(Debug)]
struct Cluster {
    servers: Vec<Server>,
    whs: BTreeMap<u16, bool>,
    rhs: BTreeMap<u16, bool>,
    time: u64,
    /// The last write of each key, and whether it set or deleted.
    expected: BTreeMap<u64, (u64, bool)>,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Write(u64),
    Delete(u64),
    Lose(u16),
    Attach(u16),
    Detach,
    Sweep,
    /// `fault`: after how many deliveries which node is lost, if any.
    Replace {
        full: bool,
        fault: Option<(u16, u16)>,
        during: [Option<(u64, bool)>; 3],
    },
}

const NODES: u16 = 8;
const KEYS: u64 = 40;

fn event() -> impl Strategy<Value = Event> {
    let written = prop::option::of((0..KEYS, any::<bool>()));
    let replace = (any::<bool>(), prop::option::of((0u16..60, 0..NODES)), prop::array::uniform3(written));
    prop_oneof![
        4 => (0..KEYS).prop_map(Event::Write),
        3 => (0..KEYS).prop_map(Event::Delete),
        3 => (0..NODES).prop_map(Event::Lose),
        3 => (0..NODES).prop_map(Event::Attach),
        1 => Just(Event::Detach),
        2 => Just(Event::Sweep),
        4 => replace.prop_map(|(full, fault, during)| Event::Replace { full, fault, during }),
    ]
}

/// The hash space of these nodes; few differ, and each is used often.
fn ring(nodes: &BTreeMap<u16, bool>) -> Rc<HashSpace> {
    type Known = HashMap<Vec<(u16, bool)>, Rc<HashSpace>>;
    thread_local!(static KNOWN: RefCell<Known> = RefCell::default());
    let nodes: Vec<_> = nodes.iter().map(|(number, active)| (*number, *active)).collect();
    KNOWN.with_borrow_mut(|known| known.entry(nodes).or_insert_with_key(|nodes| Rc::new(space(nodes))).clone())
}

fn away(nodes: &BTreeMap<u16, bool>) -> usize {
    nodes.values().filter(|active| !**active).count()
}

impl Cluster {
    fn start() -> Self {
        let nodes: BTreeMap<_, _> = (0..4).map(|number| (number, true)).collect();
        let servers = vec![Server { up: true, ..Server::default() }; usize::from(NODES)];
        let mut cluster = Self { servers, whs: nodes.clone(), rhs: nodes, time: 0, expected: BTreeMap::new() };
        for key in 0..KEYS {
            cluster.write(key, true);
        }
        cluster
    }

    fn server(&mut self, address: NodeAddress) -> &mut Server {
        &mut self.servers[usize::from(address.socket().port() - 1)]
    }

    /// A write or delete as of section 7: to the active owners of both hash spaces.
    fn write(&mut self, key: u64, live: bool) {
        self.time += 1;
        let (hash, time) = (spread(key), self.time);
        let spaces = [ring(&self.whs), ring(&self.rhs)];
        if spaces[0].owners(hash).coordinator().is_none() {
            return;
        }
        for owner in spaces.iter().flat_map(|space| space.owners(hash).active().collect::<Vec<_>>()) {
            self.server(owner).update(hash, time, live);
        }
        self.expected.insert(hash, (time, live));
    }

    /// So many may be away that one owner of every key is there.
    fn lose(&mut self, number: u16) -> bool {
        let bearable = |nodes: &BTreeMap<u16, bool>| {
            away(nodes) + usize::from(nodes.get(&number) == Some(&true)) < nodes.len().min(OWNERS)
        };
        if !self.servers[usize::from(number)].up || !bearable(&self.whs) || !bearable(&self.rhs) {
            return false;
        }
        self.servers[usize::from(number)].up = false;
        for nodes in [&mut self.whs, &mut self.rhs] {
            nodes.entry(number).and_modify(|active| *active = false);
        }
        true
    }

    /// A replace; `false` if a node was lost in it and nothing was deleted.
    fn replace(&mut self, full: bool, fault: Option<(u16, u16)>, during: [Option<(u64, bool)>; 3]) -> bool {
        let (old, new) = (ring(&self.rhs), ring(&self.whs));
        let plans: Vec<_> = (0..NODES).map(|me| Plan::new(&old, &new, node(me), full)).collect();
        let members: Vec<_> = (0..NODES).filter(|me| self.servers[usize::from(*me)].up).collect();
        let mut begun = Vec::new();
        for me in &members {
            self.servers[usize::from(*me)].generation += 1;
            begun.push(self.servers[usize::from(*me)].generation);
        }
        let mut during = during.into_iter();
        let mut deliveries = 0;
        for me in &members {
            if let Some(Some((key, live))) = during.next() {
                self.write(key, live);
            }
            // What was scanned travels while other things happen.
            let scanned = self.servers[usize::from(*me)].records.clone();
            let plan = &plans[usize::from(*me)];
            for (hash, stored) in scanned {
                for target in targets(plan, hash) {
                    deliveries += 1;
                    if let Some((after, lost)) = fault
                        && deliveries > after
                        && self.lose(lost)
                    {
                        return false;
                    }
                    self.server(target).update(hash, stored.time, stored.live);
                }
            }
        }
        self.rhs = self.whs.clone();
        for (me, begun) in members.into_iter().zip(begun) {
            let plan = &plans[usize::from(me)];
            self.servers[usize::from(me)]
                .records
                .retain(|hash, stored| plan.keeps(*hash, !stored.live, stored.generation >= begun));
        }
        true
    }

    fn apply(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Write(key) => self.write(key, true),
            Event::Delete(key) => self.write(key, false),
            Event::Lose(number) => {
                self.lose(number);
            }
            Event::Attach(number) => {
                self.servers[usize::from(number)].up = true;
                self.whs.insert(number, true);
            }
            Event::Detach => self.whs.retain(|_, active| *active),
            Event::Sweep => {
                for server in self.servers.iter_mut().filter(|server| server.up) {
                    server.records.retain(|_, stored| stored.live);
                }
            }
            Event::Replace { full, fault, during } => {
                if self.replace(full, fault, during) {
                    self.check_places()?;
                }
            }
        }
        self.check_reads()
    }

    /// Whoever may be read from has the last write of every key.
    fn check_reads(&self) -> Result<(), TestCaseError> {
        let rhs = ring(&self.rhs);
        for (hash, (time, live)) in &self.expected {
            for owner in rhs.owners(*hash).active() {
                let stored = self.servers[usize::from(owner.socket().port() - 1)].records.get(hash);
                let seen = stored.filter(|stored| stored.live).map(|stored| stored.time);
                prop_assert_eq!(seen, live.then_some(*time), "{:x} at {}", hash, owner);
            }
        }
        Ok(())
    }

    /// After a replace: exactly the owners have a record, and all of them the same, tombstones included.
    fn check_places(&self) -> Result<(), TestCaseError> {
        let whs = ring(&self.whs);
        for hash in self.expected.keys() {
            let owners: Vec<_> = whs.owners(*hash).active().collect();
            let at = |number: u16| self.servers[usize::from(number)].records.get(hash);
            let held: Vec<_> = (0..NODES).filter(|number| owners.contains(&node(*number))).map(at).collect();
            let living: Vec<_> = held
                .iter()
                .map(|stored| stored.filter(|stored| stored.live))
                .map(|stored| stored.map(|stored| stored.time))
                .collect();
            prop_assert!(living.windows(2).all(|pair| pair[0] == pair[1]), "{:x}: {:?}", hash, held);
            for number in (0..NODES).filter(|number| !owners.contains(&node(*number))) {
                let up = self.servers[usize::from(number)].up;
                prop_assert!(!up || at(number).is_none(), "{:x} still at {}", hash, number);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn clusters_lose_nothing_and_revive_nothing(events in prop::collection::vec(event(), 1..40)) {
        let mut cluster = Cluster::start();
        for event in events {
            cluster.apply(event)?;
        }
        // Whatever happened: with all servers there again, a replace puts every key on exactly its owners.
        for number in 0..NODES {
            cluster.apply(Event::Attach(number))?;
        }
        cluster.apply(Event::Replace { full: false, fault: None, during: [None; 3] })?;
    }
}
