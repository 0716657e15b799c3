//! Errors of the store: one type for opening, one for everything after.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a store could not be opened. Each is one line that names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{path}: in use by another process{}", owner.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        /// The store.
        path: PathBuf,
        /// The process that has it, if it could be learned.
        owner: Option<u32>,
    },
    /// A file of the 2010 server.
    #[error("{path}: a Tokyo Cabinet file, not a kumo-server store; `kumo-server mergedb` imports it")]
    TokyoCabinet {
        /// The file.
        path: PathBuf,
    },
    /// Some other file.
    #[error("{path}: {what}, not a kumo-server store; choose another path with -s")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The kind of file it seems to be.
        what: String,
    },
    /// Written by a later version of this program.
    #[error("{path}: store format {found}, this program knows up to {known}; use a newer kumo-server")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// A redo log file that must be there is missing or damaged where it had been safe on disk.
    #[error("{path}: {what}; acknowledged writes would be lost. Restore it or the whole store from a backup")]
    RedoDamaged {
        /// The redo log file.
        path: PathBuf,
        /// The problem.
        what: String,
    },
    /// A redo log file that belongs to another store.
    #[error("{path}: the redo log of another store; move it away if {store} was restored from a backup")]
    RedoForeign {
        /// The redo log file.
        path: PathBuf,
        /// The store that was opened.
        store: PathBuf,
    },
    /// The SQLite library can lose committed writes.
    #[error("SQLite {found} can lose committed writes; 3.51.3 or later is needed")]
    OldSqlite {
        /// The library's version.
        found: &'static str,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("{path}: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: rusqlite::Error,
    },
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A write to disk has failed and none has succeeded since: no write is acknowledged. The text names the cause.
    #[error("store cannot write: {0}")]
    Failed(Arc<str>),
    /// Reading failed. Nothing is changed by that.
    #[error("store cannot read: {0}")]
    Read(Arc<str>),
    /// A record too large for the configured limits, in bytes.
    #[error("record of {bytes} bytes; the store takes up to {limit}")]
    TooLarge {
        /// Size of the key and value.
        bytes: u64,
        /// The largest record accepted, in bytes.
        limit: u64,
    },
    /// A write under another fencing token than the store's. Nothing was changed.
    #[error("the write belongs to an earlier configuration of the cluster")]
    Fenced,
    /// The destination of a backup cannot be used.
    #[error("backup to {path}: {reason}")]
    Backup {
        /// The destination.
        path: PathBuf,
        /// The cause.
        reason: Arc<str>,
    },
    /// The store has been closed.
    #[error("store is closed")]
    Closed,
    /// The store could not be closed in time, since the disk does not answer. The process should end: the next one opens
    /// the store as after a crash.
    #[error(
        "the disk does not answer; {unwritten} writes are not in the redo log, none of them acknowledged, and {unsynced} \
         are in it but not forced to disk"
    )]
    Stalled {
        /// Writes that have not reached the redo log: none was acknowledged.
        unwritten: u64,
        /// Writes in the redo log that were not synced: safe unless the machine stops, too.
        unsynced: u64,
    },
}

impl Error {
    /// Reading failed because of `cause`.
    #[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
    pub(super) fn read(cause: impl ToString) -> Self {
        Self::Read(cause.to_string().into())
    }

    /// Writing failed because of `cause`.
    #[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
    pub(super) fn failed(cause: impl ToString) -> Self {
        Self::Failed(cause.to_string().into())
    }
}
