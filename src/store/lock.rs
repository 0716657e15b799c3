//! One owner per store: a lock file beside it, held as long as the store is open.
//!
//! The lock is the kernel's and goes with the process. The file stays; its content is the owner's pid, for the message.

use super::error::OpenError;
use super::tree::side_path;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

/// Keeps the store ours until it is dropped.
#[derive(Debug)]
pub(super) struct OwnerLock {
    _file: File,
}

impl OwnerLock {
    /// Takes the store at `path`, or says who has it.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let lock = side_path(path, ".lock");
        let failed = |source| OpenError::Io { path: lock.clone(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(locked(path, &file)),
            Err(error) => return Err(failed(error.into())),
        }
        // A full disk must not keep the store from being opened for reading.
        let _ = file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        Ok(Self { _file: file })
    }

    /// Keeps the store at `path` from being opened while it is read, and says who has it if somebody does. Adds no
    /// file: a store that has no lock file is not open.
    pub(super) fn share(path: &Path) -> Result<Option<Self>, OpenError> {
        let lock = side_path(path, ".lock");
        let failed = |source| OpenError::Io { path: lock.clone(), source };
        let file = match File::open(&lock) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(Errno::WOULDBLOCK) => Err(locked(path, &file)),
            Err(error) => Err(failed(error.into())),
        }
    }
}

fn locked(path: &Path, file: &File) -> OpenError {
    let mut pid = String::new();
    // The pid is a courtesy: without it the message is still right.
    let _ = file.take(20).read_to_string(&mut pid);
    OpenError::Locked { path: path.to_path_buf(), owner: pid.trim().parse().ok() }
}
