//! The new file as a database of 2010.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::digest::Digest;
use crate::offline::error::Error;
use crate::offline::progress::{self, Progress};
use crate::offline::sorter::{SortSpace, Sorter};
use crate::offline::stream::Stream;
use crate::tokyo::{self, Scan, Writer, file_order, key_of_order};

/// Buckets at least: what servers of 2010 began with.
const LEAST_BUCKETS: u64 = 131_071;

/// A database that is sorted by bucket before it is written.
pub(super) struct Body {
    path: PathBuf,
    big_endian: bool,
    buckets: u64,
    sorter: Sorter,
}

impl Body {
    pub(super) fn new(path: &Path, big_endian: bool, expected: u64, space: SortSpace) -> Self {
        let buckets = expected.saturating_mul(2).max(LEAST_BUCKETS) | 1;
        Self { path: path.to_path_buf(), big_endian, buckets, sorter: Sorter::new(space, 0) }
    }

    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let order = file_order(key, self.buckets);
        self.sorter.push(&order, 0, Some(value)).map_err(|source| Error::Io { path: self.path.clone(), source })
    }

    pub(super) fn finish(self, progress: &dyn Progress) -> Result<Digest, Error> {
        let failed = |source| Error::Io { path: self.path.clone(), source };
        let open = || File::options().write(true).open(&self.path).map(BufWriter::new);
        let mut out = Writer::new(open().map_err(failed)?, open().map_err(failed)?, self.big_endian, self.buckets)
            .map_err(failed)?;
        progress.begin("writing", None);
        let mut written = Digest::default();
        let mut sorted = self.sorter.finish()?;
        while let Some(item) = sorted.next_item()? {
            let (key, value) = (key_of_order(&item.key), item.value.as_deref().unwrap_or_default());
            out.append(key, value).map_err(failed)?;
            written.add(key, value);
            progress::count(written.records, progress)?;
        }
        out.finish().map_err(failed)?;
        File::open(&self.path).and_then(|file| file.sync_all()).map_err(failed)?;
        Ok(written)
    }
}

/// Reads the file back, in its order.
pub(super) fn read_back(path: &Path, progress: &dyn Progress) -> Result<Digest, Error> {
    let failed = |source| Error::Tokyo { path: path.to_path_buf(), source };
    let mut scan = Scan::new(File::open(path).map_err(|error| failed(error.into()))?).map_err(failed)?;
    let mut found = Digest::default();
    while let Some((key, value)) = scan.next_record().map_err(|error| failed(tokyo::Error::Io(error)))? {
        found.add(key, value);
        progress::count(found.records, progress)?;
    }
    Ok(found)
}
