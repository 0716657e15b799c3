//! Random commands to a real memcached and to a gateway, text, meta and binary, answer by answer.
//!
//! What is known to differ is not asked, or levelled in `answers`; `docs/differences.md` lists it. CAS uniques are
//! each side's own: a request names one by its key, and an answer says only that there is one.

mod answers;
mod packets;
mod text;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::harness::cluster::Cluster;
use crate::harness::{Folder, Gateway, Port, Process, wait_until};

/// Commands of one run.
const STEPS: usize = 4000;

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

/// A memcached or a gateway, with a connection for each protocol.
struct Side {
    address: SocketAddr,
    text: TcpStream,
    binary: TcpStream,
    uniques: Uniques,
}

impl Side {
    fn connect(address: SocketAddr) -> Self {
        Self { address, text: connect(address), binary: connect(address), uniques: Uniques::new() }
    }

    /// The levelled answers to a step.
    fn ask(&mut self, step: &Step) -> String {
        let mut request = step.request(&self.uniques);
        if step.forgets {
            self.uniques.remove(&step.key);
        }
        let (stream, end) =
            if step.binary { (&mut self.binary, packets::noop()) } else { (&mut self.text, b"mn\r\n".to_vec()) };
        request.extend_from_slice(&end);
        // The other side may have closed already: what it has said is read below.
        let _ = stream.write_all(&request);
        let end = if step.binary { packets::noop_answer() } else { b"MN\r\n".to_vec() };
        let (answer, closed) = read_until(stream, &end);
        if closed {
            *stream = connect(self.address);
        }
        let levelled = if step.binary {
            answers::level_packets(&answer, &step.key, &mut self.uniques)
        } else {
            answers::level_lines(&answer, &step.key, &mut self.uniques)
        };
        if closed { levelled + "closed\n" } else { levelled }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    stream
}

/// What comes before `end`; and whether the connection was closed instead.
fn read_until(stream: &mut TcpStream, end: &[u8]) -> (Vec<u8>, bool) {
    let (mut found, mut chunk) = (Vec::new(), [0; 16 << 10]);
    loop {
        if found.ends_with(end) {
            found.truncate(found.len() - end.len());
            return (found, false);
        }
        match stream.read(&mut chunk) {
            Ok(0) => return (found, true),
            Ok(len) => found.extend_from_slice(&chunk[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return (found, true),
            Err(error) => panic!("{error} after {:?}", found.escape_ascii().to_string()),
        }
    }
}

/// A memcached of Debian's, if there is one.
fn memcached(folder: &Folder) -> Option<(Port, Process)> {
    let version = Command::new("memcached").arg("-V").output().ok()?;
    let port = Port::reserve();
    let number = port.number().to_string();
    let args = ["-u", "root", "-l", "127.0.0.1", "-U", "0", "-p", &number];
    let mut process = Process::spawn(folder, "memcached", "memcached".as_ref(), &args);
    wait_until("memcached listens", || {
        assert!(process.is_running(), "it has ended: {}", process.stderr());
        TcpStream::connect(port.address()).is_ok()
    });
    eprintln!("compared with {}", String::from_utf8_lossy(&version.stdout).trim());
    Some((port, process))
}

#[test]
fn answers_are_those_of_memcached() {
    let cluster = Cluster::start(3);
    let Some((port, _memcached)) = memcached(cluster.folder()) else {
        eprintln!("skipped: no memcached here to compare with");
        return;
    };
    let gateway = Gateway::of(&cluster, &[]);
    let mut sides = [Side::connect(port.address()), Side::connect(gateway.port.address())];
    let seed = std::env::var("KUMO_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut told = Vec::new();
    for _ in 0..STEPS {
        let step = if random.u8(..4) == 0 { packets::step(&mut random) } else { text::step(&mut random) };
        let shown = step.request(&Uniques::new());
        let [expected, found] = sides.each_mut().map(|side| side.ask(&step));
        let shown = shown.get(..200).unwrap_or(&shown).escape_ascii().to_string();
        told.push(format!("{shown}\n{expected}"));
        assert_eq!(
            found,
            expected,
            "KUMO_SEED={seed}: the gateway's answer, then memcached's, to {shown}; before that:\n{}",
            told[told.len().saturating_sub(12)..].join("")
        );
    }
}
