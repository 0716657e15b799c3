//! Every process of a cluster ends, managers too, and all are started again.

use std::time::Duration;

use kumo_server::wire::method::{self, ErrorCode, Method, STATUS_REMEMBERED};
use kumo_server::wire::params;
use kumo_server::wire::params::Encode as _;
use kumo_server::wire::params::Seed;

use crate::harness::cluster::{Cluster, ask};
use crate::harness::wait_until;

/// Sets the keys `0..100` to `value` and gives them.
fn write(cluster: &Cluster, value: &[u8]) -> Vec<Vec<u8>> {
    let mut client = cluster.client();
    let keys: Vec<_> = (0..100).map(|index| format!("k{index}").into_bytes()).collect();
    for key in &keys {
        client.set_surely(cluster, key, value);
    }
    keys
}

/// Waits until every running server has stored the manager's hash spaces.
fn wait_remembered(cluster: &Cluster) {
    let (whs, rhs) = cluster.spaces();
    let last = (whs.seed().clone(), rhs.seed().clone());
    wait_until("all servers remember", || {
        cluster.running().all(|server| {
            let answer = ask(server.address(), Method::GetStatus, |out| {
                method::GetStatus { number: STATUS_REMEMBERED }.encode(out);
            });
            answer.and_then(Result::ok).and_then(|bytes| params::decode::<(Seed, Seed)>(&bytes).ok())
                == Some(last.clone())
        })
    });
}

fn kill_all(cluster: &mut Cluster) {
    for (_, manager) in &mut cluster.managers {
        *manager = None;
    }
    for index in 0..cluster.servers.len() {
        cluster.kill(index);
    }
}

#[test]
fn the_cluster_goes_on_by_itself_when_all_are_back() {
    for (managers, flags) in [(1, &[][..]), (2, &[][..]), (1, &["--compatible"][..]), (2, &["--compatible"][..])] {
        let mut cluster = Cluster::start_managed(managers, 3, flags);
        let keys = write(&cluster, b"v");
        let before = cluster.spaces().0;
        wait_remembered(&cluster);
        kill_all(&mut cluster);
        for index in 0..3 {
            cluster.start_server(index);
        }
        for index in 0..managers {
            cluster.start_manager(index);
        }
        cluster.wait_replaced();
        assert_eq!(cluster.spaces().0.seed(), before.seed(), "the same hash space, not a new one");
        cluster.assert_exactly(keys.iter().map(|key| (&key[..], &b"v"[..])), 0);
        // And it can be written.
        write(&cluster, b"w");
    }
}

/// Attached blindly with the others, its old records would be served and copied as if they were the last.
#[test]
fn a_server_that_was_lost_before_the_end_is_not_taken_for_an_owner() {
    a_server_was_lost_before_the_end(&[]);
}

#[test]
fn nor_is_it_without_votes() {
    a_server_was_lost_before_the_end(&["--compatible"]);
}

