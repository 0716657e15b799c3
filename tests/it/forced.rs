//! `ctl detach --force`: a cluster whose majority is lost goes on by the word of its operator.

use kumo_server::wire::NodeAddress;

use crate::harness::cluster::{Cluster, figures, has_lease, keys, wait_voted, write_all};
use crate::harness::{Finished, Process, kumo_server, wait_until};

/// Three servers that vote, on loopback.
fn cluster() -> Cluster {
    let cluster = Cluster::start(3);
    wait_voted(&cluster);
    write_all(&cluster, b"one");
    cluster
}

fn ctl(cluster: &Cluster, args: &[&str]) -> Finished {
    let manager = cluster.managers[0].0.address().to_string();
    Process::run(cluster.folder(), &kumo_server(), &[&["ctl", &manager], args].concat())
}

/// Waits until `args` end with status 3 and this on stderr, and nobody is detached.
#[track_caller]
fn wait_refused(cluster: &Cluster, args: &[&str], why: &str) {
    let before = cluster.spaces().0.seed().nodes.len();
    wait_until(&format!("{args:?} is refused: {why}"), || {
        let finished = ctl(cluster, args);
        assert_eq!(finished.status.code(), Some(3), "{finished:?}");
        finished.stderr.contains(why)
    });
    assert_eq!(cluster.spaces().0.seed().nodes.len(), before);
}

#[test]
fn a_lost_majority_is_told_and_the_one_that_is_left_goes_on_by_force() {
    let mut cluster = cluster();
    let [second, third] = [1, 2].map(|index| cluster.servers[index].address().to_string());
    cluster.kill(1);
    cluster.kill(2);
    let way_out = |text: &str| text.contains("no majority: ") && text.contains("detach --force ");
    wait_until("status names both ways out", || {
        let text = ctl(&cluster, &["status"]).stdout;
        way_out(&text) && text.contains(&second) && text.contains(&third)
    });
    wait_until("it does not serve", || !has_lease(&cluster, 0));
    wait_refused(&cluster, &["detach", "--force", &second], &format!("{third} does not answer either"));
    wait_until("it is done", || {
        let finished = ctl(&cluster, &["detach", "--force", &second, &third, "--wait"]);
        let done = finished.status.success();
        assert!(done || finished.stderr.contains("in the last two seconds"), "{finished:?}");
        if done {
            let mut both = [second.as_str(), third.as_str()];
            both.sort_by_key(|address| address.parse::<std::net::SocketAddr>().expect("an address"));
            assert_eq!(finished.stdout, format!("detached {}\ndetached {}\n", both[0], both[1]));
            assert!(finished.stderr.contains("each key has a copy on a server that is left"), "{finished:?}");
        }
        done
    });
    wait_voted_one(&cluster);
    assert_eq!(figures(&cluster, 0).configuration / 1_000_000, 1);
    write_all(&cluster, b"two");
    // They come back with what they had: it counts for nothing.
    for index in [1, 2] {
        cluster.start_server(index);
        cluster.wait_known(index);
    }
    for index in [1, 2] {
        wait_until("it has heard that it is out", || figures(&cluster, index).configuration >= 1_000_000);
        assert!(!cluster.spaces().0.is_active(NodeAddress::new(cluster.servers[index].address())));
    }
    cluster.attach();
    wait_voted(&cluster);
    let mut client = cluster.client();
    for key in keys() {
        assert_eq!(client.get(&key).as_deref(), Some(&b"two"[..]), "{}", key.escape_ascii());
    }
    write_all(&cluster, b"three");
    assert!(!ctl(&cluster, &["status"]).stdout.contains("no majority"));
}

fn wait_voted_one(cluster: &Cluster) {
    wait_until("the one that is left holds a lease", || has_lease(cluster, 0));
}

#[test]
fn force_is_refused_where_it_is_not_needed() {
    let mut cluster = cluster();
    let third = cluster.servers[2].address().to_string();
    wait_refused(&cluster, &["detach", "--force", &third], "answers this manager: it is not off");
    wait_refused(&cluster, &["detach", "--force", "127.0.0.1:1"], "127.0.0.1:1 is not active");
    cluster.servers[2].process().hang();
    wait_refused(
        &cluster,
        &["detach-noreplace", "--force", &third],
        "is not active; detach removes it without --force",
    );
    write_all(&cluster, b"two");
}
