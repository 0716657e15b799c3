//! One owner, whatever becomes of the store's files while it is open.

use super::fixture::*;
use crate::store::at_rest::AtRest;
use crate::store::{Error, OpenError, Write};
use crate::wire::RecordKey;

/// The lock file was deleted, a second process made and locked a new one, and both wrote to the store.
#[test]
fn a_store_is_locked_without_its_lock_file() {
    let fixture = Fixture::new();
    let store = fixture.open();
    std::fs::remove_file(fixture.path("db.lock")).unwrap();
    for _ in 0..2 {
        assert!(matches!(fixture.try_open(), Err(OpenError::Locked { .. })));
        assert!(matches!(AtRest::open(&fixture.options.path), Err(OpenError::Locked { .. })));
        assert!(!fixture.path("db.lock").exists(), "whoever is refused leaves nothing");
    }
    set(&store, &key(1), "x");
    store.close().unwrap();
    assert_eq!(data(&fixture.open(), &key(1)).as_deref(), Some("x"));
}

#[test]
fn a_new_store_and_one_made_of_an_empty_file_are_locked_too() {
    for empty in [false, true] {
        let fixture = Fixture::new();
        if empty {
            std::fs::write(&fixture.options.path, b"").unwrap();
        }
        let _store = fixture.open();
        std::fs::remove_file(fixture.path("db.lock")).unwrap();
        assert!(matches!(fixture.try_open(), Err(OpenError::Locked { .. })), "empty file: {empty}");
    }
}

#[test]
fn a_store_that_is_read_at_rest_is_not_opened_meanwhile() {
    let fixture = Fixture::new();
    fixture.open().close().unwrap();
    std::fs::remove_file(fixture.path("db.lock")).unwrap();
    let reading = AtRest::open(&fixture.options.path).unwrap();
    assert!(AtRest::open(&fixture.options.path).is_ok(), "others may read it, too");
    assert!(matches!(fixture.try_open(), Err(OpenError::Locked { .. })));
    drop(reading);
    fixture.open();
}

/// Merges into a database that has lost its name would delete the redo log, and with it what was acknowledged.
#[test]
fn a_store_whose_database_is_moved_away_stops_writing_until_it_is_back() {
    let fixture = Fixture::new();
    let store = fixture.open();
    set(&store, &key(1), "before");
    std::fs::rename(&fixture.options.path, fixture.path("elsewhere")).unwrap();
    let raw = key(2);
    let again = || write(&store, &Write::Set { key: RecordKey::new(&raw).unwrap(), body: &body("after") });
    wait_until("writes are refused", || again().is_err());
    let expected = format!("{} was removed or replaced while the store was open", fixture.options.path.display());
    assert_eq!(again(), Err(Error::Failed(expected.clone().into())));
    assert_eq!(store.status().failed, Some(expected));
    assert!(store.flush().is_err() && store.state_put("name", b"value").is_err() && store.bump_generation().is_err());
    // Another file in its place is not it, either.
    std::fs::write(&fixture.options.path, b"").unwrap();
    assert!(store.flush().is_err());
    assert!(fixture.path("db.redo.1").exists(), "the log still has what was acknowledged");
    std::fs::rename(fixture.path("elsewhere"), &fixture.options.path).unwrap();
    wait_until("writes succeed again", || again().is_ok());
    store.close().unwrap();
    let store = fixture.open();
    assert_eq!(data(&store, &key(1)).as_deref(), Some("before"));
    assert_eq!(data(&store, &key(2)).as_deref(), Some("after"));
}
