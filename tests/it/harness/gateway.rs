//! A gateway process, and memcached clients of it as bytes on a socket.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Folder, Port, Process, kumo_server, wait_until};
use crate::harness::cluster::Cluster;

/// How long a test waits for an answer before it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running gateway on a port of its own.
pub(crate) struct Gateway {
    pub(crate) port: Port,
    pub(crate) process: Process,
}

impl Gateway {
    /// A gateway of a cluster, with these flags besides, that keeps flags and expiry.
    pub(crate) fn of(cluster: &Cluster, flags: &[&str]) -> Self {
        let managers: Vec<_> = cluster.managers.iter().map(|(port, _)| port.address()).collect();
        Self::start(cluster.folder(), &managers, &[&["-F", "-E"], flags].concat())
    }

    /// A gateway that knows these managers. Waits until it listens, and for nothing else.
    pub(crate) fn start(folder: &Folder, managers: &[SocketAddr], flags: &[&str]) -> Self {
        let port = Port::reserve();
        let own = port.address().to_string();
        let managers: Vec<_> = managers.iter().map(ToString::to_string).collect();
        let mut args = vec!["gateway", "-v", "-t", &own, "--keepalive-interval", "0.3", "-m", &managers[0]];
        if let Some(second) = managers.get(1) {
            args.extend(["-p", second]);
        }
        args.extend(flags);
        let name = format!("gateway{}", port.number());
        let mut process = Process::spawn(folder, &name, &kumo_server(), &args);
        wait_until("the gateway listens", || {
            assert!(process.is_running(), "it has ended: {}", process.stderr());
            process.stdout().contains("listening")
        });
        Self { port, process }
    }

    pub(crate) fn client(&self) -> Memcached {
        Memcached::connect(self.port.address())
    }

    /// A number of `stats`.
    pub(crate) fn stat(&self, name: &str) -> u64 {
        let answer = self.client().ask(b"stats\r\n", b"END\r\n");
        let line = format!("STAT {name} ");
        let value = answer.lines().find_map(|found| found.strip_prefix(&line)).expect("a number of that name");
        value.parse().expect("a number")
    }
}

/// One connection to a gateway.
pub(crate) struct Memcached {
    stream: TcpStream,
}

impl Memcached {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("an open connection");
    }

    /// Sends; says whether the other side still takes it, within a second.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        self.stream.write_all(bytes).is_ok()
    }

    /// Says that no more will be sent.
    pub(crate) fn end(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Reads exactly these bytes.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &[u8]) {
        let mut found = vec![0; expected.len()];
        let mut len = 0;
        while len < found.len() {
            match self.stream.read(&mut found[len..]) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&found[..len])),
            }
            if found[..len] != expected[..len] {
                break;
            }
        }
        let (found, expected) = (String::from_utf8_lossy(&found[..len]), String::from_utf8_lossy(expected));
        assert_eq!(found, expected);
    }

    /// Sends a request and reads exactly this answer.
    #[track_caller]
    pub(crate) fn exchange(&mut self, request: &[u8], answer: &[u8]) {
        self.send(request);
        self.expect(answer);
    }

    /// Sends a request and reads up to an answer that ends so.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: &[u8], end: &[u8]) -> String {
        self.send(request);
        self.read_until(end)
    }

    /// Sends a request and reads so many bytes.
    pub(crate) fn ask_bytes(&mut self, request: &[u8], length: usize) -> Vec<u8> {
        self.send(request);
        let mut found = vec![0; length];
        self.stream.read_exact(&mut found).expect("an answer");
        found
    }

    /// Sends a request and reads a line.
    #[track_caller]
    pub(crate) fn line(&mut self, request: &[u8]) -> String {
        self.ask(request, b"\r\n").trim_end().to_owned()
    }

    /// Sends a request and reads up to an answer of any bytes that ends so.
    #[track_caller]
    pub(crate) fn bytes_until(&mut self, request: &[u8], end: &[u8]) -> Vec<u8> {
        self.send(request);
        self.read_bytes_until(end)
    }

    #[track_caller]
    fn read_until(&mut self, end: &[u8]) -> String {
        String::from_utf8(self.read_bytes_until(end)).expect("text")
    }

    #[track_caller]
    fn read_bytes_until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut found = Vec::new();
        let mut byte = [0; 1];
        while !found.ends_with(end) {
            match self.stream.read(&mut byte) {
                Ok(1) => found.push(byte[0]),
                other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&found)),
            }
        }
        found
    }

    /// All that comes until the other side closes.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        let (mut rest, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
        while Instant::now() < deadline {
            match self.stream.read(&mut chunk) {
                Ok(0) => return rest,
                Ok(len) => rest.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return rest,
                Err(error) => panic!("waiting for the end: {error}"),
            }
        }
        panic!("still open after {PATIENCE:?}");
    }

    /// Gets a value of one key; `None` if there is none. An error of the server fails the test.
    #[track_caller]
    pub(crate) fn get(&mut self, key: &str) -> Option<String> {
        let head = self.line(format!("get {key}\r\n").as_bytes());
        if head == "END" {
            return None;
        }
        let len = head.split(' ').nth(3).unwrap_or_else(|| panic!("get {key}: {head}")).parse().expect("a length");
        let mut value = vec![0; len];
        self.stream.read_exact(&mut value).expect("the value");
        self.expect(b"\r\nEND\r\n");
        Some(String::from_utf8(value).expect("text"))
    }

    /// Sets a key, and expects that it is stored.
    #[track_caller]
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        let request = format!("set {key} 0 0 {}\r\n{value}\r\n", value.len());
        assert_eq!(self.line(request.as_bytes()), "STORED", "set {key}");
    }
}
