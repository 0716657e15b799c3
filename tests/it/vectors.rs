//! The recorded exchanges of the original server, replayed against a real process.
//!
//! The test plays the manager, three other servers and the clients of the recording. Clocktimes that the server gives
//! are its own: each recorded one is mapped to what our server gave in its place, and stands for it from then on.
//! Where this server answers otherwise on purpose, [`DIFFERENT`] says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use kumo_server::wire::method;
use kumo_server::wire::params::{self, Encode as _, Stamped};
use kumo_server::wire::record::{raw_key, raw_value};
use kumo_server::wire::unpack::Reader;
use kumo_server::wire::{Message, RecordKey, RecordValue, Request, pack};
use kumo_server::{clock::ClockTime, ring};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::scripted::{Line, PATIENCE, ScriptedNode, hex, unhex};
use crate::harness::{Folder, Process, kumo_server, requests};

/// Exchanges whose recorded answer is a fault of the original, with ours (protocol, section 7).
const DIFFERENT: [(&str, &str); 5] = [
    // A swap with a condition matches nothing on an absent key.
    ("cas.absent.reply", "940101c0c2"),
    // Deleting what is not there deletes nothing.
    ("del.again.reply", "940101c0c2"),
    ("del.miss.reply", "940101c0c2"),
    // A deleted key is absent, whatever the asker knows.
    ("gim.deleted.reply", "940101c0c0"),
    // Backups are for managers to ask for.
    ("backup.reply", "94010706c0"),
];

const KEEP_ALIVE: u32 = 0;
const WHS_REQUEST: u32 = 4;
const RHS_REQUEST: u32 = 5;
const COPY_END: u32 = 10;
const DELETE_END: u32 = 11;
const OFFER: u32 = 16;
const REPLICATE_SET: u32 = 32;
const REPLICATE_DELETE: u32 = 33;

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

struct Recording(Vec<Value>);

impl Recording {
    fn read() -> Self {
        let all: Value = serde_json::from_str(include_str!("../vectors/server.json")).unwrap();
        Self(all["exchanges"].as_array().unwrap().clone())
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &str, &str, Vec<u8>)> {
        self.0.iter().map(|entry| {
            let text = |field: &str| entry[field].as_str().unwrap();
            (text("name"), text("from"), text("to"), unhex(text("hex")))
        })
    }

    /// The bytes of the only exchange with this name, or with this name and note.
    fn one(&self, name: &str, note: &str) -> Vec<u8> {
        let fits = |entry: &&Value| entry["name"] == name && (note.is_empty() || entry["note"] == note);
        let found: Vec<_> = self.0.iter().filter(fits).collect();
        assert!(!found.is_empty(), "{name} {note}");
        unhex(found[0]["hex"].as_str().unwrap())
    }
}

fn request(bytes: &[u8]) -> Request<'_> {
    match Message::parse(bytes).unwrap() {
        Message::Request(request) => request,
        other => panic!("not a request: {other:?}"),
    }
}

fn result(bytes: &[u8]) -> &[u8] {
    match Message::parse(bytes).unwrap() {
        Message::Response(response) => response.result.unwrap_or_else(|error| panic!("{error}: {}", hex(bytes))),
        other => panic!("not a response: {other:?}"),
    }
}

fn is_request(bytes: &[u8], method: u32) -> bool {
    matches!(Message::parse(bytes), Ok(Message::Request(request)) if request.method == method)
}

/// Which of our clocktimes stands for a recorded one.
#[derive(Default)]
struct Times(HashMap<u64, u64>);

impl Times {
    /// Replaces recorded clocktimes in `bytes` by ours: they are eight bytes, as numbers and in values.
    fn ours(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for at in 0..bytes.len().saturating_sub(7) {
            let word = u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
            // A recording asks with the clocktime just before a known one, too.
            let known = self.0.get(&word).copied().or_else(|| self.0.get(&(word + 1)).map(|ours| ours - 1));
            if let Some(ours) = known {
                bytes[at..at + 8].copy_from_slice(&ours.to_be_bytes());
            }
        }
        bytes
    }
}

