//! Clusters in which somebody does not vote: an original server or manager, or a manager that runs with `--compatible`.

use kumo_server::wire::NodeAddress;
use kumo_server::wire::method::{self, Method};
use kumo_server::wire::params::Encode as _;
use rustix::process::Signal;

use crate::harness::cluster::{Cluster, figures_at};
use crate::harness::fake_server::FakeServer;
use crate::harness::{Port, wait_until};

/// Whether the servers vote, if all say the same.
fn votes(cluster: &Cluster) -> Option<bool> {
    let leases: Vec<_> = cluster
        .running()
        .map(|server| figures_at(server.address()).map(|figures| figures.lease_ms.is_some_and(|lease| lease > 0)))
        .collect();
    let first = leases.first().copied().flatten()?;
    leases.iter().all(|lease| *lease == Some(first)).then_some(first)
}

fn wait_votes(cluster: &Cluster, what: bool) {
    wait_until(&format!("servers vote: {what}"), || {
        let none =
            || cluster.running().all(|server| figures_at(server.address()).is_some_and(|f| f.lease_ms.is_none()));
        votes(cluster) == Some(what) && (what || none())
    });
}

fn wait_log(cluster: &Cluster, name: &str, what: &str) {
    wait_until(&format!("{name} says: {what}"), || cluster.folder().read(&format!("{name}.out")).contains(what));
}

fn keys() -> Vec<Vec<u8>> {
    (0..60).map(|index| format!("k{index}").into_bytes()).collect()
}

fn write_all(cluster: &Cluster, value: &[u8]) {
    let mut client = cluster.client();
    for key in keys() {
        client.set_surely(cluster, &key, value);
    }
}

fn assert_all(cluster: &Cluster, value: &[u8]) {
    let mut client = cluster.client();
    for key in keys() {
        assert_eq!(client.get(&key).as_deref(), Some(value), "{}", key.escape_ascii());
    }
}

#[test]
fn with_a_compatible_manager_one_server_of_three_goes_on_alone() {
    let mut cluster = Cluster::start_managed(1, 3, &["--compatible"]);
    write_all(&cluster, b"one");
    for index in [0, 1] {
        cluster.kill(index);
        cluster.wait_faulty(index);
    }
    wait_votes(&cluster, false);
    write_all(&cluster, b"two");
    assert_all(&cluster, b"two");
}

/// Also while the compatible one is away: its operator has not changed their mind.
#[test]
fn one_compatible_manager_of_two_ends_the_votes_until_it_is_started_without_the_flag() {
    let mut cluster = Cluster::start_managed(2, 3, &[]);
    wait_votes(&cluster, true);
    write_all(&cluster, b"one");
    let address = cluster.managers[1].0.address();
    cluster.managers[1].1 = None;
    cluster.manager_flags = vec!["--compatible"];
    cluster.start_manager(1);
    wait_votes(&cluster, false);
    wait_log(&cluster, "manager0", &format!("do not vote: the other manager, {address}, runs with --compatible"));
    write_all(&cluster, b"two");
    cluster.managers[1].1 = None;
    wait_log(&cluster, "manager0", "the other manager is lost");
    // Several times what it takes to go over to votes.
    std::thread::sleep(std::time::Duration::from_secs(2));
    wait_votes(&cluster, false);
    assert_all(&cluster, b"two");
    cluster.manager_flags.clear();
    cluster.start_manager(1);
    wait_votes(&cluster, true);
    assert_all(&cluster, b"two");
    write_all(&cluster, b"three");
}

/// It takes no records.
fn attach_without_a_replace(cluster: &Cluster) {
    cluster.manager(Method::AttachNewServers, |out| {
        method::AttachNewServers { replace: false, choice: None }.encode(out);
    });
}

