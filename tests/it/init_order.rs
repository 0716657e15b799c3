//! The first message of a node on a cluster connection is its init, whenever requests arrive; clients send none.
//!
//! An original that dials drops the connection at an answer that comes before the init.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use kumo_server::wire::method::{self, Role};
use kumo_server::wire::{Init, Message, NodeAddress, frame};

use crate::harness::scripted::{Line, PATIENCE};
use crate::harness::{Folder, Gateway, Manager, Port, Process, kumo_server};

fn init(address: SocketAddr, role: Role) -> Vec<u8> {
    let mut out = Vec::new();
    Init { address: NodeAddress::new(address), role }.write(&mut out);
    out
}

/// A request that every node answers at once.
fn keep_alive(msgid: u32) -> Vec<u8> {
    let mut out = Vec::new();
    frame::request(&mut out, msgid, &method::KeepAlive { clock: 1, extension: None });
    out
}

fn start_server(folder: &Folder, address: SocketAddr, manager: SocketAddr) -> Process {
    let (own, manager) = (address.to_string(), manager.to_string());
    let args = ["-v", "-l", &own, "-L", "0", "-m", &manager, "-s", "store", "-f", "."];
    Process::spawn(folder, "server", &kumo_server(), &args)
}

/// The numbers of the answers among the next messages of `line`, until `count` have come.
fn answers(line: &mut Line, count: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        if let Message::Response(response) = Message::parse(&line.receive()).unwrap() {
            numbers.push(response.msgid);
        }
    }
    numbers
}

/// Dials `node` as `dialler` with requests that come with the init, right behind it, and later.
fn dial(node: SocketAddr, own: &[u8], dialler: &[u8]) {
    let early: Vec<u8> = (1..=3).flat_map(keep_alive).collect();
    for split in [0, dialler.len(), dialler.len() + 2] {
        let all = [dialler, &early].concat();
        let mut line = Line::connect(node);
        let (first, rest) = all.split_at(split);
        line.send(first);
        if split > 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        line.send(rest);
        assert_eq!(line.receive(), own, "the first message of {node}, split at {split}");
        assert_eq!(answers(&mut line, 3), [1, 2, 3]);
        line.send(&keep_alive(4));
        assert_eq!(answers(&mut line, 1), [4]);
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The first connection that a node dials.
fn accept(listener: &TcpListener) -> Line {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return Line::over(stream);
            }
            Err(_) => {
                assert!(Instant::now() < deadline, "nobody dials");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

#[test]
fn a_server_and_a_manager_that_are_dialled_send_their_init_before_any_answer() {
    let (folder, manager, server) = (Folder::new(), Port::reserve(), Port::reserve());
    let _manager = Manager::start(&folder, "manager", &manager, "");
    let _server = start_server(&folder, server.address(), manager.address());
    let peer = Port::reserve();
    dial(server.address(), &init(server.address(), Role::Server), &init(peer.address(), Role::Server));
    dial(manager.address(), &init(manager.address(), Role::Manager), &init(peer.address(), Role::Server));
}

#[test]
fn a_server_and_a_manager_that_dial_send_their_init_first_though_requests_wait_for_them() {
    let (folder, own, server) = (Folder::new(), Port::reserve(), Port::reserve());
    let check = |listener: &TcpListener, expected: &[u8]| {
        let mut line = accept(listener);
        let partner = init(listener.local_addr().unwrap(), Role::Manager);
        // Before the init of this side, too.
        line.send(&[keep_alive(1), partner, keep_alive(2)].concat());
        assert_eq!(line.receive(), expected);
        assert_eq!(answers(&mut line, 2), [1, 2]);
    };
    let (listener, partner) = listen();
    let _manager = Manager::start(&folder, "manager", &own, &format!("-p {partner}"));
    check(&listener, &init(own.address(), Role::Manager));
    let (listener, manager) = listen();
    let _server = start_server(&folder, server.address(), manager);
    check(&listener, &init(server.address(), Role::Server));
}

#[test]
fn a_gateway_and_a_tool_send_no_init() {
    let folder = Folder::new();
    let check = |listener: &TcpListener| {
        let mut line = accept(listener);
        line.send(&keep_alive(1));
        let mut refused = false;
        // Its own request and the refusal of ours, in any order.
        for _ in 0..2 {
            match Message::parse(&line.receive()).unwrap() {
                Message::Init(init) => panic!("a client has sent {init:?}"),
                Message::Response(response) => refused = response.result.is_err(),
                Message::Request(_) => {}
            }
        }
        assert!(refused, "KeepAlive is not for clients");
    };
    let (listener, manager) = listen();
    let _gateway = Gateway::start(&folder, &[manager], &[]);
    check(&listener);
    let (listener, manager) = listen();
    let _tool = Process::spawn(&folder, "ctl", &kumo_server(), &["ctl", &manager.to_string(), "status"]);
    check(&listener);
}
