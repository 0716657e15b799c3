//! The new store: written under a name of its own, read back, and only then given its name.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::source::GLANCE;
use super::{Error, Watch};
use crate::store::rest::{AtRest, Fresh, side_files};
use crate::wire::RecordValue;

/// Records in one transaction.
const CHUNK_ROWS: usize = 4096;
/// Bytes in one transaction.
const CHUNK_BYTES: usize = 4 << 20;

/// A store on its way to `destination`. Dropped before [`Output::finish`] it leaves nothing.
pub(super) struct Output {
    destination: PathBuf,
    file: NamedTempFile,
    fresh: Fresh,
    chunk: Vec<(Box<[u8]>, Vec<u8>)>,
    chunk_bytes: usize,
    written: Sum,
}

/// How many records there were, and a checksum of all their bytes in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Sum {
    pub(super) records: u64,
    pub(super) tombstones: u64,
    hasher: crc32fast::Hasher,
}

impl Sum {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.records += 1;
        self.tombstones += u64::from(RecordValue::new(value).is_ok_and(|value| value.is_tombstone()));
        for part in [key, value] {
            self.hasher.update(&(part.len() as u64).to_le_bytes());
            self.hasher.update(part);
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let sum = |of: &Self| (of.records, of.tombstones, of.hasher.clone().finalize());
        sum(self) == sum(other)
    }
}

/// The folder that a file is or will be in.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Output {
    /// Begins a store; nothing that exists may be in its way.
    pub(super) fn create(destination: &Path) -> Result<Self, Error> {
        refuse_existing(destination)?;
        let failed = |source| Error::Io { path: destination.to_path_buf(), source };
        let name = destination.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let file = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".tmp")
            .permissions(std::fs::Permissions::from_mode(0o644))
            .tempfile_in(folder(destination))
            .map_err(failed)?;
        let fresh = Fresh::create(file.path())?;
        let destination = destination.to_path_buf();
        Ok(Self { destination, file, fresh, chunk: Vec::new(), chunk_bytes: 0, written: Sum::default() })
    }

    /// Adds a record; they come in the store's order.
    pub(super) fn push(&mut self, key: Box<[u8]>, value: Vec<u8>) -> Result<(), Error> {
        self.written.add(&key, &value);
        self.chunk_bytes += key.len() + value.len();
        self.chunk.push((key, value));
        if self.chunk.len() >= CHUNK_ROWS || self.chunk_bytes >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        let records = self.chunk.iter().filter_map(|(key, value)| Some((&key[..], RecordValue::new(value).ok()?)));
        let failed = |source| Error::Store { path: self.destination.clone(), source };
        self.fresh.append(records).map_err(failed)?;
        self.chunk.clear();
        self.chunk_bytes = 0;
        Ok(())
    }

    /// Completes the store, reads it back, and gives it its name.
    pub(super) fn finish(mut self, watch: &dyn Watch) -> Result<Sum, Error> {
        self.flush()?;
        let Self { destination, file, fresh, written, .. } = self;
        fresh.finish().map_err(|source| Error::Store { path: destination.clone(), source })?;
        watch.begin("verifying", Some(written.records));
        if !written.is_same(&read_back(file.path(), watch)?) {
            return Err(Error::Unverified(destination));
        }
        refuse_existing(&destination)?;
        let failed = |source| Error::Io { path: destination.clone(), source };
        file.persist_noclobber(&destination).map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists(destination.clone()),
            _ => failed(error.error),
        })?;
        std::fs::File::open(folder(&destination)).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(written)
    }
}

/// Refuses a name that is taken, or that has side files of a store which would be taken for the new one's.
fn refuse_existing(destination: &Path) -> Result<(), Error> {
    match std::fs::symlink_metadata(destination) {
        Ok(_) => return Err(Error::Exists(destination.to_path_buf())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::Io { path: destination.to_path_buf(), source }),
    }
    match side_files(destination)?.into_iter().next() {
        Some(path) => Err(Error::Exists(path)),
        None => Ok(()),
    }
}

fn read_back(path: &Path, watch: &dyn Watch) -> Result<Sum, Error> {
    let failed = |source| Error::Store { path: path.to_path_buf(), source };
    let store = AtRest::open(path)?;
    let mut sum = Sum::default();
    // Keys that share a hash lie in two tables: in order they are one.
    let [mut records, mut twins] = store.tables();
    let (mut record, mut twin) = (records.next_row().map_err(failed)?, twins.next_row().map_err(failed)?);
    loop {
        let from_twins = match (&record, &twin) {
            (None, None) => return Ok(sum),
            (Some(record), Some(twin)) => crate::store::rest::tree_order(&twin.key, &record.key).is_lt(),
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
        if sum.records.is_multiple_of(GLANCE) {
            watch.advance(GLANCE);
            if watch.is_stopped() {
                return Err(Error::Stopped);
            }
        }
    }
}
