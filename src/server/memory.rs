//! The last hash spaces, kept in the store: what a cluster goes on with after all of its processes have ended.
//!
//! A server never acts on what it remembers. It tells managers that know of no hash space at all; they decide.

use std::sync::Arc;

use parking_lot::Mutex;

use super::state::Shared;
use crate::store::Store;
use crate::wire::params;

/// Name of the blob in the store: `[whs, rhs]` as on the wire.
const STATE: &str = "hash-spaces";

/// What was stored last.
pub(super) struct Memory {
    stored: Mutex<Option<Vec<u8>>>,
    /// Held while storing, so that of two changes the later one stays.
    order: Mutex<()>,
}

impl Memory {
    /// Reads what the store has. Blocks.
    pub(super) fn open(store: &Store) -> Self {
        let stored = store.state_get(STATE).unwrap_or_else(|error| {
            tracing::warn!(%error, "the last hash spaces cannot be read");
            None
        });
        let stored = stored.filter(|bytes| params::hash_spaces(bytes).is_ok());
        Self { stored: Mutex::new(stored), order: Mutex::default() }
    }

    /// `[whs, rhs]`, if there ever were any.
    pub(super) fn get(&self) -> Option<Vec<u8>> {
        self.stored.lock().clone()
    }

    /// Stores the hash spaces as they stand. Blocks.
    fn keep(&self, server: &Shared) {
        let _order = self.order.lock();
        let bytes = as_held(server);
        match server.store.state_put(STATE, &bytes) {
            Ok(()) => *self.stored.lock() = Some(bytes),
            Err(error) => tracing::warn!(%error, "the hash spaces cannot be stored"),
        }
    }
}

fn as_held(server: &Shared) -> Vec<u8> {
    let spaces = server.spaces();
    let mut bytes = Vec::new();
    params::write_hash_spaces(&mut bytes, spaces.whs.seed(), spaces.rhs.seed());
    bytes
}

/// Stores the hash spaces again if that has failed before. What is remembered must not be older than what was held.
pub(super) fn remember_if_changed(server: &Arc<Shared>) {
    let held = server.spaces().whs.is_ready() || server.spaces().rhs.is_ready();
    // While one is being stored the next look will do.
    if held && !server.memory.order.is_locked() && server.memory.get().as_ref() != Some(&as_held(server)) {
        remember(server);
    }
}

/// The hash spaces have changed: stores them in the background.
pub(super) fn remember(server: &Arc<Shared>) {
    let server = server.clone();
    server.runtime.clone().spawn_blocking(move || server.memory.keep(&server));
}
