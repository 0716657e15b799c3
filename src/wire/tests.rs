//! Properties of the codec: what is written reads back, and however the bytes arrive the messages are the same.

use proptest::prelude::*;

use super::method::{ErrorCode, Method, ReplaceCopyStart, Role, Set};
use super::params::{self, Encode, Seed, SetOp};
use super::requests::{ClientToManager, ClientToServer, ManagerToClient, NodeToManager, NodeToServer};
use super::unpack::Reader;
use super::*;
use crate::clock::ClockTime;

/// Lengths around each form of a raw, and any small one.
fn bytes(least: usize) -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![0usize..40, Just(31), Just(32), Just(255), Just(256), Just(65_535), Just(65_536)];
    (len, any::<u8>()).prop_map(move |(len, fill)| vec![fill; len.max(least)])
}

fn address() -> impl Strategy<Value = NodeAddress> {
    let v4 = (any::<[u8; 4]>(), 1u16..).prop_map(|(ip, port)| std::net::SocketAddr::from((ip, port)));
    let v6 = (any::<[u8; 16]>(), 1u16..).prop_map(|(ip, port)| std::net::SocketAddr::from((ip, port)));
    prop_oneof![v4, v6].prop_map(NodeAddress::new)
}

fn seed() -> impl Strategy<Value = Seed> {
    (prop::collection::btree_map(address(), any::<bool>(), 0..20), any::<u64>())
        .prop_map(|(nodes, clocktime)| Seed { nodes: nodes.into_iter().collect(), clocktime: ClockTime(clocktime) })
}

/// Any message that this program sends.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let request = |method: Method, msgid: u32, write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        frame::request_head(&mut out, msgid, method);
        write(&mut out);
        out
    };
    let set = (any::<u32>(), bytes(8), bytes(10)).prop_map(move |(msgid, key, value)| {
        request(Method::Set, msgid, &|out| Set { op: SetOp::Cas, key: &key, value: &value, route: None }.encode(out))
    });
    let start = (any::<u32>(), seed(), any::<u32>(), any::<bool>()).prop_map(move |(msgid, seed, clock, full)| {
        request(Method::ReplaceCopyStart, msgid, &|out| ReplaceCopyStart { seed: &seed, clock, full }.encode(out))
    });
    let response = (any::<u32>(), bytes(0)).prop_map(|(msgid, result)| {
        let mut out = Vec::new();
        frame::response_head(&mut out, msgid);
        pack::raw(&mut out, &result);
        out
    });
    let error = any::<u32>().prop_map(|msgid| {
        let mut out = Vec::new();
        frame::error_response(&mut out, msgid, ErrorCode::Server);
        out
    });
    let init = address().prop_map(|address| {
        let mut out = Vec::new();
        Init { address, role: Role::Manager }.write(&mut out);
        out
    });
    prop_oneof![set, start, response, error, init]
}

/// The messages in `bytes` when they arrive in pieces that end at `cuts`.
fn arriving(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut scanner = Scanner::new(MESSAGE_LIMIT);
    let (mut kept, mut found, mut from) = (Vec::new(), Vec::new(), 0);
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        kept.extend_from_slice(&bytes[from..cut.max(from)]);
        from = cut.max(from);
        while let Some(len) = scanner.advance(&kept).unwrap() {
            found.push(kept.drain(..len).collect());
        }
    }
    assert!(kept.is_empty());
    found
}

proptest! {
    #[test]
    fn numbers_and_raws_read_back(number: u64, raw in bytes(0)) {
        let mut out = Vec::new();
        pack::uint(&mut out, number);
        pack::raw(&mut out, &raw);
        let mut reader = Reader::new(&out);
        prop_assert_eq!((reader.u64(), reader.raw()), (Ok(number), Ok(&raw[..])));
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn every_split_gives_the_same_messages(
        messages in prop::collection::vec(message(), 1..6),
        mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let stream = messages.concat();
        let mut places: Vec<_> = cuts.drain(..).map(|cut| cut.index(stream.len())).collect();
        places.sort_unstable();
        prop_assert_eq!(arriving(&stream, &places), messages.clone());
        for message in &messages {
            prop_assert!(Message::parse(message).is_ok());
        }
    }

    #[test]
    fn one_byte_at_a_time_gives_the_same_messages(message in message().prop_filter("short", |bytes| bytes.len() < 2000)) {
        let cuts: Vec<_> = (0..message.len()).collect();
        prop_assert_eq!(arriving(&message, &cuts), [message]);
    }

    #[test]
    fn seeds_read_back(seed in seed()) {
        let mut out = Vec::new();
        seed.encode(&mut out);
        prop_assert_eq!(params::decode::<Seed>(&out), Ok(seed));
    }

    #[test]
    fn random_bytes_are_refused_or_wait_or_are_a_message(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Some(len)) = Scanner::new(1000).advance(&noise) {
            prop_assert!(len <= noise.len());
            // Whatever it says: no panic, and parameters of any shape are looked at without one.
            if let Ok(Message::Request(request)) = Message::parse(&noise[..len]) {
                for method in Method::ALL.iter().map(|method| method.number()) {
                    let _ = (
                        ClientToServer::read(method, request.params, |_| true),
                        NodeToServer::read(method, request.params, |_| true),
                        ClientToManager::read(method, request.params, |_| true),
                        NodeToManager::read(method, request.params, |_| true),
                        ManagerToClient::read(method, request.params, |_| true),
                    );
                }
            }
        }
    }
}
