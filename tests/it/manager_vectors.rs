//! The recorded exchanges of the original manager, replayed against a real process.
//!
//! The test plays the server and the control tools of the recording. What must be the same is every byte but the
//! ports, the numbers of requests, and clocks; a clocktime is ours, and stands for the recorded one throughout.

use std::collections::HashMap;
use std::net::SocketAddr;

use kumo_server::wire::method::Method;
use kumo_server::wire::unpack::Reader;
use kumo_server::wire::{Message, NodeAddress, Request, pack};
use serde_json::Value;

use crate::harness::scripted::{Line, hex, unhex};
use crate::harness::{Folder, Manager, Port, wait_for};

struct Exchange {
    name: String,
    from: String,
    to: String,
    bytes: Vec<u8>,
}

/// The part of the recording in which the manager speaks.
fn recording() -> Vec<Exchange> {
    let all: Value = serde_json::from_str(include_str!("../vectors/manager-gateway.json")).unwrap();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap().to_owned();
    let exchanges = all["exchanges"].as_array().unwrap().iter();
    let exchanges = exchanges.map(|entry| Exchange {
        name: text(entry, "name"),
        from: text(entry, "from"),
        to: text(entry, "to"),
        bytes: unhex(&text(entry, "hex")),
    });
    exchanges.take_while(|exchange| exchange.name != "mc.text").collect()
}

/// Puts our addresses and clocktimes in place of recorded ones; all have the same length.
#[derive(Default)]
struct Ours {
    addresses: Vec<(Vec<u8>, Vec<u8>)>,
    clocktimes: HashMap<Vec<u8>, Vec<u8>>,
}

impl Ours {
    fn address(&mut self, recorded: &str, ours: SocketAddr) {
        let recorded: SocketAddr = recorded.parse().unwrap();
        let bytes = |address| NodeAddress::new(address).bytes().to_vec();
        self.addresses.push((bytes(recorded), bytes(ours)));
    }

    fn translate(&self, recorded: &[u8]) -> Vec<u8> {
        let mut bytes = recorded.to_vec();
        let addresses = self.addresses.iter().map(|(theirs, ours)| (theirs, ours));
        for (theirs, ours) in addresses.chain(&self.clocktimes) {
            for at in 0..=bytes.len().saturating_sub(theirs.len()) {
                if bytes[at..].starts_with(theirs) {
                    bytes[at..at + ours.len()].copy_from_slice(ours);
                }
            }
        }
        bytes
    }

    /// Asserts that the manager said what was recorded, learning which clocktime of ours stands for which.
    fn compare(&mut self, what: &str, recorded: &[u8], said: &[u8]) {
        let expected = self.translate(recorded);
        let (theirs, ours) = (objects(&expected), objects(said));
        let shown = || format!("{what}: recorded {}, said {}", hex(&expected), hex(said));
        assert_eq!(theirs.len(), ours.len(), "{}", shown());
        let is_request = theirs[1] == [0];
        for (at, (theirs, ours)) in theirs.iter().zip(&ours).enumerate() {
            if theirs == ours {
                continue;
            }
            if theirs[0] == 0xcf && ours[0] == 0xcf && !self.clocktimes.contains_key(*theirs) {
                self.clocktimes.insert(theirs.to_vec(), ours.to_vec());
                continue;
            }
            // The number of a request, and behind the method any clock: numbers in their shortest form.
            let free = is_request && (at == 2 || at > 3);
            assert!(free && is_number(theirs) && is_number(ours), "{}", shown());
        }
    }
}

/// The objects of a message, arrays as their headers alone.
fn objects(message: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut rest = message;
    while let Some(first) = rest.first() {
        let len = if (0x90..=0x9f).contains(first) {
            1
        } else {
            let mut reader = Reader::new(rest);
            reader.skip().unwrap().len()
        };
        let (object, after) = rest.split_at(len);
        found.push(object);
        rest = after;
    }
    found
}

/// Whether this is a number of at most 32 bits in its shortest form.
fn is_number(object: &[u8]) -> bool {
    let Ok(number) = Reader::new(object).u32() else { return false };
    let mut shortest = Vec::new();
    pack::uint(&mut shortest, number.into());
    shortest == object
}

fn request(bytes: &[u8]) -> Option<Request<'_>> {
    match Message::parse(bytes).unwrap() {
        Message::Request(request) => Some(request),
        _ => None,
    }
}

struct Stage {
    ours: Ours,
    server: Line,
    manager: Manager,
    tools: HashMap<String, Line>,
    /// What the manager has said to the server, keep-alives left out.
    heard: Vec<Vec<u8>>,
}

