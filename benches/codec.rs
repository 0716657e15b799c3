//! Requests from bytes, and answers to bytes, as a network thread does it.
//!
//! `requests` is why messages are delimited as they are: in one pass where all of a message is there, which is nearly always, and
//! with a scan that can be taken up again only for the rest (`pieces`). `answers` is why answers are packed by hand
//! into one buffer of the thread.

#![expect(clippy::expect_used, reason = "a bench that meets an error has nothing better to do")]

use divan::counter::ItemsCount;
use kumo_server::clock::ClockTime;
use kumo_server::wire::method::{Get, ReplicateSet, Set};
use kumo_server::wire::params::{SetOp, Stamped};
use kumo_server::wire::requests::{ClientToServer, NodeToServer};
use kumo_server::wire::{Message, Request, Scanner, frame, pack, record};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Messages of one read.
const BATCH: u32 = 16;
const LIMIT: usize = 1 << 20;

fn main() {
    divan::main();
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Get,
    Set,
    ReplicateSet,
}

/// The bytes of one read: requests of one kind, with values of 100 bytes.
fn requests(kind: Kind) -> Vec<u8> {
    let value = record::raw_value(ClockTime(0), 0, &[7; 100]);
    let mut out = Vec::new();
    for msgid in 0..BATCH {
        let key = record::raw_key(u64::from(msgid) << 40, b"key:000000000000");
        let msgid = 1_000_000 + msgid;
        match kind {
            Kind::Get => frame::request(&mut out, msgid, &Get { key: &key, look: None }),
            Kind::Set => {
                frame::request(&mut out, msgid, &Set { op: SetOp::Sync, key: &key, value: &value, route: None });
            }
            Kind::ReplicateSet => {
                let value = Stamped { clocktime: ClockTime(1 << 32), body: &[7; 102] };
                frame::request(&mut out, msgid, &ReplicateSet { clock: 7, flags: 0, key: &key, value, fence: None });
            }
        }
    }
    out
}

/// As a server reads it.
fn key_and_value_len(kind: Kind, request: &Request<'_>) -> usize {
    let (method, params) = (request.method, request.params);
    match kind {
        Kind::Get | Kind::Set => match ClientToServer::read(method, params, |_| true).expect("a request") {
            ClientToServer::Get(call) => call.key.bytes().len(),
            ClientToServer::Set(call) => call.key.bytes().len() + call.value.bytes().len(),
            _ => 0,
        },
        Kind::ReplicateSet => match NodeToServer::read(method, params, |_| true).expect("a request") {
            NodeToServer::ReplicateSet(call) => call.key.bytes().len() + call.value.bytes().len(),
            _ => 0,
        },
    }
}

#[divan::bench(args = [Kind::Get, Kind::Set, Kind::ReplicateSet])]
fn requests_by_16(bencher: divan::Bencher, kind: Kind) {
    let bytes = requests(kind);
    let mut scanner = Scanner::new(LIMIT);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        let (mut rest, mut sum) = (&bytes[..], 0);
        while let Some(len) = scanner.advance(rest).expect("messages") {
            let (message, after) = rest.split_at(len);
            rest = after;
            if let Message::Request(request) = Message::parse(message).expect("a message") {
                sum += key_and_value_len(kind, &request);
            }
        }
        sum
    });
}

#[divan::bench]
fn pieces(bencher: divan::Bencher) {
    let mut bytes = Vec::new();
    frame::request(&mut bytes, 1, &Set { op: SetOp::Sync, key: &[1; 24], value: &[1; 110], route: None });
    let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
    let mut scanner = Scanner::new(LIMIT);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        let first = scanner.advance(half).expect("half a message");
        (first, scanner.advance(&bytes).expect("a message"))
    });
}

#[divan::bench]
fn answers_by_16(bencher: divan::Bencher) {
    let value = record::raw_value(ClockTime(1 << 32), 0, &[7; 100]);
    let mut out = Vec::new();
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        out.clear();
        for msgid in 0..BATCH {
            frame::response_head(&mut out, 1_000_000 + msgid);
            pack::raw(&mut out, &value);
        }
        out.len()
    });
}
