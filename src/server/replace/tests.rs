//! Replaces between servers of one process: real stores, streams and connections, a manager that only listens.

use std::sync::OnceLock;

use tokio::sync::mpsc;

use super::*;
use crate::clock::Clock;
use crate::env::Env;
use crate::net::{DialPolicy, Limits, Link, Peers, Reply, Service};
use crate::ring;
use crate::store::{Options, OwnedWrite, Store, SweepPolicy, Write};
use crate::time::Time;
use crate::wire::method::{Method, ReplaceCopyEnd, ReplaceOffer, ReplicateDelete, Role};
use crate::wire::params::decode;
use crate::wire::{Init, RecordKey, RecordValue, Request, pack, record};

const PATIENCE: Duration = Duration::from_secs(30);

/// A server that knows nothing but replaces, or a manager.
struct Node {
    address: NodeAddress,
    peers: Arc<Peers>,
    env: Env,
    clock: Arc<Clock>,
    store: Option<Store>,
    late_writes: LateWrites,
    spaces: Mutex<(Arc<HashSpace>, Arc<HashSpace>)>,
    replace: OnceLock<Arc<Replace>>,
    /// Ends that were reported to this manager.
    ends: mpsc::UnboundedSender<(Method, NodeAddress, ClockTime)>,
    /// Offers that are refused before one is taken.
    refusals: Mutex<u32>,
    /// What it says of copies.
    fenced: Mutex<Fenced>,
}

