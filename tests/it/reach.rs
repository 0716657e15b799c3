//! Servers that their manager reaches, and that do not reach each other.

use std::time::Instant;

use kumo_server::wire::NodeAddress;

use crate::harness::cluster::{Cluster, has_lease, wait_voted, write_all};
use crate::harness::{Network, PATIENCE, Process, kumo_server, wait_until};

fn status(cluster: &Cluster) -> String {
    let manager = cluster.managers[0].0.address().to_string();
    let finished = Process::run(cluster.folder(), &kumo_server(), &["ctl", &manager, "status"]);
    assert!(finished.status.success(), "{finished:?}");
    finished.stdout
}

/// Three servers that vote, each on a machine of its own, with the manager on another.
fn cluster() -> Option<Cluster> {
    let mut cluster = Cluster::start_on(Network::new(4)?, &[]);
    for _ in 0..3 {
        cluster.add_server();
    }
    cluster.attach();
    wait_voted(&cluster);
    write_all(&cluster, b"one");
    Some(cluster)
}

#[test]
fn of_two_servers_that_do_not_reach_each_other_one_is_given_up() {
    let Some(cluster) = cluster() else { return };
    let text = status(&cluster);
    assert!(text.contains("\nvotes: configuration ") && text.contains(", 3 of 3 voters answer\n"), "{text}");
    assert!(text.contains(&format!("server {}: configuration ", cluster.servers[2].address())), "{text}");
    let [first, second] = [0, 1].map(|index| NodeAddress::new(cluster.servers[index].address()));
    let started = Instant::now();
    cluster.network().cut(1, 2);
    let longest = write_all(&cluster, b"two");
    println!("writes went on after {longest:?}, {:?} in all", started.elapsed());
    assert!(longest < PATIENCE / 2, "{longest:?}");
    wait_until("the second of the two is given up", || {
        let whs = cluster.spaces().0;
        whs.is_active(first) && !whs.is_active(second)
    });
    let why = format!("server {second}: configuration ");
    let apart = format!("was given up (it and {first} do not reach each other), and is there: attach it");
    wait_until("status says why", || {
        status(&cluster).lines().any(|line| line.starts_with(&why) && line.ends_with(&apart))
    });
    wait_until("it does not serve", || !has_lease(&cluster, 1));
    cluster.network().heal();
    wait_until("they reach each other again", || !status(&cluster).contains("does not reach"));
    cluster.attach();
    wait_voted(&cluster);
    write_all(&cluster, b"three");
    assert!(!status(&cluster).contains("given up"));
}

/// One way is enough: who sends gets no answer.
#[test]
fn a_cut_in_one_direction_counts_as_one_in_both() {
    let Some(cluster) = cluster() else { return };
    let third = NodeAddress::new(cluster.servers[2].address());
    for other in [1, 2] {
        cluster.network().cut_one_way(3, other);
    }
    wait_until("the one that reaches nobody is given up", || !cluster.spaces().0.is_active(third));
    write_all(&cluster, b"two");
    assert_eq!(cluster.spaces().0.active_nodes().count(), 2);
}

/// The manager does not hear the two that a cut keeps apart from it, too: nobody is given up for that, and it is told.
#[test]
fn a_lost_majority_is_told_and_what_waits_for_it() {
    let Some(cluster) = cluster() else { return };
    for machine in [1, 2] {
        cluster.network().set_plugged(machine, false);
    }
    let [first, second] = [0, 1].map(|index| cluster.servers[index].address().to_string());
    wait_until("status says so", || {
        let text = status(&cluster);
        let lost = |line: &str| line.starts_with("no majority: ") && line.contains(&first) && line.contains(&second);
        text.contains("1 of 3 voters answer") && text.lines().any(lost) && text.contains("\nwaits: loss of ")
    });
    for machine in [1, 2] {
        cluster.network().set_plugged(machine, true);
    }
    wait_until("nothing waits any more", || !status(&cluster).contains("waits: "));
    wait_until("a majority answers", || !status(&cluster).contains("no majority"));
}
