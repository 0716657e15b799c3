//! The gateway on a real cluster: what clients see, in which order, and what servers are sent.

use std::sync::mpsc::channel;

use kumo_server::clock::ClockTime;
use kumo_server::wire::method::Method;
use kumo_server::wire::params::{Encode as _, Seed};
use kumo_server::wire::{Message, NodeAddress};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::gateway::Memcached;
use crate::harness::scripted::{ScriptedNode, hex, unhex};
use crate::harness::{Folder, Gateway, Port, Process, kumo_server, wait_until};

#[test]
fn what_one_client_stores_is_there_for_all() {
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &["-b", "127.0.0.1:0"]);
    let mut client = gateway.client();
    client.exchange(b"set a 7 0 3\r\none\r\nset empty 0 0 0\r\n\r\n", b"STORED\r\nSTORED\r\n");
    client.exchange(
        b"get nothing a empty a\r\n",
        b"VALUE a 7 3\r\none\r\nVALUE empty 0 0\r\n\r\nVALUE a 7 3\r\none\r\nEND\r\n",
    );
    let second = Gateway::of(&cluster, &[]);
    let mut other = second.client();
    other.exchange(b"get a\r\n", b"VALUE a 7 3\r\none\r\nEND\r\n");
    let head = other.ask(b"gets a\r\n", b"END\r\n");
    let unique = head.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    client.exchange(format!("cas a 1 0 3 {unique}\r\ntwo\r\n").as_bytes(), b"STORED\r\n");
    other.exchange(format!("cas a 1 0 3 {unique}\r\nbad\r\n").as_bytes(), b"EXISTS\r\n");
    other.exchange(b"get a\r\n", b"VALUE a 1 3\r\ntwo\r\nEND\r\n");
    client.exchange(b"delete a\r\ndelete a\r\nget a\r\n", b"DELETED\r\nNOT_FOUND\r\nEND\r\n");
    client.exchange(format!("cas a 1 0 3 {unique}\r\nbad\r\n").as_bytes(), b"NOT_FOUND\r\n");
    client.exchange(b"add n 0 0 1\r\n5\r\nadd n 0 0 1\r\n6\r\n", b"STORED\r\nNOT_STORED\r\n");
    client.exchange(b"incr n 37\r\ndecr n 40\r\nincr none 1\r\n", b"42\r\n2\r\nNOT_FOUND\r\n");
    client.exchange(b"append n 0 0 1\r\n3\r\nprepend n 0 0 1\r\n1\r\n", b"STORED\r\nSTORED\r\n");
    client.exchange(b"get n\r\nflush_all\r\n", b"VALUE n 0 3\r\n123\r\nEND\r\nCLIENT_ERROR flush_all not allowed\r\n");
    // What is stored is in the cluster, not in the gateway.
    let found = cluster.client().get(b"n").expect("a record");
    assert_eq!(found, b"\0\0\0\0\0\x00123");
}

#[test]
fn many_requests_at_once_are_answered_in_order_and_those_for_one_key_done_in_order() {
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &[]);
    let mut client = gateway.client();
    let (mut request, mut answer) = (Vec::new(), Vec::new());
    for round in 0..300 {
        let key = round % 7;
        request.extend(format!("set k{key} 0 0 3\r\n{round:03}\r\nget k{key} missing\r\n").bytes());
        answer.extend(format!("STORED\r\nVALUE k{key} 0 3\r\n{round:03}\r\nEND\r\n").bytes());
        request.extend(b"incr n 1\r\nset n 0 0 1 noreply\r\n5\r\ndelete gone noreply\r\n");
        answer.extend(if round == 0 { &b"NOT_FOUND\r\n"[..] } else { b"6\r\n" });
    }
    client.exchange(&request, &answer);
    // The same in pieces that end anywhere, and with the end of the input right behind.
    let (first, rest) = request.split_at(request.len() / 3 + 1);
    client.send(first);
    client.send(rest);
    client.end();
    let answers = client.rest();
    assert_eq!(answers.len(), answer.len() - b"NOT_FOUND\r\n".len() + b"6\r\n".len());
    assert!(answers.ends_with(b"VALUE k5 0 3\r\n299\r\nEND\r\n6\r\n"), "{:?}", answers.escape_ascii().to_string());
}

