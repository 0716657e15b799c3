//! Properties of every protocol: how the input is cut does not matter, and nothing that arrives does harm.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::clock::ClockTime;
use crate::gateway::failure::Failure;
use crate::gateway::fake::{FakeGateway, RULES};
use crate::gateway::item::Item;
use crate::gateway::outcome::Outcome;

/// Words that commands are made of, so that many lines are right or nearly so.
fn word() -> impl Strategy<Value = Vec<u8>> {
    let known = vec![
        "get",
        "gets",
        "gat",
        "set",
        "add",
        "append",
        "cas",
        "incr",
        "touch",
        "delete",
        "mg",
        "ms",
        "md",
        "ma",
        "me",
        "mn",
        "a",
        "b",
        "YQ==",
        "0",
        "1",
        "2",
        "5",
        "-1",
        "2000",
        "noreply",
        "v",
        "k",
        "q",
        "O1",
        "C1",
        "T9",
        "c",
        "t",
        "MA",
        "verbosity",
        "stats",
        "flush_all",
        "\r\n",
        "\r\n",
        "\r\n",
        "\r\nab\r\n",
        "\r\nx\r\n",
    ];
    prop_oneof![9 => select(known).prop_map(|word| word.as_bytes().to_vec()), 1 => vec(any::<u8>(), 0..8)]
}

fn lines() -> impl Strategy<Value = Vec<u8>> {
    vec(word(), 0..60).prop_map(|words| words.join(&b' '))
}

/// Packets whose lengths mostly fit, of any opcode.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let extras = select(vec![0_usize, 4, 8, 20]);
    let packet = (0_u8..0x30, extras, vec(any::<u8>(), 0..4), vec(any::<u8>(), 0..1100), 0_u64..3, any::<u8>());
    let bytes = packet.prop_map(|(opcode, extras, key, value, compare, spoiled)| {
        let value = if (1..=3).contains(&opcode) || opcode == 0x0e { value } else { Vec::new() };
        let body = u32::try_from(extras + key.len() + value.len()).unwrap();
        let extras_len = u8::try_from(extras).unwrap();
        let key_len = u8::try_from(key.len()).unwrap();
        let mut out = vec![0x80, opcode, 0, key_len, extras_len, 0, 0, 0];
        out.extend_from_slice(&body.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&compare.to_be_bytes());
        if spoiled == 0 {
            out[8] = 0xff;
        }
        [&out[..], &vec![0; extras], &key, &value].concat()
    });
    vec(bytes, 0..12).prop_map(|packets| packets.concat())
}

/// Bytes that a connection sends, and where to cut them.
fn cut(input: &[u8], places: &[Index]) -> (Vec<u8>, bool) {
    let mut ends: Vec<_> = places.iter().map(|place| place.index(input.len() + 1)).collect();
    ends.extend([0, input.len()]);
    ends.sort_unstable();
    let mut gateway = FakeGateway::new(RULES);
    let out = ends.windows(2).flat_map(|ends| gateway.ask(&input[ends[0]..ends[1]])).collect();
    (out, gateway.closed)
}

proptest! {
    #[test]
    fn it_does_not_matter_how_the_input_is_cut(
        input in prop_oneof![lines(), packets(), vec(any::<u8>(), 0..300)],
        places in vec(any::<Index>(), 0..20),
    ) {
        prop_assert_eq!(cut(&input, &places), cut(&input, &[]));
    }

    #[test]
    fn values_come_back_as_they_were(value in vec(any::<u8>(), 0..1000), flags: u16) {
        let mut gateway = FakeGateway::new(RULES);
        let set = [format!("set key {flags} 0 {}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat();
        prop_assert_eq!(gateway.ask(&set), b"STORED\r\n");
        let answer = [format!("VALUE key {flags} {}\r\n", value.len()).as_bytes(), &value, b"\r\nEND\r\n"].concat();
        prop_assert_eq!(gateway.ask(b"get key\r\n"), answer);
    }
}

#[test]
fn byte_by_byte_is_the_same() {
    let input = b"set a 1 0 3\r\nabc\r\nget a b a\r\nmg a v k\r\nset a 0 0 9999\r\nquit\r\n";
    let every: Vec<_> = input.iter().map(std::slice::from_ref).collect();
    let mut gateway = FakeGateway::new(RULES);
    let out: Vec<u8> = every.into_iter().flat_map(|byte| gateway.ask(byte)).collect();
    let (expected, closed) = cut(input, &[]);
    assert_eq!((out, gateway.closed), (expected, closed));
}

/// The answer to a multi-get with these outcomes, each written when those in front of it are, or before.
fn multi_get(outcomes: &[(Outcome<'static>, bool)]) -> String {
    let (mut codec, mut writer, mut out) = (Codec::new(), Writer::default(), Vec::new());
    let line = format!("get{}\r\n", " k".repeat(outcomes.len()));
    let mut input = line.as_bytes();
    for (outcome, early) in outcomes {
        let Next::Request { length, request } = codec.next(input, &RULES) else { panic!("a request") };
        input = &input[length..];
        if *early {
            writer.append(Early::new(&request.form, b"k", outcome, 0), &mut out);
        } else {
            writer.write(&request.form, b"k", outcome, 0, &mut out);
        }
    }
    // Whatever happened, the next request is answered.
    let Next::Request { request, .. } = codec.next(b"get k\r\n", &RULES) else { panic!("a request") };
    writer.write(&request.form, b"k", &Outcome::Missing, 0, &mut out);
    String::from_utf8(out).unwrap()
}

fn found() -> Outcome<'static> {
    Outcome::Found(Item { clocktime: ClockTime(1), flags: 0, expires: 0, data: b"x", awaited: false })
}

#[test]
fn a_failed_key_ends_the_answer_of_its_multi_get() {
    let (failed, missing) = (Outcome::Failed(Failure::Unavailable), Outcome::Missing);
    let (value, error) = ("VALUE k 0 1\r\nx\r\n", "SERVER_ERROR no server of this key can be reached\r\n");
    for (outcomes, expected) in [
        ([found(), failed.clone(), found()], format!("{value}{error}")),
        ([found(), missing.clone(), failed.clone()], format!("{value}{error}")),
        ([failed.clone(), failed.clone(), failed.clone()], error.to_owned()),
        ([missing.clone(), missing, found()], format!("{value}END\r\n")),
    ] {
        for early in 0..8_u8 {
            let outcomes = [0, 1, 2].map(|at| (outcomes[at].clone(), early & (1 << at) != 0));
            assert_eq!(multi_get(&outcomes), format!("{expected}END\r\n"), "{outcomes:?}");
        }
    }
}
