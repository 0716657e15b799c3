//! Set, get, delete and compare-and-swap on three servers: what is answered is so, on every owner.

use std::thread;

use kumo_server::clock::ClockTime;
use kumo_server::ring;
use kumo_server::wire::method::{self, ErrorCode, Method};
use kumo_server::wire::params::{Encode as _, SetOp};
use kumo_server::wire::{RecordValue, frame};

use crate::harness::cluster::{Cluster, Written, ask};
use crate::harness::scripted::Line;
use crate::harness::wait_until;

fn clocktime(written: Written) -> ClockTime {
    match written {
        Written::At(clocktime) => clocktime,
        other => panic!("{other:?}"),
    }
}

#[test]
fn three_servers_hold_exactly_three_copies() {
    let cluster = Cluster::start(4);
    let mut client = cluster.client();
    let keys: Vec<_> = (0..200).map(|index| format!("key{index}").into_bytes()).collect();
    for key in &keys {
        assert!(client.set(key, key).is_acknowledged());
    }
    cluster.assert_exactly(keys.iter().map(|key| (&key[..], &key[..])), 0);
    for key in &keys[..100] {
        assert_eq!(client.delete(key), Written::Bool(true));
        assert_eq!(client.get(key), None);
    }
    assert_eq!(client.delete(&keys[0]), Written::Bool(false));
    cluster.assert_exactly(keys[100..].iter().map(|key| (&key[..], &key[..])), 300);
}

#[test]
fn a_swap_succeeds_only_on_what_it_names() {
    let cluster = Cluster::start(3);
    let mut client = cluster.client();
    // Absent: zero adds, anything else fails.
    assert_eq!(client.cas(b"k", ClockTime::new(1_000_000_000, 7), b"no"), Written::Bool(false));
    assert_eq!(client.get(b"k"), None);
    let first = clocktime(client.cas(b"k", ClockTime(0), b"one"));
    assert_eq!(client.cas(b"k", ClockTime(0), b"no"), Written::Bool(false));
    let second = clocktime(client.cas(b"k", first, b"two"));
    assert!(first.is_before(second));
    assert_eq!(client.cas(b"k", first, b"no"), Written::Bool(false));
    cluster.assert_exactly([(&b"k"[..], &b"two"[..])], 0);
    // Deleted: as absent.
    assert_eq!(client.delete(b"k"), Written::Bool(true));
    assert_eq!(client.cas(b"k", second, b"no"), Written::Bool(false));
    assert!(client.cas(b"k", ClockTime(0), b"three").is_acknowledged());
    cluster.assert_exactly([(&b"k"[..], &b"three"[..])], 0);
}

#[test]
fn swaps_that_compete_count_exactly() {
    let cluster = Cluster::start(3);
    let adders: Vec<_> = (0..4)
        .map(|_| {
            let mut client = cluster.client();
            thread::spawn(move || {
                let mut added = 0;
                while added < 25 {
                    let owner = client.spaces.1.owners(ring::hash(b"counter")).coordinator().unwrap();
                    let found = client.get_from(owner.socket(), b"counter").unwrap();
                    let (clocktime, count) = found.map_or((ClockTime(0), 0), |value| {
                        let value = RecordValue::new(&value).unwrap();
                        (value.clocktime(), std::str::from_utf8(value.data()).unwrap().parse::<u32>().unwrap())
                    });
                    let written = client.cas(b"counter", clocktime, (count + 1).to_string().as_bytes());
                    assert_ne!(written, Written::Nil);
                    added += u32::from(written.is_acknowledged());
                }
            })
        })
        .collect();
    for adder in adders {
        adder.join().unwrap();
    }
    cluster.assert_exactly([(&b"counter"[..], &b"100"[..])], 0);
}

