//! Against a file that an original server has written, and against damage.

use std::fs;
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::time::Time;
use crate::wire::NodeAddress;

/// Written by an original kumo-server 0.4.13: a start, two lost sets, two lost deletes.
const RECORDED: &[u8] = include_bytes!("../../tests/fixtures/kumo-server.mpac");

fn node(text: &str) -> NodeAddress {
    NodeAddress::new(text.parse().unwrap())
}

/// The records of the recorded file, with their times.
fn recorded() -> Vec<(u64, Record<'static>)> {
    let start = Record::ServerStarted {
        address: node("127.0.0.1:29801"),
        store: b"kumodb.tch",
        manager1: Some(node("127.0.0.1:29700")),
        manager2: None,
        stream: node("127.0.0.1:29901"),
        offer_dir: b"/tmp",
        backup_prefix: b"kumodb.tch-",
    };
    let set = |key, hash, clocktime| Record::ReplicateSetFailed {
        key,
        value: b"x",
        hash,
        clocktime,
        to: node("127.0.0.1:29855"),
    };
    vec![
        (0x6b02_ef36, start),
        (0x6b02_ef3b, set(b"lost1", 0xf325_c7bd_65a8_b84b, 0x6b02_ef3a_0000_0158)),
        (0x6b02_ef3b, set(b"lost3", 0x4bd2_0342_84c3_0b69, 0x6b02_ef3a_0000_0159)),
    ]
}

fn encoded(records: &[(u64, Record)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (time, record) in records {
        record.encode(*time, &mut out);
    }
    out
}

#[test]
fn records_are_those_of_the_original_to_the_bit() {
    let ours = encoded(&recorded());
    let (same, deletes) = RECORDED.split_at(ours.len());
    assert_eq!(ours, same);
    // The original forgets to say which replica a delete was for, and writes zeros.
    let to = node("127.0.0.1:29855");
    let delete = |key, hash| (0x6b02_ef3b, Record::ReplicateDeleteFailed { key, hash, to });
    let ours = encoded(&[delete(b"lost1", 0xf325_c7bd_65a8_b84b), delete(b"lost3", 0x4bd2_0342_84c3_0b69)]);
    let zeroed = ours.chunks(ours.len() / 2).flat_map(|record| [&record[..record.len() - 6], &[0; 6]].concat());
    assert_eq!(zeroed.collect::<Vec<_>>(), deletes);
}

#[test]
fn a_managers_records() {
    let [address, partner] = ["10.0.0.1:19700", "10.0.0.2:19700"].map(node);
    for (record, name, version, fields) in [
        (Record::ManagerStarted { address, partner: Some(partner) }, "SM", 2, &["time", "addr", "Padd"][..]),
        (Record::ServerFound { address }, "nS", 3, &["time", "addr"]),
        (Record::ServerLost { address }, "lS", 3, &["time", "addr"]),
        (Record::PartnerLost { address }, "eP", 3, &["time", "addr"]),
    ] {
        let bytes = encoded(&[(5, record)]);
        let entry = Entries::new(&*bytes).next().unwrap().unwrap();
        assert_eq!((entry.name.as_str(), entry.version, entry.time()), (name, version, Some(5)));
        assert_eq!(entry.fields.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), fields);
        assert_eq!(entry.field("addr"), Some(&Value::Raw(address.bytes().to_vec())));
    }
}

/// The names and keys found in `bytes`, and what was stepped over.
fn found(bytes: &[u8]) -> (Vec<String>, u64, u64) {
    let mut entries = Entries::new(bytes);
    let names = entries.by_ref().map(|entry| entry.unwrap()).map(|entry| match entry.field("key") {
        Some(Value::Raw(key)) => format!("{} {}", entry.name, String::from_utf8_lossy(key)),
        _ => entry.name,
    });
    (names.collect(), entries.decoder().skipped_bytes(), entries.decoder().damaged_stretches())
}