#[test]
fn counting_from_many_connections_loses_nothing() {
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &[]);
    let other = Gateway::of(&cluster, &[]);
    gateway.client().set("n", "0");
    let count = |gateway: &Gateway| {
        let mut client = gateway.client();
        for _ in 0..200 {
            let answer = client.line(b"incr n 1\r\n");
            assert!(answer.parse::<u32>().is_ok(), "{answer}");
        }
    };
    std::thread::scope(|scope| {
        for gateway in [&gateway, &gateway, &gateway, &other] {
            scope.spawn(move || count(gateway));
        }
    });
    assert_eq!(gateway.client().get("n").as_deref(), Some("800"));
}

/// More keys than may be under way at once, the first and the last of them there.
#[test]
fn a_multi_get_may_have_any_number_of_keys() {
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &[]);
    let mut client = gateway.client();
    client.set("key0", "first");
    client.set("key4999", "last");
    let keys: Vec<_> = (0..5000).map(|index| format!("key{index}")).collect();
    client.exchange(
        format!("get {}\r\nmn\r\n", keys.join(" ")).as_bytes(),
        b"VALUE key0 0 5\r\nfirst\r\nVALUE key4999 0 4\r\nlast\r\nEND\r\nMN\r\n",
    );
}

/// Without a turn for each, two hundred connections would mostly learn that somebody else was faster.
#[test]
fn many_connections_may_count_at_once() {
    let cluster = Cluster::start(1);
    let gateway = Gateway::of(&cluster, &[]);
    gateway.client().set("n", "0");
    let mut clients: Vec<_> = (0..200).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send(&b"incr n 1\r\n".repeat(3));
    }
    for client in &mut clients {
        for _ in 0..3 {
            let answer = client.line(b"");
            assert!(answer.parse::<u32>().is_ok(), "{answer}");
        }
    }
    assert_eq!(gateway.client().get("n").as_deref(), Some("600"));
    assert_eq!(gateway.stat("contended_changes"), 0);
}

#[test]
fn a_flush_hides_what_was_there_and_nothing_that_comes_after() {
    let cluster = Cluster::start(1);
    let gateway = Gateway::of(&cluster, &["--allow-flush"]);
    let mut client = gateway.client();
    client.set("a", "old");
    client.set("b", "1");
    client.exchange(
        b"flush_all\r\nget a\r\nadd a 0 0 3\r\nnew\r\nget a\r\nincr b 1\r\nreplace b 0 0 1\r\n1\r\ndelete b\r\n",
        b"OK\r\nEND\r\nSTORED\r\nVALUE a 0 3\r\nnew\r\nEND\r\nNOT_FOUND\r\nNOT_STORED\r\nNOT_FOUND\r\n",
    );
    // It is this gateway's view alone.
    let other = Gateway::of(&cluster, &[]);
    assert_eq!(other.client().get("b").as_deref(), Some("1"));
    client.exchange(b"flush_all 1000 noreply\r\nget a\r\n", b"VALUE a 0 3\r\nnew\r\nEND\r\n");
}

#[test]
fn a_flush_waits_for_the_requests_before_it() {
    let mut cluster = Cluster::start(1);
    let gateway = Gateway::of(&cluster, &["--allow-flush"]);
    let mut client = gateway.client();
    client.set("a", "old");
    cluster.servers[0].process().hang();
    client.send(b"get a\r\nflush_all\r\nget a\r\n");
    wait_until("the first is under way", || gateway.stat("bytes_in_flight") > 0);
    cluster.servers[0].process().signal(Signal::CONT);
    client.expect(b"VALUE a 0 3\r\nold\r\nEND\r\nOK\r\nEND\r\n");
}

#[test]
fn a_prefix_keeps_applications_apart() {
    let cluster = Cluster::start(1);
    let (plain, prefixed) = (Gateway::of(&cluster, &[]), Gateway::of(&cluster, &["-k", "app:"]));
    prefixed.client().set("a", "inside");
    assert_eq!(prefixed.client().get("a").as_deref(), Some("inside"));
    assert_eq!((plain.client().get("a"), plain.client().get("app:a").as_deref()), (None, Some("inside")));
}

