//! Reading a table from end to end, around pages that are damaged.
//!
//! Where reading fails, ever larger steps look for a row id from which on it works again, and the gap is then narrowed
//! down by halves: a damaged page costs the rows in it and a hundred looks.

use crate::store::error::Error;
use crate::store::tree::join_key;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode};
use std::collections::VecDeque;

/// Rows read in one go.
const CHUNK_ROWS: i64 = 512;
/// Bytes at which a chunk ends early.
const CHUNK_BYTES: usize = 4 << 20;

/// A row as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Raw key.
    pub key: Box<[u8]>,
    /// The column of the raw value or tombstone, unchecked.
    pub value: Vec<u8>,
    /// Unix seconds of the deletion, if the row is marked as a tombstone.
    pub deleted: Option<i64>,
    /// It lies below the store's floor, and counts as absent.
    pub old: bool,
}

/// The parts of a table that could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Ranges of hashes that were stepped over.
    pub stretches: u64,
    /// Single rows whose columns are not what they should be.
    pub rows: u64,
}

impl std::ops::Add for Gaps {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { stretches: self.stretches + other.stretches, rows: self.rows + other.rows }
    }
}

/// The rows of a table in order.
pub struct Rows<'c> {
    connection: &'c Connection,
    sql: String,
    /// The first generation that counts.
    floor: u32,
    /// Where the next chunk begins; `None` behind the end.
    from: Option<Bound>,
    /// Hash of the last row seen, or where the search for one began.
    reached: i64,
    read: VecDeque<Row>,
    gaps: Gaps,
}

/// From this hash on, after this hash and key, or after everything.
#[derive(Debug, Clone)]
enum Bound {
    From(i64),
    After(i64, Box<[u8]>),
    End,
}

impl Bound {
    fn is_before(&self, hash: i64, key: &[u8]) -> bool {
        match self {
            Self::From(from) => hash >= *from,
            Self::After(after, last) => (hash, key) > (*after, last),
            Self::End => false,
        }
    }
}

impl<'c> Rows<'c> {
    pub(super) fn new(connection: &'c Connection, table: &str, floor: u32) -> Self {
        // An integer is less than any blob.
        let sql = format!(
            "SELECT hash, key, value, deleted, generation FROM {table} WHERE (hash, key) > (?1, ?2) ORDER BY hash, key LIMIT ?3"
        );
        let (from, read, gaps) = (Some(Bound::From(i64::MIN)), VecDeque::new(), Gaps::default());
        Self { connection, sql, floor, from, reached: i64::MIN, read, gaps }
    }

    /// The parts that could not be read since the last call.
    pub(crate) fn take_gaps(&mut self) -> Gaps {
        std::mem::take(&mut self.gaps)
    }

    /// The next row.
    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, Error> {
        while self.read.is_empty() {
            let Some(from) = self.from.take() else { return Ok(None) };
            let damage = match self.chunk(&from, CHUNK_ROWS) {
                Ok(next) => {
                    self.from = next;
                    continue;
                }
                Err(error) if is_damage(&error) => error,
                Err(error) => return Err(Error::read(error)),
            };
            tracing::debug!(%damage, "skipping a damaged range");
            self.gaps.stretches += 1;
            // Rows that the chunk brought before it failed are good.
            self.from = self.beyond(self.reached)?.map(Bound::From);
        }
        Ok(self.read.pop_front())
    }

    /// Reads rows; returns where to go on.
    fn chunk(&mut self, from: &Bound, limit: i64) -> rusqlite::Result<Option<Bound>> {
        let (hash, key) = match from {
            Bound::From(hash) => (*hash, ToSqlOutput::Borrowed(ValueRef::Integer(0))),
            Bound::After(hash, key) => (*hash, ToSqlOutput::Borrowed(ValueRef::Blob(key))),
            Bound::End => return Ok(None),
        };
        self.reached = hash;
        let mut statement = self.connection.prepare_cached(&self.sql)?;
        let mut rows = statement.query((hash, key, limit))?;
        let (mut next, mut seen, mut bytes) = (from.clone(), 0, 0);
        while let Some(row) = rows.next()? {
            seen += 1;
            let columns = || -> rusqlite::Result<_> {
                let (hash, deleted): (i64, Option<i64>) = (row.get(0)?, row.get(3)?);
                let old = row.get::<_, u32>(4)? < self.floor;
                Ok((hash, row.get_ref(1)?.as_blob()?, row.get_ref(2)?.as_blob()?.to_vec(), deleted, old))
            };
            let Ok((hash, key, value, deleted, old)) = columns() else {
                self.gaps.rows += 1;
                let hash: i64 = row.get(0)?;
                if hash <= self.reached && seen > 1 {
                    return Err(out_of_order());
                }
                self.reached = hash;
                next = hash.checked_add(1).map_or(Bound::End, Bound::From);
                continue;
            };
            if !next.is_before(hash, key) {
                return Err(out_of_order());
            }
            self.reached = hash;
            bytes += key.len() + value.len();
            self.read.push_back(Row { key: join_key(hash, key), value, deleted, old });
            next = Bound::After(hash, key.into());
            if bytes >= CHUNK_BYTES {
                return Ok(Some(next));
            }
        }
        Ok((seen == limit).then_some(next))
    }

    /// The first hash after `last` from which on rows can be read; `None` if there is none.
    fn beyond(&self, last: i64) -> Result<Option<i64>, Error> {
        let mut bad = last;
        let mut step = 1_i64;
        let mut good = loop {
            let Some(hash) = bad.checked_add(step) else {
                // Nothing lies behind the last of all.
                if last == i64::MAX || !self.is_readable(i64::MAX)? {
                    return Ok(None);
                }
                break i64::MAX;
            };
            if self.is_readable(hash)? {
                break hash;
            }
            bad = hash;
            step = step.saturating_mul(2);
        };
        while bad.saturating_add(1) < good {
            let middle = bad.midpoint(good);
            if self.is_readable(middle)? {
                good = middle;
            } else {
                bad = middle;
            }
        }
        Ok(Some(good))
    }

    /// Whether the first row from `hash` on can be read, or there is certainly none.
    fn is_readable(&self, hash: i64) -> Result<bool, Error> {
        let look = || {
            let mut statement = self.connection.prepare_cached(&self.sql)?;
            let mut rows = statement.query((hash, 0, 1))?;
            match rows.next()? {
                Some(row) if row.get::<_, i64>(0)? < hash => Err(out_of_order()),
                _ => Ok(()),
            }
        };
        match look() {
            Ok(()) => Ok(true),
            Err(error) if is_damage(&error) => Ok(false),
            Err(error) => Err(Error::read(error)),
        }
    }
}

/// Whether an error says that the file is damaged there, as opposed to everywhere and always.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(error, rusqlite::Error::InvalidColumnType(..))
        || matches!(
            code,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SystemIoFailure | ErrorCode::TooBig)
        )
}

fn out_of_order() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some("rows out of order".to_owned()))
}
