//! A server that follows a script: it expects one request after the other, and answers as it is told.

use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use kumo_server::clock::ClockTime;
use kumo_server::wire::method::{self, Method};
use kumo_server::wire::params::{Encode as _, Seed, SetOp};
use kumo_server::wire::record::{raw_value, tombstone};
use kumo_server::wire::{Message, NodeAddress, frame, pack};

use super::requests;
use super::scripted::{Line, ScriptedNode};

/// The next request that the server expects, with its answer. What is written is always `new`.
pub(crate) enum Step {
    /// A set in any case.
    Set(Reply),
    /// A swap that expects this time; zero: nothing.
    Swap(u32, Reply),
    /// A deletion.
    Delete(Reply),
    /// A read, and a value of this time; `None`: nothing is there.
    Read(Option<(u32, &'static [u8])>),
    /// A read that looks for tombstones, and one of this time.
    ReadDeleted(u32),
}

pub(crate) enum Reply {
    /// Written at this time.
    At(u32),
    /// A swap does not match, a deletion finds nothing.
    Mismatch,
    /// Not on every replica.
    Nil,
    /// The connection is lost.
    Lost,
}

/// The clocktime of a record in scripts.
pub(crate) fn time(number: u32) -> ClockTime {
    if number == 0 { ClockTime(0) } else { ClockTime::new(number, number) }
}

/// Follows the script; `GetStatus` is answered nil at any time.
pub(crate) fn serve(address: SocketAddr, script: Vec<Step>) -> JoinHandle<()> {
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
            let written = |op, expected| {
                let method::Set { op: sent, value, .. } = requests::set(request.params);
                assert_eq!((sent, value.clocktime(), value.data()), (op, time(expected), &b"new"[..]));
            };
            let reply = match step {
                Step::Set(reply) => {
                    written(SetOp::Sync, 0);
                    reply
                }
                Step::Swap(expected, reply) => {
                    written(SetOp::Cas, expected);
                    reply
                }
                Step::Delete(reply) => {
                    assert_eq!(request.method, Method::Delete.number());
                    reply
                }
                Step::Read(found) => {
                    assert_eq!(request.method, Method::Get.number());
                    line.send(&answer(msgid, |out| match found {
                        Some((number, data)) => pack::raw(out, &raw_value(time(number), 0, data)),
                        None => pack::nil(out),
                    }));
                    continue;
                }
                Step::ReadDeleted(number) => {
                    assert_eq!(request.method, Method::Get.number());
                    assert!(requests::get(request.params).look.is_some(), "it does not look for tombstones");
                    line.send(&answer(msgid, |out| pack::raw(out, &tombstone(time(number)))));
                    continue;
                }
            };
            match reply {
                Reply::At(number) => line.send(&answer(msgid, |out| pack::uint(out, time(number).0))),
                Reply::Mismatch => line.send(&answer(msgid, |out| pack::bool(out, false))),
                Reply::Nil => line.send(&answer(msgid, pack::nil)),
                Reply::Lost => line = Line::over(reconnect(&listener, line)),
            }
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
pub(crate) fn follow(manager: SocketAddr, server: SocketAddr) -> ScriptedNode {
    let seed = Seed { nodes: vec![(NodeAddress::new(server), true)], clocktime: ClockTime::new(9, 1) };
    let answers = move |_: u32, _: &[u8]| {
        let mut out = Vec::new();
        (&seed, &seed).encode(&mut out);
        Some(out)
    };
    ScriptedNode::listen(manager, Vec::new(), Box::new(answers))
}
