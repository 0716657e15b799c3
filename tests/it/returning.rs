//! A server that returns to a cluster that votes: what it holds from before counts for nothing until the others have sent it,
//! neither writes that nobody acknowledged nor keys that were deleted meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use kumo_server::clock::{Clock, ClockTime};
use kumo_server::ring;
use kumo_server::store::{Options, Outcome, OwnedWrite, Store, Write};
use kumo_server::time::Time;
use kumo_server::wire::method::{self, Method};
use kumo_server::wire::params::Encode as _;
use kumo_server::wire::record::raw_value;
use kumo_server::wire::{NodeAddress, RecordKey, RecordValue};
use rustix::process::Signal;

use crate::harness::cluster::{Client, Cluster, Written, figures};
use crate::harness::wait_until;
use crate::votes::{voting, voting_with};

/// Keys that a server owns, with the clocktimes under which they were set.
fn fill(cluster: &Cluster, client: &mut Client, owner: usize, count: usize) -> Vec<(Vec<u8>, ClockTime)> {
    let owner = NodeAddress::new(cluster.servers[owner].address());
    let keys = (0..).map(|number| format!("k{number}").into_bytes());
    let theirs = keys.filter(|key| client.spaces.1.owners(ring::hash(key)).is_active_owner(owner));
    let keys: Vec<_> = theirs.take(count).collect();
    let set = |key: Vec<u8>| match client.set(&key, b"before") {
        Written::At(clocktime) => (key, clocktime),
        other => panic!("not set: {other:?}"),
    };
    keys.into_iter().map(set).collect()
}

/// Deletes a key until that is acknowledged.
fn delete_surely(cluster: &Cluster, client: &mut Client, key: &[u8]) {
    wait_until("a deletion is acknowledged", || {
        let deleted = matches!(client.delete(key), Written::Bool(_));
        if !deleted {
            client.spaces = cluster.spaces();
        }
        deleted
    });
}

/// Writes into the store of a server that is not running what a coordinator holds which was cut off while its clients went
/// on: values that no other server has, later by their clocks than what the others have acknowledged since.
fn write_alone(store: &Path, keys: &[(Vec<u8>, ClockTime)]) {
    let store = Store::open(Options::new(store), |first| Arc::new(Clock::new(&Time::real(), first))).unwrap();
    let raw: Vec<_> = keys.iter().map(|(key, _)| ring::raw_key(key)).collect();
    let values: Vec<_> = keys
        .iter()
        .map(|(_, before)| raw_value(ClockTime::new(before.seconds() + 60, before.clock() + 100_000), 0, b"alone"))
        .collect();
    let writes = raw.iter().zip(&values).map(|(key, value)| {
        let (key, value) = (RecordKey::new(key).unwrap(), RecordValue::new(value).unwrap());
        OwnedWrite::from(&Write::Update { key, value, touch: false })
    });
    let (sender, receiver) = std::sync::mpsc::channel();
    let decided = |_, outcome| assert!(matches!(outcome, Outcome::Stored { .. }));
    store.write(writes.collect(), decided, move |result| sender.send(result).unwrap());
    receiver.recv().unwrap().unwrap();
    store.close().unwrap();
}

/// Starts a server that was given up, and waits until it can be attached.
fn bring_back(cluster: &mut Cluster, index: usize) {
    cluster.start_server(index);
    wait_until("it is back", || cluster.nodes_info().1.len() == 1);
}

/// Has the servers that are back written to, without a replace.
fn attach_for_writing(cluster: &Cluster) {
    cluster
        .manager(Method::AttachNewServers, |out| method::AttachNewServers { replace: false, choice: None }.encode(out));
}

/// How often a server has put aside what it held, since its last start.
fn times_put_aside(cluster: &mut Cluster, index: usize) -> usize {
    cluster.servers[index].process().stdout().matches("counts as absent until it is copied").count()
}

