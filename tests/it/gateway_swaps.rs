//! Compare-and-swap through a gateway when its outcome is not known: never done twice, never denied when it was done.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use kumo_server::clock::ClockTime;
use kumo_server::wire::method::{self, Method};
use kumo_server::wire::params::{Encode as _, Seed, SetOp};
use kumo_server::wire::record::raw_value;
use kumo_server::wire::{Message, NodeAddress, frame, pack};

use crate::harness::scripted::{Line, ScriptedNode};
use crate::harness::{Folder, Gateway, Port, requests};

/// What the server does next.
enum Step {
    /// Expects a swap that names this second, and answers so.
    Swap(u32, Reply),
    /// Expects a read, and answers with a value of this second; `None`: nothing is there.
    Read(Option<(u32, &'static [u8])>),
}

enum Reply {
    /// Swapped, at this second.
    At(u32),
    Mismatch,
    /// Not on every replica.
    Nil,
    /// The connection is lost.
    Lost,
}

fn time(second: u32) -> ClockTime {
    ClockTime::new(second, 1)
}

/// A server that follows a script; whatever else a gateway asks is answered nil.
fn serve(address: SocketAddr, script: Vec<Step>) -> JoinHandle<()> {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        let mut line = Line::over(listener.accept().unwrap().0);
        for step in script {
            let (request, msgid) = loop {
                let Some(bytes) = line.try_receive() else {
                    line = Line::over(listener.accept().unwrap().0);
                    continue;
                };
                let Message::Request(request) = Message::parse(&bytes).unwrap() else { panic!("no request") };
                if request.method != Method::GetStatus.number() {
                    break (bytes.clone(), request.msgid);
                }
                line.try_send(&answer(request.msgid, pack::nil));
            };
            let Message::Request(request) = Message::parse(&request).unwrap() else { panic!("no request") };
            let reply = match step {
                Step::Swap(second, reply) => {
                    let method::Set { op, value, .. } = requests::set(request.params);
                    assert_eq!((op, value.clocktime(), value.data()), (SetOp::Cas, time(second), &b"new"[..]));
                    match reply {
                        Reply::At(second) => answer(msgid, |out| pack::uint(out, time(second).0)),
                        Reply::Mismatch => answer(msgid, |out| pack::bool(out, false)),
                        Reply::Nil => answer(msgid, pack::nil),
                        Reply::Lost => {
                            line = Line::over(reconnect(&listener, line));
                            continue;
                        }
                    }
                }
                Step::Read(found) => {
                    assert_eq!(request.method, Method::Get.number());
                    answer(msgid, |out| match found {
                        Some((second, data)) => pack::raw(out, &raw_value(time(second), 0, data)),
                        None => pack::nil(out),
                    })
                }
            };
            line.send(&reply);
        }
    })
}

fn reconnect(listener: &TcpListener, line: Line) -> std::net::TcpStream {
    drop(line);
    listener.accept().unwrap().0
}

fn answer(msgid: u32, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    frame::response_head(&mut out, msgid);
    write(&mut out);
    out
}

/// A manager of one server.
fn follow(manager: SocketAddr, server: SocketAddr) -> ScriptedNode {
    let seed = Seed { nodes: vec![(NodeAddress::new(server), true)], clocktime: ClockTime::new(9, 1) };
    let answers = move |_: u32, _: &[u8]| {
        let mut out = Vec::new();
        (&seed, &seed).encode(&mut out);
        Some(out)
    };
    ScriptedNode::listen(manager, Vec::new(), Box::new(answers))
}

/// What a client is answered whose `cas` on the value of second 5 meets this script.
fn swapped(script: Vec<Step>) -> String {
    let (folder, manager, server) = (Folder::new(), Port::reserve(), Port::reserve());
    let _manager = follow(manager.address(), server.address());
    let serving = serve(server.address(), script);
    let gateway = Gateway::start(&folder, &[manager.address()], &["-S", "5"]);
    let answer = gateway.client().line(format!("cas k 0 0 3 {}\r\nnew\r\n", time(5).0).as_bytes());
    serving.join().expect("the whole script");
    answer
}

#[test]
fn a_swap_that_was_lost_on_its_way_is_done_again() {
    let script = vec![Step::Swap(5, Reply::Lost), Step::Read(Some((5, b"old"))), Step::Swap(5, Reply::At(9))];
    assert_eq!(swapped(script), "STORED");
}

