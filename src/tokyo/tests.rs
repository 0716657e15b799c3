//! Files recorded from the library itself, files made here, and damage to both.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::scan::hash_byte;
use super::write::bucket;
use super::*;

fn fixture(order: &str) -> (Vec<u8>, serde_json::Value) {
    let path = |suffix| format!("{}/tests/fixtures/tokyocabinet-{order}-endian.{suffix}", env!("CARGO_MANIFEST_DIR"));
    let expected = std::fs::read_to_string(path("expected.json")).unwrap();
    (std::fs::read(path("tch")).unwrap(), serde_json::from_str(&expected).unwrap())
}

type Found = Vec<(Vec<u8>, Vec<u8>)>;

fn read(bytes: &[u8]) -> Result<(Found, Damage), Error> {
    let mut scan = Scan::new(bytes)?;
    let mut found = Vec::new();
    while let Some((key, value)) = scan.next_record()? {
        found.push((key.to_vec(), value.to_vec()));
    }
    Ok((found, scan.damage()))
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 128 {
        out.push(255 - u8::try_from(length % 128).unwrap());
        length /= 128;
    }
    out.push(u8::try_from(length).unwrap());
}

/// A file with these records, a free block behind each third; where the blocks begin, too.
fn file(records: &Found, big_endian: bool, large: bool) -> (Vec<u8>, Vec<usize>) {
    let number = |value: u64, len: usize| {
        let bytes = value.to_be_bytes()[8 - len..].to_vec();
        if big_endian { bytes } else { bytes.into_iter().rev().collect() }
    };
    let mut blocks = Vec::new();
    let mut places = Vec::new();
    for (index, (key, value)) in records.iter().enumerate() {
        places.push(1024 + blocks.len());
        let padding = index % 40;
        blocks.extend([0xc8, hash_byte(key)]);
        blocks.extend(vec![0; if large { 16 } else { 8 }]);
        blocks.extend(number(padding as u64, 2));
        put_length(&mut blocks, key.len());
        put_length(&mut blocks, value.len());
        blocks.extend_from_slice(key);
        blocks.extend_from_slice(value);
        blocks.extend(vec![0; padding]);
        if index % 3 == 2 {
            blocks.push(0xb0);
            blocks.extend(number(48, 4));
            blocks.extend(vec![7; 43]);
        }
    }
    let mut bytes = b"ToKyO CaBiNeT\n1.0:911\n".to_vec();
    bytes.resize(1024, 0);
    bytes[34..37].copy_from_slice(&[0, 10, u8::from(large)]);
    for (offset, value) in [(40, 64), (48, records.len() as u64), (56, 1024 + blocks.len() as u64), (64, 1024)] {
        bytes[offset..offset + 8].copy_from_slice(&number(value, 8));
    }
    bytes.extend(blocks);
    (bytes, places)
}

fn some_records(count: usize) -> Found {
    let value = |index: usize| format!("value-{index}-").repeat(index % 30).into_bytes();
    (0..count).map(|index| (format!("a key with its number {index:05}").into_bytes(), value(index))).collect()
}

#[test]
fn recorded_files_of_both_byte_orders_are_read_as_expected() {
    for order in ["big", "little"] {
        let (bytes, expected) = fixture(order);
        let scan = Scan::new(&bytes[..]).unwrap();
        assert_eq!((scan.header().records, scan.header().layout.big_endian), (304, order == "big"));
        assert_eq!(scan.header().problems, []);
        let (found, damage) = read(&bytes).unwrap();
        assert_eq!((found.len(), damage), (304, Damage::default()));
        let live: BTreeMap<_, _> = found
            .iter()
            .filter(|(_, value)| value.len() >= 10)
            .map(|(key, value)| {
                let clocktime = u64::from_be_bytes(value[..8].try_into().unwrap());
                (String::from_utf8_lossy(&key[8..]), (clocktime, String::from_utf8_lossy(&value[10..])))
            })
            .collect();
        let expected = expected.as_object().unwrap();
        // The list leaves out the empty key and a long one of all bytes.
        assert_eq!(live.len(), expected.len() + 2);
        assert_eq!(found.iter().filter(|(_, value)| value.len() == 8).count(), 32);
        for (key, value) in expected {
            let (clocktime, data) = &live[&**key];
            assert_eq!((Some(*clocktime), Some(&**data)), (value[0].as_u64(), value[1].as_str()), "{key}");
        }
    }
}

