//! The last hash spaces, kept in the store: a cluster goes on with them after all of its processes have ended.
//!
//! A server never acts on those. It sends them to managers that know of no hash space at all; they decide.

use parking_lot::Mutex;

use crate::store::Store;
use crate::wire::params::{Seed, decode};

/// Name of the blob in the store: `[whs, rhs]` as on the wire.
const STATE: &str = "hash-spaces";

/// The hash spaces that were stored last.
pub(super) struct LastSpaces {
    stored: Mutex<Option<Vec<u8>>>,
    /// Held while storing, so that of two changes the later one stays.
    storing: Mutex<()>,
}

impl LastSpaces {
    /// Reads what the store has. Blocks.
    pub(super) fn open(store: &Store) -> Self {
        let stored = store.state_get(STATE).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the last hash spaces from the store");
            None
        });
        let stored = stored.filter(|bytes| decode::<(Seed, Seed)>(bytes).is_ok());
        Self { stored: Mutex::new(stored), storing: Mutex::default() }
    }

    /// `[whs, rhs]`, if there ever were any.
    pub(super) fn get(&self) -> Option<Vec<u8>> {
        self.stored.lock().clone()
    }

    /// Whether `held` has to be stored, and is not being stored now.
    pub(super) fn lacks(&self, held: &[u8]) -> bool {
        !self.storing.is_locked() && self.stored.lock().as_deref() != Some(held)
    }

    /// Stores what `held` gives, once earlier calls are done. Blocks.
    pub(super) fn keep(&self, store: &Store, held: impl FnOnce() -> Vec<u8>) {
        let _storing = self.storing.lock();
        let bytes = held();
        match store.state_put(STATE, &bytes) {
            Ok(()) => *self.stored.lock() = Some(bytes),
            Err(error) => tracing::warn!(%error, "cannot store the hash spaces"),
        }
    }
}
