//! What monitoring and clients get from a gateway's `stats`: every name they look for, with values that are true of
//! the moment in which they are asked for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::harness::cluster::Cluster;
use crate::harness::gateway::Memcached;
use crate::harness::{Gateway, wait_until};

/// Numbers that `memcached_exporter`, telegraf and others read.
const EXPECTED: [&str; 44] = [
    "pid",
    "uptime",
    "time",
    "pointer_size",
    "rusage_user",
    "rusage_system",
    "curr_connections",
    "total_connections",
    "max_connections",
    "rejected_connections",
    "connection_structures",
    "accepting_conns",
    "listen_disabled_num",
    "conn_yields",
    "threads",
    "cmd_get",
    "cmd_set",
    "cmd_flush",
    "cmd_touch",
    "get_hits",
    "get_misses",
    "get_expired",
    "get_flushed",
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
    "bytes_read",
    "bytes_written",
    "limit_maxbytes",
    "bytes",
    "curr_items",
    "total_items",
    "evictions",
    "reclaimed",
    "auth_cmds",
    "store_too_large",
];

fn parsed(answer: &str) -> BTreeMap<String, String> {
    let lines = answer.lines().filter_map(|line| line.strip_prefix("STAT ")?.split_once(' '));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn number(stats: &BTreeMap<String, String>, name: &str) -> u64 {
    stats.get(name).unwrap_or_else(|| panic!("no {name}")).parse().unwrap_or_else(|_| panic!("{name} is no number"))
}

#[test]
fn the_names_that_monitoring_looks_for_are_there() {
    let cluster = Cluster::start(1);
    let gateway = Gateway::of(&cluster, &["--max-connections", "7"]);
    let mut client = gateway.client();
    let stats = parsed(&client.ask(b"stats\r\n", b"END\r\n"));
    for name in EXPECTED {
        let value = stats.get(name).unwrap_or_else(|| panic!("no {name} in {stats:?}"));
        assert!(value.parse::<f64>().is_ok(), "{name} {value}");
    }
    assert_eq!(stats.len(), stats.keys().collect::<std::collections::BTreeSet<_>>().len());
    assert_eq!((number(&stats, "accepting_conns"), number(&stats, "curr_connections")), (1, 1));
    // A time of the processor has two whole numbers, the second of six digits.
    let (_, micros) = stats["rusage_user"].split_once('.').expect("seconds and microseconds");
    assert_eq!(micros.len(), 6);
    let settings = parsed(&client.ask(b"stats settings\r\n", b"END\r\n"));
    assert_eq!(number(&settings, "maxconns"), 7);
    assert_eq!(number(&settings, "tcpport"), u64::from(gateway.port.number()));
    client.exchange(b"stats items\r\n", b"END\r\n");
    client.exchange(b"stats slabs\r\n", b"STAT active_slabs 0\r\nSTAT total_malloced 0\r\nEND\r\n");
    client.exchange(b"stats cachedump 1 100\r\n", b"END\r\n");
}

#[test]
fn statistics_count_what_stands_before_them() {
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &[]);
    let mut client = gateway.client();
    for round in 1..=30 {
        // All in one write: when it is read, none of it is answered.
        let requests =
            "set k 0 0 1\r\n1\r\nget k\r\nget none\r\nincr k 1\r\ntouch none 0\r\nset k 0 0 1 noreply\r\n2\r\n";
        let answers = "STORED\r\nVALUE k 0 1\r\n1\r\nEND\r\nEND\r\n2\r\nNOT_FOUND\r\n";
        client.send(format!("{requests}stats\r\nget none\r\n").as_bytes());
        client.expect(answers.as_bytes());
        let stats = parsed(&client.ask(b"", b"END\r\n"));
        client.expect(b"END\r\n");
        let counted =
            ["cmd_set", "get_hits", "incr_hits", "touch_misses", "total_items"].map(|name| number(&stats, name));
        assert_eq!(counted, [2 * round, round, round, round, 2 * round], "round {round}");
        assert_eq!(number(&stats, "get_misses"), 2 * round - 1, "round {round}");
    }
    // Bytes as they were on the wire, up to this request.
    client.exchange(b"stats reset\r\n", b"RESET\r\n");
    client.exchange(b"set k 0 0 5\r\n12345\r\n", b"STORED\r\n");
    let stats = parsed(&client.ask(b"stats\r\n", b"END\r\n"));
    assert_eq!(number(&stats, "bytes_read"), 20 + 7);
    assert_eq!(number(&stats, "bytes_written"), 7 + 8, "with the answer to the reset");
    assert_eq!((number(&stats, "cmd_set"), number(&stats, "get_hits")), (1, 0));
}

