//! Servers that vote on the configuration of their cluster: one part of it serves, the other refuses.

use std::time::Duration;

use kumo_server::clock::ClockTime;
use kumo_server::ring;
use kumo_server::wire::extension::Route;
use kumo_server::wire::method::{self, ErrorCode, Method};
use kumo_server::wire::params::{Encode, SetOp};
use kumo_server::wire::record::raw_value;
use rustix::process::Signal;

use crate::harness::cluster::{Cluster, Written, figures, has_lease, keys, wait_voted, write_all};
use crate::harness::{Process, kumo_server, wait_until};

/// A cluster that votes, of one manager and `count` servers.
pub(crate) fn voting(count: usize) -> Cluster {
    voting_with(count, &[])
}

/// The same with flags for the servers.
pub(crate) fn voting_with(count: usize, flags: &[&str]) -> Cluster {
    let cluster = Cluster::start_with(1, count, flags);
    wait_voted(&cluster);
    cluster
}

fn assert_all(cluster: &Cluster, value: &[u8]) {
    let mut client = cluster.client();
    for key in keys() {
        assert_eq!(client.get(&key).as_deref(), Some(value), "{}", key.escape_ascii());
    }
}

#[test]
fn writes_go_on_after_the_loss_of_one_of_three_and_it_comes_back() {
    let mut cluster = voting(3);
    write_all(&cluster, b"one");
    let before = figures(&cluster, 1).configuration;
    cluster.kill(0);
    write_all(&cluster, b"two");
    assert!(figures(&cluster, 1).configuration > before, "its loss was decided");
    cluster.start_server(0);
    cluster.wait_known(0);
    cluster.attach();
    wait_voted(&cluster);
    assert_all(&cluster, b"two");
    write_all(&cluster, b"three");
}

/// Two of three are away at once: the third cannot know whether they go on without it.
#[test]
fn a_write_that_was_sent_by_an_earlier_hash_space_is_refused() {
    let mut cluster = voting(3);
    write_all(&cluster, b"one");
    let earlier = cluster.spaces().0.clocktime();
    cluster.kill(0);
    write_all(&cluster, b"two");
    let present = cluster.spaces().0.clocktime();
    assert_ne!(earlier, present);
    let mut client = cluster.client();
    let (key, value) = (ring::raw_key(&keys()[0]), raw_value(ClockTime(0), 0, b"three"));
    for (whs, in_time) in [(earlier, false), (present, true)] {
        let route = Some(Route { whs: whs.0 });
        let set = client.write(&keys()[0], Method::Set, |out| {
            method::Set { op: SetOp::Sync, key: &key, value: &value, route }.encode(out);
        });
        let held = client.get(&keys()[0]);
        let deleted = client.write(&keys()[0], Method::Delete, |out| {
            method::Delete { flags: 0, key: &key, route }.encode(out);
        });
        let left = client.get(&keys()[0]);
        if in_time {
            assert_eq!((held.as_deref(), deleted, left), (Some(&b"three"[..]), Written::Bool(true), None), "{set:?}");
        } else {
            let refused = Written::Error(ErrorCode::Server);
            assert_eq!((set, deleted), (refused, refused));
            assert_eq!((held.as_deref(), left.as_deref()), (Some(&b"two"[..]), Some(&b"two"[..])));
        }
    }
}

#[test]
fn a_minority_refuses_reads_and_writes_until_the_others_are_back() {
    let mut cluster = voting(3);
    write_all(&cluster, b"one");
    for index in [1, 2] {
        cluster.servers[index].process().hang();
    }
    wait_until("the lease of the one that is left ends", || !has_lease(&cluster, 0));
    let address = cluster.servers[0].address();
    let rhs = cluster.spaces().1;
    let own = keys()
        .into_iter()
        .find(|key| rhs.owners(kumo_server::ring::hash(key)).coordinator().map(|node| node.socket()) == Some(address))
        .expect("a key that it coordinates");
    let mut client = cluster.client();
    assert_eq!(client.get_from(address, &own), Err(ErrorCode::Server));
    assert!(!client.set(&own, b"two").is_acknowledged());
    // It stays so, however long that lasts.
    std::thread::sleep(Duration::from_secs(4));
    assert!(!has_lease(&cluster, 0));
    cluster.servers[1].process().signal(Signal::CONT);
    cluster.servers[2].process().signal(Signal::CONT);
    let mut client = cluster.client();
    client.set_surely(&cluster, &own, b"three");
    assert_eq!(client.get(&own).as_deref(), Some(&b"three"[..]));
}

#[test]
fn servers_go_on_without_any_manager_also_after_a_restart_of_all() {
    let mut cluster = voting(3);
    write_all(&cluster, b"one");
    cluster.managers[0].1 = None;
    std::thread::sleep(Duration::from_secs(3));
    for index in 0..3 {
        assert!(has_lease(&cluster, index), "server{index} needs no manager");
    }
    for index in 0..3 {
        cluster.kill(index);
    }
    for index in 0..3 {
        cluster.start_server(index);
    }
    wait_voted(&cluster);
    cluster.start_manager(0);
    wait_until("the manager has learned of the cluster", || cluster.nodes_info().0.nodes.len() == 3);
    assert_all(&cluster, b"one");
    write_all(&cluster, b"two");
}

/// Before its loss was noticed it comes back with nothing: what others have must not read as missing.
#[test]
fn a_server_with_an_empty_disk_is_given_up_and_copied_to_by_an_attach() {
    let mut cluster = voting(3);
    write_all(&cluster, b"one");
    let mut client = cluster.client();
    cluster.managers[0].1 = None;
    cluster.kill(0);
    cluster.empty_store(0);
    cluster.start_server(0);
    std::thread::sleep(Duration::from_secs(2));
    assert!(!has_lease(&cluster, 0), "it has nothing that it could act by");
    let address = cluster.servers[0].address();
    for key in keys() {
        assert!(client.get_from(address, &key).is_err(), "{}", key.escape_ascii());
    }
    cluster.start_manager(0);
    cluster.wait_faulty(0);
    cluster.attach();
    wait_voted(&cluster);
    assert_all(&cluster, b"one");
}

/// It may be further in its own line of configurations; that is no reason to follow it.
#[test]
fn a_server_of_another_cluster_brings_no_configuration_with_it() {
    let mut other = voting(1);
    for _ in 0..3 {
        other.add_server();
        other.attach();
    }
    wait_voted(&other);
    let cluster = voting(3);
    write_all(&cluster, b"one");
    let before = cluster.spaces().0.seed().clone();
    assert!(figures(&other, 0).configuration > figures(&cluster, 0).configuration);
    other.kill(0);
    let manager = cluster.managers[0].0.address().to_string();
    let own = other.servers[0].address().to_string();
    let store = other.folder().join("server0.tch");
    let args = ["-v", "-m", &manager, "-l", &own, "-L", "0", "-s", store.to_str().expect("a path"), "-k", "0.3"];
    let stranger = Process::spawn(cluster.folder(), "stranger", &kumo_server(), &args);
    wait_until("the manager has noticed where it comes from", || {
        cluster.folder().read("manager0.out").contains("of another cluster")
    });
    assert_eq!(*cluster.spaces().0.seed(), before);
    assert_all(&cluster, b"one");
    write_all(&cluster, b"two");
    drop(stranger);
}
