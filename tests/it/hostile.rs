//! What strangers may send: after each, the server still serves others, and its memory stays bounded.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use kumo_server::life;
use kumo_server::ring;
use kumo_server::wire::method::{self, ErrorCode, Method, Role};
use kumo_server::wire::params::{Encode as _, Seed, SetOp};
use kumo_server::wire::{Init, Message, NodeAddress, frame, pack};
use socket2::{Domain, Socket, Type};

use crate::harness::cluster::{Client, Cluster, ask, seed, status};
use crate::harness::scripted::Line;
use crate::harness::{required, wait_until};

/// Most memory that a server may take in these tests, in KiB: its caches are hardly filled.
const MEMORY_LIMIT_KIB: u64 = 700 << 10;

/// Connections open at once.
const CONNECTIONS: usize = 10_000;
/// Files that this process has open beside those.
const FILES_OF_OTHERS: usize = 1000;
/// Most memory of a connection that nothing happens on, in KiB.
const IDLE_KIB: usize = 20;

struct Scene {
    cluster: Cluster,
    client: Client,
}

impl Scene {
    fn new() -> Self {
        Self::with_flags(&[])
    }

    fn with_flags(flags: &[&str]) -> Self {
        let cluster = Cluster::start_with(1, 1, flags);
        let mut client = cluster.client();
        assert!(client.set(b"k", b"v").is_acknowledged());
        Self { cluster, client }
    }

    fn server(&self) -> SocketAddr {
        self.cluster.servers[0].address()
    }

    fn threads(&mut self) -> usize {
        let pid = self.cluster.servers[0].process().pid().as_raw_nonzero();
        std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
    }

    /// The server's port, and that of its streams.
    fn ports(&self) -> [SocketAddr; 2] {
        [self.server(), self.cluster.servers[0].stream_address()]
    }

    #[track_caller]
    fn still_serves(&mut self) {
        assert_eq!(self.client.get(b"k").as_deref(), Some(&b"v"[..]));
        assert!(self.client.set(b"k", b"v").is_acknowledged());
        let memory = self.cluster.servers[0].process().resident_kib();
        assert!(memory < MEMORY_LIMIT_KIB, "{memory} KiB");
    }
}

/// A fixed sequence of bytes that looks random.
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    })
}

