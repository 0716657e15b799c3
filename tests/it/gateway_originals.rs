//! A gateway on servers of 2010, which refuse a compare-and-swap of what is deleted: every change takes place all the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use kumo_server::clock::{ClockTime, unix_seconds};
use kumo_server::wire::method::{self, Method};
use kumo_server::wire::params::{self, Encode as _, Seed, SetOp};
use kumo_server::wire::record::raw_value;
use kumo_server::wire::{NodeAddress, pack};

use crate::harness::scripted::ScriptedNode;
use crate::harness::{Folder, Gateway, Port, requests};

/// The records of an original server; a deleted one is there without a value.
#[derive(Default)]
struct Records {
    clock: u32,
    by_key: HashMap<Vec<u8>, (ClockTime, Option<Vec<u8>>)>,
    /// Swaps that a tombstone has refused.
    refused: u32,
}

impl Records {
    fn stamp(&mut self) -> ClockTime {
        self.clock += 1;
        ClockTime::new(unix_seconds(), self.clock)
    }

    /// The result of a request (protocol, section 7, and what differs in the original).
    fn answer(&mut self, method: Method, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match method {
            Method::Get => {
                let found = self.by_key.get(requests::get(bytes).key.bytes());
                match found {
                    Some((stored, Some(data))) => pack::raw(&mut out, &raw_value(*stored, 0, data)),
                    _ => pack::nil(&mut out),
                }
            }
            Method::GetIfModified => {
                let method::GetIfModified { key, clocktime: known } = requests::get_if_modified(bytes);
                match self.by_key.get(key.bytes()) {
                    Some((stored, _)) if !known.is_before(*stored) => pack::bool(&mut out, true),
                    Some((stored, Some(data))) => pack::raw(&mut out, &raw_value(*stored, 0, data)),
                    _ => pack::nil(&mut out),
                }
            }
            Method::Set => {
                let method::Set { op, key, value, route } = requests::set(bytes);
                assert_eq!(route, None, "an original gets what it always got");
                let matches = match (op, self.by_key.get(key.bytes())) {
                    (SetOp::Cas, Some((stored, Some(_)))) => *stored == value.clocktime(),
                    (SetOp::Cas, Some((_, None))) => {
                        self.refused += 1;
                        false
                    }
                    _ => true,
                };
                if matches {
                    let stamp = self.stamp();
                    self.by_key.insert(key.bytes().to_vec(), (stamp, Some(value.data().to_vec())));
                    pack::uint(&mut out, stamp.0);
                } else {
                    pack::bool(&mut out, false);
                }
            }
            Method::Delete => {
                let method::Delete { key, route, .. } = requests::delete(bytes);
                assert_eq!(route, None, "an original gets what it always got");
                let stamp = self.stamp();
                self.by_key.insert(key.bytes().to_vec(), (stamp, None));
                pack::bool(&mut out, true);
            }
            // The process id, and nil for numbers that it does not know.
            Method::GetStatus if params::decode::<method::GetStatus>(bytes).unwrap().number == 0 => {
                pack::uint(&mut out, 1);
            }
            Method::GetStatus => pack::nil(&mut out),
            other => panic!("{other:?} is not for servers"),
        }
        out
    }
}

struct Stage {
    records: Arc<Mutex<Records>>,
    gateway: Gateway,
    _nodes: [ScriptedNode; 2],
    _ports: [Port; 2],
    _folder: Folder,
}

