//! For which admission of this server the store has put aside what it held before: with a floor, noted in its state.
//!
//! Knows no configurations, only their numbers. When a floor is called for, `spaces` says; who sets it, `joining`.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::store::{self, Store};

/// Name of the blob in the store: the number of the last admission for which there was a floor, 8 bytes.
const STATE: &str = "admitted";

/// For which admission of this server what it held before was put aside.
pub(super) struct Joined {
    last: AtomicU64,
    /// Held while another is noted.
    noting: Mutex<()>,
}

impl Joined {
    /// Takes up what the store has noted. Blocks.
    pub(super) fn open(store: &Store) -> Result<Self, store::Error> {
        let noted = store.state_get(STATE)?;
        let last = noted.as_deref().and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Ok(Self { last: AtomicU64::new(last), noting: Mutex::default() })
    }

    /// Whether what is stored belongs to this admission. Zero is that of who was there before there were votes.
    pub(super) fn has(&self, admitted: u64) -> bool {
        admitted == 0 || self.last.load(Ordering::Acquire) == admitted
    }

    /// Sets the floor for an admission. It is durable when this returns, and nothing may have been stored for the admission
    /// before. Blocks.
    pub(super) fn set_floor(&self, store: &Store, admitted: u64) -> Result<(), store::Error> {
        let _noting = self.noting.lock();
        if !self.has(admitted) {
            store.set_floor()?;
            // A restart between these two sets another floor: nothing is lost by that.
            store.state_put(STATE, &admitted.to_be_bytes())?;
            self.last.store(admitted, Ordering::Release);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::store::Options;
    use crate::time::Time;

    fn open(folder: &tempfile::TempDir) -> Store {
        Store::open(Options::new(folder.path().join("db")), |first| Arc::new(Clock::new(&Time::real(), first))).unwrap()
    }

    #[test]
    fn a_restart_goes_on_with_the_floor_of_its_admission_and_the_next_has_another() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let joined = Joined::open(&store).unwrap();
        assert!(joined.has(0) && !joined.has(7));
        joined.set_floor(&store, 7).unwrap();
        let floor = store.generation();
        assert!(store.has_floor() && joined.has(7));
        store.close().unwrap();
        drop(store);
        let store = open(&folder);
        let joined = Joined::open(&store).unwrap();
        assert!(store.has_floor() && joined.has(7) && !joined.has(9));
        joined.set_floor(&store, 7).unwrap();
        assert_eq!(store.generation(), floor, "it is there already");
        joined.set_floor(&store, 9).unwrap();
        assert!(store.generation() > floor && joined.has(9) && !joined.has(7));
    }
}
