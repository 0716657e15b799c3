//! The cluster in one process: what its documentation says of starting, changing and ending it.

use std::time::{Duration, Instant};

use kumo_server::client::{Client, Error as ClientError, NodeAddress};
use kumo_server::embedded::{Cluster, Error, SERVERS_MAX};
use tokio::runtime::Runtime;

use crate::harness::Folder;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn client(cluster: &Cluster) -> Client {
    Client::connect([cluster.manager()]).await.expect("a client")
}

#[test]
fn servers_come_go_and_return_and_no_record_is_lost() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await.unwrap();
        let client = client(&cluster).await;
        let keys: Vec<_> = (0..100).map(|number: u32| number.to_be_bytes()).collect();
        for key in &keys {
            client.set(key, b"first").await.unwrap();
        }
        let mut changes = client.changes();
        let added = cluster.add_server().await.unwrap();
        assert_eq!((cluster.servers().len(), cluster.servers().last()), (4, Some(&added)));
        while client.servers().len() < 4 || client.placement().is_changing() {
            changes.next().await.unwrap();
        }
        cluster.stop_server(0).await.unwrap();
        for key in &keys {
            client.set(key, b"second").await.unwrap();
        }
        assert!(matches!(cluster.stop_server(0).await, Err(Error::NoServer(0))));
        cluster.start_server(0).await.unwrap();
        assert!(matches!(cluster.start_server(0).await, Err(Error::NoServer(0))));
        // What it missed it has got from the others. Two of them go: some keys are now on it alone.
        let alone = |key: &&[u8; 4]| !client.placement().owners(*key).contains(&NodeAddress::new(added));
        assert!(keys.iter().filter(alone).count() > 0);
        for server in 1..3 {
            cluster.stop_server(server).await.unwrap();
        }
        for key in &keys {
            assert_eq!(client.get(key).await.unwrap().expect("a value").data, b"second");
        }
        cluster.stop().await;
        // The manager may have had the time to tell of the loss.
        assert!(matches!(client.get(&keys[0]).await, Err(ClientError::Server(..) | ClientError::NoServer)));
    });
}

#[test]
fn it_ends_when_it_is_dropped_and_leaves_nothing() {
    let runtime = runtime();
    let cluster = runtime.block_on(Cluster::start(1)).unwrap();
    let (manager, store) = (cluster.manager(), cluster.store(0));
    assert!(store.exists());
    let dropped = Instant::now();
    drop(cluster);
    assert!(dropped.elapsed() < Duration::from_secs(5), "{:?}", dropped.elapsed());
    assert!(std::net::TcpStream::connect(manager).is_err());
    assert!(!store.parent().unwrap().exists());
}

#[test]
fn its_bounds_are_errors() {
    runtime().block_on(async {
        for count in [0, SERVERS_MAX + 1] {
            let message = Cluster::start(count).await.unwrap_err().to_string();
            assert_eq!(message, format!("a cluster of {count} servers: from 1 to 16 it may have"));
        }
        let mut cluster = Cluster::start(SERVERS_MAX).await.unwrap();
        assert!(matches!(cluster.add_server().await, Err(Error::TooMany(17))));
        assert!(matches!(cluster.stop_server(SERVERS_MAX).await, Err(Error::NoServer(SERVERS_MAX))));
    });
}

#[test]
fn a_folder_keeps_the_stores_and_serves_one_cluster_only() {
    runtime().block_on(async {
        let folder = Folder::new();
        let place = folder.join("stores");
        Cluster::start_in(&place, 2).await.unwrap().stop().await;
        assert!(place.join("server1.tch").exists());
        let error = Cluster::start_in(&place, 1).await.unwrap_err();
        assert!(matches!(&error, Error::Exists(path) if *path == place.join("server0.tch")), "{error}");
    });
}