struct Stage {
    recording: Recording,
    times: Times,
    server: SocketAddr,
    node: Process,
    manager: ScriptedNode,
    peers: BTreeMap<u16, ScriptedNode>,
    _folder: Folder,
}

impl Stage {
    fn set_up() -> Self {
        let folder = Folder::new();
        let recording = Recording::read();
        let empty_space = vec![0x92, 0x90, 0x00];
        let manager = ScriptedNode::listen(
            local(29700),
            recording.one("mgr.send", "init"),
            Box::new(move |method, _| match method {
                KEEP_ALIVE => Some(vec![0xc0]),
                WHS_REQUEST | RHS_REQUEST => Some(empty_space.clone()),
                _ => Some(vec![0xc3]),
            }),
        );
        let mut peers = BTreeMap::new();
        for port in 29802..=29804u16 {
            let mut init = vec![0x93, 0x02, 0xa6];
            init.extend(port.to_be_bytes());
            init.extend([127, 0, 0, 1, 1]);
            let answers = Box::new(|method: u32, _: &[u8]| (method != OFFER).then(|| vec![0xc3]));
            peers.insert(port, ScriptedNode::listen(local(port), init, answers));
        }
        let args =
            ["-v", "-l", "127.0.0.1:29801", "-L", "29901", "-m", "127.0.0.1:29700", "-s", "kumodb.tch", "-k", "0.5"];
        let node = Process::spawn(&folder, "server", &kumo_server(), &args);
        let server = local(29801);
        Line::connect(server);
        Self { recording, times: Times::default(), server, node, manager, peers, _folder: folder }
    }

    /// Sends the recorded request `name` on a connection of its own and compares the answer.
    fn client(&mut self, name: &str) -> Vec<u8> {
        let request = self.times.ours(&self.recording.one(name, ""));
        let answer = Line::connect(self.server).ask(&request);
        let reply = format!("{name}.reply");
        let recorded = self.recording.one(&reply, "");
        self.compare(&reply, &recorded, &answer);
        answer
    }

    fn compare(&mut self, name: &str, recorded: &[u8], answer: &[u8]) {
        if let Some((_, ours)) = DIFFERENT.iter().find(|(different, _)| *different == name) {
            assert_eq!(hex(answer), *ours, "{name}");
            return;
        }
        // The clocktime of a write: ours from now on, in the same nine bytes.
        let stamped = recorded.len() == 13 && recorded[4] == 0xcf && !name.starts_with("status");
        if stamped {
            assert_eq!((answer.len(), &answer[..5]), (13, &recorded[..5]), "{name}: {}", hex(answer));
            let word = |bytes: &[u8]| u64::from_be_bytes(bytes[5..13].try_into().unwrap());
            self.times.0.insert(word(recorded), word(answer));
            return;
        }
        assert_eq!(hex(answer), hex(&self.times.ours(recorded)), "{name}");
    }

    /// Sends the manager's recorded request and waits for the recorded response.
    fn manager_says(&self, note: &str, response: &str) {
        self.manager.send(&self.recording.one("mgr.send", note));
        let response = unhex(response);
        self.manager.hear(note, |bytes| *bytes == *response);
    }
}

#[test]
fn the_recorded_exchanges_hold() {
    let mut stage = Stage::set_up();
    the_server_introduces_itself(&stage);
    before_a_hash_space(&mut stage);
    stage.manager_says("HashSpaceSync single", "9401cd03e9c0c3");
    one_server(&mut stage);
    stage.manager_says("HashSpaceSync three", "9401cd03eac0c3");
    three_servers(&mut stage);
    as_a_replica(&mut stage);
    load(&mut stage);
    replace(&mut stage);
    offered(&mut stage);
    stage.node.signal(Signal::TERM);
    assert!(stage.node.finish().status.success());
}

