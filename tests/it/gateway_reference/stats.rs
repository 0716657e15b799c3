//! What memcached and a gateway count of the same requests, and how they answer what manages memcached's memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{memcached, memcached_with};
use crate::harness::cluster::Cluster;
use crate::harness::gateway::Memcached;
use crate::harness::{Folder, Gateway};

/// What is counted alike.
const COUNTED: [&str; 20] = [
    "cmd_get",
    "cmd_set",
    "cmd_touch",
    "cmd_flush",
    "get_hits",
    "get_misses",
    "get_expired",
    "delete_hits",
    "delete_misses",
    "incr_hits",
    "incr_misses",
    "decr_hits",
    "decr_misses",
    "cas_hits",
    "cas_misses",
    "cas_badval",
    "touch_hits",
    "touch_misses",
    "store_too_large",
    "total_items",
];

/// Requests whose answers end with a line, and how often each is sent.
const REQUESTS: [(&str, usize); 33] = [
    ("set a 0 0 1\r\n1", 3),
    ("set short 0 -1 1\r\n1", 1),
    ("get short", 1),
    ("get a nope a", 2),
    ("gets a", 1),
    ("gat 0 a", 2),
    ("gat 0 nope", 1),
    ("touch a 0", 1),
    ("touch nope 0", 3),
    ("mg a v", 1),
    ("mg nope v", 1),
    ("mg a T0", 1),
    ("mg made N30", 2),
    ("ms a 1\r\n1", 1),
    ("ms nope 1 MR\r\n1", 1),
    ("ms a 1 ME\r\n1", 1),
    ("ms nope 1 C1\r\n1", 2),
    ("ms a 1 C1\r\n1", 1),
    ("ms a 1 MA C1\r\n1", 1),
    ("cas a 0 0 1 1\r\n1", 2),
    ("cas nope 0 0 1 1\r\n1", 1),
    ("add a 0 0 1\r\n1", 1),
    ("add b 0 0 1\r\n1", 1),
    ("append b 0 0 1\r\n1", 1),
    ("append nope 0 0 1\r\n1", 1),
    ("incr a 1", 2),
    ("incr nope 1", 1),
    ("incr made 1", 1),
    ("decr a 1", 1),
    ("decr nope 1", 2),
    ("ma a MD", 1),
    ("delete a", 2),
    ("md b C1", 1),
];

/// All that a section shows.
fn shown(client: &mut Memcached, section: &str) -> BTreeMap<String, String> {
    let answer = client.ask(format!("stats{section}\r\n").as_bytes(), b"END\r\n");
    let lines = answer.lines().filter_map(|line| line.strip_prefix("STAT ")?.split_once(' '));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn counted(client: &mut Memcached) -> BTreeMap<&'static str, u64> {
    let shown = shown(client, "");
    let number = |name| shown.get(name).unwrap_or_else(|| panic!("no {name}")).parse().expect("a number");
    COUNTED.into_iter().map(|name| (name, number(name))).collect()
}

/// What a side counts of all requests.
fn count(address: SocketAddr) -> BTreeMap<&'static str, u64> {
    let mut client = Memcached::connect(address);
    client.exchange(b"stats reset\r\n", b"RESET\r\n");
    let ask = |client: &mut Memcached, request: &str| client.ask(format!("{request}\r\nmn\r\n").as_bytes(), b"MN\r\n");
    for (request, times) in REQUESTS {
        for _ in 0..times {
            ask(&mut client, request);
        }
    }
    ask(&mut client, "set c 0 0 1\r\n1");
    let found = ask(&mut client, "gets c");
    let unique = found.lines().next().and_then(|line| line.rsplit(' ').next()).expect("a unique");
    let swapped = ask(&mut client, &format!("cas c 0 0 1 {unique}\r\n2"));
    assert_eq!(swapped, "STORED\r\nMN\r\n");
    ask(&mut client, &format!("set a 0 0 2000000\r\n{}", "x".repeat(2_000_000)));
    counted(&mut client)
}

#[test]
fn requests_are_counted_as_memcached_does() {
    let folder = Folder::new();
    let Some((port, _memcached)) = memcached(&folder) else { return };
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &[]);
    let expected = count(port.address());
    assert!(expected.values().filter(|count| **count > 0).count() >= COUNTED.len() - 1, "{expected:?}");
    assert_eq!(count(gateway.port.address()), expected);
}

/// Each answered in one line, or with nothing to the end.
const LINES: [&str; 45] = [
    "stats foo",
    "stats reset",
    "stats cachedump",
    "stats cachedump 1",
    "stats cachedump 1 0",
    "stats cachedump 63 10 x",
    "stats cachedump 64 0",
    "stats cachedump x 0",
    "stats detail",
    "stats detail on",
    "stats detail dump",
    "stats detail off",
    "stats detail dump x",
    "stats detail foo",
    "stats extstore",
    "stats items",
    "stats sizes",
    "stats noreply",
    "cache_memlimit",
    "cache_memlimit 4",
    "cache_memlimit x",
    "cache_memlimit 64 noreply",
    "cache_memlimit 64 a b",
    "slabs",
    "slabs reassign",
    "slabs reassign 1 2",
    "slabs reassign x 2",
    "slabs automove",
    "slabs automove 0",
    "slabs automove 3",
    "slabs automove x",
    "slabs automove ratio 0.5",
    "slabs automove 1 noreply",
    "slabs foo",
    "slabs foo bar",
    "lru",
    "lru mode flat",
    "lru temp_ttl 60",
    "lru tune",
    "lru tune 10 20 0.1 2.0",
    "lru tune 10 20 0.1 2.0 noreply",
    "lru_crawler",
    "lru_crawler sleep 100",
    "lru_crawler sleep x",
    "lru_crawler foo bar",
];

/// Keys of `stat` packets.
const SECTIONS: [&str; 9] =
    ["items", "slabs", "sizes", "foo", "detail", "detail on", "detail dump", "conns", "cachedump 1 0"];

#[test]
fn statistics_and_upkeep_are_answered_in_the_forms_of_memcached() {
    let folder = Folder::new();
    let flags = ["-o", "no_lru_crawler,no_lru_maintainer,no_slab_reassign"];
    let Some((port, _memcached)) = memcached_with(&folder, &flags) else { return };
    let cluster = Cluster::start(1);
    let gateway = Gateway::of(&cluster, &[]);
    let mut sides = [port.address(), gateway.port.address()].map(Memcached::connect);
    for line in LINES {
        let request = format!("{line}\r\nmn\r\n");
        let [expected, found] = sides.each_mut().map(|side| side.ask(request.as_bytes(), b"MN\r\n"));
        assert_eq!(found, expected, "the gateway's answer, then memcached's, to {line}");
    }
    let mut sides = [port.address(), gateway.port.address()].map(Memcached::connect);
    for section in SECTIONS {
        let request = [stat(section), super::packets::noop()].concat();
        let end = super::packets::noop_answer();
        let [expected, found] = sides.each_mut().map(|side| side.bytes_until(&request, &end));
        assert!(found == expected, "{section}: {found:x?} instead of {expected:x?}");
    }
}

/// A `stat` packet.
fn stat(section: &str) -> Vec<u8> {
    let length = u8::try_from(section.len()).expect("a short name");
    let mut packet = vec![0x80, 0x10, 0, length, 0, 0, 0, 0, 0, 0, 0, length];
    packet.resize(24, 0);
    packet.extend_from_slice(section.as_bytes());
    packet
}
