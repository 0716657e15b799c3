//! A read that makes an empty item where there is none (`mg` with `N`): of all who ask, at all gateways, one is told to
//! store the value, and everybody else that it is on its way.

use std::sync::{Arc, Barrier};
use std::thread;

use crate::harness::Gateway;
use crate::harness::cluster::Cluster;

#[test]
fn of_all_who_read_a_missing_item_one_is_to_store_it() {
    let cluster = Cluster::start(3);
    let gateways = [Gateway::of(&cluster, &[]), Gateway::of(&cluster, &[])];
    let (clients, rounds) = (8, 40);
    let barrier = Arc::new(Barrier::new(clients));
    let addresses: Vec<_> = (0..clients).map(|client| gateways[client % 2].port.address()).collect();
    let threads = addresses.into_iter().map(|address| {
        let barrier = barrier.clone();
        thread::spawn(move || {
            let mut client = crate::harness::gateway::Memcached::connect(address);
            let ask = |round| {
                barrier.wait();
                client.line(format!("mg key{round} N100 t\r\n").as_bytes())
            };
            (0..rounds).map(ask).collect::<Vec<_>>()
        })
    });
    let threads: Vec<_> = threads.collect();
    let answers: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("a client")).collect();
    for round in 0..rounds {
        let of_round: Vec<_> = answers.iter().map(|answers| answers[round].as_str()).collect();
        let ends = |mark| of_round.iter().filter(|answer| answer.ends_with(mark)).count();
        assert_eq!((ends(" W"), ends(" Z")), (1, clients - 1), "{of_round:?}");
    }
}

#[test]
fn the_mark_is_in_the_cluster_until_the_value_is() {
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &[]);
    let mut client = gateway.client();
    client.exchange(b"mg k N0 v\r\n", b"VA 0 W\r\n\r\n");
    client.exchange(b"mg k T0 v\r\nget k\r\n", b"VA 0 Z\r\n\r\nVALUE k 0 0\r\n\r\nEND\r\n");
    // A gateway that has just started knows as well, and so does one that reads another copy.
    let other = Gateway::of(&cluster, &[]);
    let mut late = other.client();
    assert_eq!(late.line(b"mg k N0\r\n"), "HD Z");
    late.exchange(b"touch k 1000\r\n", b"TOUCHED\r\n");
    assert_eq!(client.line(b"mg k N0\r\n"), "HD Z");
    client.set("k", "value");
    for client in [&mut client, &mut late] {
        client.exchange(b"mg k N0 v\r\n", b"VA 5\r\nvalue\r\n");
    }
    // Deleted, it is to be had again.
    client.exchange(b"delete k\r\n", b"DELETED\r\n");
    assert_eq!(late.line(b"mg k N0\r\n"), "HD W");
    // A gateway without -E has no place for an expiry, and says so.
    let managers: Vec<_> = cluster.managers.iter().map(|(port, _)| port.address()).collect();
    let bare = Gateway::start(cluster.folder(), &managers, &[]);
    assert_eq!(bare.client().line(b"mg new N30\r\n"), "SERVER_ERROR exptime is not kept: the gateway runs without -E");
}