#[test]
fn a_unix_socket_serves_and_goes_with_the_gateway() {
    use std::io::{Read, Write};
    let cluster = Cluster::start(1);
    let path = cluster.folder().join("gw.sock");
    // A socket left over from a process that was killed is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let flags = ["--unix", path.to_str().unwrap()];
    let gateway = Gateway::of(&cluster, &flags);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.write_all(b"set a 0 0 1\r\nx\r\nget a\r\nquit\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
    // One in use is not.
    let second = Process::run(
        cluster.folder(),
        &kumo_server(),
        &["gateway", "-m", &cluster.managers[0].0.address().to_string(), "--unix", path.to_str().unwrap()],
    );
    assert_eq!(second.status.code(), Some(1));
    assert!(second.stderr.starts_with("kumo-server gateway: cannot listen on "), "{}", second.stderr);
    gateway.process.signal(Signal::TERM);
    assert!(gateway.process.finish().status.success());
    assert!(!path.exists());
}

/// The recorded exchanges of an original gateway: what it said to its server, byte by byte, and to its client.
#[test]
fn servers_are_sent_what_an_original_gateway_sends() {
    let all: Value = serde_json::from_str(include_str!("../vectors/manager-gateway.json")).unwrap();
    let exchanges: Vec<(String, Vec<u8>)> = all["exchanges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["name"].as_str().unwrap().to_owned(), unhex(entry["hex"].as_str().unwrap())))
        .skip_while(|(name, _)| name != "mc.text")
        .take_while(|(_, bytes)| bytes.first() != Some(&0x93))
        .collect();
    let (folder, manager, server) = (Folder::new(), Port::reserve(), Port::reserve());
    let seed = Seed { nodes: vec![(NodeAddress::new(server.address()), true)], clocktime: ClockTime::new(9, 1) };
    let _manager = ScriptedNode::listen(
        manager.address(),
        Vec::new(),
        Box::new(move |method, _| {
            assert_eq!(method, Method::HashSpaceRequest.number());
            let mut out = Vec::new();
            (&seed, &seed).encode(&mut out);
            Some(out)
        }),
    );
    let (answers, next) = channel::<Vec<u8>>();
    // The recording ends before the answer to its last Get: there was nothing.
    let node = ScriptedNode::listen(
        server.address(),
        Vec::new(),
        Box::new(move |_, _| Some(next.try_recv().unwrap_or(vec![0xc0]))),
    );
    let gateway = Gateway::start(&folder, &[manager.address()], &["-F"]);
    let mut client = gateway.client();
    let (mut at, mut compared) = (0, 0);
    while let Some((name, bytes)) = exchanges.get(at) {
        at += 1;
        match name.as_str() {
            "mc.text" if bytes.starts_with(b"version") => break,
            "mc.text" => {
                if let Some((_, answer)) = exchanges.get(at + 1).filter(|(name, _)| name == "srv.send") {
                    let Message::Response(response) = Message::parse(answer).unwrap() else { panic!("no response") };
                    answers.send(response.result.unwrap().to_vec()).unwrap();
                }
                client.send(bytes);
            }
            "srv.recv" => {
                let heard = node.hear("a request", |_| true);
                assert_eq!(hex(&heard), hex(bytes));
                compared += 1;
            }
            "mc.text.reply" => client.expect(bytes),
            _ => {}
        }
    }
    assert_eq!(compared, 6);
}

#[test]
fn both_protocols_are_understood_on_one_port() {
    let cluster = Cluster::start(1);
    let gateway = Gateway::of(&cluster, &[]);
    gateway.client().set("a", "x");
    let mut binary = Memcached::connect(gateway.port.address());
    let mut get = vec![0x80, 0x00, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0];
    get.push(b'a');
    binary.send(&get);
    binary.expect(&[0x81, 0x00, 0, 0, 4, 0, 0, 0, 0, 0, 0, 5, 1, 2, 3, 4]);
}