fn the_server_introduces_itself(stage: &Stage) {
    let recorded = stage.recording.one("mgr.recv", "[2, b'ti\\x7f\\x00\\x00\\x01', 1]");
    stage.manager.hear("the init", |bytes| *bytes == *recorded);
    for note in ["[0, 1, 0, [0]]", "[0, 2, 5, []]", "[0, 3, 4, []]"] {
        let recorded = stage.recording.one("mgr.recv", note);
        stage.manager.hear(note, |bytes| *bytes == *recorded);
    }
}

fn before_a_hash_space(stage: &mut Stage) {
    stage.client("get.before-hashspace");
    for number in [3, 4, 5, 6, 7, 9, 10, 11, 12] {
        stage.client(&format!("status.{number}"));
    }
    // Process id, uptime, time, clocktime: numbers of the same kind.
    for number in [0, 1, 2, 8] {
        let request = stage.recording.one(&format!("status.{number}"), "");
        let answer = Line::connect(stage.server).ask(&request);
        assert!(Reader::new(result(&answer)).u64().is_ok(), "status {number}: {}", hex(&answer));
    }
    assert_eq!(status(stage, 0), u64::try_from(stage.node.pid().as_raw_nonzero().get()).unwrap());
}

fn status(stage: &Stage, number: u32) -> u64 {
    let mut bytes = vec![0x94, 0x00, 0x01, 0x61];
    method::GetStatus { number }.encode(&mut bytes);
    Reader::new(result(&Line::connect(stage.server).ask(&bytes))).u64().unwrap()
}

fn one_server(stage: &mut Stage) {
    for name in [
        "get.miss",
        "set",
        "get.hit",
        "gim.same",
        "gim.older",
        "gim.miss",
        "cas.ok",
        "cas.stale",
        "cas.absent",
        "set.async",
        "set.meta",
        "get.meta",
        "del.hit",
        "del.again",
        "del.miss",
        "get.deleted",
        "gim.deleted",
        "cas.deleted",
        "del.async",
        "status.items",
        "bad.op",
        "bad.method",
        "bad.keylen",
        "bad.param",
        "bad.vallen",
        "backup.by-client",
        "get.extra-args",
        "set.1byte-key",
        "get.empty-key",
    ] {
        stage.client(name);
    }
    let changed = Line::connect(stage.server).ask(&stage.recording.one("setconfig", ""));
    assert!(Reader::new(result(&changed)).u64().unwrap() >= 2, "the manager's connection and this one");
}

fn three_servers(stage: &mut Stage) {
    stage.client("repl.set");
    let recorded = stage.recording.one("peer2.recv", "[0, 1, 32, [24, 0, b'\\xef\\xfc:\\xf0\\xe0x\\xba\\x87key2', b'k\\x02\\xed\\xea\\x00\\x00\\x00\\x18\\x00\\x00rv1']]");
    for port in [29802, 29803] {
        let heard = stage.peers[&port].hear("the replica of a set", |bytes| is_request(bytes, REPLICATE_SET));
        assert_same_replica_set(stage, &recorded, &heard);
    }
    stage.client("repl.del");
    let recorded = stage
        .recording
        .one("peer2.recv", "[0, 2, 33, [25, 0, 7710987101289840665, b'\\xef\\xfc:\\xf0\\xe0x\\xba\\x87key2']]");
    for port in [29802, 29803] {
        let heard = stage.peers[&port].hear("the replica of a delete", |bytes| is_request(bytes, REPLICATE_DELETE));
        let (ours, theirs) = (request(&heard), request(&recorded));
        let (ours, theirs) = (requests::replicate_delete(ours.params), requests::replicate_delete(theirs.params));
        assert_eq!((ours.key, ours.flags), (theirs.key, theirs.flags));
        assert_eq!(ours.clock, ours.clocktime.clock());
    }
    stage.client("set.not-coordinator");
    stage.client("get.as-replica");
}

