//! A gateway while servers die, hang and come, and managers go: no request fails that a retry can save.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kumo_server::binlog::{Entries, Entry, Value};
use rustix::process::Signal;

use crate::harness::cluster::Cluster;
use crate::harness::{Folder, Gateway, Manager, Port, wait_until};

/// Clients that write and read in the background. Every answer must be the right one.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU32>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Load {
    fn start(gateway: &Gateway, clients: u32) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let threads = (0..clients)
            .map(|number| {
                let (stop, done, mut client) = (stop.clone(), done.clone(), gateway.client());
                thread::spawn(move || {
                    let mut longest = Duration::ZERO;
                    for round in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let (key, value) = (format!("load{number}-{}", round % 50), round.to_string());
                        let started = Instant::now();
                        client.set(&key, &value);
                        assert_eq!(client.get(&key).as_deref(), Some(&value[..]));
                        longest = longest.max(started.elapsed());
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    longest
                })
            })
            .collect();
        Self { stop, done, threads }
    }

    /// Waits until this much more has been done.
    fn go_on(&self, more: u32) {
        let until = self.done.load(Ordering::Relaxed) + more;
        wait_until("the load goes on", || {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "a client has failed");
            self.done.load(Ordering::Relaxed) >= until
        });
    }

    /// Ends; returns the longest that any one write and read took.
    fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().expect("a client without a failure")).max().unwrap()
    }
}

#[test]
fn a_server_that_is_killed_fails_no_request() {
    let mut cluster = Cluster::start(4);
    let gateway = Gateway::of(&cluster, &[]);
    let load = Load::start(&gateway, 4);
    load.go_on(200);
    cluster.kill(1);
    load.go_on(400);
    cluster.wait_faulty(1);
    load.go_on(200);
    // It comes back, and is attached: the hash space reaches the gateway without a restart.
    cluster.start_server(1);
    wait_until("the server is back", || cluster.nodes_info().1.len() == 1);
    cluster.attach();
    load.go_on(200);
    let longest = load.stop();
    assert!(longest < Duration::from_secs(8), "{longest:?}");
    assert_eq!((gateway.stat("failed_requests"), gateway.stat("servers_active")), (0, 4));
}

#[test]
fn a_server_that_hangs_holds_no_read_for_long() {
    let mut cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &[]);
    let mut client = gateway.client();
    let keys: Vec<_> = (0..60).map(|index| format!("key{index}")).collect();
    for key in &keys {
        client.set(key, key);
    }
    // Until it has told the others that these writes are on all owners, they show no key that it coordinates.
    std::thread::sleep(Duration::from_secs(1));
    // The manager hangs too, so that nobody declares the server faulty: the gateway must see for itself.
    cluster.managers[0].1.as_ref().unwrap().hang();
    cluster.servers[0].process().hang();
    let started = Instant::now();
    for _ in 0..3 {
        for key in &keys {
            assert_eq!(client.get(key).as_ref(), Some(key));
        }
    }
    // One read waited for the server that hangs; those after it did not ask it.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(gateway.stat("servers_suspect"), 1);
    cluster.servers[0].process().signal(Signal::CONT);
    cluster.managers[0].1.as_ref().unwrap().signal(Signal::CONT);
    wait_until("the server is trusted again", || gateway.stat("servers_suspect") == 0);
    client.set("key0", "x");
}

#[test]
fn writes_to_a_server_that_hangs_go_on_when_it_is_given_up() {
    let mut cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &[]);
    let load = Load::start(&gateway, 3);
    load.go_on(100);
    cluster.servers[2].process().hang();
    cluster.wait_faulty(2);
    load.go_on(100);
    load.stop();
    assert_eq!(gateway.stat("failed_requests"), 0);
}

#[test]
fn without_managers_it_serves_with_what_it_knows() {
    let mut cluster = Cluster::start_with(2, 3, &[]);
    let gateway = Gateway::of(&cluster, &[]);
    let load = Load::start(&gateway, 2);
    load.go_on(50);
    for manager in &mut cluster.managers {
        manager.1.take().unwrap().signal(Signal::KILL);
    }
    load.go_on(200);
    load.stop();
    wait_until("the log says so", || gateway.process.stdout().contains("no manager answers"));
    assert_eq!(gateway.stat("failed_requests"), 0);
}

#[test]
fn without_managers_it_follows_the_servers() {
    let mut cluster = Cluster::start_with(2, 2, &[]);
    // It knows the first manager alone.
    let gateway = Gateway::start(cluster.folder(), &[cluster.managers[0].0.address()], &[]);
    let load = Load::start(&gateway, 2);
    load.go_on(50);
    cluster.managers[0].1.take().unwrap().signal(Signal::KILL);
    cluster.add_server();
    cluster.attach();
    // Some keys have another coordinator now, and those that had it refuse them.
    load.go_on(200);
    load.stop();
    assert_eq!(gateway.stat("failed_requests"), 0);
}

#[test]
fn requests_wait_for_a_cluster_that_is_not_there_yet_and_not_for_ever() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let gateway = Gateway::start(&folder, &[port.address()], &["-G", "1", "-S", "1", "-D", "1", "-g", "gw.mpac"]);
    let mut client = gateway.client();
    let started = Instant::now();
    client.exchange(b"get a\r\n", b"SERVER_ERROR no server of this key can be reached\r\n");
    client.exchange(b"set a 0 0 1\r\nx\r\n", b"SERVER_ERROR no server of this key can be reached\r\n");
    client.exchange(b"incr a 1\r\nmn\r\n", b"SERVER_ERROR no server of this key can be reached\r\nMN\r\n");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    client.exchange(b"delete b\r\n", b"SERVER_ERROR no server of this key can be reached\r\n");
    // What was given up can be looked up.
    let log = std::fs::read(folder.join("gw.mpac")).unwrap();
    let entries: Vec<_> = Entries::new(&log[..]).map(|entry| entry.unwrap()).collect();
    let shown = |entry: &Entry| (entry.name.clone(), entry.field("key").cloned(), entry.field("val").cloned());
    let raw = |bytes: &[u8]| Some(Value::Raw(bytes.to_vec()));
    assert_eq!(entries[0].name, "SW");
    assert_eq!(
        entries[1..].iter().map(shown).collect::<Vec<_>>(),
        [
            ("eg".to_owned(), raw(b"a"), None),
            ("es".to_owned(), raw(b"a"), raw(b"x")),
            ("es".to_owned(), raw(b"a"), raw(b"")),
            ("ed".to_owned(), raw(b"b"), None),
        ]
    );
    assert!(entries[1..].iter().all(|entry| entry.field("err") == Some(&Value::Uint(6))));
    // A manager without servers is no better, and no worse.
    let _manager = Manager::start(&folder, "manager", &port, "");
    client.exchange(b"get a\r\n", b"SERVER_ERROR no server of this key can be reached\r\n");
}

#[test]
fn a_server_that_is_attached_is_used_without_a_restart() {
    let mut cluster = Cluster::start(1);
    let gateway = Gateway::of(&cluster, &[]);
    let load = Load::start(&gateway, 2);
    load.go_on(100);
    for _ in 0..2 {
        cluster.add_server();
    }
    cluster.attach();
    load.go_on(100);
    cluster.kill(0);
    load.go_on(100);
    load.stop();
    assert_eq!(gateway.stat("failed_requests"), 0);
}
