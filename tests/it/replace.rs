//! Rebalancing between real servers: growing, shrinking, dying in the middle, returning with an old file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use kumo_server::ring::HashSpace;
use kumo_server::wire::method::{self, Method};
use kumo_server::wire::params::Encode as _;
use kumo_server::wire::params::Seed;
use kumo_server::wire::{pack, params};
use rustix::process::Pid;

use crate::harness::cluster::{Client, Cluster, Written, ask, status};
use crate::harness::{PATIENCE, wait_until};

/// What a key must be found to be: a value, or deleted.
type Expected = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Bytes that do not compress, different for each seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56).to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// Sets `count` keys to values of `len` bytes.
fn fill(client: &mut Client, count: u64, len: usize) -> Expected {
    let mut expected = Expected::new();
    for index in 0..count {
        let (key, value) = (format!("fill{index}").into_bytes(), noise(index, len));
        assert!(client.set(&key, &value).is_acknowledged());
        expected.insert(key, Some(value));
    }
    expected
}

/// Asserts that every owner has what is expected, three tombstones for each deleted key, and nobody anything else.
fn assert_placed(cluster: &Cluster, expected: &Expected) {
    let live = expected.iter().filter_map(|(key, value)| Some((&key[..], value.as_deref()?)));
    let deleted = expected.values().filter(|value| value.is_none()).count();
    cluster.assert_exactly(live, 3 * deleted as u64);
}

/// A client that sets and deletes in the background, following the hash space, and knows what it was promised.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Expected>,
}

