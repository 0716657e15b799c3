//! What clients may take from a gateway, and what they get at the limit. Also its end.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::cluster::Cluster;
use crate::harness::{Gateway, wait_until};

#[test]
fn connections_beyond_the_limit_are_turned_away() {
    let cluster = Cluster::start(1);
    let gateway = Gateway::of(&cluster, &["--max-connections", "2"]);
    let (mut first, second) = (gateway.client(), gateway.client());
    first.exchange(b"mn\r\n", b"MN\r\n");
    let mut third = gateway.client();
    assert_eq!(third.rest(), b"ERROR Too many open connections\r\n");
    drop(second);
    wait_until("there is room again", || {
        let mut client = gateway.client();
        client.try_send(b"mn\r\n") && client.try_send(b"quit\r\n") && client.rest() == b"MN\r\n"
    });
    first.set("a", "x");
}

#[test]
fn values_over_the_limit_are_refused_and_the_connection_goes_on() {
    let cluster = Cluster::start(1);
    let gateway = Gateway::of(&cluster, &["--max-item-size", "100k"]);
    let mut client = gateway.client();
    let request = |len: usize| format!("set a 0 0 {len}\r\n{}\r\n", "x".repeat(len));
    client.exchange(request(100 << 10).as_bytes(), b"STORED\r\n");
    for _ in 0..2 {
        client.exchange(b"append a 0 0 1\r\nx\r\n", b"SERVER_ERROR object too large for cache\r\n");
    }
    client.exchange(request((100 << 10) + 1).as_bytes(), b"SERVER_ERROR object too large for cache\r\n");
    // What was there went with the set.
    client.exchange(b"append a 0 0 1\r\nx\r\n", b"NOT_STORED\r\n");
    client.exchange(b"set b 0 0 1\r\nx\r\nget b\r\n", b"STORED\r\nVALUE b 0 1\r\nx\r\nEND\r\n");
}

#[test]
fn garbage_is_answered_or_closed_and_nobody_else_notices() {
    let cluster = Cluster::start(1);
    let gateway = Gateway::of(&cluster, &[]);
    let mut fine = gateway.client();
    let mut random = fastrand::Rng::with_seed(7);
    for length in [1, 10, 1000, 100_000] {
        for first in [0x80, b'g', 0x00, 0x16] {
            let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
            bytes[0] = first;
            let mut client = gateway.client();
            // It may be closed half-way.
            client.try_send(&bytes);
            drop(client);
            fine.set("a", "x");
        }
    }
    fine.exchange(b"GET / here\r\n", b"ERROR\r\n");
    wait_until("they have gone", || gateway.stat("curr_connections") == 2);
}

#[test]
fn a_client_that_never_reads_is_not_read_from_and_then_closed() {
    let cluster = Cluster::start(1);
    let gateway = Gateway::of(&cluster, &["--idle-timeout", "2", "--max-memory", "64"]);
    let mut client = gateway.client();
    client.set("big", &"x".repeat(500_000));
    let before = gateway.process.resident_kib();
    let request = b"get big\r\n".repeat(1000);
    // It takes what fits in buffers and no more.
    let mut taken = 0;
    while client.try_send(&request) {
        taken += 1;
        assert!(taken < 10_000, "it takes everything");
    }
    assert!(gateway.process.resident_kib() < before + (150 << 10), "{before} KiB before");
    wait_until("it is closed", || gateway.stat("curr_connections") == 1);
    wait_until("its memory is given back", || gateway.stat("bytes_in_flight") == 0);
}

#[test]
fn answers_beyond_the_memory_of_all_connections_are_refused() {
    let cluster = Cluster::start(1);
    let gateway = Gateway::of(&cluster, &["--max-memory", "8"]);
    let mut client = gateway.client();
    client.set("big", &"x".repeat(1_000_000));
    let mut clients: Vec<_> = (0..8).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send(&b"get big\r\n".repeat(20));
    }
    // Nobody reads yet, and sockets hold less than half of the 160 MB.
    wait_until("some are refused", || gateway.stat("refused_requests") > 0);
    for client in &mut clients {
        client.end();
        let answers = client.rest();
        let (found, refused) =
            (count(&answers, b"VALUE big 0 1000000\r\n"), count(&answers, b"SERVER_ERROR out of memory"));
        assert_eq!(found + refused, 20);
    }
    assert_eq!(client.get("big").map(|value| value.len()), Some(1_000_000));
    wait_until("its memory is given back", || gateway.stat("bytes_in_flight") == 0);
}

