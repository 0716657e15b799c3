//! Exchanges on a connection of their own that must be the same byte for byte, or end it in the same place.

use std::io::Write;
use std::net::SocketAddr;

use super::{Line, memcached, packets};
use crate::harness::cluster::Cluster;
use crate::harness::{Folder, Gateway};

/// What comes back for `requests` up to the answer to the `mn` behind them; and whether the connection was closed.
fn exchange(address: SocketAddr, requests: &[u8]) -> (String, bool) {
    let mut line = Line::connect(address);
    // The other side may close half-way.
    let _ = line.stream.write_all(&[requests, b"mn\r\n"].concat());
    let (answer, closed) = line.read_until(b"MN\r\n");
    (answer.escape_ascii().to_string(), closed)
}

/// Makes each exchange with both sides.
fn compare(exchanges: &[Vec<u8>]) {
    let folder = Folder::new();
    let Some((port, _memcached)) = memcached(&folder) else { return };
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &["--allow-flush"]);
    for requests in exchanges {
        let expected = exchange(port.address(), requests);
        let found = exchange(gateway.port.address(), requests);
        let shown = requests.get(..60).unwrap_or(requests).escape_ascii();
        assert_eq!(found, expected, "the gateway's answer, then memcached's, to {shown}");
    }
}

#[test]
fn requests_of_other_protocols_end_the_connection() {
    let body = "Host: localhost\r\nContent-Length: 21\r\n\r\nset by-post 0 0 1\r\nx\r\n";
    let mut exchanges: Vec<_> =
        ["POST / HTTP/1.1", "GET / HTTP/1.0", "OPTIONS * HTTP/1.1", "PRI * HTTP/2.0", "foo HTTP/1.1", "HTTP/1.1"]
            .iter()
            .map(|line| format!("get none\r\n{line}\r\n{body}").into_bytes())
            .collect();
    // Nothing of them has been run; and what is a command stays one.
    exchanges.extend(
        ["get by-post", "get a HTTP/1.1", "delete HTTP/1.1", "hello", "x http/1.1"]
            .map(|line| format!("{line}\r\n").into_bytes()),
    );
    compare(&exchanges);
}

/// Memcached's seconds do not matter either, since it compares CAS uniques.
#[test]
fn a_flush_hides_what_was_there_and_nothing_else() {
    let after = "get k\r\nadd k 0 0 3\r\nnew\r\nget k\r\nincr n 1\r\nreplace m 0 0 1\r\nx\r\ndelete m\r\nmg n v\r\n";
    let before = "set k 0 0 3\r\nold\r\nset n 0 0 1\r\n5\r\nset m 0 0 1\r\nx\r\n";
    let flushes = [
        "flush_all",
        "flush_all noreply",
        "flush_all 0",
        "flush_all 0 noreply",
        "flush_all -1",
        "flush_all 4294967295",
        "flush_all x",
        "flush_all 1000",
        "flush_all 1000 noreply",
        "flush_all",
    ];
    compare(&flushes.map(|flush| format!("{before}{flush}\r\n{after}").into_bytes()));
}

#[test]
fn a_set_that_is_too_large_deletes_what_was_there() {
    let value = "x".repeat(1_100_000);
    let text = [
        "set k 0 0 1100000",
        "set k 0 0 1100000 noreply",
        "add k 0 0 1100000",
        "replace k 0 0 1100000",
        "prepend k 0 0 1100000",
        "cas k 0 0 1100000 1",
        "ms k 1100000",
        "ms k 1100000 q k",
        "ms k 1100000 ME",
        "ms k 1100000 Mx",
        "ms k 1100000 C1",
    ];
    let text = text.map(|line| format!("set k 0 0 3\r\nold\r\n{line}\r\n{value}\r\nget k\r\n").into_bytes());
    compare(&text);
}

#[test]
fn a_binary_set_that_is_too_large_deletes_what_was_there() {
    let folder = Folder::new();
    let Some((port, _memcached)) = memcached(&folder) else { return };
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &[]);
    let value = vec![b'x'; 1_100_000];
    for (opcode, extras) in [(0x01, 8), (0x11, 8), (0x02, 8), (0x03, 8), (0x0e, 0), (0x0f, 0)] {
        let [expected, found] = [port.address(), gateway.port.address()].map(|address| {
            assert_eq!(exchange(address, b"set k 0 0 3\r\nold\r\n").0, "STORED\\r\\n");
            let mut line = Line::connect(address);
            let request = packets::packet(opcode, b"k", &vec![0; extras], &value, 0);
            line.stream.write_all(&[request, packets::noop()].concat()).expect("an open connection");
            let (answer, _) = line.read_until(&packets::noop_answer());
            (answer.escape_ascii().to_string(), exchange(address, b"get k\r\n").0)
        });
        assert_eq!(found, expected, "{opcode:02x}: the gateway's answer and what is left, then memcached's");
    }
}
