//! Records copied back to back into one buffer: what is handed to the store at a time.

use crate::wire::{RecordKey, RecordValue};

/// Some records, in the order they came.
#[derive(Debug, Default)]
pub struct RecordBatch {
    bytes: Vec<u8>,
    /// Where each key and each value ends in `bytes`.
    ends: Vec<(usize, usize)>,
}

impl RecordBatch {
    /// Copies a record to the end.
    pub fn push(&mut self, key: RecordKey<'_>, value: RecordValue<'_>) {
        self.bytes.extend_from_slice(key.bytes());
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value.bytes());
        self.ends.push((key_end, self.bytes.len()));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The records.
    pub fn iter(&self) -> impl Iterator<Item = (RecordKey<'_>, RecordValue<'_>)> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        starts.zip(&self.ends).filter_map(|(start, (key_end, end))| {
            let key = RecordKey::new(self.bytes.get(start..*key_end)?).ok()?;
            Some((key, RecordValue::new(self.bytes.get(*key_end..*end)?).ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_pushed() {
        let mut batch = RecordBatch::default();
        let records =
            [(&b"hash----"[..], &b"time----mmdata"[..]), (b"hash2---key", b"deleted-"), (b"hash3---", b"time----mm")];
        for (key, value) in records {
            batch.push(RecordKey::new(key).unwrap(), RecordValue::new(value).unwrap());
        }
        let back: Vec<_> = batch.iter().map(|(key, value)| (key.bytes(), value.bytes())).collect();
        assert_eq!(back, records);
        assert_eq!((batch.len(), batch.size()), (3, records.iter().map(|(key, value)| key.len() + value.len()).sum()));
    }
}
