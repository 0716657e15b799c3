//! Packets and their answers: what memcached 1.6.18 says, but for CAS uniques.

use super::*;
use crate::gateway::fake::{FakeGateway, RULES};
use crate::gateway::protocol::answer::binary::RESPONSE;

/// A request packet.
fn packet(opcode: u8, key: &[u8], extras: &[u8], value: &[u8], compare: u64) -> Vec<u8> {
    let body = key.len() + extras.len() + value.len();
    let mut out = vec![REQUEST, opcode];
    out.extend_from_slice(&u16::try_from(key.len()).unwrap().to_be_bytes());
    out.extend_from_slice(&[u8::try_from(extras.len()).unwrap(), 0, 0, 0]);
    out.extend_from_slice(&u32::try_from(body).unwrap().to_be_bytes());
    out.extend_from_slice(&0xabcd_u32.to_be_bytes());
    out.extend_from_slice(&compare.to_be_bytes());
    [&out[..], extras, key, value].concat()
}

/// Flags and exptime of a write.
fn put(flags: u32, exptime: u32) -> Vec<u8> {
    [flags.to_be_bytes(), exptime.to_be_bytes()].concat()
}

fn count(delta: u64, initial: u64, exptime: u32) -> Vec<u8> {
    [&delta.to_be_bytes()[..], &initial.to_be_bytes(), &exptime.to_be_bytes()].concat()
}

/// Each answer as `opcode status extras|key|value cas`.
fn read(mut bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() {
        assert_eq!((header[0], &header[12..16]), (RESPONSE, &0xabcd_u32.to_be_bytes()[..]));
        let status = u16::from_be_bytes([header[6], header[7]]);
        let read = Header::read(*header);
        let (body, rest) = rest.split_at(read.body);
        let (extras, rest_of_body) = body.split_at(read.extras);
        let (key, value) = rest_of_body.split_at(read.key);
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let extras = extras.first_chunk().map_or(String::new(), |flags| format!("{:08x}", u32::from_be_bytes(*flags)));
        let line = format!("{:02x} {status:02x} {extras}|{}|{} {}", read.opcode, text(key), text(value), read.compare);
        found.push(line);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "no whole packet: {bytes:?}");
    found
}

fn converse(steps: &[(Vec<u8>, &[&str])]) {
    let mut gateway = FakeGateway::new(RULES);
    for (request, expected) in steps {
        assert_eq!(read(&gateway.ask(request)), *expected, "{request:x?}");
    }
}

#[test]
fn values_are_stored_and_read() {
    let set = |opcode, value: &[u8]| packet(opcode, b"a", &put(7, 0), value, 0);
    let get = |opcode, key: &[u8]| packet(opcode, key, b"", b"", 0);
    converse(&[
        (set(0x01, b"val"), &["01 00 || 1"]),
        (get(0x00, b"a"), &["00 00 00000007||val 1"]),
        (get(0x0c, b"a"), &["0c 00 00000007|a|val 1"]),
        (get(0x09, b"a"), &["09 00 00000007||val 1"]),
        (get(0x0d, b"a"), &["0d 00 00000007|a|val 1"]),
        (get(0x00, b"no"), &["00 01 ||Not found 0"]),
        (get(0x0c, b"no"), &["0c 01 |no| 0"]),
        (get(0x09, b"no"), &[]),
        (get(0x0d, b"no"), &[]),
        (set(0x11, b""), &[]),
        (get(0x00, b"a"), &["00 00 00000007|| 2"]),
        (packet(0x0a, b"", b"", b"", 0), &["0a 00 || 0"]),
    ]);
}

