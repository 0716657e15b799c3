//! Random commands to a real memcached and to a gateway, text, meta and binary, one by one and many at once, answer by
//! answer.
//!
//! What is known to differ is not asked, or levelled in `answers`; `docs/differences.md` lists it. CAS uniques are
//! each side's own: a request names one by its key, and an answer says only that there is one.

mod answers;
mod exchanges;
mod packets;
mod stats;
mod text;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::harness::cluster::Cluster;
use crate::harness::{Folder, Gateway, Port, Process, required, wait_until};

/// The run that everybody makes; `KUMO_SEED` asks for another one.
const SEED: u64 = 2010;

/// The release whose answers these are: others differ in details.
const RELEASE: &str = "memcached 1.6.18";

/// Commands of one run.
const STEPS: usize = 8000;

/// CAS uniques as one side has named them, by key.
type Uniques = HashMap<Vec<u8>, u64>;

/// One request, made for a side with the CAS unique that its key has there.
struct Step {
    key: Vec<u8>,
    make: Box<dyn Fn(u64) -> Vec<u8>>,
    /// The unique given shall be a wrong one.
    wrong: bool,
    /// Afterwards the unique is not the same on both sides: memcached keeps it when only the expiry changes.
    forgets: bool,
    binary: bool,
}

impl Step {
    fn request(&self, uniques: &Uniques) -> Vec<u8> {
        let unique = uniques.get(&self.key).copied().unwrap_or(1 << 61);
        (self.make)(if self.wrong { unique ^ (1 << 60) } else { unique })
    }
}

/// A connection, and what it has brought that is not yet read.
struct Line {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Line {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        Self { stream, read: Vec::new() }
    }

    /// What comes before `end`; and whether the connection was closed instead.
    fn read_until(&mut self, end: &[u8]) -> (Vec<u8>, bool) {
        let mut chunk = [0; 16 << 10];
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                let rest = self.read.split_off(at + end.len());
                let mut found = std::mem::replace(&mut self.read, rest);
                found.truncate(at);
                return (found, false);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return (std::mem::take(&mut self.read), true),
                Ok(len) => self.read.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return (std::mem::take(&mut self.read), true);
                }
                Err(error) => panic!("{error} after {:?}", self.read.escape_ascii().to_string()),
            }
        }
    }
}

/// A memcached or a gateway, with a connection for each protocol.
struct Side {
    address: SocketAddr,
    text: Line,
    binary: Line,
    uniques: Uniques,
}

impl Side {
    fn connect(address: SocketAddr) -> Self {
        Self { address, text: Line::connect(address), binary: Line::connect(address), uniques: Uniques::new() }
    }

    /// Sends steps in one go, each with what ends its answer. All are of one protocol.
    fn send(&mut self, steps: &[Step]) {
        let mut requests = Vec::new();
        for step in steps {
            requests.extend_from_slice(&step.request(&self.uniques));
            requests.extend_from_slice(&if step.binary { packets::noop() } else { b"mn\r\n".to_vec() });
            self.forget(step);
        }
        let line = if steps.iter().any(|step| step.binary) { &mut self.binary } else { &mut self.text };
        // The other side may have closed already: what it has said is read below.
        let _ = line.stream.write_all(&requests);
    }

    /// The levelled answers to a step.
    fn answer(&mut self, step: &Step) -> String {
        self.forget(step);
        let (line, end) =
            if step.binary { (&mut self.binary, packets::noop_answer()) } else { (&mut self.text, b"MN\r\n".to_vec()) };
        let (answer, closed) = line.read_until(&end);
        if closed {
            *line = Line::connect(self.address);
        }
        let levelled = if step.binary {
            answers::level_packets(&answer, &step.key, &mut self.uniques)
        } else {
            answers::level_lines(&answer, &step.key, &mut self.uniques)
        };
        if closed { levelled + "closed\n" } else { levelled }
    }

    fn forget(&mut self, step: &Step) {
        if step.forgets {
            self.uniques.remove(&step.key);
        }
    }
}

/// A memcached of the right release, if there is one.
fn memcached(folder: &Folder) -> Option<(Port, Process)> {
    memcached_with(folder, &[])
}

/// The same with these flags besides.
fn memcached_with(folder: &Folder, flags: &[&str]) -> Option<(Port, Process)> {
    let told = Command::new("memcached").arg("-V").output().map(|output| output.stdout).unwrap_or_default();
    if !required::is_there(RELEASE, String::from_utf8_lossy(&told).trim() == RELEASE) {
        return None;
    }
    let port = Port::reserve();
    let number = port.number().to_string();
    let args = [&["-u", "root", "-l", "127.0.0.1", "-U", "0", "-p", &number], flags].concat();
    let mut process = Process::spawn(folder, "memcached", "memcached".as_ref(), &args);
    wait_until("memcached listens", || {
        assert!(process.is_running(), "it has ended: {}", process.stderr());
        TcpStream::connect(port.address()).is_ok()
    });
    Some((port, process))
}

#[test]
fn answers_are_those_of_memcached() {
    let folder = Folder::new();
    let Some((port, _memcached)) = memcached(&folder) else { return };
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &["--flag-bytes", "4"]);
    let mut sides = [Side::connect(port.address()), Side::connect(gateway.port.address())];
    let seed = std::env::var("KUMO_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut told = Vec::new();
    while told.len() < STEPS {
        let steps: Vec<_> = match random.u8(..6) {
            0 => vec![packets::step(&mut random, false)],
            1 => (0..random.usize(1..40)).map(|_| packets::step(&mut random, true)).collect(),
            2 => (0..random.usize(1..40)).map(|_| text::step(&mut random)).collect(),
            _ => vec![text::step(&mut random)],
        };
        for side in &mut sides {
            side.send(&steps);
        }
        for step in &steps {
            let shown = step.request(&Uniques::new());
            let shown = shown.get(..200).unwrap_or(&shown).escape_ascii().to_string();
            let [expected, found] = sides.each_mut().map(|side| side.answer(step));
            told.push(format!("{shown}\n{expected}"));
            assert_eq!(
                found,
                expected,
                "KUMO_SEED={seed}: the gateway's answer, then memcached's, to {shown}; before that:\n{}",
                told[told.len().saturating_sub(40)..].join("")
            );
        }
    }
}