#[test]
fn writers_that_compete_leave_equal_copies() {
    let cluster = Cluster::start(3);
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let mut client = cluster.client();
            thread::spawn(move || {
                for round in 0..200 {
                    let op = if round % 3 == 0 { SetOp::Async } else { SetOp::Sync };
                    let written = client.set_op(op, b"hot", ClockTime(0), format!("{writer}.{round}").as_bytes());
                    assert!(written.is_acknowledged(), "{written:?}");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let mut client = cluster.client();
    let owners: Vec<_> = client.spaces.1.owners(ring::hash(b"hot")).active().collect();
    assert_eq!(owners.len(), 3);
    // The last asynchronous copies may still be under way.
    wait_until("all copies are equal", || {
        let copies: Vec<_> = owners.iter().map(|owner| client.get_from(owner.socket(), b"hot").unwrap()).collect();
        copies.iter().all(|copy| copy.is_some() && *copy == copies[0])
    });
}

#[test]
fn every_size_of_key_and_value_is_kept() {
    let cluster = Cluster::start(3);
    let mut client = cluster.client();
    // Around each form of a raw: the value on the wire is ten bytes longer, the key eight.
    let lengths =
        [0, 1, 21, 22, 23, 24, 31, 32, 245, 246, 247, 248, 255, 256, 65_525, 65_526, 65_527, 65_528, 65_535, 65_536];
    let mut records = Vec::new();
    for len in lengths.into_iter().chain([1 << 20]) {
        let key = format!("value of {len}").into_bytes();
        let value: Vec<_> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        assert!(client.set(&key, &value).is_acknowledged(), "{len}");
        assert_eq!(client.get(&key).as_deref(), Some(&value[..]), "{len}");
        records.push((key, value));
    }
    for len in lengths {
        let key = vec![b'k'; len];
        assert!(client.set(&key, b"v").is_acknowledged(), "key of {len}");
        records.push((key, b"v".to_vec()));
    }
    cluster.assert_exactly(records.iter().map(|(key, value)| (&key[..], &value[..])), 0);
}

#[test]
fn requests_go_to_owners_and_nobody_else() {
    let cluster = Cluster::start(5);
    let mut client = cluster.client();
    assert!(client.set(b"k", b"v").is_acknowledged());
    let owners: Vec<_> = client.spaces.1.owners(ring::hash(b"k")).active().collect();
    for server in cluster.running() {
        let address = server.address();
        let owner = owners.iter().any(|owner| owner.socket() == address);
        let found = client.get_from(address, b"k");
        assert_eq!(found.is_ok(), owner);
        if !owner {
            assert_eq!(found, Err(ErrorCode::Server));
        }
        let set = |out: &mut Vec<u8>| {
            method::Set { op: SetOp::Sync, key: &ring::raw_key(b"k"), value: &[0; 12], route: None }.encode(out);
        };
        let accepted = ask(address, Method::Set, set).unwrap();
        assert_eq!(accepted.is_ok(), owners[0].socket() == address);
    }
}

#[test]
fn pipelined_writes_to_one_key_take_effect_in_their_order() {
    let mut cluster = Cluster::start(1);
    let mut client = cluster.client();
    let keys: Vec<_> = (0..50).map(|index| format!("k{index}").into_bytes()).collect();
    for key in &keys {
        assert!(client.set(key, b"old").is_acknowledged());
    }
    // So that the records are on disk only: a deletion must read them first, a set need not.
    cluster.stop(0);
    cluster.start_server(0);
    cluster.wait_replaced();
    let mut client = cluster.client();
    let mut line = Line::connect(cluster.servers[0].address());
    let mut requests = Vec::new();
    for (msgid, key) in (0..).step_by(2).zip(&keys) {
        frame::request(&mut requests, msgid, &method::Delete { flags: 0, key: &ring::raw_key(key), route: None });
        frame::request(
            &mut requests,
            msgid + 1,
            &method::Set {
                op: SetOp::Sync,
                key: &ring::raw_key(key),
                value: &[&[0; 10], &b"new"[..]].concat(),
                route: None,
            },
        );
    }
    line.send(&requests);
    for _ in 0..2 * keys.len() {
        line.receive();
    }
    for key in &keys {
        assert_eq!(client.get(key).as_deref(), Some(&b"new"[..]), "{}", key.escape_ascii());
    }
}
