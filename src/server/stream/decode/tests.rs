//! Streams as recorded, as written here, cut anywhere, damaged, and made to hurt.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use proptest::prelude::*;

use super::super::encode::tests::stream;
use super::*;

const LIMIT: usize = 1 << 20;

type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// Feeds `input` in pieces of `piece` bytes.
fn decode(input: &[u8], piece: usize, limit: usize) -> Result<(Records, bool), Error> {
    let mut decoder = Decoder::new(limit);
    let mut records = Vec::new();
    for mut piece in input.chunks(piece) {
        loop {
            let step =
                decoder.step(piece, |key, value| records.push((key.bytes().to_vec(), value.bytes().to_vec())))?;
            assert!(step.inflated <= STEP);
            assert!(decoder.plain.capacity() <= 2 * limit + 3 * STEP, "{} bytes held", decoder.plain.capacity());
            piece = &piece[step.consumed..];
            if step.consumed == 0 && step.inflated == 0 {
                break;
            }
        }
    }
    assert_eq!(decoder.records(), records.len() as u64);
    Ok((records, decoder.is_ended()))
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::new(6));
    zlib.write_all(plain).unwrap();
    zlib.finish().unwrap()
}

fn some(count: usize) -> Records {
    (0..count)
        .map(|at| (crate::ring::raw_key(&at.to_be_bytes()), vec![u8::try_from(at % 251).unwrap(); 10 + at % 300]))
        .collect()
}

fn recorded(name: &str) -> Vec<u8> {
    let text = include_str!("../../../../tests/vectors/server.json");
    let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
    let exchange = vectors["exchanges"].as_array().unwrap().iter().find(|exchange| exchange["name"] == name).unwrap();
    let hex = exchange["hex"].as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn the_recorded_stream_has_the_recorded_records() {
    let (data, plain) = (recorded("stream.data"), recorded("stream.plain"));
    let (records, ended) = decode(&data, data.len(), LIMIT).unwrap();
    assert!(ended);
    assert_eq!(records.len(), 15);
    // Compressed by us, the same content comes out.
    let again = stream(&records);
    let mut inflated = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(&again[..]), &mut inflated).unwrap();
    assert_eq!(inflated, plain);
}

#[test]
fn every_cut_gives_the_same_records() {
    let records = some(700);
    let bytes = stream(&records);
    for piece in [3, 7, 100, 4096, bytes.len()] {
        assert_eq!(decode(&bytes, piece, LIMIT).unwrap(), (records.clone(), true), "{piece}");
    }
}

#[test]
fn an_empty_stream_ends() {
    assert_eq!(decode(&stream(&[]), 3, LIMIT).unwrap(), (vec![], true));
}

#[test]
fn a_truncated_stream_does_not_end() {
    let bytes = stream(&some(50));
    for len in 0..bytes.len() {
        if let Ok((_, ended)) = decode(&bytes[..len], 64, LIMIT) {
            assert!(!ended, "{len} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn zlib_that_ends_before_the_final_nil_is_truncated() {
    let key = crate::ring::raw_key(b"k");
    let mut plain = vec![0x92, 0xa9];
    plain.extend_from_slice(&key);
    plain.extend_from_slice(b"\xaa0123456789");
    assert!(matches!(decode(&zlib(&plain), 64, LIMIT), Err(Error::Truncated)));
    assert!(matches!(decode(&zlib(&plain[..9]), 64, LIMIT), Err(Error::Truncated)));
}

#[test]
fn what_follows_the_end_is_refused() {
    assert!(matches!(decode(&zlib(&[0xc0, 0xc0]), 64, LIMIT), Err(Error::BehindEnd)));
    assert!(matches!(decode(&zlib(&[0xc0, 0x92]), 64, LIMIT), Err(Error::BehindEnd)));
}

#[test]
fn what_is_no_record_is_refused() {
    let short_key = b"\x92\xa7\0\0\0\0\0\0\0\xaa0123456789\xc0";
    let odd_value = b"\x92\xa8\0\0\0\0\0\0\0\0\xa9012345678\xc0";
    for plain in [&b"\x90\xc0"[..], b"\x05\xc0", b"\x91\xa8\0\0\0\0\0\0\0\0\xc0", short_key, odd_value, b"\xc1"] {
        assert!(matches!(decode(&zlib(plain), 64, LIMIT), Err(Error::Record(_))), "{plain:?}");
    }
}

#[test]
fn a_bomb_is_refused_when_its_record_passes_the_limit() {
    // A record that declares 4 GiB, and one that really has a gigabyte of zeros in a megabyte.
    let declared = zlib(b"\x92\xa8\0\0\0\0\0\0\0\0\xdb\xff\xff\xff\xff0123");
    assert!(matches!(decode(&declared, 4096, LIMIT), Err(Error::Record(wire::Error::TooLong(_)))));
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::new(9));
    let zeros = vec![0x90; 1 << 20];
    zlib.write_all(b"\xdd\x00\x0f\xff\x00").unwrap();
    for _ in 0..64 {
        zlib.write_all(&zeros).unwrap();
    }
    let bomb = zlib.finish().unwrap();
    assert!(bomb.len() < 100_000);
    assert!(decode(&bomb, 4096, LIMIT).is_err());
}

#[test]
fn a_record_of_many_steps_arrives() {
    let records = vec![(crate::ring::raw_key(b"long"), vec![9; LIMIT - 100])];
    assert_eq!(decode(&stream(&records), 1000, LIMIT).unwrap(), (records, true));
}

proptest! {
    #[test]
    fn damage_never_passes_for_the_whole(at in 0usize..2000, bit in 0u8..8, piece in 1usize..500) {
        let records = some(40);
        let mut bytes = stream(&records);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        // The checksum guards the content; a flipped bit may still leave a stream that says the same.
        if let Ok((decoded, true)) = decode(&bytes, piece, LIMIT) {
            prop_assert_eq!(decoded, records);
        }
    }

    #[test]
    fn noise_is_survived(noise in prop::collection::vec(any::<u8>(), 0..3000), piece in 1usize..500) {
        let _ = decode(&noise, piece, LIMIT);
        let _ = decode(&zlib(&noise), piece, LIMIT);
    }
}