#[test]
fn every_layout_is_read() {
    let records = some_records(200);
    for (big_endian, large) in [(false, false), (false, true), (true, false), (true, true)] {
        let (bytes, _) = file(&records, big_endian, large);
        assert_eq!(read(&bytes).unwrap(), (records.clone(), Damage::default()), "{big_endian} {large}");
        // The option may be what is damaged.
        let mut bytes = bytes;
        bytes[36] ^= 1;
        assert_eq!(read(&bytes).unwrap().0, records);
    }
}

/// The bucket rule is the library's: in its files the record of a bucket is where the rule says.
#[test]
fn keys_are_in_the_buckets_of_recorded_files() {
    for (order, big_endian) in [("big", true), ("little", false)] {
        let (bytes, _) = fixture(order);
        let layout = format::Layout { big_endian, large: false };
        for (key, _) in read(&bytes).unwrap().0 {
            let place = 256 + 4 * usize::try_from(bucket(&key, 131_071)).unwrap();
            let record = usize::try_from(layout.number(&bytes[place..place + 4]) << 4).unwrap();
            assert!(bytes[record..].windows(key.len()).take(100).any(|found| found == key), "{order}");
        }
    }
}

#[test]
fn what_is_written_is_read_back_in_its_order() {
    for (big_endian, buckets) in [(true, 7), (false, 1000)] {
        let mut records = some_records(300);
        records.sort_by_key(|(key, _)| file_order(key, buckets));
        let file = tempfile::NamedTempFile::new().unwrap();
        let out = || std::fs::File::options().write(true).open(file.path()).unwrap();
        let mut writer = Writer::new(out(), out(), big_endian, buckets).unwrap();
        for (key, value) in &records {
            assert_eq!(key_of_order(&file_order(key, buckets)), key);
            writer.append(key, value).unwrap();
        }
        let size = writer.finish().unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(bytes.len() as u64, size);
        let scan = Scan::new(&bytes[..]).unwrap();
        assert_eq!(
            (scan.header().records, scan.header().layout.big_endian, scan.header().problems.len()),
            (300, big_endian, 0)
        );
        assert_eq!(read(&bytes).unwrap(), (records, Damage::default()));
        if let Some(keep) = std::env::var_os("KUMO_KEEP_TCH") {
            std::fs::copy(file.path(), format!("{}-{buckets}", keep.display())).unwrap();
        }
    }
}

#[test]
fn what_is_no_hash_database_is_named() {
    let (good, _) = file(&some_records(3), true, false);
    let with = |offset: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[offset] = byte;
        read(&bytes).unwrap_err().to_string()
    };
    assert_eq!(with(0, b'x'), "not a Tokyo Cabinet file");
    assert_eq!(with(32, 1), "a Tokyo Cabinet B+ tree database, not a hash database");
    assert!(with(36, 2).starts_with("records are compressed with deflate"));
    assert!(with(36, 4).starts_with("records are compressed with bzip2"));
    assert_eq!(read(&good[..200]).unwrap_err().to_string(), "the header is damaged beyond use");
    let mut wiped = good.clone();
    wiped[40..128].fill(0xff);
    assert_eq!(read(&wiped).unwrap_err().to_string(), "the header is damaged beyond use");
}

/// A length that reaches far over other records, even exactly to the beginning of one, costs its own record only.
#[test]
fn a_wild_length_does_not_swallow_what_follows() {
    let records = some_records(300);
    let (good, places) = file(&records, false, false);
    for victim in [0, 100, 298] {
        for padding in [1_u16, 16, 4000, 65535] {
            let mut bytes = good.clone();
            bytes[places[victim] + 10..places[victim] + 12].copy_from_slice(&padding.to_le_bytes());
            let (found, damage) = read(&bytes).unwrap();
            assert_eq!(found.len(), 299, "{victim} {padding}");
            assert_eq!(damage.stretches, 1);
        }
        let mut bytes = good.clone();
        bytes[places[victim] + 13] ^= 0x81;
        assert_eq!(read(&bytes).unwrap().0.len(), 299, "{victim}");
    }
}

#[test]
fn a_file_cut_short_gives_what_is_left_and_says_so() {
    let records = some_records(100);
    let (mut bytes, places) = file(&records, true, false);
    bytes.truncate(places[60] + 20);
    let scan = Scan::new(&bytes[..]).unwrap();
    assert!(matches!(scan.header().problems[..], [Problem::Truncated { bytes: 1.. }]), "{:?}", scan.header());
    assert_eq!(read(&bytes).unwrap().0, records[..60]);
}

