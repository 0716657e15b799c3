//! The load generator against servers that answer well, badly, and not at all.

use std::collections::HashMap;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use kumo_server::clock::ClockTime;
use kumo_server::ring::HashSpace;
use kumo_server::wire::method::{self, Method};
use kumo_server::wire::params::{Encode as _, Seed, SetOp};
use kumo_server::wire::record::{raw_value, tombstone};
use kumo_server::wire::{NodeAddress, frame, pack};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::cluster::{Cluster, status};
use crate::harness::scripted::{Answers, ScriptedNode};
use crate::harness::{Finished, Folder, Gateway, Port, Process, kumo_server, requests, wait_until};

/// What a scripted server does wrong, every tenth time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vice {
    None,
    /// Finds nothing.
    Loses,
    /// Answers the value of another key.
    Confuses,
    /// Answers what was there before the last write.
    Forgets,
}

/// Records in memory, as a server would hold them.
#[derive(Default)]
struct Memory {
    clock: u32,
    gets: u32,
    records: HashMap<Vec<u8>, Record>,
}

struct Record {
    value: Vec<u8>,
    /// What was there before.
    before: Option<Vec<u8>>,
}

impl Memory {
    fn live(&self, key: &[u8]) -> Option<&Vec<u8>> {
        self.records.get(key).map(|record| &record.value).filter(|value| value.len() > 8)
    }

    fn store(&mut self, key: &[u8], value: impl FnOnce(ClockTime) -> Vec<u8>) -> ClockTime {
        self.clock += 1;
        let clocktime = ClockTime::new(1_000_000_000, self.clock);
        let before = self.records.remove(key).map(|record| record.value);
        self.records.insert(key.to_vec(), Record { value: value(clocktime), before });
        clocktime
    }

    fn get(&mut self, key: &[u8], vice: Vice) -> Option<Vec<u8>> {
        self.gets += 1;
        match vice {
            _ if !self.gets.is_multiple_of(10) => self.live(key).cloned(),
            Vice::None => self.live(key).cloned(),
            Vice::Loses => None,
            Vice::Confuses => {
                self.records.iter().find(|(other, _)| *other != key).map(|(_, record)| record.value.clone())
            }
            Vice::Forgets => self.records.get(key).and_then(|record| record.before.clone()).or(self.live(key).cloned()),
        }
    }

    fn answer(&mut self, method: Method, params: &[u8], vice: Vice) -> Vec<u8> {
        let mut out = Vec::new();
        match method {
            Method::Get => match self.get(requests::get(params).key.bytes(), vice) {
                Some(value) => pack::raw(&mut out, &value),
                None => pack::nil(&mut out),
            },
            Method::Set => {
                let method::Set { op, key, value, .. } = requests::set(params);
                let held = self.live(key.bytes()).map_or(0, |value| u64::from_be_bytes(value[..8].try_into().unwrap()));
                if op == SetOp::Cas && ClockTime(held) != value.clocktime() {
                    pack::bool(&mut out, false);
                } else {
                    let clocktime = self.store(key.bytes(), |clocktime| raw_value(clocktime, 0, value.data()));
                    pack::uint(&mut out, clocktime.0);
                }
            }
            Method::Delete => {
                let method::Delete { key, .. } = requests::delete(params);
                let live = self.live(key.bytes()).is_some();
                self.store(key.bytes(), |clocktime| tombstone(clocktime).to_vec());
                pack::bool(&mut out, live);
            }
            other => panic!("{other:?}"),
        }
        out
    }
}

/// A server in this process that answers from `memory`, and counts its requests.
fn serve(port: &Port, memory: &Arc<Mutex<Memory>>, vice: Vice) -> (ScriptedNode, Arc<AtomicU64>) {
    let served = Arc::new(AtomicU64::new(0));
    let (memory, counted) = (memory.clone(), served.clone());
    let answers: Answers = Box::new(move |method, params| {
        counted.fetch_add(1, Ordering::Relaxed);
        Some(memory.lock().unwrap().answer(Method::from_number(method).unwrap(), params, vice))
    });
    (ScriptedNode::listen(port.address(), Vec::new(), answers), served)
}

fn bench(args: &str) -> Finished {
    let args: Vec<_> = ["bench"].into_iter().chain(args.split_whitespace()).collect();
    Process::run(&Folder::new(), &kumo_server(), &args)
}

