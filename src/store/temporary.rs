//! Temporary files of work that may be interrupted: in use as long as a process holds a lock on them, and removed by the
//! next one that finds them unlocked.
//!
//! Knows names and locks, and nothing of what is in the files.

use super::paths::side_path;
use rustix::fs::{FlockOperation, flock};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files that SQLite may have left beside a database.
const SIDE_FILES: [&str; 3] = ["-journal", "-wal", "-shm"];

/// Marks the file at `path` as in use for as long as `file`, a handle to it, is open. False if somebody has removed it, or
/// is about to.
pub(crate) fn hold(file: &File, path: &Path) -> io::Result<bool> {
    // Shared, so that whoever has written it may also read it through another handle.
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    let id = |file: std::fs::Metadata| (file.dev(), file.ino());
    Ok(std::fs::metadata(path).is_ok_and(|there| file.metadata().is_ok_and(|own| id(there) == id(own))))
}

/// Removes the files in `folder` whose names `is_temporary` accepts, unless a process holds them, and what SQLite has left
/// beside them. Failures are logged: nothing depends on it but space.
pub(crate) fn remove_unused(folder: &Path, is_temporary: impl Fn(&OsStr) -> bool) {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    for name in names.filter(|name| is_temporary(name)) {
        let path = folder.join(name);
        match remove_if_unused(&path) {
            Ok(true) => {
                tracing::info!(path = %path.display(), "deleted what an interrupted run has left");
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot delete what an interrupted run has left");
            }
        }
    }
}

fn remove_if_unused(path: &Path) -> io::Result<bool> {
    if !std::fs::symlink_metadata(path)?.is_file() {
        return Ok(false);
    }
    let file = File::open(path)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    remove(path)?;
    Ok(true)
}

/// Removes a temporary file, and what SQLite has left beside it.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    for suffix in SIDE_FILES {
        match std::fs::remove_file(side_path(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::remove_file(path)
}

/// Where the store at `store` writes a backup before it is complete and gets its name in `folder`. The same for all
/// names, and none that a backup can have.
pub(super) fn unfinished_backup(store: &Path, folder: &Path) -> PathBuf {
    let mut name = file_name(store);
    name.push(".backup.tmp");
    folder.join(name)
}

/// Removes what interrupted backups of the store at `store` have left in `folder`.
pub(super) fn remove_unfinished_backups(store: &Path, folder: &Path) {
    let current = unfinished_backup(store, folder);
    let mut prefix = file_name(store);
    prefix.push("-");
    remove_unused(folder, |name| {
        current.file_name() == Some(name) || (has_earlier_form(name, &prefix) && !is_whole(&folder.join(name)))
    });
}

/// Whether this program might have called an unfinished backup so at first: by the name of the backup, and `.tmp`.
fn has_earlier_form(name: &OsStr, prefix: &OsStr) -> bool {
    let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
    rest.and_then(|rest| rest.strip_suffix(b".tmp"))
        .is_some_and(|suffix| suffix.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte)))
}

/// Whether the file looks like a database of its own: a backup may have been called `x.tmp`. While one is written its first
/// page is missing, and a journal lies beside it.
fn is_whole(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut head));
    !side_path(path, "-journal").exists()
        && (read.is_err() || head.starts_with(b"SQLite format 3") || head.starts_with(b"ToKyO CaBiNeT"))
}

fn file_name(store: &Path) -> OsString {
    store.file_name().unwrap_or_default().to_os_string()
}