fn drain(mut stream: TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // Whether it ends or is reset: it is over.
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn random_bytes_on_both_ports() {
    let mut scene = Scene::new();
    for address in scene.ports() {
        for round in 0..50 {
            let mut stream = TcpStream::connect(address).unwrap();
            let bytes: Vec<_> = noise(round).take(5000).collect();
            // It may be closed before all is taken.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            drain(stream);
        }
        scene.still_serves();
    }
}

#[test]
fn lengths_and_nesting_beyond_reason() {
    let mut scene = Scene::new();
    let deep = [vec![0x94, 0, 1, 34], vec![0x91; 1000]].concat();
    for bytes in [
        &[0xdb, 0xff, 0xff, 0xff, 0xff][..],
        &[0x94, 0, 1, 34, 0x91, 0xdb, 0xff, 0xff, 0xff, 0xff],
        &[0xdd, 0xff, 0xff, 0xff, 0xff],
        &[0x94, 0, 1, 34, 0xdf, 0xff, 0xff, 0xff, 0xff],
        &deep,
    ] {
        let mut stream = TcpStream::connect(scene.server()).unwrap();
        stream.write_all(bytes).unwrap();
        drain(stream);
        scene.still_serves();
    }
}

#[test]
fn half_a_message_and_silence() {
    let mut scene = Scene::with_flags(&["--idle-timeout", "1"]);
    let mut half = TcpStream::connect(scene.server()).unwrap();
    half.write_all(&[0x94, 0, 1]).unwrap();
    let silent = TcpStream::connect(scene.server()).unwrap();
    // Silence after a whole message is a client's right.
    let mut idle = Line::connect(scene.server());
    let mut request = Vec::new();
    frame::request(&mut request, 1, &method::GetStatus { number: 0 });
    idle.ask(&request);
    drain(half);
    drain(silent);
    assert!(matches!(Message::parse(&idle.ask(&request)), Ok(Message::Response(response)) if response.result.is_ok()));
    scene.still_serves();
}

/// A connection from an address that no other test uses: its ports rest for a minute afterwards.
fn connect_aside(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 9], 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

#[test]
fn ten_thousand_connections_at_once_work_and_take_little() {
    // Together with those of a client and the nodes.
    let mut scene = Scene::with_flags(&["--max-connections", "12000"]);
    life::raise_limit();
    let count = life::connections(CONNECTIONS, FILES_OF_OTHERS);
    // Else as many as can be had are tested.
    required::is_there("a limit of open files (ulimit -n) for 10000 connections", count >= CONNECTIONS);
    let mut request = Vec::new();
    frame::request(&mut request, 1, &method::Get { key: &ring::raw_key(b"k"), look: None });
    let before = scene.cluster.servers[0].process().resident_kib();
    let mut lines: Vec<_> = (0..count).map(|_| Line::over(connect_aside(scene.server()))).collect();
    // Silent from the beginning, and then idle after work.
    for _ in 0..2 {
        scene.still_serves();
        let after = scene.cluster.servers[0].process().resident_kib();
        let taken = usize::try_from(after.saturating_sub(before)).unwrap();
        eprintln!("{count} connections take {taken} KiB");
        assert!(taken < count * IDLE_KIB, "{before} KiB, then {after} KiB for {count} connections");
        for line in &mut lines {
            line.send(&request);
        }
        for line in &mut lines {
            let answer = line.receive();
            assert!(matches!(Message::parse(&answer), Ok(Message::Response(response)) if response.result.is_ok()));
        }
    }
    drop(lines);
    scene.still_serves();
}

#[test]
fn a_client_that_never_reads_its_answers() {
    let mut scene = Scene::new();
    let big = vec![b'x'; 1 << 20];
    assert!(scene.client.set(b"big", &big).is_acknowledged());
    let mut requests = Vec::new();
    for msgid in 0..1000 {
        frame::request(&mut requests, msgid, &method::Get { key: &ring::raw_key(b"big"), look: None });
    }
    let streams: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(scene.server()).unwrap();
            stream.write_all(&requests).unwrap();
            stream
        })
        .collect();
    for _ in 0..50 {
        scene.still_serves();
    }
    drop(streams);
}

/// A cluster connection that claims to be the node at `claimed`.
fn as_node(scene: &Scene, claimed: &str) -> Line {
    let mut line = Line::connect(scene.server());
    let mut init = Vec::new();
    Init { address: NodeAddress::new(claimed.parse().unwrap()), role: Role::Server }.write(&mut init);
    line.ask(&init);
    line
}

fn refused(line: &mut Line, method: Method, write: impl Fn(&mut Vec<u8>)) -> ErrorCode {
    let mut request = Vec::new();
    frame::request_head(&mut request, 7, method);
    write(&mut request);
    loop {
        if let Message::Response(response) = Message::parse(&line.ask(&request)).unwrap() {
            return response.result.expect_err("refused");
        }
    }
}

#[test]
fn strangers_do_not_command() {
    let mut scene = Scene::new();
    let own = NodeAddress::new(scene.server());
    let before = seed(scene.server(), 10).unwrap();
    let mut line = as_node(&scene, "127.0.0.1:9");
    let usurped = Seed { nodes: vec![(own, true)], clocktime: kumo_server::clock::ClockTime(u64::MAX) };
    let key = ring::raw_key(b"k");
    assert_eq!(
        refused(&mut line, Method::ReplaceCopyStart, |out| method::ReplaceCopyStart {
            seed: &usurped,
            clock: 0,
            full: true
        }
        .encode(out)),
        ErrorCode::Server
    );
    assert_eq!(
        refused(&mut line, Method::ReplaceDeleteStart, |out| method::ReplaceDeleteStart { seed: &usurped, clock: 0 }
            .encode(out)),
        ErrorCode::Server
    );
    assert_eq!(
        refused(&mut line, Method::HashSpaceSync, |out| method::HashSpaceSync {
            whs: &usurped,
            rhs: &usurped,
            clock: 0
        }
        .encode(out)),
        ErrorCode::Server
    );
    assert_eq!(
        refused(&mut line, Method::CreateBackup, |out| method::CreateBackup { suffix: b"x" }.encode(out)),
        ErrorCode::Server
    );
    assert_eq!(
        refused(&mut line, Method::ReplaceOffer, |out| method::ReplaceOffer { stream: own, fence: None }.encode(out)),
        ErrorCode::Server
    );
    assert_eq!(
        refused(&mut line, Method::ReplicateDelete, |out| method::ReplicateDelete {
            clock: 0,
            flags: 0,
            clocktime: usurped.clocktime,
            key: &key,
            fence: None
        }
        .encode(out)),
        ErrorCode::Server
    );
    assert_eq!(seed(scene.server(), 10), Some(before));
    scene.still_serves();
}

