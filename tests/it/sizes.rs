//! Messages that a node would refuse for their length are refused by whoever would send them: whoever asked hears it at
//! once and by name, and no connection that others use is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kumo_server::ring;
use kumo_server::wire::method::{self, ErrorCode, Method};
use kumo_server::wire::params::{Encode as _, SetOp};
use kumo_server::wire::record::raw_value;
use kumo_server::wire::{NodeAddress, RecordValue, frame};

use crate::harness::cluster::{Client, Cluster, Written, ask};
use crate::harness::{Gateway, wait_until};

const MIB: usize = 1 << 20;
/// The servers that take the least.
const SMALL: &[&str] = &["--max-message", "1"];

/// Longer than any of this takes, and shorter than anything that is tried again until its time is up.
const AT_ONCE: Duration = Duration::from_secs(8);

/// Asserts that no server has closed a connection for a message that was too long.
fn assert_none_cut(cluster: &mut Cluster) {
    for server in &mut cluster.servers {
        let log = server.process().stdout();
        assert!(!log.contains("message longer"), "{log}");
    }
}

/// The coordinator of `key`, and a key that `wanted` is the coordinator of.
fn key_of(client: &Client, wanted: NodeAddress) -> Vec<u8> {
    let keys = (0..).map(|number| format!("k{number}").into_bytes());
    let coordinator = |key: &[u8]| client.spaces.0.owners(ring::hash(key)).coordinator();
    keys.into_iter().find(|key| coordinator(key) == Some(wanted)).unwrap()
}

/// How long a Set of this key with `length` bytes of data is, in a client's first request.
fn set_message(key: &[u8], length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    frame::request_head(&mut out, 1, Method::Set);
    let value = raw_value(kumo_server::clock::ClockTime(0), 0, &vec![b'x'; length]);
    method::Set { op: SetOp::Sync, key: &ring::raw_key(key), value: &value, route: None }.encode(&mut out);
    out
}

#[test]
fn a_value_that_is_too_large_for_the_servers_is_refused_by_the_gateway_and_nobody_else_notices() {
    let mut cluster = Cluster::start_with(1, 3, SMALL);
    let gateway = Gateway::of(&cluster, &[]);
    gateway.client().set("counter", "0");
    gateway.client().set("big", "old");
    let stop = Arc::new(AtomicBool::new(false));
    let others: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, stop) = (gateway.client(), stop.clone());
            std::thread::spawn(move || {
                let mut answers = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    answers.push(client.line(b"incr counter 1\r\n"));
                }
                answers
            })
        })
        .collect();
    let started = Instant::now();
    let mut client = gateway.client();
    let value = vec![b'x'; MIB];
    for command in ["set big 0 0", "add new 0 0"] {
        let answer = client.line(&[format!("{command} {MIB}\r\n").as_bytes(), &value, b"\r\n"].concat());
        let (text, limit) = answer.split_once(": its limit is ").expect(&answer);
        assert!(text.starts_with("SERVER_ERROR object too large for server 127.0.0.1:"), "{answer}");
        assert_eq!(limit, format!("{MIB} bytes"));
    }
    // One that becomes too large.
    let half = vec![b'y'; MIB / 2];
    let put = |command: &str| [format!("{command} half 0 0 {}\r\n", half.len()).as_bytes(), &half, b"\r\n"].concat();
    assert_eq!(client.line(&put("set")), "STORED");
    assert!(client.line(&put("append")).starts_with("SERVER_ERROR object too large for server"), "append");
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    assert_eq!(client.get("big"), None, "what a set was to replace must not be read any more");
    assert_eq!(client.get("half").map(|value| value.len()), Some(half.len()));
    stop.store(true, Ordering::Relaxed);
    for other in others {
        for answer in other.join().unwrap() {
            assert!(answer.parse::<u64>().is_ok(), "{answer}");
        }
    }
    assert_none_cut(&mut cluster);
}

