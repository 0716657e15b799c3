//! A file of the redo log: where it lies and how it is made.

use crate::store::disk::{Disk, LogFile};
use crate::store::failures::Failures;
use crate::store::paths::{directory, redo_file, side_path};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Where and how to log.
pub(in crate::store) struct RedoOptions {
    /// Path of the store.
    pub(in crate::store) store: PathBuf,
    /// Which store the files belong to.
    pub(in crate::store) store_id: u64,
    /// Bytes of all files together.
    pub(in crate::store) limit: u64,
    /// The file system.
    pub(in crate::store) disk: Arc<dyn Disk>,
    /// As in the store's options.
    pub(in crate::store) writes: Arc<AtomicU64>,
    /// Where failures are noted.
    pub(in crate::store) failures: Arc<Failures>,
}

/// Is there while a sync has failed and what it lost may still be needed.
pub(super) fn marker(store: &Path) -> PathBuf {
    side_path(store, ".redo.failed")
}

/// Makes the file `number`, durable by name. One left over from an attempt that failed is emptied and used: without its
/// name, recovery would miss it.
pub(super) fn create(options: &RedoOptions, number: u64) -> io::Result<Arc<dyn LogFile>> {
    let path = redo_file(&options.store, number);
    let (file, is_new) = match options.disk.create(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = options.disk.open(&path)?;
            file.truncate(0)?;
            (file, false)
        }
        other => (other?, true),
    };
    if let Err(error) = options.disk.sync_directory(directory(&options.store)) {
        if is_new {
            let _ = options.disk.remove(&path);
        }
        return Err(error);
    }
    Ok(file)
}
