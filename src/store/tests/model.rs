//! Random work against a plain map, with reopening, crashes, merges and time in between.

use super::fixture::*;
use crate::clock::ClockTime;
use crate::store::{Outcome, Store, Write};
use crate::wire::{RecordKey, RecordValue, record};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

#[derive(Debug, Clone)]
enum Op {
    Set(u8, u16),
    Cas(u8, bool),
    Delete(u8),
    Update(u8, i8, u16, bool),
    Remove(u8, bool),
    Pool,
    Flush,
    Reopen,
    Crash,
    Pass(u8),
    Generation,
    Floor,
    DropOld,
    Count,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..40_u8, 0..300_u16).prop_map(|(key, len)| Op::Set(key, len)),
        3 => (0..40_u8, any::<bool>()).prop_map(|(key, right)| Op::Cas(key, right)),
        3 => (0..40_u8).prop_map(Op::Delete),
        5 => (0..40_u8, -8..8_i8, 0..6000_u16, any::<bool>()).prop_map(|(key, s, c, touch)| Op::Update(key, s, c, touch)),
        2 => (0..40_u8, any::<bool>()).prop_map(|(key, right)| Op::Remove(key, right)),
        1 => Just(Op::Pool),
        1 => Just(Op::Flush),
        1 => Just(Op::Reopen),
        1 => Just(Op::Crash),
        1 => (0..9_u8).prop_map(Op::Pass),
        1 => Just(Op::Generation),
        1 => Just(Op::Floor),
        1 => Just(Op::DropOld),
        1 => Just(Op::Count),
    ]
}

/// Half of the keys share three hashes.
fn model_key(number: u8) -> Vec<u8> {
    if number.is_multiple_of(2) {
        key(u64::from(number))
    } else {
        record::raw_key(u64::from(number % 3) << 63, &vec![number; usize::from(number / 20)])
    }
}

type Model = BTreeMap<Vec<u8>, (Vec<u8>, u32)>;

struct Run {
    fixture: Fixture,
    store: Store,
    model: Model,
    /// What lies below the floor, but for what is being deleted.
    old: Model,
    /// All of it is being deleted.
    dropping: bool,
    /// Some was being deleted at some time, and may not be gone yet.
    has_dropped: bool,
    on_pool: bool,
    images: usize,
    generation: u32,
}

impl Run {
    fn write(&self, write_: &Write<'_>) -> Outcome {
        let result = if self.on_pool { write_on_pool(&self.store, write_) } else { write(&self.store, write_) };
        result.unwrap()
    }

    fn stored(&self, key: &[u8]) -> Option<ClockTime> {
        self.model.get(key).map(|(value, _)| RecordValue::new(value).unwrap().clocktime())
    }

    fn live(&self, key: &[u8]) -> Option<ClockTime> {
        self.model.get(key).filter(|(value, _)| value.len() > 8).and_then(|_| self.stored(key))
    }

