//! Two machines that announce one address, and a loopback address that another machine announces.

use std::process::Command;
use std::time::Duration;

use kumo_server::wire::NodeAddress;

use crate::harness::cluster::{Cluster, wait_voted, write_all};
use crate::harness::{Network, Process, kumo_server, wait_until};

/// A manager on the first machine and three servers on the next, attached; the fifth machine is empty.
fn cluster(manager_flags: &[&'static str]) -> Option<Cluster> {
    let mut cluster = Cluster::start_on(Network::new(5)?, manager_flags);
    for _ in 0..3 {
        cluster.add_server();
    }
    cluster.attach();
    Some(cluster)
}

/// Starts a server on the fifth machine that announces `announced`, with the store at `store`.
fn start_second(cluster: &Cluster, announced: &str, store: &str) -> Process {
    let manager = cluster.managers[0].0.address().to_string();
    let mut command = Command::new(kumo_server());
    let args = ["-v", "-l", announced, "--bind", "0.0.0.0", "-L", "19900", "-s", store, "-m", &manager, "-k", "0.3"];
    command.args(args);
    cluster.spawn(4, "second", command)
}

fn ctl(cluster: &Cluster, args: &[&str]) -> String {
    let manager = cluster.managers[0].0.address().to_string();
    let finished = Process::run(cluster.folder(), &kumo_server(), &[&["ctl", &manager], args].concat());
    assert!(finished.status.success(), "{args:?}: {finished:?}");
    finished.stdout
}

/// The second with the address of server 2 is refused and named, and does no harm, while the first is there and when not.
fn assert_refused(mut cluster: Cluster, store: &str) {
    let address = cluster.servers[2].address();
    let second = start_second(&cluster, &address.to_string(), store);
    let other = Network::ip(4).to_string();
    wait_until("status names both machines", || {
        let status = ctl(&cluster, &["status"]);
        let refused = |line: &str| {
            line.contains(&format!("{other} (store")) && line.contains(&format!("address of {}", address.ip()))
        };
        status.lines().any(|line| line.starts_with("refused: ") && refused(line))
    });
    wait_until("it is told why", || second.stdout().contains("refuses this server"));
    assert!(cluster.folder().read("manager0.out").contains(&format!("refused: {other}")));
    // The first one goes on, with all that comes after.
    ctl(&cluster, &["replace", "--wait"]);
    assert!(cluster.spaces().0.is_active(NodeAddress::new(address)));
    write_all(&cluster, b"two");
    assert!(cluster.folder().read("manager0.out").matches("server lost").count() == 0, "the first was not given up");
    cluster.kill(2);
    cluster.wait_faulty(2);
    write_all(&cluster, b"three");
    drop(second);
}

#[test]
fn a_second_machine_with_the_address_of_a_server_is_refused() {
    let Some(cluster) = cluster(&[]) else { return };
    write_all(&cluster, b"one");
    let store = cluster.folder().join("second.tch").to_str().expect("a path").to_owned();
    assert_refused(cluster, &store);
}

/// It was cloned with its disk: its store says that it is the member, and by which configuration to act.
#[test]
fn a_cloned_machine_is_refused_by_servers_that_vote_too() {
    let Some(mut cluster) = cluster(&[]) else { return };
    wait_voted(&cluster);
    write_all(&cluster, b"one");
    // A clean copy of the store.
    cluster.stop(2);
    cluster.wait_faulty(2);
    let (from, to) = (cluster.folder().join("server2.tch"), cluster.folder().join("clone.tch"));
    for file in std::fs::read_dir(cluster.folder().path()).expect("the folder").flatten() {
        if let Some(rest) = file.file_name().to_string_lossy().strip_prefix("server2.tch") {
            std::fs::copy(file.path(), format!("{}{rest}", to.display())).expect("a copy");
        }
    }
    assert!(from.exists());
    cluster.start_server(2);
    cluster.wait_known(2);
    cluster.attach();
    wait_voted(&cluster);
    let lost = cluster.folder().read("manager0.out").matches("server lost").count();
    let address = cluster.servers[2].address();
    let second = start_second(&cluster, &address.to_string(), to.to_str().expect("a path"));
    wait_until("servers refuse it", || cluster.folder().read("server0.out").contains("refused: "));
    wait_until("the manager refuses it", || ctl(&cluster, &["status"]).contains("refused: "));
    write_all(&cluster, b"two");
    ctl(&cluster, &["replace", "--wait"]);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(
        cluster.folder().read("manager0.out").matches("server lost").count(),
        lost,
        "the first was not given up"
    );
    // With the first one unplugged the clone does not take its place.
    cluster.network().set_plugged(3, false);
    cluster.wait_faulty(2);
    write_all(&cluster, b"three");
    drop(second);
}

#[test]
fn a_loopback_address_of_another_machine_is_refused() {
    let Some(cluster) = cluster(&[]) else { return };
    let store = cluster.folder().join("second.tch").to_str().expect("a path").to_owned();
    let second = start_second(&cluster, "127.0.1.1:19800", &store);
    wait_until("status names it", || {
        let status = ctl(&cluster, &["status"]);
        status.contains(&format!("refused: {} announces 127.0.1.1:19800, where no other machine", Network::ip(4)))
    });
    assert!(!ctl(&cluster, &["status"]).contains("\n  127.0.1.1"), "it is no server");
    write_all(&cluster, b"one");
    drop(second);
}
