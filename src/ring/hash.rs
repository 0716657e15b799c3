//! Where keys and nodes lie: SHA-1, of which the first eight bytes count.

use sha1::{Digest, Sha1};

use crate::wire::{NodeAddress, record};

/// Points that each node has on the ring.
pub(crate) const POINTS_PER_NODE: usize = 128;

/// The place of `key` in the hash space: its first eight digest bytes as a little-endian number.
pub fn hash(key: &[u8]) -> u64 {
    u64::from_le_bytes(digest_head(key))
}

/// The raw key for an application's key.
pub fn raw_key(key: &[u8]) -> Vec<u8> {
    record::raw_key(hash(key), key)
}

fn digest_head(bytes: &[u8]) -> [u8; 8] {
    let digest: [u8; 20] = Sha1::digest(bytes).into();
    digest.first_chunk().copied().unwrap_or_default()
}

/// The points of a node: the hash of its address, then each the hash of the digest bytes before.
pub(super) fn points(address: &NodeAddress) -> impl Iterator<Item = u64> {
    let first = digest_head(&address.bytes());
    std::iter::successors(Some(first), |head| Some(digest_head(head))).map(u64::from_le_bytes).take(POINTS_PER_NODE)
}