impl Load {
    fn start(cluster: &Cluster, name: &'static str) -> Self {
        let (mut client, manager) = (cluster.client(), cluster.managers[0].0.address());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut expected = Expected::new();
            let mut version = 0_u32;
            while !stopped.load(Ordering::Relaxed) {
                let key = format!("{name}{}", version % 200).into_bytes();
                let value = (version % 7 != 3).then(|| format!("version {version}").into_bytes());
                if insist(&mut client, manager, &stopped, &key, value.as_deref()) {
                    expected.insert(key, value);
                } else {
                    // Stopped before it was known to be done.
                    expected.remove(&key);
                }
                version += 1;
            }
            expected
        });
        Self { stop, thread }
    }

    fn stop(self) -> Expected {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Writes until it is acknowledged; gives up only when stopped.
fn insist(client: &mut Client, manager: SocketAddr, stop: &AtomicBool, key: &[u8], value: Option<&[u8]>) -> bool {
    loop {
        let done = match value {
            Some(value) => client.set(key, value).is_acknowledged(),
            None => matches!(client.delete(key), Written::Bool(_)),
        };
        if done {
            return true;
        }
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        if let Some(Ok(result)) = ask(manager, Method::HashSpaceRequest, |out| pack::array(out, 0)) {
            let (whs, rhs) = params::decode::<(Seed, Seed)>(&result).unwrap();
            client.spaces = (HashSpace::new(whs), HashSpace::new(rhs));
        }
        thread::yield_now();
    }
}

/// Asserts that what was written before is found by a client.
fn assert_readable(cluster: &Cluster, expected: &Expected) {
    let mut client = cluster.client();
    for (key, value) in expected {
        assert_eq!(client.get(key), *value, "{}", key.escape_ascii());
    }
}

#[test]
fn a_cluster_grows_and_shrinks_under_load() {
    let mut cluster = Cluster::start(3);
    let mut expected = fill(&mut cluster.client(), 600, 100);
    let loads = [Load::start(&cluster, "a"), Load::start(&cluster, "b")];
    for _ in 3..6 {
        cluster.add_server();
        cluster.attach();
        assert_readable(&cluster, &expected);
    }
    for leaving in [1, 3, 0] {
        cluster.kill(leaving);
        cluster.wait_faulty(leaving);
        cluster.detach();
        assert_readable(&cluster, &expected);
    }
    let mut client = cluster.client();
    for load in loads {
        expected.extend(load.stop());
    }
    // The last write of each load may have been cut off: decide what it is.
    for name in ["a", "b"] {
        for index in 0..200 {
            let key = format!("{name}{index}").into_bytes();
            if !expected.contains_key(&key) && client.get(&key).is_some() {
                client.set_surely(&cluster, &key, b"decided");
                expected.insert(key, Some(b"decided".to_vec()));
            }
        }
    }
    assert!(expected.len() > 900, "{}", expected.len());
    assert!(expected.values().any(Option::is_none));
    assert_placed(&cluster, &expected);
}

#[test]
fn deletions_move_with_the_records() {
    let mut cluster = Cluster::start(3);
    let mut client = cluster.client();
    let mut expected = fill(&mut client, 300, 20);
    for index in 0..150 {
        let key = format!("fill{index}").into_bytes();
        assert_eq!(client.delete(&key), Written::Bool(true));
        expected.insert(key, None);
    }
    for _ in 0..2 {
        cluster.add_server();
        cluster.attach();
        assert_placed(&cluster, &expected);
    }
}

/// Attaches a fourth server and kills `victim` while records are streaming; then runs the replace again.
fn dies_in_the_middle(victim: usize) {
    let mut cluster = Cluster::start(3);
    let expected = fill(&mut cluster.client(), 150, 256 << 10);
    let target = cluster.add_server();
    let address = cluster.servers[target].address();
    cluster.start_attach();
    wait_until("the first records have arrived", || status(address, 7).is_some_and(|items| items > 0));
    cluster.kill(victim);
    cluster.wait_faulty(victim);
    assert_readable(&cluster, &expected);
    cluster.start_server(victim);
    wait_until("it is back", || cluster.nodes_info().1.len() == 1);
    cluster.attach();
    assert_placed(&cluster, &expected);
}

#[test]
fn a_target_dies_in_the_middle() {
    dies_in_the_middle(3);
}

#[test]
fn a_source_dies_in_the_middle() {
    dies_in_the_middle(0);
}

/// The original's manual has operators delete the file of a server that was away, or deleted keys return. Here a
/// server that returns drops what the others do not send it.
fn returns_with_an_old_file(detach: bool) {
    let mut cluster = Cluster::start_with(1, 4, &["-gX", "1", "-gN", "0.5"]);
    let mut expected = fill(&mut cluster.client(), 200, 100);
    cluster.kill(1);
    cluster.wait_faulty(1);
    if detach {
        cluster.detach();
    }
    let mut client = cluster.client();
    for index in 0..100 {
        let key = format!("fill{index}").into_bytes();
        assert_eq!(client.delete(&key), Written::Bool(true));
        expected.remove(&key);
    }
    let rhs = cluster.spaces().1;
    let copies: usize = expected.keys().map(|key| rhs.owners(kumo_server::ring::hash(key)).active().count()).sum();
    wait_until("the tombstones are swept", || cluster.items() == copies as u64);
    cluster.start_server(1);
    wait_until("it is back", || cluster.nodes_info().1.len() == 1);
    cluster.attach();
    assert_placed(&cluster, &expected);
    let mut client = cluster.client();
    for index in 0..100 {
        assert_eq!(client.get(format!("fill{index}").as_bytes()), None);
    }
}

#[test]
fn a_server_that_was_faulty_revives_nothing() {
    returns_with_an_old_file(false);
}

#[test]
fn a_server_that_was_detached_revives_nothing() {
    returns_with_an_old_file(true);
}

#[test]
fn a_full_replace_leaves_everything_in_its_place() {
    let mut cluster = Cluster::start(4);
    let mut expected = fill(&mut cluster.client(), 200, 100);
    cluster.add_server();
    cluster
        .manager(Method::AttachNewServers, |out| method::AttachNewServers { replace: false, choice: None }.encode(out));
    cluster.manager(Method::StartReplace, |out| method::StartReplace { full: true }.encode(out));
    cluster.wait_replaced();
    assert_placed(&cluster, &expected);
    // Once more, among servers that all have everything already.
    let mut client = cluster.client();
    assert_eq!(client.delete(b"fill7"), Written::Bool(true));
    expected.insert(b"fill7".to_vec(), None);
    cluster.manager(Method::StartReplace, |out| method::StartReplace { full: true }.encode(out));
    wait_until("a server copies", || cluster.running().any(|server| status(server.address(), 11) == Some(4)));
    cluster.wait_replaced();
    assert_placed(&cluster, &expected);
}

#[test]
fn temporary_files_obey_their_limit_and_have_no_names() {
    const LIMIT: u64 = 1 << 20;
    let mut cluster = Cluster::start_with(1, 3, &["-M", "1"]);
    // Several times what the files may hold, and little enough to move in time on a busy machine.
    let expected = fill(&mut cluster.client(), 400, 16 << 10);
    cluster.add_server();
    cluster.start_attach();
    let pids: Vec<_> = cluster.servers.iter_mut().take(3).map(|server| server.process().pid()).collect();
    let mut largest = 0;
    wait_until("a source has sent everything", || {
        largest = largest.max(pids.iter().map(|pid| unnamed_bytes(*pid)).max().unwrap());
        cluster.spaces().0.seed() == cluster.spaces().1.seed()
    });
    cluster.wait_replaced();
    assert!(largest > 0, "no temporary file was seen within {PATIENCE:?}");
    assert!(largest <= LIMIT, "{largest} bytes");
    assert_placed(&cluster, &expected);
}

/// Bytes in files that a process has open and that have no name.
fn unnamed_bytes(pid: Pid) -> u64 {
    let files = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).into_iter().flatten().flatten();
    let unnamed = files
        .filter(|file| std::fs::read_link(file.path()).is_ok_and(|path| path.to_string_lossy().ends_with("(deleted)")));
    unnamed
        .filter_map(|file| std::fs::metadata(file.path()).ok())
        .filter(std::fs::Metadata::is_file)
        .map(|file| file.size())
        .sum()
}