fn count(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).filter(|window| *window == what).count()
}

#[test]
fn half_a_request_and_silence_is_closed_but_an_idle_client_is_not() {
    let cluster = Cluster::start(1);
    let gateway = Gateway::of(&cluster, &["--idle-timeout", "1"]);
    let (mut idle, mut half) = (gateway.client(), gateway.client());
    idle.set("a", "x");
    half.send(b"set a 0 0 10\r\nabc");
    assert_eq!(half.rest(), b"");
    idle.set("a", "y");
}

#[test]
fn told_to_end_it_answers_what_is_under_way() {
    let mut cluster = Cluster::start(1);
    let gateway = Gateway::of(&cluster, &[]);
    let (mut client, mut idle) = (gateway.client(), gateway.client());
    idle.exchange(b"mn\r\n", b"MN\r\n");
    client.set("a", "x");
    cluster.servers[0].process().hang();
    client.send(b"set a 0 0 1\r\ny\r\n");
    wait_until("it is under way", || gateway.stat("bytes_in_flight") > 0);
    gateway.process.signal(Signal::TERM);
    assert_eq!(idle.rest(), b"");
    cluster.servers[0].process().signal(Signal::CONT);
    assert_eq!(client.rest(), b"STORED\r\n");
    assert_eq!(gateway.process.finish().status.code(), Some(0));
}

#[test]
fn a_long_line_for_one_key_does_not_keep_it_from_ending() {
    let mut cluster = Cluster::start(1);
    let gateway = Gateway::of(&cluster, &["--shutdown-timeout", "1"]);
    let mut client = gateway.client();
    client.set("n", "1");
    cluster.servers[0].process().hang();
    client.send(&b"incr n 1\r\n".repeat(1020));
    wait_until("all are under way", || gateway.stat("bytes_in_flight") >= 1020 * 512);
    gateway.process.signal(Signal::TERM);
    let ended = gateway.process.finish();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
}

#[test]
fn clients_that_never_read_leave_memory_and_servers_to_others() {
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &["--max-memory", "64", "--shutdown-timeout", "1"]);
    let mut other = gateway.client();
    other.set("big", &"x".repeat(500_000));
    other.set("small", "x");
    let before = gateway.process.resident_kib();
    let flood = |count| -> Vec<_> {
        let mut clients: Vec<_> = (0..count).map(|_| gateway.client()).collect();
        for client in &mut clients {
            client.send(&b"get big\r\n".repeat(2000));
        }
        clients
    };
    let clients = flood(20);
    let (started, mut longest, mut most) = (Instant::now(), Duration::ZERO, 0);
    while started.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        assert_eq!(other.get("small").as_deref(), Some("x"));
        other.set("small", "x");
        longest = longest.max(asked.elapsed());
        most = most.max(gateway.process.resident_kib());
    }
    println!("{longest:?} at most, {before} KiB before, {most} at most");
    assert!(most < before + ((64 + 32) << 10), "{before} KiB before, {most} at most");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    // Their end is noticed, and nothing goes on for them.
    drop(clients);
    let dropped = Instant::now();
    wait_until("they have gone", || gateway.stat("curr_connections") == 2);
    wait_until("its memory is given back", || gateway.stat("bytes_in_flight") == 0);
    assert!(dropped.elapsed() < Duration::from_secs(5), "{:?}", dropped.elapsed());
    // They do not delay the end of the gateway either.
    let _clients = flood(10);
    wait_until("they are at work", || gateway.stat("bytes_in_flight") > 1 << 20);
    let told = Instant::now();
    gateway.process.signal(Signal::TERM);
    assert_eq!(gateway.process.finish().status.code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(2), "{:?}", told.elapsed());
}

#[test]
fn a_client_that_has_gone_is_noticed_while_nothing_is_read_from_it() {
    let mut cluster = Cluster::start(1);
    let gateway = Gateway::of(&cluster, &["-G", "60"]);
    cluster.servers[0].process().hang();
    let mut client = gateway.client();
    client.send(&[&b"mn\r\n"[..], &b"get a\r\n".repeat(1000)].concat());
    wait_until("as much as may be is under way", || gateway.stat("bytes_in_flight") >= 100 * 512);
    // Its first answer is unread, so that its end is a reset.
    drop(client);
    let dropped = Instant::now();
    wait_until("it has gone", || gateway.stat("curr_connections") == 1);
    assert!(dropped.elapsed() < Duration::from_secs(10), "{:?}", dropped.elapsed());
    cluster.servers[0].process().signal(Signal::CONT);
}
