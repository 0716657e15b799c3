//! Keys that share their 64-bit hash, thousands of them: nothing is ever taken for another's.

use super::fixture::*;
use crate::clock::ClockTime;
use crate::store::{Outcome, OwnedWrite, Store, Write};
use crate::wire::{RecordKey, RecordValue, record};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Keys of two hashes, of a length that varies; one of them is empty behind the hash.
const KEYS: u32 = 6000;

fn twin(number: u32) -> Vec<u8> {
    let hash = if number.is_multiple_of(3) { 0 } else { u64::MAX / 3 };
    record::raw_key(hash, number.to_string().trim_start_matches('0').as_bytes())
}

/// The data that each key must have; no entry: deleted or never there.
type Model = BTreeMap<u32, String>;

/// Does a write for each of the keys, on the pool and together.
fn write_all<'a>(
    store: &Store,
    numbers: impl Iterator<Item = u32>,
    write: impl Fn(u32, RecordKey<'a>) -> Write<'a>,
    raw: &'a [Vec<u8>],
) -> Vec<Outcome> {
    let writes: Vec<_> = numbers
        .map(|number| OwnedWrite::from(&write(number, RecordKey::new(&raw[number as usize]).unwrap())))
        .collect();
    let (sender, receiver) = std::sync::mpsc::channel();
    let decided = move |_, outcome| sender.send(outcome).unwrap();
    answer(|done| store.write(writes, decided, move |result| done.send(result).unwrap())).unwrap();
    receiver.iter().collect()
}

fn compare(what: &str, store: &Store, model: &Model) {
    let keys: Vec<Box<[u8]>> = (0..KEYS).map(|number| twin(number).into()).collect();
    let values = answer(|sender| store.read(keys, move |values| sender.send(values).unwrap())).unwrap();
    for (number, value) in (0..).zip(values) {
        let value = value.as_deref().map(|value| RecordValue::new(value).unwrap());
        let found = value.filter(|value| !value.is_tombstone()).map(|value| value.data().to_vec());
        assert_eq!(found.as_deref(), model.get(&number).map(String::as_bytes), "{what}: {number}");
    }
    store.flush().unwrap();
    let mut scanned = BTreeMap::new();
    for row in scan_all(store, 37) {
        let value = RecordValue::new(&row.value).unwrap();
        if !value.is_tombstone() {
            assert!(scanned.insert(row.key, value.data().to_vec()).is_none(), "{what}: each once");
        }
    }
    let expected = model.iter().map(|(number, data)| (twin(*number).into(), data.clone().into_bytes()));
    assert!(scanned == expected.collect(), "{what}: a scan finds the same");
}

#[test]
fn thousands_of_keys_with_one_hash_are_distinguished_everywhere() {
    let mut fixture = Fixture::in_memory();
    fixture.options.sweep.max_age = std::time::Duration::from_secs(100);
    let raw: Vec<_> = (0..KEYS).map(twin).collect();
    let bodies: Vec<_> = (0..KEYS).map(|number| body(&number.to_string())).collect();
    let store = fixture.open();
    let set = |number: u32, key| Write::Set { key, body: &bodies[number as usize] };
    let mut model: Model = (0..KEYS).map(|number| (number, number.to_string())).collect();
    write_all(&store, 0..KEYS, set, &raw);
    compare("written", &store, &model);
    store.flush().unwrap();
    compare("merged", &store, &model);
    assert_eq!((store.count(), store.status().collisions), (u64::from(KEYS), u64::from(KEYS) - 2));

    store.close().unwrap();
    let store = fixture.open();
    compare("opened", &store, &model);
    let deleted = || (0..KEYS).filter(|number| number % 4 == 1);
    let outcomes = write_all(&store, deleted(), |_, key| Write::Delete { key }, &raw);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Deleted { live: true, .. })));
    deleted().for_each(|number| drop(model.remove(&number)));
    compare("deleted", &store, &model);
    store.flush().unwrap();
    let copy = fixture.path("copy");
    store.backup(&copy).unwrap();
    compare("backup", &fixture.try_open_at(&copy).unwrap(), &model);

    // Swaps match by the clocktime of their own key; what was deleted is added again by some.
    let times: Vec<_> = raw
        .iter()
        .map(|raw| {
            get(&store, raw)
                .filter(|value| value.len() > 8)
                .map_or(ClockTime(0), |value| RecordValue::new(&value).unwrap().clocktime())
        })
        .collect();
    let swapped = || (0..KEYS).filter(|number| number % 8 < 2);
    let swap = |number: u32, key| Write::Cas { key, body: b"\0\0swapped", expected: times[number as usize] };
    let outcomes = write_all(&store, swapped(), swap, &raw);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Stored { .. })));
    let outcomes = write_all(&store, swapped(), swap, &raw);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Mismatch { .. })), "no swap twice");
    swapped().for_each(|number| drop(model.insert(number, "swapped".to_owned())));
    compare("swapped", &store, &model);

    fixture.now.fetch_add(1000, Ordering::Relaxed);
    wait_until("the tombstones are swept", || {
        store.flush().unwrap();
        store.status().tombstones == 0
    });
    compare("swept", &store, &model);
    assert_eq!(store.count(), model.len() as u64);
    store.crash();
    let store = fixture.try_open_at(&fixture.image("after")).unwrap();
    compare("killed", &store, &model);
    assert_eq!(store.count(), model.len() as u64);
}