#[test]
fn conditions_decide_over_writes() {
    let write = |opcode, key: &[u8], compare| packet(opcode, key, &put(0, 0), b"x", compare);
    let append = |opcode, key: &[u8], compare| packet(opcode, key, b"", b"x", compare);
    let delete = |opcode, key: &[u8], compare| packet(opcode, key, b"", b"", compare);
    let exists = "||Data exists for key. 0";
    converse(&[
        (write(0x03, b"no", 0), &["03 01 ||Not found 0"]),
        (write(0x13, b"no", 0), &["13 01 ||Not found 0"]),
        (write(0x02, b"a", 0), &["02 00 || 1"]),
        (write(0x02, b"a", 0), &[&format!("02 02 {exists}")]),
        (write(0x12, b"a", 0), &[&format!("12 02 {exists}")]),
        (write(0x01, b"a", 9), &[&format!("01 02 {exists}")]),
        (write(0x02, b"a", 9), &[&format!("02 02 {exists}")]),
        (write(0x01, b"no", 9), &["01 01 ||Not found 0"]),
        (write(0x02, b"no", 9), &["02 01 ||Not found 0"]),
        (write(0x01, b"a", 1), &["01 00 || 2"]),
        (append(0x0e, b"a", 0), &["0e 00 || 3"]),
        (append(0x1a, b"a", 0), &[]),
        (append(0x0e, b"no", 0), &["0e 05 ||Not stored. 0"]),
        (append(0x19, b"no", 9), &["19 05 ||Not stored. 0"]),
        (append(0x0e, b"a", 9), &[&format!("0e 02 {exists}")]),
        (delete(0x04, b"a", 9), &[&format!("04 02 {exists}")]),
        (delete(0x04, b"a", 0), &["04 00 || 0"]),
        (delete(0x04, b"a", 0), &["04 01 ||Not found 0"]),
        (delete(0x14, b"a", 0), &["14 01 ||Not found 0"]),
        (
            packet(0x01, b"a", &put(65_536, 0), b"x", 0),
            &["01 83 ||flags over 65535 are not kept: the gateway runs without --flag-bytes 4 0"],
        ),
    ]);
}

#[test]
fn numbers_are_counted_and_created() {
    let number = |opcode, extras: &[u8], compare| packet(opcode, b"c", extras, b"", compare);
    converse(&[
        (number(0x05, &count(1, 0, u32::MAX), 0), &["05 01 ||Not found 0"]),
        (number(0x05, &count(1, 10, 0), 9), &["05 00 ||\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\n 1"]),
        (number(0x05, &count(1, 10, 0), 0), &["05 00 ||\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x0b 2"]),
        (number(0x05, &count(1, 10, 0), 9), &["05 02 ||Data exists for key. 0"]),
        (number(0x06, &count(100, 10, 0), 2), &["06 00 ||\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00 3"]),
        (number(0x15, &count(1, 10, 0), 0), &[]),
        (packet(0x01, b"c", &put(0, 0), b"x", 0), &["01 00 || 5"]),
        (number(0x15, &count(1, 0, 0), 0), &["15 06 ||Non-numeric server-side value for incr or decr 0"]),
    ]);
}

#[test]
fn an_expiry_is_touched() {
    let touch = |opcode, key: &[u8]| packet(opcode, key, &100_u32.to_be_bytes(), b"", 0);
    converse(&[
        (packet(0x01, b"a", &put(7, 0), b"val", 0), &["01 00 || 1"]),
        (touch(0x1c, b"a"), &["1c 00 00000007|| 2"]),
        (touch(0x1d, b"a"), &["1d 00 00000007||val 2"]),
        (touch(0x1e, b"a"), &["1e 00 00000007||val 2"]),
        (touch(0x23, b"a"), &["23 00 00000007|a|val 2"]),
        (touch(0x24, b"a"), &["24 00 00000007|a|val 2"]),
        (touch(0x1c, b"no"), &["1c 01 ||Not found 0"]),
        (touch(0x1d, b"no"), &["1d 01 ||Not found 0"]),
        (touch(0x1e, b"no"), &[]),
        (touch(0x23, b"no"), &["23 01 |no| 0"]),
        (touch(0x24, b"no"), &[]),
    ]);
}

