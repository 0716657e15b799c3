//! Tombstones are removed when they should be, also after a restart, and never with something written since.

use super::fixture::*;
use crate::store::{Store, SweepPolicy};
use std::sync::atomic::Ordering;
use std::time::Duration;

fn fixture(min: u64, max: u64, memory: u64) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.options.sweep =
        SweepPolicy { min_age: Duration::from_secs(min), max_age: Duration::from_secs(max), memory_limit: memory };
    fixture
}

fn pass(fixture: &Fixture, seconds: u32) {
    fixture.now.fetch_add(seconds, Ordering::Relaxed);
}

fn swept_to(store: &Store, left: u64) {
    wait_until(&format!("{left} tombstones are left, of {}", store.status().tombstones), || {
        store.flush().unwrap();
        store.status().tombstones == left
    });
}

#[test]
fn by_age_and_not_before() {
    let fixture = fixture(10, 100, 1 << 20);
    let store = fixture.open();
    for number in 0..1000 {
        delete(&store, &key(number));
    }
    pass(&fixture, 50);
    for number in 1000..1100 {
        delete(&store, &key(number));
    }
    set(&store, &key(2000), "stays");
    store.flush().unwrap();
    pass(&fixture, 49);
    store.flush().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    swept_to(&store, 1100);
    set(&store, &key(5), "written since");
    pass(&fixture, 3);
    swept_to(&store, 100);
    assert_eq!(store.count(), 102);
    assert_eq!(get(&store, &key(6)), None);
    assert_eq!(data(&store, &key(5)).as_deref(), Some("written since"));
    assert!(get(&store, &key(1000)).is_some(), "too young");
    store.close().unwrap();

    pass(&fixture, 60);
    let store = fixture.open();
    swept_to(&store, 0);
    assert_eq!(store.count(), 2);
    assert_eq!(data(&store, &key(2000)).as_deref(), Some("stays"));
}

#[test]
fn by_memory_the_oldest_first_and_never_the_youngest() {
    // A key of 5 to 7 bytes and 8 for each: about 14.
    let fixture = fixture(10, 1_000_000, 2000);
    let store = fixture.open();
    for age in 0..20 {
        for number in 0..100 {
            delete(&store, &key(age * 100 + number));
        }
        pass(&fixture, 1);
    }
    wait_until("memory is under its limit, or all that is left is young", || {
        store.flush().unwrap();
        store.status().tombstones <= 1000
    });
    std::thread::sleep(Duration::from_millis(300));
    store.flush().unwrap();
    let left = store.status();
    assert!(left.tombstones >= 900, "those under the least age stay: {left:?}");
    assert!(get(&store, &key(1999)).is_some());
    assert!(get(&store, &key(0)).is_none());
    pass(&fixture, 1000);
    wait_until("the limit holds", || {
        store.flush().unwrap();
        store.status().tombstone_bytes <= 2000
    });
    assert!(store.status().tombstone_bytes > 1500, "no more than needed: {:?}", store.status());
    assert!(get(&store, &key(1999)).is_some(), "the youngest stay");
}

#[test]
fn a_minimum_above_the_maximum_is_lowered() {
    let fixture = fixture(1000, 5, 1 << 20);
    let store = fixture.open();
    delete(&store, &key(1));
    pass(&fixture, 7);
    swept_to(&store, 0);
}
