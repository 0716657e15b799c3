//! The client library on a real cluster: routing, retries, swaps, and an end to everything.

use std::time::{Duration, Instant};

use kumo_server::client::{Client, ClockTime, Error, Options, Swapped};
use kumo_server::ring;
use tokio::runtime::Runtime;

use crate::harness::cluster::Cluster;
use crate::harness::{Folder, Manager, Port, wait_until};

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

fn connect(runtime: &Runtime, managers: &[std::net::SocketAddr], deadline: Duration) -> Result<Client, Error> {
    runtime.block_on(Client::connect_with(managers, Options { deadline, ..Options::default() }))
}

fn clocktime(swapped: Result<Swapped, Error>) -> ClockTime {
    match swapped {
        Ok(Swapped::At(clocktime)) => clocktime,
        other => panic!("not swapped: {other:?}"),
    }
}

#[test]
fn a_swap_counts_once_and_only_on_what_it_names() {
    let cluster = Cluster::start(3);
    let runtime = runtime();
    let client = connect(&runtime, &[cluster.managers[0].0.address()], Duration::from_secs(5)).unwrap();
    runtime.block_on(async {
        let first = clocktime(client.cas(b"k", None, b"one").await);
        assert_eq!(client.cas(b"k", None, b"no").await, Ok(Swapped::Mismatch));
        let second = clocktime(client.cas(b"k", Some(first), b"two").await);
        assert_eq!(client.cas(b"k", Some(first), b"no").await, Ok(Swapped::Mismatch));
        let found = client.get(b"k").await.unwrap().expect("a value");
        assert_eq!((found.clocktime, found.meta, found.data.as_slice()), (second, 0x4b00, &b"two"[..]));
        assert_eq!(client.delete(b"k").await, Ok(true));
        assert_eq!(client.delete(b"k").await, Ok(false));
        assert_eq!(client.get(b"k").await, Ok(None));
        assert_eq!(client.cas(b"k", Some(second), b"no").await, Ok(Swapped::Mismatch));
    });
}

#[test]
fn a_dead_server_delays_writes_and_not_reads() {
    let mut cluster = Cluster::start(3);
    let runtime = runtime();
    let client = connect(&runtime, &[cluster.managers[0].0.address()], Duration::from_secs(15)).unwrap();
    let keys: Vec<_> = (0..60).map(|index| format!("key{index}")).collect();
    let set_all = async |data: &[u8]| {
        for key in &keys {
            client.set(key.as_bytes(), data).await.unwrap();
        }
    };
    runtime.block_on(set_all(b"before"));
    let first = cluster.servers[0].address();
    let coordinated = keys
        .iter()
        .filter(|key| cluster.spaces().0.owners(ring::hash(key.as_bytes())).coordinator().unwrap().socket() == first);
    assert!(coordinated.count() > 0, "some keys are the victim's");
    cluster.kill(0);
    runtime.block_on(async {
        for key in &keys {
            let value = client.get(key.as_bytes()).await.unwrap().expect("a value");
            assert_eq!(value.data, b"before");
        }
        set_all(b"after").await;
        for key in &keys {
            assert_eq!(client.get(key.as_bytes()).await.unwrap().expect("a value").data, b"after");
        }
    });
}

#[test]
fn the_hash_spaces_that_a_manager_pushes_are_followed() {
    let mut cluster = Cluster::start(3);
    let runtime = runtime();
    let client = connect(&runtime, &[cluster.managers[0].0.address()], Duration::from_secs(5)).unwrap();
    assert_eq!(client.servers().len(), 3);
    cluster.add_server();
    cluster.attach();
    wait_until("the client knows the fourth", || client.servers().len() == 4);
}

#[test]
fn everything_ends() {
    let runtime = runtime();
    let limit = Duration::from_secs(1);
    // Nobody there.
    let (folder, ports) = (Folder::new(), [Port::reserve(), Port::reserve()]);
    let addresses = ports.each_ref().map(Port::address);
    let started = Instant::now();
    assert!(matches!(connect(&runtime, &addresses, limit), Err(Error::Manager(..))));
    // The second manager is there, but without servers.
    let manager = Manager::start(&folder, "manager", &ports[1], "");
    let client = connect(&runtime, &addresses, limit).unwrap();
    assert_eq!(runtime.block_on(client.get(b"k")), Err(Error::NoServer));
    assert_eq!(runtime.block_on(client.set(b"k", b"v")), Err(Error::NoServer));
    drop(manager);
    // Every server is hung, and the manager with them.
    let mut cluster = Cluster::start(2);
    let client = connect(&runtime, &[cluster.managers[0].0.address()], limit).unwrap();
    runtime.block_on(client.set(b"k", b"v")).unwrap();
    let hung = Instant::now();
    cluster.managers[0].1.as_ref().expect("a manager").hang();
    for index in 0..2 {
        cluster.servers[index].process().hang();
    }
    // They were sent, and nobody says what became of them.
    let set = runtime.block_on(client.set(b"k", b"w"));
    assert!(matches!(set, Err(Error::Doubtful(..))), "{set:?}");
    assert!(matches!(runtime.block_on(client.cas(b"k", None, b"w")), Err(Error::Doubtful(..))));
    assert!(matches!(runtime.block_on(client.get(b"k")), Err(Error::Server(..))));
    assert!(hung.elapsed() < Duration::from_secs(20), "{:?}", hung.elapsed());
    assert!(started.elapsed() < Duration::from_mins(1));
}