impl Host for Node {
    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    fn env(&self) -> &Env {
        &self.env
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn is_manager(&self, _: NodeAddress) -> bool {
        true
    }

    fn address(&self) -> NodeAddress {
        self.address
    }

    fn late_writes(&self) -> &LateWrites {
        &self.late_writes
    }

    fn spaces(&self) -> (Arc<HashSpace>, Arc<HashSpace>) {
        self.spaces.lock().clone()
    }

    fn fence(&self) -> Option<crate::wire::extension::Fence> {
        None
    }

    fn fenced(&self, _: Option<crate::wire::extension::Fence>) -> Fenced {
        *self.fenced.lock()
    }

    fn take_whs(&self, seed: &Seed, _manager: NodeAddress) -> bool {
        self.spaces.lock().0 = Arc::new(HashSpace::new(seed.clone()));
        true
    }

    fn take_rhs(&self, seed: &Seed, _manager: NodeAddress) -> bool {
        self.spaces.lock().1 = Arc::new(HashSpace::new(seed.clone()));
        true
    }
}

impl Service for Node {
    fn handle(&self, link: &Arc<Link>, requests: &mut dyn Iterator<Item = Request<'_>>, _out: &mut Vec<u8>) {
        for request in requests {
            let reply = Reply::new(link, request.msgid);
            let method = Method::from_number(request.method).unwrap();
            match method {
                Method::ReplaceOffer if refused(&mut self.refusals.lock()) => reply.error(ErrorCode::Server),
                Method::ReplaceOffer => {
                    let offerer = decode::<ReplaceOffer>(request.params).unwrap().stream;
                    let replace = self.replace.get().unwrap().clone();
                    tokio::spawn(async move {
                        match replace.offer(offerer, None).await {
                            Ok(()) => reply.ok(|out| pack::bool(out, true)),
                            Err(_) => reply.error(ErrorCode::Server),
                        }
                    });
                }
                Method::ReplicateDelete => {
                    let call = decode::<ReplicateDelete<RecordKey<'_>>>(request.params).unwrap();
                    self.update(call.key.bytes(), &record::tombstone(call.clocktime));
                    reply.ok(|out| pack::bool(out, true));
                }
                Method::ReplaceCopyEnd | Method::ReplaceDeleteEnd => {
                    let ReplaceCopyEnd { clocktime, .. } = decode(request.params).unwrap();
                    let from = link.session().unwrap().address();
                    self.ends.send((method, from, clocktime)).unwrap();
                    reply.ok(|out| pack::bool(out, true));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn refused(left: &mut u32) -> bool {
    let refused = *left > 0;
    *left = left.saturating_sub(1);
    refused
}

impl Node {
    fn update(&self, key: &[u8], value: &[u8]) {
        let write =
            Write::Update { key: RecordKey::new(key).unwrap(), value: RecordValue::new(value).unwrap(), touch: false };
        let (done, committed) = std::sync::mpsc::channel();
        self.store().write(vec![OwnedWrite::from(&write)], |_, _| (), move |result| done.send(result).unwrap());
        committed.recv().unwrap().unwrap();
        self.late_writes.note(RecordKey::new(key).unwrap());
    }

    /// Stores many records with one commit.
    fn update_all(&self, records: &[(Vec<u8>, Vec<u8>)]) {
        let write = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let (key, value) = (RecordKey::new(key).unwrap(), RecordValue::new(value).unwrap());
            OwnedWrite::from(&Write::Update { key, value, touch: false })
        };
        let (done, committed) = std::sync::mpsc::channel();
        let writes = records.iter().map(write).collect();
        self.store().write(writes, |_, _| (), move |result| done.send(result).unwrap());
        committed.recv().unwrap().unwrap();
        for (key, _) in records {
            self.late_writes.note(RecordKey::new(key).unwrap());
        }
    }

    fn has(&self, key: &[u8]) -> Option<Vec<u8>> {
        let (done, found) = std::sync::mpsc::channel();
        self.store().read(vec![key.into()], move |values| done.send(values).unwrap());
        found.recv().unwrap().unwrap().remove(0)
    }

    fn count(&self) -> u64 {
        self.store().count()
    }
}

/// Everything of a test, with what keeps it alive.
struct Cluster {
    dir: tempfile::TempDir,
    manager: Arc<Node>,
    _manager_service: Arc<dyn Service>,
    ends: mpsc::UnboundedReceiver<(Method, NodeAddress, ClockTime)>,
    nodes: Vec<Arc<Node>>,
    services: Vec<Arc<dyn Service>>,
    settings: Settings,
}

impl Cluster {
    /// A manager and so many servers.
    fn new(count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (sender, ends) = mpsc::unbounded_channel();
        let (manager, service) = node(Role::Manager, None, Arc::new(Clock::new(&Time::real(), 1)), sender);
        let mut settings = Settings::new(dir.path().to_owned(), 0, 1 << 20, Duration::from_secs(1));
        settings.settle = Duration::from_millis(100);
        settings.silence = Duration::from_millis(500);
        let mut cluster =
            Self { dir, manager, _manager_service: service, ends, nodes: Vec::new(), services: Vec::new(), settings };
        for index in 0..count {
            cluster.start(index);
        }
        cluster
    }

    /// Starts a server with the store of that number.
    fn start(&mut self, index: usize) {
        let mut clock = Arc::new(Clock::new(&Time::real(), 0));
        let mut options = Options::new(self.dir.path().join(format!("store{index}")));
        options.sweep = SweepPolicy { max_age: Duration::ZERO, ..SweepPolicy::default() };
        let store = Store::open(options, |first| {
            clock = Arc::new(Clock::new(&Time::real(), first));
            clock.clone()
        });
        let (node, service) = node(Role::Server, Some(store.unwrap()), clock, mpsc::unbounded_channel().0);
        let (listener, port) = stream::listen(&Env::real(), ([127, 0, 0, 1], 0).into()).unwrap();
        node.replace.set(Replace::start(node.clone(), self.settings.clone(), listener, port).unwrap()).unwrap();
        self.nodes.push(node);
        self.services.push(service);
    }

    /// The hash space of the servers with these numbers.
    fn seed(&self, active: impl IntoIterator<Item = usize>, time: u32) -> Seed {
        let nodes = active.into_iter().map(|index| (self.nodes[index].address, true)).collect();
        Seed { nodes, clocktime: ClockTime::new(time, 0) }
    }

    /// Gives every server a hash space without a replace.
    fn set_spaces(&self, seed: &Seed) {
        for node in &self.nodes {
            node.take_whs(seed, self.manager.address);
            node.take_rhs(seed, self.manager.address);
        }
    }

    /// Stores a record on its owners in `seed`.
    fn store(&self, seed: &Seed, key: &[u8], value: &[u8]) {
        let space = HashSpace::new(seed.clone());
        let raw = ring::raw_key(key);
        for owner in space.owners(ring::hash(key)).active() {
            self.nodes.iter().find(|node| node.address == owner).unwrap().update(&raw, value);
        }
    }

    fn copy_start(&self, seed: &Seed) {
        for node in &self.nodes {
            node.replace.get().unwrap().copy_start(seed.clone(), false, self.manager.address);
        }
    }

    fn delete_start(&self, seed: &Seed) {
        for node in &self.nodes {
            node.replace.get().unwrap().delete_start(seed, self.manager.address);
        }
    }

    /// Waits for the reports of so many servers.
    async fn ended(&mut self, method: Method, seed: &Seed, count: usize) {
        let mut from = std::collections::BTreeSet::new();
        while from.len() < count {
            let end = tokio::time::timeout(PATIENCE, self.ends.recv()).await.expect("an end is reported").unwrap();
            if end.2 == seed.clocktime {
                assert_eq!(end.0, method);
                from.insert(end.1);
            }
        }
    }

    async fn replace(&mut self, seed: &Seed) {
        let count = self.nodes.len();
        self.copy_start(seed);
        self.ended(Method::ReplaceCopyEnd, seed, count).await;
        self.delete_start(seed);
        self.ended(Method::ReplaceDeleteEnd, seed, count).await;
    }

    /// Stores all keys where the hash space of `seed` has them.
    fn fill(&self, seed: &Seed) {
        self.fill_with(seed, KEYS);
    }

    /// Stores these keys where the hash space of `seed` has them.
    fn fill_with(&self, seed: &Seed, keys: std::ops::Range<u32>) {
        let space = HashSpace::new(seed.clone());
        for node in &self.nodes {
            let owns = |number: &u32| space.owners(ring::hash(&key(*number))).is_active_owner(node.address);
            let record = |number| (ring::raw_key(&key(number)), value(number, 10));
            node.update_all(&keys.clone().filter(owns).map(record).collect::<Vec<_>>());
        }
    }

    /// Asserts that all keys are on exactly their owners.
    fn assert_all_placed(&self, seed: &Seed) {
        for number in KEYS {
            self.assert_placed(seed, &key(number), &value(number, 10));
        }
    }

    /// Asserts that exactly the owners in `seed` have the key.
    fn assert_placed(&self, seed: &Seed, key: &[u8], value: &[u8]) {
        let space = HashSpace::new(seed.clone());
        let raw = ring::raw_key(key);
        for node in &self.nodes {
            let owns = space.owners(ring::hash(key)).is_active_owner(node.address);
            assert_eq!(node.has(&raw), owns.then(|| value.to_vec()), "{key:?} on {}", node.address);
        }
    }
}

fn node(
    role: Role,
    store: Option<Store>,
    clock: Arc<Clock>,
    ends: mpsc::UnboundedSender<(Method, NodeAddress, ClockTime)>,
) -> (Arc<Node>, Arc<dyn Service>) {
    let env = Env::real();
    let listener = env.listen(([127, 0, 0, 1], 0).into()).unwrap();
    let address = NodeAddress::new(listener.local_address().unwrap());
    let dial = DialPolicy { timeout: Duration::from_secs(1), retry_limit: 1 };
    let peers = Peers::new(&env, Some(Init { address, role }), dial, Limits::default());
    let node = Arc::new(Node {
        address,
        env: env.clone(),
        peers: peers.clone(),
        clock,
        store,
        late_writes: LateWrites::default(),
        spaces: Mutex::default(),
        replace: OnceLock::new(),
        ends,
        refusals: Mutex::new(0),
        fenced: Mutex::new(Fenced::Admitted(0)),
    });
    let service: Arc<dyn Service> = node.clone();
    peers.serve(&service);
    env.spawn(crate::net::accept(listener, peers));
    (node, service)
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn value(number: u32, len: usize) -> Vec<u8> {
    record::raw_value(ClockTime::new(1000, number), 0, &vec![number.to_le_bytes()[0]; len])
}

const KEYS: std::ops::Range<u32> = 0..300;

fn key(number: u32) -> Vec<u8> {
    format!("key{number}").into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_and_deletions_move_to_new_owners() {
    let mut cluster = Cluster::new(5);
    let (old, new) = (cluster.seed(0..4, 10), cluster.seed(0..5, 20));
    cluster.set_spaces(&old);
    let value_of = |number: u32| {
        if number.is_multiple_of(3) {
            record::tombstone(ClockTime::new(u32::MAX, number)).to_vec()
        } else {
            value(number, 50)
        }
    };
    for number in KEYS {
        cluster.store(&old, &key(number), &value_of(number));
    }
    cluster.replace(&new).await;
    for number in KEYS {
        cluster.assert_placed(&new, &key(number), &value_of(number));
    }
    let total: u64 = cluster.nodes.iter().map(|node| node.count()).sum();
    assert_eq!(total, 3 * u64::from(KEYS.end));
    let progress: Vec<_> = cluster.nodes.iter().map(|node| node.replace.get().unwrap().progress()).collect();
    let moved = cluster.nodes[4].count();
    assert_eq!(progress.iter().map(|progress| progress.sent + progress.tombstones).sum::<u64>(), moved);
    assert_eq!(progress.iter().map(|progress| progress.dropped).sum::<u64>(), moved);
    assert!(cluster.nodes.iter().all(|node| node.replace.get().unwrap().status_flags() == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_follow_each_other_within_the_limit() {
    let mut cluster = Cluster::new(0);
    cluster.settings.file_limit = 1;
    for index in 0..4 {
        cluster.start(index);
    }
    let (old, new) = (cluster.seed(0..3, 10), cluster.seed(0..4, 20));
    cluster.set_spaces(&old);
    for number in 0..60 {
        cluster.store(&old, &key(number), &value(number, 30_000));
    }
    cluster.replace(&new).await;
    for number in 0..60 {
        cluster.assert_placed(&new, &key(number), &value(number, 30_000));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_while_not_all_know_moves_too() {
    let mut cluster = Cluster::new(0);
    cluster.settings.settle = Duration::from_secs(3);
    for index in 0..4 {
        cluster.start(index);
    }
    let (old, new) = (cluster.seed(0..3, 10), cluster.seed(0..4, 20));
    cluster.set_spaces(&old);
    cluster.store(&old, &key(0), &value(0, 10));
    cluster.copy_start(&new);
    // By a coordinator that does not know the new hash space yet.
    let begun = Instant::now();
    cluster.fill_with(&old, 1..KEYS.end);
    assert!(begun.elapsed() < cluster.settings.settle);
    cluster.ended(Method::ReplaceCopyEnd, &new, 4).await;
    cluster.delete_start(&new);
    cluster.ended(Method::ReplaceDeleteEnd, &new, 4).await;
    cluster.assert_all_placed(&new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_refused_is_offered_again_three_times() {
    let mut cluster = Cluster::new(4);
    let (old, new) = (cluster.seed(0..3, 10), cluster.seed(0..4, 20));
    cluster.set_spaces(&old);
    // Ports, and so places, are others in every run: one of many keys goes to the new server in any.
    let space = HashSpace::new(new.clone());
    let goes = |key: &Vec<u8>| space.owners(ring::hash(key)).is_active_owner(cluster.nodes[3].address);
    let key = KEYS.map(key).find(goes).expect("a key that the new server owns");
    cluster.store(&old, &key, &value(1, 10));
    *cluster.nodes[3].refusals.lock() = 3;
    cluster.replace(&new).await;
    cluster.assert_placed(&new, &key, &value(1, 10));
    assert_eq!(*cluster.nodes[3].refusals.lock(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_takes_nothing_makes_the_copy_fail_and_nothing_is_deleted() {
    let mut cluster = Cluster::new(4);
    let (old, new) = (cluster.seed(0..3, 10), cluster.seed(0..4, 20));
    cluster.set_spaces(&old);
    cluster.fill(&old);
    *cluster.nodes[3].refusals.lock() = u32::MAX;
    cluster.copy_start(&new);
    // The new server has nothing to send, the others cannot.
    cluster.ended(Method::ReplaceCopyEnd, &new, 1).await;
    let sources: Vec<_> = cluster.nodes[..3].to_vec();
    wait_until("the copies have failed", || sources.iter().all(|node| node.replace.get().unwrap().status_flags() == 0))
        .await;
    cluster.delete_start(&new);
    assert!(sources.iter().all(|node| node.replace.get().unwrap().status_flags() == 0));
    assert!(sources.iter().all(|node| node.spaces().1.seed() == &old));
    for number in KEYS {
        for node in &sources {
            assert!(node.has(&ring::raw_key(&key(number))).is_some());
        }
    }
    // Run again, it ends well.
    *cluster.nodes[3].refusals.lock() = 0;
    let newer = Seed { clocktime: ClockTime::new(30, 0), ..new };
    cluster.set_spaces(&newer);
    for node in &cluster.nodes {
        node.take_rhs(&old, cluster.manager.address);
    }
    while cluster.ends.try_recv().is_ok() {}
    cluster.replace(&newer).await;
    cluster.assert_all_placed(&newer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_replace_cancels_an_older_one() {
    let mut cluster = Cluster::new(5);
    let (old, first, second) = (cluster.seed(0..3, 10), cluster.seed(0..4, 20), cluster.seed(0..5, 30));
    cluster.set_spaces(&old);
    cluster.fill(&old);
    *cluster.nodes[3].refusals.lock() = 2;
    cluster.copy_start(&first);
    cluster.copy_start(&second);
    // An obsolete one is ignored.
    cluster.copy_start(&first);
    cluster.ended(Method::ReplaceCopyEnd, &second, 5).await;
    cluster.delete_start(&first);
    cluster.delete_start(&second);
    cluster.ended(Method::ReplaceDeleteEnd, &second, 5).await;
    cluster.assert_all_placed(&second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_void_when_the_hash_space_changes() {
    let mut cluster = Cluster::new(4);
    let (old, new) = (cluster.seed(0..3, 10), cluster.seed(0..4, 20));
    cluster.set_spaces(&old);
    cluster.fill(&old);
    *cluster.nodes[3].refusals.lock() = u32::MAX;
    cluster.copy_start(&new);
    cluster.ended(Method::ReplaceCopyEnd, &new, 1).await;
    let changed = Seed { clocktime: ClockTime::new(21, 0), ..old.clone() };
    cluster.set_spaces(&changed);
    let idle = || cluster.nodes.iter().all(|node| node.replace.get().unwrap().status_flags() == 0);
    wait_until("the copies have ended", idle).await;
    cluster.delete_start(&new);
    assert!(cluster.nodes.iter().all(|node| node.replace.get().unwrap().status_flags() == 0));
    assert_eq!(cluster.nodes[0].count(), u64::from(KEYS.end));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_records_of_a_returning_server_are_dropped() {
    let mut cluster = Cluster::new(4);
    let (old, new) = (cluster.seed(0..3, 10), cluster.seed(0..4, 20));
    cluster.set_spaces(&old);
    // From before it was away: one that was deleted and forgotten, one that is older, one that is the same.
    let returned = cluster.nodes[3].clone();
    let space = HashSpace::new(new.clone());
    let owned = |number: &u32| space.owners(ring::hash(&key(*number))).is_active_owner(returned.address);
    let owned: Vec<_> = KEYS.filter(owned).take(3).collect();
    for number in &owned {
        returned.update(&ring::raw_key(&key(*number)), &value(*number, 10));
    }
    let newer = record::raw_value(ClockTime::new(2000, 1), 0, b"newer");
    cluster.store(&old, &key(owned[1]), &newer);
    cluster.store(&old, &key(owned[2]), &value(owned[2], 10));
    cluster.replace(&new).await;
    assert_eq!(returned.has(&ring::raw_key(&key(owned[0]))), None);
    cluster.assert_placed(&new, &key(owned[1]), &newer);
    cluster.assert_placed(&new, &key(owned[2]), &value(owned[2], 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_restarted_between_copy_and_delete_deletes_rightly() {
    let mut cluster = Cluster::new(4);
    let (old, new) = (cluster.seed(0..3, 10), cluster.seed(0..4, 20));
    cluster.set_spaces(&old);
    cluster.fill(&old);
    let space = HashSpace::new(new.clone());
    let leaving = KEYS
        .filter(|number| !space.owners(ring::hash(&key(*number))).is_active_owner(cluster.nodes[0].address))
        .count() as u64;
    assert!(leaving > 0);
    cluster.copy_start(&new);
    cluster.ended(Method::ReplaceCopyEnd, &new, 4).await;
    // The same state on disk, as another process would find it.
    let replace = cluster.nodes[0].replace.get().unwrap();
    replace.stop();
    let (listener, port) = stream::listen(&Env::real(), ([127, 0, 0, 1], 0).into()).unwrap();
    let restarted = Replace::start(cluster.nodes[0].clone(), cluster.settings.clone(), listener, port).unwrap();
    // Not for another replace, ...
    restarted.delete_start(&Seed { clocktime: ClockTime::new(21, 0), ..new.clone() }, cluster.manager.address);
    assert_eq!(cluster.nodes[0].count(), u64::from(KEYS.end));
    // ... but for this one.
    restarted.delete_start(&new, cluster.manager.address);
    cluster.ended(Method::ReplaceDeleteEnd, &new, 1).await;
    assert_eq!(cluster.nodes[0].count(), u64::from(KEYS.end) - leaving);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_offered_under_an_earlier_configuration_is_refused() {
    let cluster = Cluster::new(2);
    let [source, target] = [0, 1].map(|index| cluster.nodes[index].replace.get().unwrap().clone());
    *cluster.nodes[1].fenced.lock() = Fenced::Refused;
    let refused = target.offer(source.stream_address(), None).await;
    assert!(matches!(refused, Err(stream::Error::Fenced)), "{refused:?}");
    *cluster.nodes[1].fenced.lock() = Fenced::Pending;
    let waiting = tokio::time::timeout(Duration::from_secs(30), target.offer(source.stream_address(), None));
    assert!(matches!(waiting.await.unwrap(), Err(stream::Error::Fenced)), "a bound");
}

/// The end of its copying says that it has all that it owns: not before what it held is put aside.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_being_admitted_does_not_report_that_it_has_copied() {
    let mut cluster = Cluster::new(2);
    let (old, new) = (cluster.seed([0], 10), cluster.seed([0, 1], 20));
    cluster.set_spaces(&old);
    cluster.fill_with(&old, 0..20);
    *cluster.nodes[1].fenced.lock() = Fenced::Pending;
    cluster.copy_start(&new);
    let early = tokio::time::timeout(Duration::from_millis(700), cluster.ended(Method::ReplaceCopyEnd, &new, 1));
    assert!(early.await.is_err(), "neither the target nor the source whose stream waits for it");
    *cluster.nodes[1].fenced.lock() = Fenced::Admitted(0);
    cluster.ended(Method::ReplaceCopyEnd, &new, 2).await;
    assert_eq!(cluster.nodes[1].count(), 20);
}

/// The target was given up and admitted anew in the middle of a stream.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_brings_after_the_next_configuration_is_not_stored() {
    let mut cluster = Cluster::new(2);
    let (old, new) = (cluster.seed([0], 10), cluster.seed([0, 1], 20));
    cluster.set_spaces(&old);
    cluster.fill_with(&old, 0..20);
    cluster.nodes[1].store().set_token(1);
    cluster.copy_start(&new);
    let ended = tokio::time::timeout(Duration::from_secs(4), cluster.ended(Method::ReplaceCopyEnd, &new, 2));
    assert!(ended.await.is_err());
    assert_eq!(cluster.nodes[1].count(), 0);
}
