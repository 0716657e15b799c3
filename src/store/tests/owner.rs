//! One owner, whatever becomes of the store's files while it is open.

use super::bed::*;
use crate::store::rest::AtRest;
use crate::store::{Error, OpenError, Write};
use crate::wire::RecordKey;

/// The lock file was deleted, a second process made and locked a new one, and both wrote to the store.
#[test]
fn a_store_is_locked_without_its_lock_file() {
    let bed = Bed::new();
    let store = bed.open();
    std::fs::remove_file(bed.path("db.lock")).unwrap();
    for _ in 0..2 {
        assert!(matches!(bed.try_open(), Err(OpenError::Locked { .. })));
        assert!(matches!(AtRest::open(&bed.options.path), Err(OpenError::Locked { .. })));
        assert!(!bed.path("db.lock").exists(), "whoever is refused leaves nothing");
    }
    set(&store, &key(1), "x");
    store.close().unwrap();
    assert_eq!(data(&bed.open(), &key(1)).as_deref(), Some("x"));
}

#[test]
fn a_new_store_and_one_made_of_an_empty_file_are_locked_too() {
    for empty in [false, true] {
        let bed = Bed::new();
        if empty {
            std::fs::write(&bed.options.path, b"").unwrap();
        }
        let _store = bed.open();
        std::fs::remove_file(bed.path("db.lock")).unwrap();
        assert!(matches!(bed.try_open(), Err(OpenError::Locked { .. })), "empty file: {empty}");
    }
}

#[test]
fn a_store_that_is_read_at_rest_is_not_opened_meanwhile() {
    let bed = Bed::new();
    bed.open().close().unwrap();
    std::fs::remove_file(bed.path("db.lock")).unwrap();
    let reading = AtRest::open(&bed.options.path).unwrap();
    assert!(AtRest::open(&bed.options.path).is_ok(), "others may read it, too");
    assert!(matches!(bed.try_open(), Err(OpenError::Locked { .. })));
    drop(reading);
    bed.open();
}

/// Merges into a database that has lost its name would delete the redo log, and with it what was acknowledged.
#[test]
fn a_store_whose_database_is_moved_away_stops_writing_until_it_is_back() {
    let bed = Bed::new();
    let store = bed.open();
    set(&store, &key(1), "before");
    std::fs::rename(&bed.options.path, bed.path("elsewhere")).unwrap();
    let raw = key(2);
    let again = || write(&store, &Write::Set { key: RecordKey::new(&raw).unwrap(), body: &body("after") });
    wait_until("writes are refused", || again().is_err());
    let expected = format!("{} was removed or replaced while the store was open", bed.options.path.display());
    assert_eq!(again(), Err(Error::Failed(expected.clone().into())));
    assert_eq!(store.status().failed, Some(expected));
    assert!(store.flush().is_err() && store.state_put("name", b"value").is_err() && store.bump_generation().is_err());
    // Another file in its place is not it, either.
    std::fs::write(&bed.options.path, b"").unwrap();
    assert!(store.flush().is_err());
    assert!(bed.path("db.redo.1").exists(), "the log still has what was acknowledged");
    std::fs::rename(bed.path("elsewhere"), &bed.options.path).unwrap();
    wait_until("writes succeed again", || again().is_ok());
    store.close().unwrap();
    let store = bed.open();
    assert_eq!(data(&store, &key(1)).as_deref(), Some("before"));
    assert_eq!(data(&store, &key(2)).as_deref(), Some("after"));
}