fn a_server_was_lost_before_the_end(flags: &[&'static str]) {
    let mut cluster = Cluster::start_managed(1, 3, flags);
    write(&cluster, b"old");
    cluster.kill(0);
    cluster.wait_faulty(0);
    let keys = write(&cluster, b"new");
    wait_remembered(&cluster);
    cluster.managers[0].1 = None;
    cluster.kill(1);
    cluster.kill(2);

    cluster.start_server(0);
    cluster.start_manager(0);
    if flags.is_empty() {
        // It shows the last configuration that it knows: in that it was active.
        let refuses = || {
            let mut client = cluster.client();
            client.get_from(cluster.servers[0].address(), &keys[0]) == Err(ErrorCode::Server)
        };
        wait_until("the manager knows of the cluster", || cluster.nodes_info().0.nodes.len() == 3);
        for _ in 0..30 {
            assert!(refuses(), "it answers, and two of three are away");
            std::thread::sleep(Duration::from_millis(100));
        }
        cluster.start_server(1);
    } else {
        wait_until("the server is known", || cluster.nodes_info().1.len() == 1);
        cluster.start_server(1);
        wait_until("two are known", || cluster.nodes_info().1.len() == 2);
        assert!(!cluster.spaces().0.is_ready(), "one of those who wrote last is still missing");
    }
    cluster.start_server(2);
    wait_until("the two who wrote last serve", || cluster.spaces().1.active_nodes().count() == 2);
    cluster.wait_replaced();
    let mut client = cluster.client();
    for key in &keys {
        assert_eq!(client.get(key).as_deref(), Some(&b"new"[..]));
    }
    cluster.attach();
    cluster.assert_exactly(keys.iter().map(|key| (&key[..], &b"new"[..])), 0);
}

/// Flags of a manager that attaches and detaches by itself, a third of a second after a change.
const AUTOMATIC: [&str; 3] = ["-a", "-Rs", "0.3"];

/// Waits until the manager of another cluster, which starts now with the same flags, has attached a server and finished
/// a replace by itself: whatever a manager that was there before would do by itself, it has had the time to do.
fn wait_for_an_automatic_replace_elsewhere() {
    let mut other = Cluster::start(0);
    other.managers[0].1 = None;
    other.manager_flags = AUTOMATIC.to_vec();
    other.start_manager(0);
    other.add_server();
    wait_until("the other cluster has an owner for reading", || other.spaces().1.is_ready());
    other.wait_replaced();
}

/// The first server back, made the only owner, would count as the one that has sent all there is: the others would
/// drop what it never had.
#[test]
fn a_manager_that_acts_by_itself_waits_for_those_who_were_active() {
    let mut cluster = Cluster::start_managed(1, 4, &["--compatible"]);
    let keys = write(&cluster, b"v");
    wait_remembered(&cluster);
    kill_all(&mut cluster);
    cluster.manager_flags = [&AUTOMATIC[..], &["--compatible"]].concat();
    cluster.start_server(0);
    cluster.start_manager(0);
    wait_until("the server is known", || cluster.nodes_info().1.len() == 1);
    wait_for_an_automatic_replace_elsewhere();
    assert!(!cluster.spaces().1.is_ready(), "there is an owner for reading, and it has not all records");
    for index in 1..4 {
        cluster.start_server(index);
    }
    wait_until("all are active", || cluster.spaces().1.active_nodes().count() == 4);
    cluster.wait_replaced();
    cluster.assert_exactly(keys.iter().map(|key| (&key[..], &b"v"[..])), 0);
}

/// The servers know who was active: a minority of them changes nothing.
#[test]
fn a_manager_that_acts_by_itself_does_nothing_with_a_minority_of_voters() {
    let mut cluster = Cluster::start_managed(1, 4, &AUTOMATIC);
    let keys = write(&cluster, b"v");
    let before = cluster.spaces().0;
    kill_all(&mut cluster);
    for index in 0..2 {
        cluster.start_server(index);
    }
    cluster.start_manager(0);
    wait_until("the manager knows of the cluster", || cluster.nodes_info().0.nodes.len() == 4);
    wait_for_an_automatic_replace_elsewhere();
    assert_eq!(cluster.spaces().0.seed(), before.seed());
    for index in 2..4 {
        cluster.start_server(index);
    }
    cluster.wait_replaced();
    assert_eq!(cluster.spaces().0.active_nodes().count(), 4);
    cluster.assert_exactly(keys.iter().map(|key| (&key[..], &b"v"[..])), 0);
}

#[test]
fn a_manager_that_has_lost_every_server_waits_for_the_last_one() {
    let mut cluster = Cluster::start_managed(1, 4, &[&AUTOMATIC[..], &["--compatible"]].concat());
    let keys = write(&cluster, b"v");
    // Nothing can be written in between, so it is no matter who is the last in the manager's eyes.
    for index in 0..4 {
        cluster.kill(index);
    }
    wait_until("all are lost", || !cluster.spaces().1.is_ready());
    for index in 0..4 {
        cluster.start_server(index);
    }
    wait_until("all are active", || cluster.spaces().1.active_nodes().count() == 4);
    cluster.wait_replaced();
    cluster.assert_exactly(keys.iter().map(|key| (&key[..], &b"v"[..])), 0);
}