impl Stage {
    /// Answers as the recorded server did, and keeps what it is asked; returns the message.
    fn hear(&mut self) -> Vec<u8> {
        loop {
            let message = self.server.receive();
            let Some(request) = request(&message) else {
                self.heard.push(message.clone());
                return message;
            };
            let method = Method::from_number(request.method).unwrap();
            let result: u8 = if method == Method::KeepAlive { 0xc0 } else { 0xc3 };
            let mut answer = Vec::new();
            kumo_server::wire::frame::response_head(&mut answer, request.msgid);
            answer.push(result);
            self.server.send(&answer);
            if method != Method::KeepAlive {
                self.heard.push(message.clone());
                return message;
            }
        }
    }

    fn hear_request(&mut self, method: Method) {
        while request(&self.hear()).is_none_or(|request| request.method != method.number()) {}
    }

    fn hear_response(&mut self) {
        while request(&self.hear()).is_some() {}
    }
}

#[test]
fn the_recorded_exchanges_hold() {
    let (folder, port, server_port) = (Folder::new(), Port::reserve(), Port::reserve());
    // The test hears the manager only now and then: signs of life must have time.
    let manager = Manager::start(&folder, "manager", &port, "-k 1");
    let mut ours = Ours::default();
    ours.address("127.0.0.1:28700", port.address());
    ours.address("127.0.0.1:28801", server_port.address());
    let server = Line::connect(manager.address);
    let mut stage = Stage { ours, server, manager, tools: HashMap::new(), heard: Vec::new() };

    let recording = recording();
    let mut expected = Vec::new();
    for exchange in &recording {
        let bytes = stage.ours.translate(&exchange.bytes);
        match (exchange.name.as_str(), exchange.from.as_str(), exchange.to.as_str()) {
            // Answered as soon as it is asked, see `hear`.
            ("srv.reply", ..) => {}
            ("srv.send", ..) => {
                // The end of a phase is told after its start was.
                let start = match request(&bytes).unwrap().method {
                    10 => Method::ReplaceCopyStart,
                    11 => Method::ReplaceDeleteStart,
                    other => panic!("method {other}"),
                };
                if start == Method::ReplaceCopyStart {
                    stage.hear_request(start);
                }
                // Its clocktime is only known now.
                let seed = stage.heard.iter().rev().find(|heard| request(heard).is_some()).cloned().unwrap();
                learn_clocktime(&mut stage.ours, &exchange.bytes, &seed);
                let bytes = stage.ours.translate(&exchange.bytes);
                stage.server.send(&bytes);
                if start == Method::ReplaceCopyStart {
                    stage.hear_request(Method::ReplaceDeleteStart);
                }
                stage.hear_response();
            }
            ("srv.init", ..) => {
                stage.server.send(&bytes);
                let init = stage.server.receive();
                stage.heard.push(init);
            }
            (_, "server", _) => {
                stage.server.send(&bytes);
                stage.hear_response();
            }
            ("mgr.to.srv", ..) => {
                if request(&exchange.bytes).is_none_or(|request| request.method != Method::KeepAlive.number()) {
                    expected.push(&exchange.bytes);
                }
            }
            (name, "ctl", _) => {
                let mut tool = Line::connect(stage.manager.address);
                tool.send(&bytes);
                stage.tools.insert(format!("{name}.reply"), tool);
            }
            (name, _, "ctl") => {
                let said = stage.tools.get_mut(name).unwrap().receive();
                stage.ours.compare(name, &exchange.bytes, &said);
                if name == "ctl.backup.reply" {
                    stage.hear_request(Method::CreateBackup);
                }
            }
            (name, ..) => panic!("what is {name}?"),
        }
    }
    assert_eq!(
        stage.heard.len(),
        expected.len(),
        "{:#?}",
        stage.heard.iter().map(|heard| hex(heard)).collect::<Vec<_>>()
    );
    let Stage { ours, heard, .. } = &mut stage;
    for (recorded, said) in expected.iter().zip(heard) {
        ours.compare("to the server", recorded, said);
    }
    // The tools that changed something were told so after the hash spaces.
    for name in ["ctl.attach.reply", "ctl.replace.reply", "ctl.full-replace.reply"] {
        let tool = stage.tools.get_mut(name).unwrap();
        let answer = wait_for("the answer", || Some(tool.receive()).filter(|message| request(message).is_none()));
        assert_eq!(hex(&answer), "940101c0c0", "{name}");
    }
}

/// Learns which clocktime of ours stands for the recorded one in the end of a phase.
fn learn_clocktime(ours: &mut Ours, recorded: &[u8], start: &[u8]) {
    let clocktime = |message| objects(message).into_iter().find(|object| object[0] == 0xcf).map(<[u8]>::to_vec);
    let (theirs, held) = (clocktime(recorded).unwrap(), clocktime(start).unwrap());
    if let Some(known) = ours.clocktimes.insert(theirs, held.clone()) {
        assert_eq!(hex(&known), hex(&held), "a replace alone does not change the hash space");
    }
}
