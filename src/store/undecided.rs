//! Writes that others are still to have: their keys must outlast a restart, and the redo log that tells of them does not.
//!
//! A merge takes a record out of the log. What its owner is not done with by then is named in a blob beside the main tree,
//! until a later merge finds it done. Knows nothing of who the others are.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_bytes::ByteBuf;

/// Name of the blob.
pub(super) const STATE: &str = "undecided";

/// Who knows which writes others are still to have.
pub trait Undecided: Send + Sync {
    /// Whether a write of this key is still under way. A key that shares its hash may be taken for it.
    fn is_undecided(&self, key: &[u8]) -> bool;

    /// Keys whose writes have ended without having reached all others.
    fn left(&self) -> Vec<Box<[u8]>>;
}

/// What is to be found after a restart.
pub(super) struct Kept {
    owner: Arc<dyn Undecided>,
    keys: BTreeSet<Box<[u8]>>,
    /// As the blob has it.
    stored: Vec<u8>,
}

impl Kept {
    /// With the blob that the store has.
    pub(super) fn new(owner: Arc<dyn Undecided>, stored: Vec<u8>) -> Self {
        Self { owner, keys: read(&stored).into_iter().collect(), stored }
    }

    /// A record of `key` has gone from the log to the tree.
    pub(super) fn merged(&mut self, key: &[u8]) {
        if self.owner.is_undecided(key) {
            self.keys.insert(key.into());
        }
    }

    /// The blob to store before the log goes, if it is another than what is stored. Once it is, [`Self::stored`] is to be
    /// called.
    pub(super) fn changed(&mut self) -> Option<Vec<u8>> {
        let owner = &self.owner;
        self.keys.retain(|key| owner.is_undecided(key));
        self.keys.extend(owner.left());
        let bytes = if self.keys.is_empty() { Vec::new() } else { write(&self.keys) };
        (bytes != self.stored).then_some(bytes)
    }

    /// The blob is stored.
    pub(super) fn stored(&mut self, bytes: Vec<u8>) {
        self.stored = bytes;
    }
}

fn write(keys: &BTreeSet<Box<[u8]>>) -> Vec<u8> {
    let keys: Vec<_> = keys.iter().map(|key| serde_bytes::Bytes::new(key)).collect();
    rmp_serde::to_vec(&keys).unwrap_or_default()
}

/// The keys that a blob names.
pub(super) fn read(stored: &[u8]) -> Vec<Box<[u8]>> {
    let keys: Result<Vec<ByteBuf>, _> = rmp_serde::from_slice(stored);
    keys.unwrap_or_default().into_iter().map(|key| key.into_vec().into()).collect()
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Owner {
        under_way: Mutex<Vec<Box<[u8]>>>,
        left: Mutex<Vec<Box<[u8]>>>,
    }

    impl Undecided for Owner {
        fn is_undecided(&self, key: &[u8]) -> bool {
            self.under_way.lock().iter().any(|known| &**known == key)
        }

        fn left(&self) -> Vec<Box<[u8]>> {
            self.left.lock().clone()
        }
    }

    #[test]
    fn a_key_is_kept_from_its_merge_on_until_it_is_decided() {
        let owner = Arc::new(Owner::default());
        let mut kept = Kept::new(owner.clone(), Vec::new());
        kept.merged(b"a");
        assert_eq!(kept.changed(), None);
        *owner.under_way.lock() = vec![b"a"[..].into(), b"b"[..].into()];
        for key in [b"a", b"b", b"c"] {
            kept.merged(key);
        }
        *owner.left.lock() = vec![b"d"[..].into()];
        let blob = kept.changed().unwrap();
        assert_eq!(read(&blob), [b"a", b"b", b"d"].map(|key| key[..].into()));
        kept.stored(blob.clone());
        assert_eq!(kept.changed(), None, "it is stored");
        owner.under_way.lock().pop();
        owner.left.lock().clear();
        let mut kept = Kept::new(owner.clone(), blob);
        let blob = kept.changed().unwrap();
        assert_eq!(read(&blob), [b"a"[..].into()]);
        owner.under_way.lock().clear();
        assert_eq!(kept.changed(), Some(Vec::new()));
        assert_eq!(read(b"\xc1"), Vec::<Box<[u8]>>::new());
    }
}