/// Same bytes but for msgid and clocks: the clocktime is the one that the client was answered.
fn assert_same_replica_set(stage: &Stage, recorded: &[u8], heard: &[u8]) {
    let (ours, theirs) = (request(heard), request(recorded));
    let (ours, theirs) = (requests::replicate_set(ours.params), requests::replicate_set(theirs.params));
    assert_eq!((ours.key, ours.flags, ours.value.body()), (theirs.key, theirs.flags, theirs.value.body()));
    let answered = stage.times.0[&theirs.value.clocktime().0];
    assert_eq!(ours.value.clocktime(), ClockTime(answered));
    assert_eq!(ours.clock, ours.value.clocktime().clock());
    let mut canonical = Vec::new();
    let value = Stamped { clocktime: ours.value.clocktime(), body: ours.value.body() };
    method::ReplicateSet { clock: ours.clock, flags: ours.flags, key: ours.key, value, fence: None }
        .encode(&mut canonical);
    assert_eq!(hex(request(heard).params), hex(&canonical));
}

/// A cluster connection of a peer that dials the server.
fn dial_as_peer(stage: &Stage) -> Line {
    let mut line = Line::connect(stage.server);
    let answer = line.ask(&stage.recording.one("in.init", ""));
    assert_eq!(hex(&answer), hex(&stage.recording.one("in.init.reply", "")));
    line
}

fn as_a_replica(stage: &mut Stage) {
    let mut line = dial_as_peer(stage);
    let recording = Recording::read();
    let entries: Vec<_> = recording.entries().collect();
    let mut replayed = 0;
    for (at, (name, ..)) in entries.iter().enumerate() {
        if !(name.starts_with("rset.") || name.starts_with("rdel.")) {
            continue;
        }
        let reply = entries[at..].iter().find(|entry| entry.0 == "peer2.recv").unwrap();
        assert_eq!(hex(&line.ask(&entries[at].3)), hex(&reply.3), "{name}");
        replayed += 1;
    }
    assert_eq!(replayed, 7);
    let answer = line.ask(&stage.recording.one("get.on-cluster-conn", ""));
    assert_eq!(hex(&answer), "94010705c0");
    let answer = line.ask(&stage.recording.one("backup", ""));
    stage.compare("backup.reply", &[], &answer);
}

/// The recorded load: every set reaches the recorded peers, and no others.
fn load(stage: &mut Stage) {
    let recording = Recording::read();
    let entries: Vec<_> = recording.entries().filter(|entry| entry.0 != "mgr.recv").collect();
    let start = entries.iter().position(|entry| entry.0 == "load").unwrap();
    let end = entries.iter().rposition(|entry| entry.0 == "load.reply").unwrap();
    let mut expected: BTreeMap<Vec<u8>, BTreeSet<u16>> = BTreeMap::new();
    let mut clocktimes = HashMap::new();
    for (name, _, _, bytes) in &entries[start..=end] {
        let port = match *name {
            "peer2.recv" => 29802,
            "peer3.recv" => 29803,
            _ => continue,
        };
        let replica = requests::replicate_set(request(bytes).params);
        expected.entry(replica.key.bytes().to_vec()).or_default().insert(port);
        clocktimes.insert(replica.key.bytes().to_vec(), replica.value.clocktime().0);
    }
    for (name, _, _, bytes) in &entries[start..=end] {
        if *name != "load" {
            continue;
        }
        let key = requests::set(request(bytes).params).key.bytes().to_vec();
        let answer = Line::connect(stage.server).ask(bytes);
        let clocktime = Reader::new(result(&answer)).u64().unwrap();
        stage.times.0.insert(clocktimes[&key], clocktime);
        for port in &expected[&key] {
            stage.peers[port].hear("a replica of the load", |bytes| {
                is_request(bytes, REPLICATE_SET) && requests::replicate_set(request(bytes).params).key.bytes() == key
            });
        }
    }
    assert_eq!(expected.len(), entries[start..=end].iter().filter(|entry| entry.0 == "load").count());
}

