//! Temporary files of work that may be interrupted: in use as long as a process holds a lock on them, and removed by the
//! next one that finds them unlocked.
//!
//! Knows names and locks, and nothing of what is in the files.

use super::lock::is_at;
use super::paths::side_path;
use rustix::fs::{FlockOperation, flock};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often making a file is tried.
const ATTEMPTS: usize = 50;
/// Pause between two of these tries.
const PAUSE: Duration = Duration::from_millis(10);
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
    Ok(is_at(file, path))
}

/// Makes the file at `path`, in use as long as it is open. An error if it is there already.
///
/// Another run may look for left-overs after the file is made and before it is locked, and remove it: then it is made again.
pub(super) fn create(path: &Path) -> io::Result<File> {
    for attempt in 0..ATTEMPTS {
        match File::options().write(true).create_new(true).open(path) {
            Ok(file) if hold(&file, path)? => return Ok(file),
            Ok(_) => {}
            // The file of the attempt before, which is about to be removed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt > 0 => {}
            Err(error) => return Err(error),
        }
        std::thread::sleep(PAUSE);
    }
    Err(io::ErrorKind::ResourceBusy.into())
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
    // Between the two, another run may have given that file its name, and made another one here that is in use.
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() || !is_at(&file, path) {
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