#[test]
fn backups_stay_in_their_folder() {
    let mut scene = Scene::new();
    let manager = scene.cluster.managers[0].0.address().to_string();
    let mut line = as_node(&scene, &manager);
    for suffix in [&b"../x"[..], b"..", b"a/b", b"", b".hidden", b"wal", b"shm", &[b'x'; 65], b"a\0b", b"a b"] {
        assert_eq!(
            refused(&mut line, Method::CreateBackup, |out| method::CreateBackup { suffix }.encode(out)),
            ErrorCode::Server
        );
    }
    let files = std::fs::read_dir(scene.cluster.folder().path()).unwrap();
    let backups = files.flatten().filter(|file| file.file_name().to_string_lossy().starts_with("server0.tch-x"));
    assert_eq!(backups.count(), 0);
    scene.still_serves();
}

#[test]
fn answers_to_calls_that_were_never_made() {
    let mut scene = Scene::new();
    let mut line = as_node(&scene, "127.0.0.1:9");
    for msgid in 0..1000 {
        let mut answer = Vec::new();
        frame::response_head(&mut answer, msgid);
        pack::bool(&mut answer, true);
        line.send(&answer);
    }
    scene.still_serves();
}

#[test]
fn parameters_of_every_wrong_shape() {
    let mut scene = Scene::new();
    let shapes: [&[u8]; 8] = [
        b"\xc0",
        b"\x90",
        b"\x05",
        b"\x91\xc0",
        b"\x92\x90\x90",
        b"\x93\xa0\xa0\xa0",
        b"\x94\xff\xff\xff\xff",
        b"\x81\x01\x01",
    ];
    for method in 0..110u8 {
        for shape in shapes {
            let request = [&[0x94, 0, 1, method], shape].concat();
            let answer = Line::connect(scene.server()).ask(&request);
            assert!(
                matches!(Message::parse(&answer), Ok(Message::Response(response)) if response.result == Err(ErrorCode::Protocol)),
                "{method} {shape:?}"
            );
        }
    }
    scene.still_serves();
}

#[test]
fn a_message_beyond_the_limit_is_refused_and_one_below_is_not() {
    let mut scene = Scene::with_flags(&["--max-message", "2"]);
    assert!(scene.client.set(b"fits", &vec![1; (2 << 20) - 100]).is_acknowledged());
    let too_long = vec![1; 2 << 20];
    let answer = ask(scene.server(), Method::Set, |out| {
        method::Set { op: SetOp::Sync, key: &ring::raw_key(b"k"), value: &too_long, route: None }.encode(out);
    });
    assert_eq!(answer, None, "the connection is closed");
    scene.still_serves();
}

#[test]
fn connections_beyond_the_limit_are_turned_away() {
    let mut scene = Scene::with_flags(&["--max-connections", "20"]);
    let streams: Vec<_> = (0..40).map(|_| TcpStream::connect(scene.server()).unwrap()).collect();
    scene.still_serves();
    drop(streams);
    wait_until("there is room again", || status(scene.server(), 0).is_some());
}

#[test]
fn counting_for_everybody_at_once_takes_no_thread_for_each() {
    let mut scene = Scene::new();
    let mut requests = Vec::new();
    for msgid in 0..200 {
        frame::request(&mut requests, msgid, &method::GetStatus { number: if msgid % 2 == 0 { 7 } else { 1000 } });
    }
    let mut lines: Vec<_> = (0..5).map(|_| Line::connect(scene.server())).collect();
    for line in &mut lines {
        line.send(&requests);
    }
    for line in &mut lines {
        for _ in 0..200 {
            line.receive();
        }
    }
    // Threads that have blocked stay for some seconds.
    let threads = scene.threads();
    assert!(threads < 40, "{threads} threads");
    scene.still_serves();
}