fn report(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

/// A run of mixed requests against a server with a vice.
fn mixed_run(vice: Vice, more: &str) -> Finished {
    let port = Port::reserve();
    let _server = serve(&port, &Arc::default(), vice);
    bench(&format!("-s {} --load -n 50 -c 4 -P 8 --requests 3000 {more}", port.address()))
}

#[test]
fn a_good_server_is_found_good() {
    let finished = mixed_run(Vice::None, "--get 4 --set 3 --cas 2 --delete 1 --threads 2 --json");
    assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    let report = report(&finished);
    assert_eq!(report["requests"], 3000);
    assert_eq!(report["load"]["keys"], 50);
    assert_eq!(report["faults"], serde_json::json!({"wrong": 0, "missing": 0, "stale": 0}));
    assert_eq!(report["failures"], serde_json::json!({}));
    let sum: u64 = ["get", "set", "cas", "delete"]
        .iter()
        .map(|name| report["operations"][name]["requests"].as_u64().unwrap())
        .inspect(|requests| assert!(*requests > 200, "{report}"))
        .sum();
    assert_eq!(sum, 3000);
    let latency = &report["latency_us"];
    let order: Vec<_> = ["p50", "p90", "p99", "p99.9", "max"].map(|name| latency[name].as_f64().unwrap()).to_vec();
    assert!(order.is_sorted() && order[0] > 0.0, "{latency}");
}

#[test]
fn lost_confused_and_forgotten_records_are_found() {
    for (vice, fault, words) in [
        (Vice::Loses, "missing", "is absent"),
        (Vice::Confuses, "wrong", "does not begin with its key"),
        (Vice::Forgets, "stale", "was read with clocktime"),
    ] {
        let finished = mixed_run(vice, "--json");
        assert_eq!(finished.status.code(), Some(1), "{vice:?}: {finished:?}");
        let faults = report(&finished)["faults"].clone();
        assert!(faults[fault].as_u64().unwrap() > 50, "{vice:?}: {faults}");
        let shown = mixed_run(vice, "");
        assert_eq!(shown.status.code(), Some(1), "{vice:?}: {shown:?}");
        assert!(shown.stdout.contains(words), "{vice:?}: {shown:?}");
    }
}

#[test]
fn what_an_earlier_run_loaded_can_be_missed() {
    let port = Port::reserve();
    let _server = serve(&port, &Arc::default(), Vice::None);
    let run = |flags: &str| bench(&format!("-s {} -n 50 --mode get --requests 500 --json {flags}", port.address()));
    let untold = run("");
    assert_eq!(untold.status.code(), Some(0), "{untold:?}");
    assert_eq!(report(&untold)["operations"]["get"]["void"], 500);
    let told = run("--loaded");
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    assert_eq!(report(&told)["faults"]["missing"], 500);
}

#[test]
fn mistakes_are_one_line_and_status_2() {
    for (args, line) in [
        (
            "",
            "the following required arguments were not provided: <--manager1 <ADDR[:PORT]>|--server <ADDR[:PORT]>|--memcached <ADDR[:PORT]>>",
        ),
        ("-s 127.0.0.1 -c 0", "invalid value '0' for '-c <N>': 0 is not in 1..=65536"),
        ("-s 127.0.0.1 --mode get --set 1", "the argument '--mode <KIND>' cannot be used with '--set <PART>'"),
        ("-s 127.0.0.1 --get 0 --set 0", "every part of the mix is 0"),
        (
            "-s 127.0.0.1 -d 30000000",
            "3662 MiB of requests in flight, at most 1024 may be: fewer connections, less pipelining or smaller values",
        ),
    ] {
        let finished = bench(args);
        assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(2), ""), "{args}");
        let line = format!("kumo-server bench: {line}; try 'kumo-server bench --help'\n");
        assert_eq!(finished.stderr, line, "{args}");
    }
}

#[test]
fn nobody_there_is_one_line_and_status_1() {
    let port = Port::reserve();
    for (flag, role) in [("-s", "server"), ("-m", "manager")] {
        let finished = bench(&format!("{flag} {}", port.address()));
        assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(1), ""), "{finished:?}");
        let line = format!("kumo-server bench: {role} {}: Connection refused (os error 111)\n", port.address());
        assert_eq!(finished.stderr, line);
    }
}

/// A server that reads and never answers; after `patience` reads of a connection it closes that connection.
fn listen_silently(port: &Port, patience: usize) {
    let listener = TcpListener::bind(port.address()).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut chunk = [0; 4096];
                for _ in 0..patience {
                    if stream.read(&mut chunk).is_ok_and(|len| len > 0) {
                        continue;
                    }
                    return;
                }
            });
        }
    });
}

#[test]
fn a_server_that_hangs_or_hangs_up_is_given_up() {
    for (patience, failure) in [(usize::MAX, "no answer in time"), (1, "connection lost")] {
        let port = Port::reserve();
        listen_silently(&port, patience);
        let finished = bench(&format!("-s {} --timeout 0.3 -c 2 -P 2 --duration 60 --json", port.address()));
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        let report = report(&finished);
        assert_eq!((&report["gave_up"], &report["requests"]), (&Value::Bool(true), &Value::from(0)), "{report}");
        assert!(report["failures"][failure].as_u64().unwrap() >= 4, "{report}");
        assert!(report["seconds"].as_f64().unwrap() < 10.0, "{report}");
    }
}