#[test]
fn the_recorded_file_is_read() {
    let names = ["SS", "ers lost1", "ers lost3", "erd lost1", "erd lost3"].map(str::to_owned);
    assert_eq!(found(RECORDED), (names.to_vec(), 0, 0));
}

#[test]
fn damage_is_stepped_over_and_counted() {
    let (first, rest) = RECORDED.split_at(HEAD_AND_START);
    let names = ["SS", "ers lost1", "ers lost3", "erd lost1", "erd lost3"].map(str::to_owned);
    for junk in [&b"junk"[..], &[0; 9], &[0xff; 40], &[0, 0, 0, 3, 0x93, 1, 2], &first[..40]] {
        let damaged = [first, junk, rest].concat();
        assert_eq!(found(&damaged), (names.to_vec(), junk.len() as u64, 1), "{junk:?}");
    }
    let torn = &RECORDED[..RECORDED.len() - 1];
    assert_eq!(found(torn).0, names[..4]);
    assert_eq!(found(torn).2, 1);
    // A length that reaches beyond the end swallows nothing that follows.
    let greedy = [first, &[0, 1, 0, 0, 0x93], rest].concat();
    assert_eq!(found(&greedy), (names.to_vec(), 5, 1));
}

/// Length of the first recorded record with its head.
const HEAD_AND_START: usize = 4 + 0x69;

#[test]
fn what_still_grows_is_waited_for() {
    let mut decoder = Decoder::default();
    let mut count = 0;
    for byte in RECORDED {
        decoder.push(&[*byte]);
        count += usize::from(decoder.next_entry().is_some());
    }
    assert_eq!((count, decoder.skipped_bytes()), (5, 0));
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..RECORDED.len()) {
        let mut mixed = RECORDED.to_vec();
        for (place, byte) in mixed.iter_mut().skip(at).zip(&bytes) {
            *place = *byte;
        }
        for bytes in [&bytes, &mixed] {
            prop_assert!(found(bytes).1 <= bytes.len() as u64);
        }
    }
}

#[test]
fn reopening_follows_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("g"), dir.path().join("g.1"));
    let log = Binlog::open(Some(&path), &Time::real()).unwrap();
    let record = Record::ServerLost { address: node("10.0.0.1:1") };
    log.write(&record);
    fs::rename(&path, &moved).unwrap();
    log.clone().write(&record);
    log.reopen();
    log.write(&record);
    let count = |path| found(&fs::read(path).unwrap()).0.len();
    assert_eq!((count(&moved), count(&path)), (2, 1));
    let entry = Entries::new(fs::File::open(&path).unwrap()).next().unwrap().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(entry.time().is_some_and(|time| time.abs_diff(now) < 60), "{entry:?}");
}

#[test]
fn it_appends_to_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g");
    for _ in 0..2 {
        Binlog::open(Some(&path), &Time::real()).unwrap().write(&Record::ServerLost { address: node("10.0.0.1:1") });
    }
    assert_eq!(found(&fs::read(&path).unwrap()).0, ["lS", "lS"]);
}

#[test]
fn failures_are_counted_and_never_fatal() {
    let log = Binlog::open(Some("/dev/full".as_ref()), &Time::real()).unwrap();
    let record = Record::ServerLost { address: node("10.0.0.1:1") };
    log.write(&record);
    log.write(&record);
    assert_eq!(log.0.as_ref().unwrap().state.lock().lost, 2);
    log.0.as_ref().unwrap().state.lock().file = append("/dev/null".as_ref()).unwrap();
    log.write(&record);
    assert_eq!(log.0.as_ref().unwrap().state.lock().lost, 0);
    Binlog::default().write(&record);
    let error = Binlog::open(Some("/nowhere/g".as_ref()), &Time::real()).unwrap_err().to_string();
    assert!(error.starts_with("cannot open the binary log '/nowhere/g': "), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_once() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }
    let mut entries = Entries::new(Broken);
    assert!(entries.next().unwrap().is_err());
    assert!(entries.next().is_none());
}