/// Asserts that every active owner has these values, `None` for a key that is to be absent.
fn assert_everywhere<'k>(cluster: &Cluster, expected: impl Iterator<Item = (&'k [u8], Option<&'k [u8]>)>) {
    let mut client = cluster.client();
    for (key, value) in expected {
        let owners: Vec<_> = client.spaces.1.owners(ring::hash(key)).active().collect();
        for owner in owners {
            let found = client.get_from(owner.socket(), key).unwrap();
            let found = found.as_deref().map(|value| RecordValue::new(value).unwrap().data().to_vec());
            assert_eq!(found.as_deref(), value, "{} on {owner}", key.escape_ascii());
        }
    }
}

#[test]
fn what_a_server_wrote_alone_is_gone_when_it_is_attached_again() {
    let mut cluster = voting(4);
    let mut client = cluster.client();
    let keys = fill(&cluster, &mut client, 1, 60);
    cluster.stop(1);
    cluster.wait_faulty(1);
    let mut client = cluster.client();
    for (number, (key, _)) in keys.iter().enumerate() {
        if number % 3 == 0 {
            delete_surely(&cluster, &mut client, key);
        } else {
            client.set_surely(&cluster, key, b"meanwhile");
        }
    }
    write_alone(&cluster.store_path(1), &keys);
    bring_back(&mut cluster, 1);
    cluster.attach();
    let expected = || {
        let value = |number| (number % 3 != 0).then_some(&b"meanwhile"[..]);
        keys.iter().enumerate().map(move |(number, (key, _))| (&key[..], value(number)))
    };
    assert_everywhere(&cluster, expected());
    cluster.manager(Method::StartReplace, |out| method::StartReplace { full: true }.encode(out));
    cluster.wait_replaced();
    assert_everywhere(&cluster, expected());
    wait_until("what it held before is deleted", || figures(&cluster, 1).store.old_records == 0);
    assert_eq!(times_put_aside(&mut cluster, 1), 1);
}

/// Keys were deleted while a server was away, and their tombstones are swept. It must not serve them between the moment in which
/// it becomes an owner again and that in which it has dropped them, nor may a swap in between bring one back for good.
#[test]
fn deleted_keys_are_not_there_for_a_moment_when_a_server_returns() {
    let mut cluster = voting_with(4, &["-gX", "1", "-gN", "0.5"]);
    let mut client = cluster.client();
    let keys = fill(&cluster, &mut client, 1, 150);
    // Makes it look long for what to drop.
    for number in 0..4000 {
        assert!(client.set(format!("ballast{number}").as_bytes(), &[7; 2000]).is_acknowledged());
    }
    cluster.kill(1);
    cluster.wait_faulty(1);
    let mut client = cluster.client();
    for (key, _) in &keys {
        delete_surely(&cluster, &mut client, key);
    }
    let others = [0, 2, 3];
    wait_until("the tombstones are swept", || {
        others.iter().all(|other| figures(&cluster, *other).store.tombstones == 0)
    });
    bring_back(&mut cluster, 1);
    let (stop, mut lookers) = (Arc::new(AtomicBool::new(false)), Vec::new());
    for part in keys.chunks(50) {
        let (part, stop, address) = (part.to_vec(), stop.clone(), cluster.servers[1].address());
        let mut client = cluster.client();
        lookers.push(thread::spawn(move || {
            let (mut seen, mut answers) = (Vec::new(), 0_u64);
            while !stop.load(Ordering::Relaxed) {
                for (key, _) in &part {
                    match client.get_from(address, key) {
                        Ok(Some(_)) => seen.push(String::from_utf8_lossy(key).into_owned()),
                        Ok(None) => answers += 1,
                        Err(_) => {}
                    }
                }
            }
            (seen, answers)
        }));
    }
    cluster.attach();
    wait_until("what it held before is deleted", || figures(&cluster, 1).store.old_records == 0);
    stop.store(true, Ordering::Relaxed);
    for looker in lookers {
        let (seen, answers) = looker.join().unwrap();
        assert_eq!(seen, [""; 0], "deleted, and read");
        assert!(answers > 0, "it owns them again");
    }
    let mut client = cluster.client();
    for (key, before) in &keys {
        assert_eq!(client.cas(key, *before, b"from the past"), Written::Bool(false));
        assert_eq!(client.get(key), None);
    }
}