#[test]
fn a_damaged_size_hides_nothing() {
    let records = some_records(100);
    let (mut bytes, places) = file(&records, false, false);
    bytes[56..64].copy_from_slice(&(places[50] as u64).to_le_bytes());
    assert_eq!(read(&bytes).unwrap().0, records);
}

/// The record in front of the damage is there, whatever kind of block has lost its first byte.
#[test]
fn a_lost_first_byte_costs_its_own_record_only() {
    let records = some_records(300);
    let (good, places) = file(&records, true, false);
    for victim in [1, 100, 299] {
        let mut bytes = good.clone();
        bytes[places[victim]] = 0;
        let (found, damage) = read(&bytes).unwrap();
        assert_eq!((found.len(), damage.stretches), (299, 1), "{victim}");
        assert!(found.contains(&records[victim - 1]) && !found.contains(&records[victim]));
    }
    // The free block in front of this record.
    let mut bytes = good.clone();
    bytes[places[99] - 48] = 0;
    assert_eq!(read(&bytes).unwrap().0, records);
    for order in ["big", "little"] {
        let (good, _) = fixture(order);
        let all = read(&good).unwrap().0;
        for (key, _) in all.iter().skip(1).step_by(30) {
            let place = good.windows(key.len()).rposition(|found| found == &key[..]).unwrap();
            let head = good[..place].iter().rposition(|byte| *byte == 0xc8).unwrap();
            let mut bytes = good.clone();
            bytes[head] = 0;
            assert_eq!(read(&bytes).unwrap().0.len(), all.len() - 1, "{order} {head}");
        }
    }
}

/// Heads of long keys, each of which leads to another, and none of them true.
#[test]
fn false_heads_cost_no_more_than_a_share_of_the_file() {
    let (mut bytes, _) = file(&some_records(3), false, false);
    let mut lie = vec![0xc8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    put_length(&mut lie, 100_000);
    lie.push(0);
    assert_eq!((lie.len(), 100_000 % 16), (16, 0));
    let lies = lie.repeat(1 << 16);
    let key = &lies[16..100_016];
    assert_ne!(hash_byte(key), 1);
    bytes.extend(lies);
    let size = bytes.len() as u64;
    bytes[56..64].copy_from_slice(&size.to_le_bytes());
    let mut scan = Scan::new(&bytes[..]).unwrap();
    let mut found = 0;
    while scan.next_record().unwrap().is_some() {
        found += 1;
    }
    assert_eq!(found, 3);
    assert!(scan.work() < 9 * size + (18 << 20), "{} for {size}", scan.work());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    /// Whatever is damaged: it ends, and records that the damage does not touch, nor those beside them, are found.
    #[test]
    fn damage_costs_what_it_touches(
        hits in proptest::collection::vec((any::<usize>(), proptest::collection::vec(any::<u8>(), 1..60)), 1..6),
        big_endian: bool, large: bool,
    ) {
        let records = some_records(150);
        let (mut bytes, places) = file(&records, big_endian, large);
        let mut touched = vec![false; records.len()];
        for (place, junk) in hits {
            let at = 1024 + place % (bytes.len() - 1024 - junk.len());
            let end = at + junk.len();
            bytes[at..end].copy_from_slice(&junk);
            for (index, touched) in touched.iter_mut().enumerate() {
                let block_end = places.get(index + 1).copied().unwrap_or(usize::MAX);
                *touched |= places[index] < end && at < block_end;
            }
        }
        let (found, _) = read(&bytes).unwrap();
        let whole = |index: usize| {
            // A block is believed by what follows it.
            !touched[index] && !touched.get(index + 1).copied().unwrap_or(false)
        };
        let expected = (0..records.len()).filter(|index| whole(*index));
        // Junk may look like a block that reaches over others; that takes luck of one in a million.
        for index in expected {
            prop_assert!(found.contains(&records[index]), "{index}");
        }
    }

    #[test]
    fn no_header_makes_it_panic_or_hang(hits in proptest::collection::vec((0..1024_usize, any::<u8>()), 1..40)) {
        let (mut bytes, _) = file(&some_records(20), true, false);
        for (at, byte) in hits {
            bytes[at] = byte;
        }
        if let Ok((found, _)) = read(&bytes) {
            prop_assert!(found.len() <= 40);
        }
    }
}
