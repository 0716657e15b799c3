//! Servers that are killed, hang, and come back, while others write.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use kumo_server::clock::unix_seconds;
use kumo_server::ring;
use kumo_server::wire::method::{self, Method};
use kumo_server::wire::params::{Encode as _, SetOp};
use kumo_server::wire::record::raw_value;
use kumo_server::wire::unpack::Reader;
use kumo_server::wire::{Message, NodeAddress};
use rustix::process::Signal;

use crate::harness::cluster::{Client, Cluster, Written};
use crate::harness::scripted::Line;
use crate::harness::wait_until;

/// A writer in the background: what it was promised, and what it does not know.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Promises>,
}

/// For each key the last version promised, and later ones whose fate is unknown.
type Promises = HashMap<Vec<u8>, (Option<u32>, Vec<u32>)>;

impl Writer {
    /// Sets keys again and again, each version larger than the last, until stopped.
    fn start(mut client: Client, name: &'static str, keys: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut promises = Promises::new();
            for version in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("{name}{}", version % keys).into_bytes();
                let written = client.set(&key, version.to_string().as_bytes());
                let entry = promises.entry(key).or_default();
                if written.is_acknowledged() {
                    *entry = (Some(version), Vec::new());
                } else {
                    entry.1.push(version);
                }
            }
            promises
        });
        Self { stop, thread }
    }

    fn stop(self) -> Promises {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Asserts that nothing promised is missing, and returns how much was promised.
fn assert_kept(client: &mut Client, promises: &Promises) -> usize {
    for (key, (promised, unknown)) in promises {
        let found = client.get(key).map(|data| String::from_utf8(data).unwrap().parse::<u32>().unwrap());
        let fine = found == *promised || found.is_some_and(|version| unknown.contains(&version));
        assert!(fine, "{}: promised {promised:?}, found {found:?}, unknown {unknown:?}", key.escape_ascii());
    }
    promises.values().filter(|(promised, _)| promised.is_some()).count()
}

#[test]
fn a_replica_that_is_killed_costs_no_promise_and_comes_back() {
    let mut cluster = Cluster::start(4);
    let writer = Writer::start(cluster.client(), "a", 300);
    wait_until("something is written", || cluster.items() > 100);
    cluster.kill(1);
    cluster.wait_faulty(1);
    let promises = writer.stop();
    let mut client = cluster.client();
    assert!(assert_kept(&mut client, &promises) > 30);
    for index in 0..100 {
        assert!(client.set(format!("b{index}").as_bytes(), b"while away").is_acknowledged());
    }
    cluster.start_server(1);
    wait_until("the server is back", || cluster.nodes_info().1.len() == 1);
    cluster.attach();
    let mut client = cluster.client();
    assert_kept(&mut client, &promises);
    for index in 0..100 {
        assert_eq!(client.get(format!("b{index}").as_bytes()).as_deref(), Some(&b"while away"[..]));
    }
}

#[test]
fn a_replica_that_hangs_is_given_up_and_writes_go_on() {
    let mut cluster = Cluster::start(4);
    let mut client = cluster.client();
    for index in 0..100 {
        assert!(client.set(format!("k{index}").as_bytes(), b"before").is_acknowledged());
    }
    cluster.servers[2].process().hang();
    cluster.wait_faulty(2);
    let mut client = cluster.client();
    for index in 0..100 {
        let key = format!("k{index}").into_bytes();
        client.set_surely(&cluster, &key, b"meanwhile");
        assert_eq!(client.get(&key).as_deref(), Some(&b"meanwhile"[..]));
    }
    cluster.servers[2].process().signal(Signal::CONT);
    wait_until("the server is back", || cluster.nodes_info().1.len() == 1);
    cluster.attach();
    let records: Vec<_> = (0..100).map(|index| format!("k{index}").into_bytes()).collect();
    cluster.assert_exactly(records.iter().map(|key| (&key[..], &b"meanwhile"[..])), 0);
}

#[test]
fn a_write_under_way_to_a_replica_that_hangs_is_answered() {
    let mut cluster = Cluster::start(3);
    cluster.servers[1].process().hang();
    // The answer comes when the managers have given the server up: stored on the others, or not everywhere.
    let mut client = cluster.client();
    let key = (0..1000).map(|index| format!("k{index}").into_bytes()).find(|key| {
        client.spaces.0.owners(ring::hash(key)).coordinator().unwrap().socket() != cluster.servers[1].address()
    });
    let written = client.set(&key.unwrap(), b"v");
    assert!(matches!(written, Written::At(_) | Written::Nil), "{written:?}");
}

/// A coordinator hangs with a swap unread. Others take over its keys, and it wakes: what it still holds must not match,
/// or what was acknowledged meanwhile would be undone.
#[test]
fn a_coordinator_that_wakes_does_not_undo_what_others_wrote() {
    let mut cluster = Cluster::start(3);
    let mut client = cluster.client();
    let sleeper = NodeAddress::new(cluster.servers[1].address());
    let mine = |key: &Vec<u8>| cluster.spaces().0.owners(ring::hash(key)).coordinator() == Some(sleeper);
    let key = (0..1000).map(|index| format!("k{index}").into_bytes()).find(mine).unwrap();
    let Written::At(before) = client.set(&key, b"before") else { panic!("not written") };
    let mut line = Line::connect(sleeper.socket());
    cluster.servers[1].process().hang();
    let stat = format!("/proc/{}/stat", cluster.servers[1].process().pid());
    wait_until("it hangs", || std::fs::read_to_string(&stat).unwrap().contains(") T "));
    let swap = raw_value(before, 0, b"from the past");
    let msgid = line.request(Method::Set, |out| {
        method::Set { op: SetOp::Cas, key: &ring::raw_key(&key), value: &swap, route: None }.encode(out);
    });
    assert!(msgid.is_some());
    cluster.wait_faulty(1);
    let mut client = cluster.client();
    client.set_surely(&cluster, &key, b"meanwhile");
    // From five seconds on the time decides which write is later: the clock of the one that slept does not give it away.
    let written = unix_seconds();
    wait_until("it has slept for long", || unix_seconds() > written + 5);

    cluster.servers[1].process().signal(Signal::CONT);
    if let Some(answer) = line.try_receive()
        && let Ok(Message::Response(response)) = Message::parse(&answer)
    {
        let swapped = response.result.is_ok_and(|result| Reader::new(result).u64().is_ok());
        assert!(!swapped, "the swap is said to be done");
    }
    wait_until("the server is back", || cluster.nodes_info().1.len() == 1);
    assert_eq!(client.get(&key).as_deref(), Some(&b"meanwhile"[..]));
    cluster.attach();
    cluster.assert_exactly([(&key[..], &b"meanwhile"[..])], 0);
}

#[test]
fn all_servers_killed_at_once_lose_nothing_promised() {
    let mut cluster = Cluster::start(3);
    let writers: Vec<_> = ["a", "b", "c"].into_iter().map(|name| Writer::start(cluster.client(), name, 500)).collect();
    wait_until("much is written", || cluster.items() > 1500);
    for index in 0..3 {
        cluster.servers[index].process().signal(Signal::KILL);
    }
    let promises: Vec<_> = writers.into_iter().map(Writer::stop).collect();
    for index in 0..3 {
        cluster.start_server(index);
    }
    for index in 0..3 {
        cluster.wait_known(index);
    }
    cluster.attach();
    let mut client = cluster.client();
    let kept: usize = promises.iter().map(|promises| assert_kept(&mut client, promises)).sum();
    assert!(kept > 400, "{kept}");
}

/// The original loses writes acknowledged in the first moments after an attach: the clock of the new server lags
/// behind all that was written elsewhere, its replicas ignore what it sends, and the answer is success.
#[test]
fn writes_in_the_moment_of_an_attach_are_kept() {
    let mut cluster = Cluster::start(3);
    let mut client = cluster.client();
    // The clocks of the three run far ahead of that of a fourth.
    for round in 0..4000 {
        assert!(client.set(format!("k{}", round % 200).as_bytes(), b"before").is_acknowledged());
    }
    cluster.add_server();
    let before = cluster.spaces().0.clocktime();
    cluster.start_attach();
    wait_until("the hash space has changed", || cluster.spaces().0.clocktime() != before);
    let mut client = cluster.client();
    // What was acknowledged last, and what was tried since: that may have happened all the same.
    let mut promised = BTreeMap::new();
    for round in 0..600 {
        let key = format!("k{}", round % 200).into_bytes();
        let value = format!("after {round}").into_bytes();
        if client.set(&key, &value).is_acknowledged() {
            promised.insert(key, vec![value]);
        } else if let Some(values) = promised.get_mut(&key) {
            values.push(value);
        }
    }
    assert!(promised.len() > 150, "{}", promised.len());
    cluster.wait_replaced();
    let mut client = cluster.client();
    for (key, values) in &promised {
        for owner in client.spaces.1.owners(ring::hash(key)).active().collect::<Vec<_>>() {
            let found = client.get_from(owner.socket(), key).unwrap().expect("a value");
            assert!(values.contains(&found[10..].to_vec()), "{} on {owner}: {found:?}", key.escape_ascii());
        }
    }
}