#[test]
fn a_swap_whose_answer_was_lost_is_not_denied() {
    // Ours, or another one's with the same bytes: nobody can tell.
    let script = vec![Step::Swap(5, Reply::Lost), Step::Read(Some((8, b"new")))];
    assert_eq!(swapped(script), "SERVER_ERROR connection lost, whether this was done is not known");
    // It is carried out after all, just before it is done again.
    let script = vec![Step::Swap(5, Reply::Lost), Step::Read(Some((5, b"old"))), Step::Swap(5, Reply::Mismatch)];
    assert_eq!(swapped(script), "SERVER_ERROR connection lost, whether this was done is not known");
}

#[test]
fn a_swap_that_is_not_on_every_replica_is_completed() {
    let script = vec![Step::Swap(5, Reply::Nil), Step::Read(Some((8, b"new"))), Step::Swap(8, Reply::At(9))];
    assert_eq!(swapped(script), "STORED");
    // Somebody has written since: it was done, and is over.
    let script = vec![Step::Swap(5, Reply::Nil), Step::Read(Some((9, b"other")))];
    assert_eq!(swapped(script), "STORED");
    let script = vec![
        Step::Swap(5, Reply::Nil),
        Step::Read(Some((8, b"new"))),
        Step::Swap(8, Reply::Mismatch),
        Step::Read(Some((9, b"other"))),
    ];
    assert_eq!(swapped(script), "STORED");
}

#[test]
fn a_swap_that_was_taken_back_is_done_again() {
    let script = vec![Step::Swap(5, Reply::Nil), Step::Read(Some((5, b"old"))), Step::Swap(5, Reply::At(9))];
    assert_eq!(swapped(script), "STORED");
    let unknown = "SERVER_ERROR connection lost, whether this was done is not known";
    let script = vec![Step::Swap(5, Reply::Nil), Step::Read(Some((5, b"old"))), Step::Swap(5, Reply::Mismatch)];
    assert_eq!(swapped(script), unknown);
    // Done and seen, and gone with its server.
    for reply in [Reply::Nil, Reply::Mismatch] {
        let script = vec![
            Step::Swap(5, Reply::Nil),
            Step::Read(Some((8, b"new"))),
            Step::Swap(8, reply),
            Step::Read(Some((5, b"old"))),
            Step::Swap(5, Reply::At(9)),
        ];
        assert_eq!(swapped(script), "STORED");
    }
}

#[test]
fn a_write_that_is_on_some_servers_does_not_end_as_one_that_reached_none() {
    let (folder, manager, server) = (Folder::new(), Port::reserve(), Port::reserve());
    let _manager = follow(manager.address(), server.address());
    let mut first = true;
    let _server = ScriptedNode::listen(
        server.address(),
        Vec::new(),
        Box::new(move |method, _| {
            let partial = method == Method::Set.number() && std::mem::replace(&mut first, false);
            partial.then(|| vec![0xc0])
        }),
    );
    let gateway = Gateway::start(&folder, &[manager.address()], &["-S", "1", "-Ci", "0.1"]);
    gateway.client().exchange(b"set k 0 0 3\r\nnew\r\n", b"SERVER_ERROR not written to every replica\r\n");
    // The next one is not answered at all.
    let lost = b"SERVER_ERROR connection lost, whether this was done is not known\r\n";
    gateway.client().exchange(b"set k 0 0 3\r\nnew\r\n", lost);
}

#[test]
fn a_swap_that_does_not_match_says_what_is_there() {
    let script = vec![Step::Swap(5, Reply::Mismatch), Step::Read(Some((8, b"other")))];
    assert_eq!(swapped(script), "EXISTS");
    assert_eq!(swapped(vec![Step::Swap(5, Reply::Mismatch), Step::Read(None)]), "NOT_FOUND");
}

#[test]
fn a_change_that_others_keep_from_being_made_ends_with_its_time() {
    let (folder, manager, server) = (Folder::new(), Port::reserve(), Port::reserve());
    let _manager = follow(manager.address(), server.address());
    let swaps = Arc::new(AtomicU32::new(0));
    let counted = swaps.clone();
    let _server = ScriptedNode::listen(
        server.address(),
        Vec::new(),
        Box::new(move |method, _| {
            let mut out = Vec::new();
            if method == Method::Get.number() {
                pack::raw(&mut out, &raw_value(time(5), 0, b"1"));
            } else {
                // Slow enough that all tries take longer than the time there is.
                std::thread::sleep(Duration::from_millis(20));
                counted.fetch_add(1, Ordering::Relaxed);
                pack::bool(&mut out, false);
            }
            Some(out)
        }),
    );
    let gateway = Gateway::start(&folder, &[manager.address()], &["-S", "1"]);
    let answer = gateway.client().line(b"incr k 1\r\n");
    assert_eq!(answer, "SERVER_ERROR too much contention, try again");
    let swaps = swaps.load(Ordering::Relaxed);
    assert!((2..150).contains(&swaps), "{swaps} swaps");
}