#[test]
fn the_rest_is_answered() {
    let plain = |opcode, key: &[u8]| packet(opcode, key, b"", b"", 0);
    converse(&[
        (plain(0x0b, b""), &[concat!("0b 00 ||1.6.18-kumo-server-", env!("CARGO_PKG_VERSION"), " 0")]),
        (packet(0x1b, b"", &[0, 0, 0, 1], b"", 0), &["1b 00 || 0"]),
        (plain(0x10, b""), &["10 00 |pid|1 0", "10 00 || 0"]),
        (plain(0x08, b""), &["08 00 || 0"]),
        (plain(0x18, b""), &[]),
        (plain(0x20, b""), &["20 81 ||Unknown command 0"]),
        (plain(0x21, b"PLAIN"), &["21 81 ||Unknown command 0"]),
        (packet(0x50, b"k", b"12", b"val", 0), &["50 81 ||Unknown command 0"]),
        (plain(0xff, b""), &["ff 81 ||Unknown command 0"]),
    ]);
    for (opcode, expected) in [(0x07, &["07 00 || 0"][..]), (0x17, &[])] {
        let mut gateway = FakeGateway::new(RULES);
        assert_eq!(read(&gateway.ask(&[plain(opcode, b""), plain(0x0a, b"")].concat())), expected);
        assert!(gateway.closed);
    }
}

#[test]
fn packets_with_wrong_parts_end_the_connection() {
    let long = [b'k'; 251];
    for (request, opcode) in [
        (packet(0x00, b"", b"", b"", 0), 0x00),
        (packet(0x00, &long, b"", b"", 0), 0x00),
        (packet(0x00, b"a", b"1234", b"", 0), 0x00),
        (packet(0x00, b"a", b"", b"v", 0), 0x00),
        (packet(0x01, b"a", b"1234", b"v", 0), 0x01),
        (packet(0x05, b"a", b"", b"", 0), 0x05),
        (packet(0x0e, b"a", &put(0, 0), b"v", 0), 0x0e),
        (packet(0x1c, b"a", b"", b"", 0), 0x1c),
        (packet(0x0a, b"k", b"", b"", 0), 0x0a),
    ] {
        let mut gateway = FakeGateway::new(RULES);
        assert_eq!(read(&gateway.ask(&request)), [format!("{opcode:02x} 04 ||Invalid arguments 0")], "{request:x?}");
        assert!(gateway.closed);
    }
    // Lengths that contradict each other, and one that would be held until four GiB have come.
    for (opcode, length) in [(0x00, 0_u32), (0x01, 8), (0x00, u32::MAX)] {
        let mut request = packet(opcode, b"a", if opcode == 1 { b"12345678" } else { b"" }, b"", 0);
        request[8..12].copy_from_slice(&length.to_be_bytes());
        let mut gateway = FakeGateway::new(RULES);
        assert_eq!(read(&gateway.ask(&request)), [format!("{opcode:02x} 04 ||Invalid arguments 0")]);
        assert!(gateway.closed);
    }
    let mut gateway = FakeGateway::new(RULES);
    assert_eq!(read(&gateway.ask(&[packet(0x0a, b"", b"", b"", 0), vec![0x70; 24]].concat())), ["0a 00 || 0"]);
    assert!(gateway.closed, "a wrong magic");
}

#[test]
fn a_value_over_the_limit_is_dropped_and_nothing_else() {
    let noop = packet(0x0a, b"", b"", b"", 0);
    let value = vec![b'x'; 1001];
    // A set takes what it was to replace with it.
    for (opcode, extras, left) in [(0x01, 8, 0), (0x11, 8, 0), (0x02, 8, 1), (0x03, 8, 1), (0x0e, 0, 1), (0x19, 0, 1)] {
        let mut gateway = FakeGateway::new(RULES);
        gateway.ask(&packet(0x01, b"a", &put(0, 0), b"old", 0));
        let requests = [packet(opcode, b"a", &put(0, 0)[..extras], &value, 0), noop.clone()].concat();
        assert_eq!(read(&gateway.ask(&requests)), [format!("{opcode:02x} 03 ||Too large. 0"), "0a 00 || 0".to_owned()]);
        assert_eq!(gateway.records.len(), left, "{opcode:02x}");
    }
    let mut gateway = FakeGateway::new(RULES);
    assert_eq!(read(&gateway.ask(&packet(0x01, b"a", &put(0, 0), &value[1..], 0))), ["01 00 || 1"]);
    // The original cut a length to 16 bits.
    let mut gateway = FakeGateway::new(crate::gateway::item::Rules { value_limit: 1 << 20, ..RULES });
    let value = vec![b'x'; 70_000];
    gateway.ask(&packet(0x01, b"a", &put(0, 0), &value, 0));
    assert_eq!(gateway.ask(&packet(0x00, b"a", b"", b"", 0)).len(), HEADER + 4 + 70_000);
}
