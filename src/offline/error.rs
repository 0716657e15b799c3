//! Why work on files failed, in the words that the operator reads.

use std::io;
use std::path::PathBuf;

use crate::store::{Error as StoreError, OpenError};
use crate::tokyo;

/// Why work on files failed. Each is one line that names the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its [`Progress`](super::Progress) said that it was to stop.
    #[error("stopped")]
    Stopped,
    /// A file that must not be there, or what belongs to one.
    #[error("{}: already exists; not overwritten", .0.display())]
    Exists(PathBuf),
    /// A source is given more than once.
    #[error("{}: given twice", .0.display())]
    Twice(PathBuf),
    /// More sources than one merge takes.
    #[error("{given} files to merge, and {limit} is the most; merge some of them first, then the results")]
    TooMany {
        /// How many were given.
        given: usize,
        /// The most.
        limit: usize,
    },
    /// No such store, or none that can be read.
    #[error("{}", open_line(.0))]
    Open(#[from] OpenError),
    /// A Tokyo Cabinet file that cannot be read.
    #[error("{}: {source}", path.display())]
    Tokyo {
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: tokyo::Error,
    },
    /// A store failed under the work.
    #[error("{}: {source}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: StoreError,
    },
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// Reading the new file back gave other bytes than were written.
    #[error("{}: what was read back differs from what was written: do not trust this disk or memory", .0.display())]
    Unverified(PathBuf),
    /// A source is damaged, and only a whole one will do.
    #[error("{}: {damage}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage.
        damage: String,
    },
    /// A source is of a kind that will not do.
    #[error("{}: a Tokyo Cabinet file, not a backup of this program; mergedb imports it", .0.display())]
    NotOurs(PathBuf),
}

/// The store's line without its advice, which is for a server.
fn open_line(error: &OpenError) -> String {
    match error {
        OpenError::Foreign { path, what } if what == "no such file" || what == "an empty file" => {
            format!("{}: {what}", path.display())
        }
        OpenError::Foreign { path, what } => {
            format!("{}: {what}; neither a store, a backup, nor a Tokyo Cabinet file", path.display())
        }
        OpenError::Locked { .. } => format!("{error}; stop that server, or take a backup and use it instead"),
        error => error.to_string(),
    }
}