/// A manager, one original server and a gateway with these flags.
fn stage(flags: &[&str]) -> Stage {
    let (folder, manager, server) = (Folder::new(), Port::reserve(), Port::reserve());
    let seed = Seed { nodes: vec![(NodeAddress::new(server.address()), true)], clocktime: ClockTime::new(9, 1) };
    let spaces = move |_: u32, _: &[u8]| {
        let mut out = Vec::new();
        (&seed, &seed).encode(&mut out);
        Some(out)
    };
    let records = Arc::new(Mutex::new(Records::default()));
    let stored = records.clone();
    let serve = move |method: u32, bytes: &[u8]| {
        Some(stored.lock().unwrap().answer(Method::from_number(method).unwrap(), bytes))
    };
    let nodes = [
        ScriptedNode::listen(manager.address(), Vec::new(), Box::new(spaces)),
        ScriptedNode::listen(server.address(), Vec::new(), Box::new(serve)),
    ];
    let gateway = Gateway::start(&folder, &[manager.address()], &[&["-S", "5"], flags].concat());
    Stage { records, gateway, _nodes: nodes, _ports: [manager, server], _folder: folder }
}

const LAYOUTS: [&[&str]; 2] = [&["-F", "-E"], &[]];

#[test]
fn every_change_of_a_deleted_key_takes_place() {
    for flags in LAYOUTS {
        let stage = stage(flags);
        let mut client = stage.gateway.client();
        let mut delete = |line: &[u8], answer: &str, value: &str| {
            client.line(b"set k 0 0 1\r\nx\r\n");
            assert_eq!(client.line(b"delete k\r\n"), "DELETED");
            assert_eq!(client.line(line), answer, "{} with {flags:?}", line.escape_ascii());
            let found = client.ask(b"get k\r\n", b"END\r\n");
            let expected =
                if value.is_empty() { "END\r\n".to_owned() } else { format!("VALUE k 0 1\r\n{value}\r\nEND\r\n") };
            assert_eq!(found, expected, "{} with {flags:?}", line.escape_ascii());
        };
        delete(b"add k 0 0 1\r\na\r\n", "STORED", "a");
        delete(b"ms k 1 ME\r\nb\r\n", "HD", "b");
        delete(b"ma k N0 J7\r\n", "HD", "7");
        delete(b"set k 0 0 1\r\nc\r\n", "STORED", "c");
        // What needs an item has none.
        delete(b"cas k 0 0 1 12345\r\nd\r\n", "NOT_FOUND", "");
        delete(b"append k 0 0 1\r\ne\r\n", "NOT_STORED", "");
        delete(b"incr k 1\r\n", "NOT_FOUND", "");
        assert!(stage.records.lock().unwrap().refused >= 3, "the tombstones were in the way");
    }
}

#[test]
fn what_is_there_is_not_added_over() {
    for flags in LAYOUTS {
        let stage = stage(flags);
        let mut client = stage.gateway.client();
        assert_eq!(client.line(b"add k 0 0 1\r\na\r\n"), "STORED");
        assert_eq!(client.line(b"add k 0 0 1\r\nb\r\n"), "NOT_STORED");
        client.line(b"delete k\r\n");
        assert_eq!(client.line(b"add k 0 0 1\r\nc\r\n"), "STORED");
        assert_eq!(client.line(b"add k 0 0 1\r\nd\r\n"), "NOT_STORED");
        assert_eq!(client.ask(b"get k\r\n", b"END\r\n"), "VALUE k 0 1\r\nc\r\nEND\r\n");
    }
}

#[test]
fn of_many_adds_through_one_gateway_one_takes_place() {
    for flags in LAYOUTS {
        let stage = stage(flags);
        for round in 0..10 {
            let key = format!("k{round}");
            let mut client = stage.gateway.client();
            client.line(format!("set {key} 0 0 1\r\nx\r\n").as_bytes());
            assert_eq!(client.line(format!("delete {key}\r\n").as_bytes()), "DELETED");
            let adding: Vec<_> = (0..8)
                .map(|number| {
                    let (mut client, line) = (stage.gateway.client(), format!("add {key} 0 0 1\r\n{number}\r\n"));
                    std::thread::spawn(move || client.line(line.as_bytes()) == "STORED")
                })
                .collect();
            let stored = adding.into_iter().map(|adder| adder.join().unwrap()).filter(|stored| *stored);
            assert_eq!(stored.count(), 1, "round {round} with {flags:?}");
        }
    }
}