/// A manager that names `seed` for writing and for reading.
fn manage(port: &Port, seed: &Seed) -> ScriptedNode {
    let seed = seed.clone();
    ScriptedNode::listen(
        port.address(),
        Vec::new(),
        Box::new(move |method, _| {
            assert_eq!(method, Method::HashSpaceRequest.number());
            let mut out = Vec::new();
            (&seed, &seed).encode(&mut out);
            Some(out)
        }),
    )
}

fn seed(servers: &[SocketAddr], clock: u32) -> Seed {
    let nodes = servers.iter().map(|server| (NodeAddress::new(*server), true)).collect();
    Seed { nodes, clocktime: ClockTime::new(1_000_000_000, clock) }
}

#[test]
fn each_request_goes_to_its_coordinator() {
    let (manager_port, ports) = (Port::reserve(), [Port::reserve(), Port::reserve(), Port::reserve()]);
    let seed = seed(&ports.each_ref().map(Port::address), 1);
    let space = HashSpace::new(seed.clone());
    let _manager = manage(&manager_port, &seed);
    let memories = ports.each_ref().map(|_| Arc::<Mutex<Memory>>::default());
    let _servers: Vec<_> = ports.iter().zip(&memories).map(|(port, memory)| serve(port, memory, Vice::None)).collect();
    let finished = bench(&format!("-m {} --load -n 300 -c 5 --requests 2000 --json", manager_port.address()));
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    assert_eq!(report(&finished)["servers"], 3);
    let mut keys = 0;
    for (port, memory) in ports.iter().zip(&memories) {
        let memory = memory.lock().unwrap();
        keys += memory.records.len();
        for key in memory.records.keys() {
            let hash = u64::from_be_bytes(key[..8].try_into().unwrap());
            assert_eq!(space.owners(hash).coordinator(), Some(NodeAddress::new(port.address())));
        }
    }
    assert_eq!(keys, 300);
}

#[test]
fn a_push_moves_requests_and_an_interrupt_prints_what_there_is() {
    let (manager_port, ports) = (Port::reserve(), [Port::reserve(), Port::reserve()]);
    let [old, new] = ports.each_ref().map(Port::address);
    let manager = manage(&manager_port, &seed(&[old], 1));
    // One memory for both: the records have moved already.
    let memory = Arc::default();
    let (_old, served_by_old) = serve(&ports[0], &memory, Vice::None);
    let (_new, served_by_new) = serve(&ports[1], &memory, Vice::None);
    let folder = Folder::new();
    let manager_address = manager_port.address().to_string();
    let args = ["bench", "-m", &manager_address, "-n", "100", "-c", "4", "--duration", "600", "--json"];
    let running = Process::spawn(&folder, "bench", &kumo_server(), &args);
    wait_until("requests come", || served_by_old.load(Ordering::Relaxed) > 100);
    assert_eq!(served_by_new.load(Ordering::Relaxed), 0);

    let mut push = Vec::new();
    frame::request_head(&mut push, 1, Method::HashSpacePush);
    let both = seed(&[old, new], 2);
    (&both, &both).encode(&mut push);
    manager.send(&push);
    wait_until("requests come to the new server", || served_by_new.load(Ordering::Relaxed) > 100);

    running.signal(Signal::INT);
    let finished = running.finish();
    assert_eq!(finished.status.code(), Some(130), "{finished:?}");
    let report = report(&finished);
    assert_eq!(report["interrupted"], true);
    assert!(report["route_changes"].as_u64().unwrap() >= 1, "{report}");
    assert!(report["requests"].as_u64().unwrap() > 200, "{report}");
}

#[test]
fn a_server_that_refuses_is_not_hammered() {
    let mut cluster = Cluster::start(0);
    let server = cluster.add_server();
    let address = cluster.servers[server].address();
    let finished = bench(&format!("-s {address} -c 2 -P 4 --duration 1 --json"));
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    let failures = report(&finished)["failures"].clone();
    let refused = failures["server error (not an owner, not ready, or storage)"].as_u64().unwrap();
    // Both connections send a batch of four at once, and then no more than one in each pause of 50 ms.
    assert!((8..=2 * 4 * 21).contains(&refused), "{failures}");
}

#[test]
fn a_real_cluster_is_found_good() {
    let cluster = Cluster::start(3);
    let manager = cluster.managers[0].0.address();
    let finished = bench(&format!(
        "-m {manager} --load -n 500 -c 6 -P 8 --get 5 --set 3 --cas 1 --delete 1 --distribution zipf --requests 5000 --json"
    ));
    assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    let report = report(&finished);
    assert_eq!((&report["requests"], &report["servers"]), (&Value::from(5000), &Value::from(3)), "{report}");
    assert_eq!(report["faults"], serde_json::json!({"wrong": 0, "missing": 0, "stale": 0}), "{report}");
}

