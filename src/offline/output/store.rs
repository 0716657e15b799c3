//! The new file as a store.

use std::path::{Path, PathBuf};

use super::digest::Digest;
use crate::offline::error::Error;
use crate::offline::progress::{self, Progress};
use crate::store::at_rest::{AtRest, Builder, tree_order};
use crate::wire::RecordValue;

/// Records in one transaction.
const CHUNK_ROWS: usize = 4096;
/// Bytes in one transaction.
const CHUNK_BYTES: usize = 4 << 20;

/// A store being written.
pub(super) struct Body {
    path: PathBuf,
    builder: Builder,
    chunk: Vec<(Box<[u8]>, Vec<u8>)>,
    chunk_bytes: usize,
    written: Digest,
}

impl Body {
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        let builder = Builder::create(path)?;
        Ok(Self { path: path.to_path_buf(), builder, chunk: Vec::new(), chunk_bytes: 0, written: Digest::default() })
    }

    pub(super) fn push(&mut self, key: Box<[u8]>, value: Vec<u8>) -> Result<(), Error> {
        self.written.add(&key, &value);
        self.chunk_bytes += key.len() + value.len();
        self.chunk.push((key, value));
        if self.chunk.len() >= CHUNK_ROWS || self.chunk_bytes >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        let records = self.chunk.iter().filter_map(|(key, value)| Some((&key[..], RecordValue::new(value).ok()?)));
        self.builder.append(records).map_err(|source| Error::Store { path: self.path.clone(), source })?;
        self.chunk.clear();
        self.chunk_bytes = 0;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Digest, Error> {
        self.flush()?;
        self.builder.finish().map_err(|source| Error::Store { path: self.path, source })?;
        Ok(self.written)
    }
}

pub(super) fn read_back(path: &Path, progress: &dyn Progress) -> Result<Digest, Error> {
    let failed = |source| Error::Store { path: path.to_path_buf(), source };
    let store = AtRest::open(path)?;
    let mut found = Digest::default();
    // Keys that share a hash lie in two tables: in order they are one.
    let [mut records, mut collisions] = store.tables();
    let (mut record, mut collision) = (records.next_row().map_err(failed)?, collisions.next_row().map_err(failed)?);
    loop {
        let from_collisions = match (&record, &collision) {
            (None, None) => return Ok(found),
            (Some(record), Some(collision)) => tree_order(&collision.key, &record.key).is_lt(),
            (record, _) => record.is_none(),
        };
        let row = if from_collisions {
            std::mem::replace(&mut collision, collisions.next_row().map_err(failed)?)
        } else {
            std::mem::replace(&mut record, records.next_row().map_err(failed)?)
        };
        if let Some(row) = row {
            found.add(&row.key, &row.value);
        }
        progress::count(found.records, progress)?;
    }
}
