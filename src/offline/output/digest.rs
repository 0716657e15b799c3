//! A count and a checksum of records, by which what was written is compared with what is read back.

use crate::wire::RecordValue;

/// How many records there were, and a checksum of all their bytes in order.
#[derive(Debug, Clone, Default)]
pub(in crate::offline) struct Digest {
    pub(in crate::offline) records: u64,
    pub(in crate::offline) tombstones: u64,
    hasher: crc32fast::Hasher,
}

impl Digest {
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.records += 1;
        self.tombstones += u64::from(RecordValue::new(value).is_ok_and(|value| value.is_tombstone()));
        for part in [key, value] {
            self.hasher.update(&(part.len() as u64).to_le_bytes());
            self.hasher.update(part);
        }
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        let content = |of: &Self| (of.records, of.tombstones, of.hasher.clone().finalize());
        content(self) == content(other)
    }
}
