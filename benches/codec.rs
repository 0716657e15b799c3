//! Requests from bytes, and answers to bytes, as a network thread does it.
//!
//! `requests` decides how messages are delimited: in one pass where all of a message is there, which is nearly always, and
//! with a scan that can be taken up again only for the rest (`pieces`). `answers` decides that answers are packed by hand
//! into one buffer of the thread.

#![expect(clippy::expect_used, reason = "a bench that meets an error has nothing better to do")]

use divan::counter::ItemsCount;
use kumo_server::clock::ClockTime;
use kumo_server::wire::method::Method;
use kumo_server::wire::params::{self, SetOp};
use kumo_server::wire::{Message, Scanner, frame, pack, record};

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
        let method = match kind {
            Kind::Get => Method::Get,
            Kind::Set => Method::Set,
            Kind::ReplicateSet => Method::ReplicateSet,
        };
        frame::request_head(&mut out, 1_000_000 + msgid, method);
        match kind {
            Kind::Get => params::write_get(&mut out, &key),
            Kind::Set => params::write_set(&mut out, SetOp::Sync, &key, &value),
            Kind::ReplicateSet => params::write_replicate_set(&mut out, 7, 0, &key, ClockTime(1 << 32), &[7; 102]),
        }
    }
    out
}

fn key_and_value_len(kind: Kind, params: &[u8]) -> usize {
    match kind {
        Kind::Get => params::get(params).expect("a key").bytes().len(),
        Kind::Set => {
            let (_, key, value) = params::set(params).expect("a write");
            key.bytes().len() + value.bytes().len()
        }
        Kind::ReplicateSet => {
            let call = params::replicate_set(params).expect("a copy");
            call.key.bytes().len() + call.value.bytes().len()
        }
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
                sum += key_and_value_len(kind, request.params);
            }
        }
        sum
    });
}

#[divan::bench]
fn pieces(bencher: divan::Bencher) {
    let mut bytes = Vec::new();
    frame::request_head(&mut bytes, 1, Method::Set);
    params::write_set(&mut bytes, SetOp::Sync, &[1; 24], &[1; 110]);
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
