//! One owner per store: locks on the database file and on a lock file beside it, held as long as the store is open.
//!
//! The locks are the kernel's (`flock`) and end with the process. The database's own lock holds even if somebody deletes
//! the lock file; the lock file also keeps out versions of this program that lock nothing else. It stays when the store
//! is closed; its content is the owner's pid, for the message to whoever is refused.
//!
//! Knows files and nothing of what is in them.

use super::error::OpenError;
use super::paths::side_path;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Keeps the store ours until it is dropped.
///
/// Drop it after the last SQLite connection to the store: closing any descriptor of a file releases the locks that SQLite
/// has on it in this process.
#[derive(Debug)]
pub(super) struct OwnerLock {
    _lock_file: Option<File>,
    database: Option<File>,
}

/// Which file a path named when the store was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenedFile {
    path: PathBuf,
    id: (u64, u64),
}

impl OwnerLock {
    /// Takes the store at `path`, or says who has it. If there is no database yet, [`OwnerLock::lock_database`] locks it
    /// once it has been made.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        // The database first: whoever is refused by it must not leave a lock file behind.
        let database = match File::open(path) {
            Ok(file) => Some(exclusively(file, path, path)?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(source) => return Err(OpenError::Io { path: path.to_path_buf(), source }),
        };
        let lock = side_path(path, ".lock");
        let failed = |source| OpenError::Io { path: lock.clone(), source };
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock).map_err(failed)?;
        let mut file = exclusively(file, &lock, path)?;
        // A full disk must not keep the store from being opened for reading.
        let _ = file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        Ok(Self { _lock_file: Some(file), database })
    }

    /// Locks the database that is at `path` now, unless it is the one that is locked already.
    pub(super) fn lock_database(&mut self, path: &Path) -> Result<OpenedFile, OpenError> {
        let failed = |source| OpenError::Io { path: path.to_path_buf(), source };
        let file = match self.database.take() {
            Some(file) if is_at(&file, path) => file,
            _ => exclusively(File::open(path).map_err(failed)?, path, path)?,
        };
        let id = file_id(&file).map_err(failed)?;
        self.database = Some(file);
        Ok(OpenedFile { path: path.to_path_buf(), id })
    }

    /// Keeps the store at `path` from being opened while it is read, and says who has it if somebody does. Adds no file.
    pub(super) fn share(path: &Path) -> Result<Self, OpenError> {
        let lock = side_path(path, ".lock");
        let lock_file = match File::open(&lock) {
            Ok(file) => match flock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => Some(file),
                Err(Errno::WOULDBLOCK) => return Err(in_use(path)),
                Err(error) => return Err(OpenError::Io { path: lock, source: error.into() }),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(source) => return Err(OpenError::Io { path: lock, source }),
        };
        let database = File::open(path).map_err(|source| OpenError::Io { path: path.to_path_buf(), source })?;
        // A backup on a file system without locks can be read all the same.
        if flock(&database, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK) {
            return Err(in_use(path));
        }
        Ok(Self { _lock_file: lock_file, database: Some(database) })
    }
}

impl OpenedFile {
    /// Whether the path still names the same file.
    pub(super) fn is_there(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.id)
    }

    /// The path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Locks `file`, which was opened at `at`, for the owner of `store` alone.
fn exclusively(file: File, at: &Path, store: &Path) -> Result<File, OpenError> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(in_use(store)),
        Err(error) => Err(OpenError::Io { path: at.to_path_buf(), source: error.into() }),
    }
}

fn file_id(file: &File) -> std::io::Result<(u64, u64)> {
    file.metadata().map(|file| (file.dev(), file.ino()))
}

/// Whether `path` names the file that is open as `file`.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    file_id(file).is_ok_and(|id| OpenedFile { path: path.to_path_buf(), id }.is_there())
}

fn in_use(path: &Path) -> OpenError {
    let mut pid = String::new();
    // The pid is a courtesy: without it the message is still right.
    let _ = File::open(side_path(path, ".lock")).and_then(|file| file.take(20).read_to_string(&mut pid));
    OpenError::Locked { path: path.to_path_buf(), owner: pid.trim().parse().ok() }
}