    fn store_in_model(&mut self, key: &[u8], value: Vec<u8>) {
        self.old.remove(key);
        self.model.insert(key.to_vec(), (value, self.generation));
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Set(number, len) => {
                let key = model_key(number);
                let body = vec![number; 2 + usize::from(len)];
                let Outcome::Stored { clocktime } =
                    self.write(&Write::Set { key: RecordKey::new(&key).unwrap(), body: &body })
                else {
                    panic!("a set always stores")
                };
                if let Some(previous) = self.stored(&key) {
                    assert!(previous.is_before(clocktime), "{previous} {clocktime}");
                }
                self.store_in_model(&key, [&clocktime.0.to_be_bytes()[..], &body].concat());
            }
            Op::Cas(number, right) => {
                let key = model_key(number);
                let live = self.live(&key).unwrap_or(ClockTime(0));
                let expected = if right { live } else { ClockTime(live.0 ^ 1) };
                let outcome =
                    self.write(&Write::Cas { key: RecordKey::new(&key).unwrap(), body: b"\0\0cas", expected });
                match outcome {
                    Outcome::Stored { clocktime } if right => {
                        self.store_in_model(&key, [&clocktime.0.to_be_bytes()[..], b"\0\0cas"].concat());
                    }
                    Outcome::Mismatch { stored } if !right => assert_eq!(stored, self.stored(&key)),
                    other => panic!("{other:?}"),
                }
            }
            Op::Delete(number) => {
                let key = model_key(number);
                let Outcome::Deleted { clocktime, live } =
                    self.write(&Write::Delete { key: RecordKey::new(&key).unwrap() })
                else {
                    panic!("a delete always stores")
                };
                assert_eq!(live, self.live(&key).is_some());
                self.store_in_model(&key, record::tombstone(clocktime).to_vec());
            }
            Op::Update(number, seconds, clock, touch) => {
                let key = model_key(number);
                let now = self.fixture.now.load(Ordering::Relaxed);
                let time = ClockTime::new(now.wrapping_add_signed(i32::from(seconds)), u32::from(clock));
                let value =
                    if clock % 5 == 0 { record::tombstone(time).to_vec() } else { record::raw_value(time, 7, &key) };
                let value_ = RecordValue::new(&value).unwrap();
                let outcome = self.write(&Write::Update { key: RecordKey::new(&key).unwrap(), value: value_, touch });
                match self.stored(&key) {
                    Some(stored) if !stored.is_before(time) => {
                        assert_eq!(outcome, Outcome::Ignored { stored });
                        if touch {
                            self.model.get_mut(&key).unwrap().1 = self.generation;
                        }
                    }
                    _ => {
                        assert_eq!(outcome, Outcome::Stored { clocktime: time });
                        self.store_in_model(&key, value);
                    }
                }
            }
            Op::Remove(number, right) => {
                let key = model_key(number);
                let stored = self.stored(&key);
                let clocktime = if right { stored.unwrap_or(ClockTime(3)) } else { ClockTime(5) };
                let outcome = self.write(&Write::Remove { key: RecordKey::new(&key).unwrap(), clocktime });
                if right && stored.is_some() {
                    assert_eq!(outcome, Outcome::Removed);
                    self.model.remove(&key);
                } else {
                    assert_eq!(outcome, Outcome::Kept);
                }
            }
            Op::Pool => self.on_pool = !self.on_pool,
            Op::Flush => self.store.flush().unwrap(),
            Op::Reopen => {
                self.store.close().unwrap();
                self.store = self.fixture.open();
                assert_eq!(self.store.status().unresolved, 0);
            }
            Op::Crash => {
                self.store.crash();
                self.images += 1;
                self.fixture.options.path = self.fixture.image(&format!("image-{}", self.images));
                self.store = self.fixture.open();
            }
            Op::Pass(seconds) => drop(self.fixture.now.fetch_add(u32::from(seconds), Ordering::Relaxed)),
            Op::Generation => self.generation = self.store.bump_generation().unwrap(),
            Op::Floor | Op::DropOld => self.change_floor(op),
            Op::Count => assert_eq!(self.store.count(), self.model.len() as u64),
        }
    }

    fn change_floor(&mut self, op: &Op) {
        match op {
            Op::Floor => {
                self.generation = self.store.set_floor().unwrap();
                self.old.append(&mut self.model);
                self.dropping = false;
            }
            Op::DropOld => {
                self.dropping |= self.store.has_floor();
                self.has_dropped |= self.dropping;
                self.store.drop_old().unwrap();
                self.old.clear();
            }
            _ => panic!("{op:?}"),
        }
    }

    fn compare(&self) {
        for number in 0..40 {
            let key = model_key(number);
            assert_eq!(get(&self.store, &key).as_ref(), self.model.get(&key).map(|(value, _)| value), "{number}");
        }
        self.store.flush().unwrap();
        assert_eq!(self.store.count(), self.model.len() as u64);
        let scanned: Model =
            scan_all(&self.store, 3).into_iter().map(|row| (row.key.to_vec(), (row.value, row.generation))).collect();
        assert_eq!(scanned, self.model);
        let tombstones = self.model.values().filter(|(value, _)| value.len() == 8).count() as u64;
        assert_eq!(self.store.status().tombstones, tombstones);
        if self.dropping {
            wait_until("the old records are deleted", || !self.store.has_floor());
        }
        let (counted, old) = (self.store.status().old_records, self.old.len() as u64);
        assert!(counted == old || (self.has_dropped && counted > old), "{counted} {old}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 300, ..ProptestConfig::default() })]
    #[test]
    fn behaves_as_a_map(ops in proptest::collection::vec(op(), 1..150)) {
        let fixture = Fixture::new();
        let store = fixture.open();
        let (model, old) = (Model::new(), Model::new());
        let mut run = Run { fixture, store, model, old, dropping: false, has_dropped: false, on_pool: false, images: 0, generation: 0 };
        for op in &ops {
            run.apply(op);
        }
        run.compare();
        run.store.close().unwrap();
        run.store = run.fixture.open();
        run.compare();
    }
}