#[test]
fn a_real_cluster_grows_under_checked_load() {
    let mut cluster = Cluster::start(2);
    cluster.add_server();
    let folder = Folder::new();
    let manager = cluster.managers[0].0.address().to_string();
    let mix = "--load -n 500 -c 6 -P 4 --get 5 --set 3 --cas 1 --delete 1 --duration 600 --json";
    let args: Vec<_> = ["bench", "-m", &manager].into_iter().chain(mix.split_whitespace()).collect();
    let running = Process::spawn(&folder, "bench", &kumo_server(), &args);
    let sets = |server: usize| status(cluster.servers[server].address(), 5).unwrap_or(0);
    wait_until("writes come", || sets(0) > 1000 && sets(1) > 100);
    cluster.attach();
    let before = sets(2);
    wait_until("writes come to the new server", || sets(2) > before + 500);
    running.signal(Signal::TERM);
    let finished = running.finish();
    let report = report(&finished);
    // Requests that were under way when the routes changed may be refused, never answered wrongly.
    assert_eq!(report["faults"], serde_json::json!({"wrong": 0, "missing": 0, "stale": 0}), "{report}");
    assert_eq!((&report["interrupted"], &report["servers"]), (&Value::Bool(true), &Value::from(3)), "{report}");
}

#[test]
fn each_part_of_a_run_is_reported() {
    let port = Port::reserve();
    let _server = serve(&port, &Arc::default(), Vice::None);
    let run = |flags: &str| bench(&format!("-s {} -n 50 -c 4 -t 2 --interval 0.1 {flags}", port.address()));
    let timed = report(&run("--duration 0.55 --json"));
    let parts = timed["intervals"].as_array().unwrap();
    assert!((2..=6).contains(&parts.len()), "{timed}");
    let sum = |name: &str| parts.iter().map(|part| part[name].as_f64().unwrap()).sum::<f64>();
    let is_about = |seen: f64, expected: &Value| (seen - expected.as_f64().unwrap()).abs() < 1e-6;
    assert!(is_about(sum("requests"), &timed["requests"]) && is_about(sum("seconds"), &timed["seconds"]), "{timed}");
    let people = run("--requests 200").stdout;
    assert!(people.lines().any(|line| line.starts_with("0-")), "{people}");
}

#[test]
fn copies_in_the_name_of_an_active_node_are_taken_and_read_back() {
    // Where servers vote they take no copies from who is no server.
    let mut cluster = Cluster::start_managed(1, 2, &["--compatible"]);
    let [server, other] = [0, 1].map(|server| cluster.servers[server].address());
    let copies = bench(&format!("-s {server} --replicate-as {other} --load -n 300 -c 3 -P 8 --requests 3000 --json"));
    assert_eq!((copies.status.code(), copies.stderr.as_str()), (Some(0), ""), "{copies:?}");
    let written = report(&copies);
    assert_eq!((&written["load"]["keys"], &written["requests"]), (&Value::from(300), &Value::from(3000)), "{written}");
    // Of two copies of one key on their way at once, the later one may arrive first.
    assert!(written["operations"]["replicate"]["void"].as_u64().unwrap() < 1000, "{written}");
    assert_eq!(status(server, 5), Some(0), "nothing was set by a client");
    let read = bench(&format!("-s {server} --mode get --loaded -n 300 --requests 1000 --json"));
    assert_eq!(read.status.code(), Some(0), "{read:?}");
    cluster.kill(1);
    cluster.wait_faulty(1);
    for stranger in [other, "127.0.0.1:9".parse().unwrap()] {
        let refused = bench(&format!("-s {server} --replicate-as {stranger} -n 300 --requests 10 --json"));
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    }
}

/// Values of all lengths through a gateway, judged as those of a server are; the servers' clocktimes are its CAS uniques.
#[test]
fn a_gateway_is_measured_and_checked_in_the_text_protocol() {
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &[]);
    let address = gateway.port.address().to_string();
    for (more, requests) in [("--load --get 6 --set 3 --cas 2 --delete 1", 3000), ("--get 9 --set 1 --multiget", 2000)]
    {
        let requests = requests.to_string();
        let mut args =
            vec!["bench", "--memcached", &address, "-n", "300", "-c", "4", "--requests", &requests, "--json"];
        args.extend(more.split_whitespace());
        let finished = Process::run(cluster.folder(), &kumo_server(), &args);
        assert!(finished.status.success(), "{finished:?}");
        let report: Value = serde_json::from_str(&finished.stdout).expect("a report");
        assert_eq!(report["requests"].as_u64(), Some(requests.parse().unwrap()), "{report}");
    }
}