#[test]
fn a_set_of_exactly_the_limit_is_stored_on_all_owners() {
    let mut cluster = Cluster::start_with(1, 3, SMALL);
    let mut client = cluster.client();
    let around = set_message(b"key", MIB).len() - MIB;
    let data = vec![b'x'; MIB - around];
    assert_eq!(set_message(b"key", data.len()).len(), MIB);
    let written = client.set(b"key", &data);
    assert!(matches!(written, Written::At(_)), "{written:?}");
    for owner in client.spaces.0.owners(ring::hash(b"key")).active().collect::<Vec<_>>() {
        let found = client.get_from(owner.socket(), b"key").unwrap().expect("a copy");
        assert!(RecordValue::new(&found).unwrap().data() == data, "{owner}");
    }
    assert_none_cut(&mut cluster);
}

#[test]
fn a_coordinator_refuses_what_a_replica_does_not_take_before_it_is_stored() {
    let mut cluster = Cluster::start_with(1, 0, &["--max-message", "4"]);
    let large = cluster.add_server();
    cluster.add_server();
    let small = cluster.add_server_with(SMALL);
    cluster.attach();
    let mut client = cluster.client();
    let coordinator = NodeAddress::new(cluster.servers[large].address());
    let key = key_of(&client, coordinator);
    let started = Instant::now();
    let refused = client.set(&key, &vec![b'x'; 2 * MIB]);
    assert_eq!(refused, Written::Error(ErrorCode::Protocol));
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    for server in &cluster.servers {
        assert_eq!(client.get_from(server.address(), &key), Ok(None), "stored on {}", server.address());
    }
    let log = cluster.servers[large].process().stdout();
    let named = format!("too large for server {}", cluster.servers[small].address());
    assert!(log.contains(&named), "{log}");
    assert_none_cut(&mut cluster);
}

#[test]
fn a_replace_names_the_server_that_does_not_take_a_record_and_copies_the_others() {
    let mut cluster = Cluster::start_with(1, 2, &["--max-message", "4"]);
    let mut client = cluster.client();
    client.set_surely(&cluster, b"large", &vec![b'x'; 2 * MIB]);
    for number in 0..100 {
        client.set_surely(&cluster, format!("small{number}").as_bytes(), b"value");
    }
    let small = cluster.add_server_with(SMALL);
    let address = cluster.servers[small].address();
    cluster.start_attach();
    let named = format!("not copied: too large for server {address}");
    wait_until("a server says so", || {
        cluster.servers[..2].iter_mut().any(|server| server.process().stdout().contains(&named))
    });
    wait_until("the copy has failed", || {
        let failed = "replace: copying failed, nothing will be deleted: a record is too large for server";
        cluster.servers[..2].iter_mut().any(|server| server.process().stdout().contains(failed))
    });
    for server in &cluster.servers[..2] {
        let found = client.get_from(server.address(), b"large").unwrap();
        assert!(found.is_some(), "deleted on {}", server.address());
    }
    // Those that fit are there.
    wait_until("the others are copied", || {
        let items =
            ask(address, Method::GetStatus, |out| method::GetStatus { number: 7 }.encode(out)).unwrap().unwrap();
        items[..] == [100]
    });
    assert_none_cut(&mut cluster);
}

#[test]
fn a_server_that_comes_back_with_another_limit_is_known_by_it() {
    let mut cluster = Cluster::start_with(1, 3, &[]);
    let gateway = Gateway::of(&cluster, &["--max-item-size", "4m"]);
    let mut client = gateway.client();
    let set = [format!("set big 0 0 {}\r\n", 2 * MIB).as_bytes(), &vec![b'x'; 2 * MIB], b"\r\n"].concat();
    assert_eq!(client.line(&set), "STORED");
    cluster.stop(0);
    cluster.wait_faulty(0);
    cluster.servers[0].add_flags(SMALL);
    cluster.start_server(0);
    let address = cluster.servers[0].address();
    cluster.wait_known(0);
    cluster.start_attach();
    wait_until("the gateway refuses by name", || {
        client.line(&set) == format!("SERVER_ERROR object too large for server {address}: its limit is {MIB} bytes")
    });
    assert_none_cut(&mut cluster);
}