/// A fourth server is attached: offer, stream, acknowledgement, end of copy, delete, end of delete.
fn replace(stage: &mut Stage) {
    stage.manager_says_unanswered("ReplaceCopyStart");
    let offer = stage.peers[&29804].hear("the offer", |bytes| is_request(bytes, OFFER));
    let recorded = stage.recording.one("peer4.recv", "[0, 1, 16, [b't\\xcd\\x7f\\x00\\x00\\x01']]");
    assert_eq!(hex(request(&offer).params), hex(request(&recorded).params));
    stage.client("status.rhs-during");

    let mut stream = TcpStream::connect(local(29901)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&stage.recording.one("stream.hello", "")).unwrap();
    let mut plain = Vec::new();
    ZlibDecoder::new(Until(&stream)).read_to_end(&mut plain).unwrap();
    assert_eq!(records(&plain), records(&stage.times.ours(&stage.recording.one("stream.plain", ""))));
    stream.write_all(&stage.recording.one("stream.ack", "")).unwrap();
    let mut answer = Vec::new();
    kumo_server::wire::frame::response_head(&mut answer, request(&offer).msgid);
    pack::bool(&mut answer, true);
    stage.peers[&29804].send(&answer);

    assert_end(stage, COPY_END, "[0, 22, 10, [7710982419775488060, 81]]");
    stage.client("status.replace-after-copy");
    stage.manager_says_unanswered("ReplaceDeleteStart");
    assert_end(stage, DELETE_END, "[0, 24, 11, [7710982419775488060, 83]]");
    stage.client("status.items-after");
    stage.client("status.replace-after");
}

impl Stage {
    fn manager_says_unanswered(&self, note: &str) {
        self.manager.send(&self.recording.one("mgr.send", note));
    }
}

fn assert_end(stage: &Stage, method: u32, note: &str) {
    let heard = stage.manager.hear(note, |bytes| is_request(bytes, method));
    let recorded = stage.recording.one("mgr.recv", note);
    let clocktime = |bytes: &[u8]| params::decode::<method::ReplaceCopyEnd>(request(bytes).params).unwrap().clocktime;
    assert_eq!(clocktime(&heard), clocktime(&recorded));
}

/// Reads a stream a byte at a time, so that a decoder takes nothing beyond its end.
struct Until<'a>(&'a TcpStream);

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = buffer.len().min(1);
        self.0.read(&mut buffer[..len])
    }
}

/// The records of an inflated stream, whose order is the store's.
fn records(plain: &[u8]) -> BTreeSet<(String, String)> {
    let mut reader = Reader::new(plain);
    let mut found = BTreeSet::new();
    while !reader.nil() {
        assert_eq!(reader.array(), Ok(2));
        let (key, value) = (reader.raw().unwrap(), reader.raw().unwrap());
        assert!(RecordKey::new(key).is_ok() && RecordValue::live(value).is_ok());
        assert!(found.insert((hex(key), hex(value))), "a record sent twice");
    }
    assert!(reader.is_empty());
    found
}

/// Another server offers 250 records: they are fetched, acknowledged as recorded, and served.
fn offered(stage: &mut Stage) {
    let listener = TcpListener::bind(local(29902)).unwrap();
    let mut line = dial_as_peer(stage);
    line.send(&stage.recording.one("offer.in", ""));
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut hello = vec![0; 23];
    stream.read_exact(&mut hello).unwrap();
    assert_eq!(hex(&hello), hex(&stage.recording.one("offer.hello", "")));
    let mut encoder = ZlibEncoder::new(&mut stream, flate2::Compression::fast());
    for index in 0..250u32 {
        let key = format!("off{index}");
        let mut record = vec![0x92];
        pack::raw(&mut record, &raw_key(ring::hash(key.as_bytes()), key.as_bytes()));
        let clocktime = ClockTime::new(0x6b02_e9ee, 70 + index);
        pack::raw(&mut record, &raw_value(clocktime, 0, format!("ov{index}").as_bytes()));
        encoder.write_all(&record).unwrap();
    }
    encoder.write_all(&[0xc0]).unwrap();
    encoder.finish().unwrap();
    let mut ack = vec![0; 3];
    stream.read_exact(&mut ack).unwrap();
    assert_eq!(hex(&ack), hex(&stage.recording.one("offer.ack", "")));
    stage.client("get.offered");
    stage.client("status.items-offered");
}
