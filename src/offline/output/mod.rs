//! The new file: written under a name of its own, read back, and only then given its name.

mod database;
mod digest;
mod store;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::error::Error;
use super::progress::Progress;
use super::sorter::SortSpace;
use crate::store::at_rest::side_files;
use crate::store::temporary;
use digest::Digest;

/// End of the name of a file that is not complete.
const SUFFIX: &str = ".tmp";
/// Letters in its middle, chosen at random.
const RANDOM_LETTERS: usize = 6;
/// How often making one is tried.
const ATTEMPTS: usize = 10;

/// The format of the new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A store.
    Store,
    /// A database for original servers.
    TokyoCabinet {
        /// In which byte order; that of the library which will read it.
        big_endian: bool,
    },
}

/// A file on its way to `destination`. Dropped before [`Output::finish`] it leaves nothing.
pub(super) struct Output {
    destination: PathBuf,
    file: NamedTempFile,
    body: Body,
}

enum Body {
    Store(Box<store::Body>),
    Database(database::Body),
}

/// The folder that a file is or will be in.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Output {
    /// Begins a file; nothing that exists may be in its way. About `expected` records will come.
    pub(super) fn create(destination: &Path, format: Format, expected: u64, space: SortSpace) -> Result<Self, Error> {
        refuse_existing(destination)?;
        let file =
            temporary_file(destination).map_err(|source| Error::Io { path: destination.to_path_buf(), source })?;
        let body = match format {
            Format::Store => Body::Store(Box::new(store::Body::create(file.path())?)),
            Format::TokyoCabinet { big_endian } => {
                Body::Database(database::Body::new(file.path(), big_endian, expected, space))
            }
        };
        Ok(Self { destination: destination.to_path_buf(), file, body })
    }

    /// Adds a record; they come in the store's order.
    pub(super) fn push(&mut self, key: Box<[u8]>, value: Vec<u8>) -> Result<(), Error> {
        match &mut self.body {
            Body::Store(body) => body.push(key, value),
            Body::Database(body) => body.push(&key, &value),
        }
    }

    /// Completes the file, reads it back, and gives it its name.
    pub(super) fn finish(self, progress: &dyn Progress) -> Result<Digest, Error> {
        let Self { destination, file, body } = self;
        let (written, found) = match body {
            Body::Store(body) => {
                let written = body.finish()?;
                progress.begin("verifying", Some(written.records));
                let found = store::read_back(file.path(), progress)?;
                (written, found)
            }
            Body::Database(body) => {
                let written = body.finish(progress)?;
                progress.begin("verifying", Some(written.records));
                let found = database::read_back(file.path(), progress)?;
                (written, found)
            }
        };
        if !written.is_same(&found) {
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

/// The file that becomes `destination`. Those that interrupted runs have left for the same destination are removed.
fn temporary_file(destination: &Path) -> io::Result<NamedTempFile> {
    let name = destination.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    let is_temporary = |name: &OsStr| {
        let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        rest.and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()))
            .is_some_and(|random| random.len() == RANDOM_LETTERS && random.iter().all(u8::is_ascii_alphanumeric))
    };
    temporary::remove_unused(folder(destination), is_temporary);
    for _ in 0..ATTEMPTS {
        let file = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(SUFFIX)
            .rand_bytes(RANDOM_LETTERS)
            .permissions(std::fs::Permissions::from_mode(0o644))
            .tempfile_in(folder(destination))?;
        // Another run may look for left-overs between the making of the file and the lock on it, and remove it.
        if temporary::hold(file.as_file(), file.path())? {
            return Ok(file);
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Refuses a name that is taken, or that has side files of a store which would be taken for the new one's.
pub(super) fn refuse_existing(destination: &Path) -> Result<(), Error> {
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