#[test]
fn binary_statistics_count_what_stands_before_them() {
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &[]);
    let mut client = gateway.client();
    let packet = |opcode, key: &[u8], extras: &[u8], value: &[u8]| {
        let len = |part: &[u8]| u8::try_from(part.len()).expect("short");
        let mut packet =
            vec![0x80, opcode, 0, len(key), len(extras), 0, 0, 0, 0, 0, 0, len(key) + len(extras) + len(value)];
        packet.resize(24, 0);
        [&packet[..], extras, key, value].concat()
    };
    let mut requests = packet(0x11, b"k", &[0; 8], b"1");
    requests.extend(packet(0x09, b"k", b"", b""));
    requests.extend(packet(0x10, b"", b"", b""));
    requests.extend(packet(0x0a, b"", b"", b""));
    let mut end = packet(0x0a, b"", b"", b"");
    end[0] = 0x81;
    let answer = client.bytes_until(&requests, &end);
    for (name, value) in [("cmd_set", "1"), ("get_hits", "1"), ("get_misses", "0")] {
        let row = [name, value].concat();
        assert!(answer.windows(row.len()).any(|part| part == row.as_bytes()), "{name}: {}", answer.escape_ascii());
    }
    for (group, shown) in [("settings", "maxconns10000"), ("detail on", ""), ("reset", ""), ("none", "Not found")] {
        let answer =
            client.bytes_until(&[packet(0x10, group.as_bytes(), b"", b""), packet(0x0a, b"", b"", b"")].concat(), &end);
        assert!(answer.windows(shown.len().max(1)).any(|part| shown.is_empty() || part == shown.as_bytes()), "{group}");
    }
}

#[test]
fn the_cluster_is_counted_once_and_asked_once_a_second() {
    let cluster = Cluster::start(4);
    let gateway = Gateway::of(&cluster, &[]);
    let mut client = gateway.client();
    for key in 0..200 {
        client.set(&format!("key{key}"), "value");
    }
    wait_until("all keys are counted", || gateway.stat("curr_items") == 200);
    assert!(gateway.stat("bytes") > 0);
    // Another gateway has stored nothing, and sees the same.
    let other = Gateway::of(&cluster, &[]);
    wait_until("the other gateway knows the servers", || other.stat("curr_items") == 200);
    assert_eq!((gateway.stat("total_items"), other.stat("total_items")), (200, 0));
}

#[test]
fn a_server_that_hangs_does_not_keep_statistics() {
    let mut cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &[]);
    let mut client = gateway.client();
    for key in 0..50 {
        client.set(&format!("key{key}"), "value");
    }
    wait_until("all keys are counted", || gateway.stat("curr_items") == 50);
    std::thread::sleep(Duration::from_secs(1)); // what was learnt is not kept longer
    cluster.servers[1].process().hang();
    let started = Instant::now();
    let mut clients: Vec<_> = (0..20).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send(b"stats\r\nstats\r\nmn\r\n");
    }
    for client in &mut clients {
        let stats = parsed(&client.ask(b"", b"END\r\nMN\r\n"));
        assert_eq!(number(&stats, "curr_items"), 50, "what it said before still counts");
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(Memcached::connect(gateway.port.address()).ask(b"stats\r\n", b"END\r\n").contains("curr_items 50"));
}