/// What has been copied is not put aside once more when the process dies in the middle, and nobody has noticed.
#[test]
fn a_restart_while_it_is_copied_to_goes_on_with_what_has_come() {
    let mut cluster = voting(3);
    let mut client = cluster.client();
    let keys = fill(&cluster, &mut client, 1, 30);
    cluster.kill(1);
    cluster.wait_faulty(1);
    bring_back(&mut cluster, 1);
    attach_for_writing(&cluster);
    wait_until("it has put aside what it held", || times_put_aside(&mut cluster, 1) == 1);
    let mut client = cluster.client();
    client.set_surely(&cluster, b"while joining", b"v");
    assert!(figures(&cluster, 1).store.old_records > 0);
    let manager = cluster.managers[0].1.as_ref().unwrap().pid();
    let signal = |signal| rustix::process::kill_process(manager, signal).unwrap();
    signal(Signal::STOP);
    cluster.kill(1);
    cluster.start_server(1);
    let address = cluster.servers[1].address();
    wait_until("it listens", || std::net::TcpStream::connect(address).is_ok());
    signal(Signal::CONT);
    cluster.manager(Method::StartReplace, |out| method::StartReplace { full: false }.encode(out));
    cluster.wait_replaced();
    wait_until("what it held before is deleted", || figures(&cluster, 1).store.old_records == 0);
    assert_eq!(times_put_aside(&mut cluster, 1), 0);
    let expected = keys.iter().map(|(key, _)| (&key[..], Some(&b"before"[..])));
    assert_everywhere(&cluster, expected.chain([(&b"while joining"[..], Some(&b"v"[..]))]));
}

/// Given up in the middle, it is admitted once more: what it got so far is of before, too.
#[test]
fn what_a_server_got_before_it_was_given_up_again_counts_no_more() {
    let mut cluster = voting(3);
    let mut client = cluster.client();
    let keys = fill(&cluster, &mut client, 1, 20);
    cluster.kill(1);
    cluster.wait_faulty(1);
    bring_back(&mut cluster, 1);
    attach_for_writing(&cluster);
    wait_until("it has put aside what it held", || times_put_aside(&mut cluster, 1) == 1);
    let mut client = cluster.client();
    client.spaces = cluster.spaces();
    for key in [&b"while joining"[..], b"other"] {
        client.set_surely(&cluster, key, b"v");
    }
    cluster.stop(1);
    cluster.wait_faulty(1);
    client.spaces = cluster.spaces();
    delete_surely(&cluster, &mut client, b"while joining");
    client.set_surely(&cluster, b"other", b"w");
    let alone: Vec<_> =
        [&b"while joining"[..], b"other"].map(|key| (key.to_vec(), ClockTime::new(1_900_000_000, 1))).into();
    write_alone(&cluster.store_path(1), &alone);
    bring_back(&mut cluster, 1);
    cluster.attach();
    wait_until("what it held before is deleted", || figures(&cluster, 1).store.old_records == 0);
    assert_eq!(times_put_aside(&mut cluster, 1), 1);
    let expected = keys.iter().map(|(key, _)| (&key[..], Some(&b"before"[..])));
    assert_everywhere(&cluster, expected.chain([(&b"while joining"[..], None), (&b"other"[..], Some(&b"w"[..]))]));
}

/// The ends of copying are those of one configuration: with the loss of another server it is begun anew, without an operator.
#[test]
fn copying_is_begun_anew_when_a_server_is_lost_in_it() {
    let mut cluster = voting(4);
    let mut client = cluster.client();
    let keys = fill(&cluster, &mut client, 1, 40);
    cluster.kill(1);
    cluster.wait_faulty(1);
    bring_back(&mut cluster, 1);
    cluster.start_attach();
    cluster.kill(2);
    cluster.wait_faulty(2);
    cluster.wait_replaced();
    assert_everywhere(&cluster, keys.iter().map(|(key, _)| (&key[..], Some(&b"before"[..]))));
    let log = cluster.managers[0].1.as_ref().unwrap().stdout();
    assert!(log.contains("given up: a server was lost"), "{log}");
}