#[test]
fn an_original_server_that_is_attached_ends_the_votes_and_they_begin_again_when_it_has_gone() {
    let mut cluster = Cluster::start(3);
    wait_votes(&cluster, true);
    write_all(&cluster, b"one");
    let manager = cluster.managers[0].0.address();
    let original = FakeServer::start(&[manager]);
    let address = original.address();
    wait_until("it is known", || cluster.nodes_info().1.contains(&address));
    // Alone its being there changes nothing.
    wait_votes(&cluster, true);
    attach_without_a_replace(&cluster);
    assert!(cluster.spaces().0.is_active(address));
    wait_votes(&cluster, false);
    wait_log(&cluster, "manager0", &format!("do not vote: server {address} is of a program that does not vote"));
    let whs = cluster.spaces().0.seed().clone();
    assert!(original.spaces().0 == whs, "it is told as ever: {:?}", original.spaces().0);

    // Meanwhile the hash spaces change as those of an original cluster do, and a new manager must learn the last of them.
    cluster.add_server();
    attach_without_a_replace(&cluster);
    assert_eq!(cluster.spaces().0.active_nodes().count(), 5);
    let whs = cluster.spaces().0.seed().clone();
    cluster.managers[0].1 = None;
    cluster.start_manager(0);
    wait_until("the manager has learned of the cluster", || cluster.spaces().0.is_ready());
    assert_eq!(cluster.spaces().0.seed().nodes, whs.nodes);

    drop(original);
    wait_until("it is given up", || !cluster.spaces().0.is_active(address));
    wait_votes(&cluster, true);
    cluster.detach();
    assert_all(&cluster, b"one");
    write_all(&cluster, b"two");
    assert_all(&cluster, b"two");
}

#[test]
fn an_original_manager_ends_the_votes_and_they_begin_again_when_it_is_replaced() {
    let mut cluster = Cluster::start_managed(2, 3, &[]);
    wait_votes(&cluster, true);
    write_all(&cluster, b"one");
    let (whs, rhs) = cluster.spaces();
    cluster.managers[1].1 = None;
    let port = std::mem::replace(&mut cluster.managers[1].0, Port::reserve());
    let address = port.address();
    let original = FakeServer::manager(port, (whs.seed().clone(), rhs.seed().clone()));
    wait_votes(&cluster, false);
    wait_log(&cluster, "manager0", &format!("the other manager, {address}, is of a program that does not vote"));
    assert_all(&cluster, b"one");
    write_all(&cluster, b"two");
    // A change is told to it as ever.
    cluster.kill(0);
    cluster.wait_faulty(0);
    let held = || (cluster.spaces().0.seed().clone(), cluster.spaces().1.seed().clone());
    wait_until("the original manager is told", || original.spaces() == held());
    write_all(&cluster, b"three");

    (cluster.managers[1].0, _) = original.kill();
    cluster.start_manager(1);
    wait_votes(&cluster, true);
    assert_all(&cluster, b"three");
    cluster.start_server(0);
    cluster.wait_known(0);
    cluster.attach();
    assert_all(&cluster, b"three");
}

/// Its vote is bound to the process: one that is started in its place must be named by a new configuration, or the loss of
/// one server more would be the loss of the majority.
#[test]
fn two_servers_survive_a_restart_of_their_manager_and_then_the_loss_of_one() {
    let mut cluster = Cluster::start(2);
    write_all(&cluster, b"one");
    let before = figures_at(cluster.servers[0].address()).expect("figures").configuration;
    cluster.managers[0].1 = None;
    cluster.start_manager(0);
    wait_until("the manager that was started is a voter", || {
        cluster.running().all(|server| figures_at(server.address()).is_some_and(|f| f.configuration > before))
    });
    wait_votes(&cluster, true);
    cluster.kill(1);
    write_all(&cluster, b"two");
    assert_all(&cluster, b"two");
}

#[test]
fn a_server_may_be_silent_for_as_long_as_the_failure_time_out_says() {
    let mut cluster = Cluster::start_managed(1, 3, &["--failure-timeout", "8", "--lease", "0.5"]);
    let lease = || figures_at(cluster.servers[0].address()).expect("figures").lease_ms.expect("a lease");
    assert!(lease() <= 500);
    let before = cluster.spaces().0;
    cluster.servers[1].process().hang();
    // More than five keep-alives, and more than the default.
    std::thread::sleep(std::time::Duration::from_secs(4));
    cluster.servers[1].process().signal(Signal::CONT);
    let address = NodeAddress::new(cluster.servers[1].address());
    wait_votes(&cluster, true);
    assert_eq!(cluster.spaces().0.seed(), before.seed());

    // The configuration carries them: they change with the flags of the manager.
    cluster.managers[0].1 = None;
    cluster.manager_flags = vec!["--failure-timeout", "0.6", "--lease", "0.6"];
    cluster.start_manager(0);
    wait_until("leases last longer", || {
        figures_at(cluster.servers[0].address())
            .is_some_and(|figures| figures.lease_ms.is_some_and(|lease| lease > 500))
    });
    let begun = std::time::Instant::now();
    cluster.servers[1].process().hang();
    wait_until("it is given up", || !cluster.spaces().0.is_active(address));
    let taken = begun.elapsed();
    assert!(taken < std::time::Duration::from_secs(8), "{taken:?}");
}
