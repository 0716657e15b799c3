//! A store at rest: reading one that nobody has open, whatever state it is in, without changing a byte beside it; and
//! making a new one from records in order.
//!
//! Knows the tree's tables and the redo log, not what is done with the records, nor any other kind of file.

mod builder;
mod read_only;
mod rows;

pub use builder::Builder;
pub use rows::{Gaps, Row, Rows};

use super::error::{Error, OpenError};
use super::lock::OwnerLock;
use super::paths::{canonical, redo_file, side_path};
use super::redo::{Kind, recover};
use super::tree::{self, Tally, split_key};
use rusqlite::{Connection, OptionalExtension};
use std::cmp::Ordering;
use std::io;
use std::path::{Path, PathBuf};

/// Messages that [`AtRest::integrity`] asks SQLite for at most.
const MESSAGES: usize = 20;

/// Which of two raw keys comes first in a store: by the hash as a signed number, then by the key.
pub fn tree_order(a: &[u8], b: &[u8]) -> Ordering {
    split_key(a).cmp(&split_key(b))
}

/// Files beside `store` that belong to it, or would be taken for its own if it were made now; the lock is none of them.
pub(crate) fn side_files(store: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let numbers = super::redo::list(&canonical(store))?;
    let log = numbers.into_iter().map(|number| redo_file(store, number));
    let sqlite = ["-wal", "-shm", "-journal"].map(|suffix| side_path(store, suffix));
    Ok(sqlite.into_iter().filter(|path| path.exists()).chain(log).collect())
}

/// A store that no process has open, and that none will open while this exists.
pub struct AtRest {
    path: PathBuf,
    connection: Connection,
    identity: Option<(u64, Tally)>,
    _lock: OwnerLock,
}

/// A store's own counts of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredCounts {
    /// Records of both tables.
    pub records: u64,
    /// Of those, the ones whose hash another key has too.
    pub collisions: u64,
    /// Of those, tombstones.
    pub tombstones: u64,
    /// Bytes of their keys, and eight for each.
    pub tombstone_bytes: u64,
    /// Of all records, those below the floor, which count as absent.
    pub old: u64,
    /// It was closed in order; there is no redo log.
    pub closed: bool,
}

/// An entry of the redo log.
#[derive(Debug, Clone, Copy)]
pub struct LogEntry<'a> {
    /// Its place among all entries; the last one for a key holds.
    pub sequence: u64,
    /// Raw key.
    pub key: &'a [u8],
    /// Raw value or tombstone; `None`: there is no such record.
    pub value: Option<&'a [u8]>,
}

/// How reading the redo log has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogEnd {
    /// Entries read.
    pub entries: u64,
    /// Bytes of writes that were under way when the process or machine stopped, and were never acknowledged.
    pub unfinished_bytes: u64,
}

impl AtRest {
    /// Opens the store at `path` for reading.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if !tree::inspect(path)? {
            let missing = if path.exists() { "an empty file" } else { "no such file" };
            return Err(OpenError::Foreign { path: path.to_path_buf(), what: missing.to_owned() });
        }
        let path = canonical(path);
        let lock = OwnerLock::share(&path)?;
        let connection =
            tree::open_at_rest(&path).map_err(|source| OpenError::Sqlite { path: path.clone(), source })?;
        let identity = tree::identity(&connection, &path).ok();
        Ok(Self { path, connection, identity, _lock: lock })
    }

    /// The store's own counts, without the redo log; `None` if they are damaged.
    pub(crate) fn claim(&self) -> Option<StoredCounts> {
        self.identity.map(|(_, tally)| StoredCounts {
            records: tally.rows,
            collisions: tally.collisions,
            tombstones: tally.tombstones,
            tombstone_bytes: tally.tombstone_bytes,
            old: tally.old_rows(),
            closed: tally.clean,
        })
    }

    /// The records of the main table, and of that for further keys of a hash, each in [order](tree_order).
    pub fn tables(&self) -> [Rows<'_>; 2] {
        ["record", "twin"].map(|table| Rows::new(&self.connection, table, self.floor()))
    }

    /// The first generation that counts; of a store whose own description is damaged, every one does.
    fn floor(&self) -> u32 {
        self.identity.map_or(0, |(_, tally)| tally.floor_generation())
    }

    /// The raw value or tombstone of a raw key in the tables, whatever the redo log says.
    pub fn find(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let (hash, rest) = split_key(key);
        for table in ["record", "twin"] {
            let sql = format!("SELECT value FROM {table} WHERE hash = ?1 AND key = ?2 AND generation >= ?3");
            let found = self.connection.query_row(&sql, (hash, rest, self.floor()), |row| row.get(0)).optional();
            if let Some(value) = found.map_err(Error::read)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Whether there may be something in the redo log: the store was not closed in order, or that cannot be known.
    pub(crate) fn has_log(&self) -> bool {
        self.claim().is_none_or(|claim| !claim.closed)
    }

    /// Reads the redo log. An error may come after some entries: these are good.
    pub fn log(&self, mut see: impl FnMut(LogEntry<'_>) -> io::Result<()>) -> Result<LogEnd, OpenError> {
        let Some((store_id, tally)) = self.identity else {
            let what = "which files of it belong to the store cannot be read".to_owned();
            return Err(OpenError::RedoDamaged { path: side_path(&self.path, ".redo.*"), what });
        };
        let found = recover(&self.path, store_id, tally.redo_from, tally.clean, &read_only::ReadOnlyDisk, |entry| {
            if entry.generation < tally.floor_generation() {
                // Merged before the floor was set.
                return Ok(());
            }
            let value = (entry.kind == Kind::Put).then_some(entry.value);
            see(LogEntry { sequence: entry.sequence, key: entry.key, value })
                .map_err(|source| OpenError::Io { path: self.path.clone(), source })
        })?;
        Ok(LogEnd { entries: found.entries, unfinished_bytes: found.cut_bytes })
    }

    /// The problems that SQLite finds in its file; empty if it is whole.
    pub(crate) fn integrity(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let mut read = || {
            let mut statement = self.connection.prepare(&format!("PRAGMA integrity_check({MESSAGES})"))?;
            let mut rows = statement.query(())?;
            while let Some(row) = rows.next()? {
                let text: String = row.get(0)?;
                found.extend(text.lines().filter(|line| *line != "ok").map(str::to_owned));
            }
            Ok(())
        };
        match read() {
            Err(error) if rows::is_damage(&error) => found.push(error.to_string()),
            result => result.map_err(|error: rusqlite::Error| Error::read(error))?,
        }
        found.truncate(MESSAGES);
        Ok(found)
    }

    /// Keys that both tables have.
    pub(crate) fn duplicate_keys(&self) -> Result<u64, Error> {
        let sql = "SELECT count(*) FROM twin JOIN record USING(hash) WHERE twin.key = record.key";
        let count: i64 = self.connection.query_row(sql, (), |row| row.get(0)).map_err(Error::read)?;
        Ok(count.unsigned_abs())
    }
}
