//! The new file as a store.

use std::path::{Path, PathBuf};

use super::{Sum, step};
use crate::offline::{Error, Watch};
use crate::store::rest::{AtRest, Fresh, tree_order};
use crate::wire::RecordValue;

/// Records in one transaction.
const CHUNK_ROWS: usize = 4096;
/// Bytes in one transaction.
const CHUNK_BYTES: usize = 4 << 20;

/// A store being written.
pub(super) struct Body {
    path: PathBuf,
    fresh: Fresh,
    chunk: Vec<(Box<[u8]>, Vec<u8>)>,
    chunk_bytes: usize,
    written: Sum,
}

impl Body {
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        let fresh = Fresh::create(path)?;
        Ok(Self { path: path.to_path_buf(), fresh, chunk: Vec::new(), chunk_bytes: 0, written: Sum::default() })
    }

    pub(super) fn push(&mut self, key: Box<[u8]>, value: Vec<u8>) -> Result<(), Error> {
        self.written.add(&key, &value);
        self.chunk_bytes += key.len() + value.len();
        self.chunk.push((key, value));
        if self.chunk.len() >= CHUNK_ROWS || self.chunk_bytes >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        let records = self.chunk.iter().filter_map(|(key, value)| Some((&key[..], RecordValue::new(value).ok()?)));
        self.fresh.append(records).map_err(|source| Error::Store { path: self.path.clone(), source })?;
        self.chunk.clear();
        self.chunk_bytes = 0;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Sum, Error> {
        self.flush()?;
        self.fresh.finish().map_err(|source| Error::Store { path: self.path, source })?;
        Ok(self.written)
    }
}

pub(super) fn read_back(path: &Path, watch: &dyn Watch) -> Result<Sum, Error> {
    let failed = |source| Error::Store { path: path.to_path_buf(), source };
    let store = AtRest::open(path)?;
    let mut sum = Sum::default();
    // Keys that share a hash lie in two tables: in order they are one.
    let [mut records, mut twins] = store.tables();
    let (mut record, mut twin) = (records.next_row().map_err(failed)?, twins.next_row().map_err(failed)?);
    loop {
        let from_twins = match (&record, &twin) {
            (None, None) => return Ok(sum),
            (Some(record), Some(twin)) => tree_order(&twin.key, &record.key).is_lt(),
            (record, _) => record.is_none(),
        };
        let row = if from_twins {
            std::mem::replace(&mut twin, twins.next_row().map_err(failed)?)
        } else {
            std::mem::replace(&mut record, records.next_row().map_err(failed)?)
        };
        if let Some(row) = row {
            sum.add(&row.key, &row.value);
        }
        step(sum.records, watch)?;
    }
}
