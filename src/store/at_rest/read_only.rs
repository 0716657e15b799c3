//! A disk on which nothing changes: recovery reads the redo log through it and leaves everything as it is.

use crate::store::disk::{Disk, LogFile};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Pretends to do what does not add anything.
pub(super) struct ReadOnlyDisk;

/// A file that stays as it is.
struct ReadOnlyFile;

impl Disk for ReadOnlyDisk {
    fn create(&self, _path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open(&self, _path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(ReadOnlyFile))
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl LogFile for ReadOnlyFile {
    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, _length: u64) -> io::Result<()> {
        Ok(())
    }
}
