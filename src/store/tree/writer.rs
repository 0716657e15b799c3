//! Writing the tree: sorted rows in short transactions, checkpoints, state, and the oldest tombstones.

use super::row::{Tally, join_key, key_bound, split_key};
use super::schema::{self, end_transaction};
use super::wal;
use crate::store::identity::random_id;
use crate::wire::RecordValue;
use crate::wire::record::TOMBSTONE_LEN;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension};
use std::cell::Cell;
use std::path::PathBuf;

/// A raw key of its own.
type RawKey = Box<[u8]>;

/// A generation after every one.
const ANY_GENERATION: i64 = 1 << 32;
/// Bytes of values that one transaction deletes below the floor, about.
const OLD_BYTES: u64 = 4 << 20;

/// A row to merge: a record's newest state.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct MergeRow<'a> {
    pub(in crate::store) key: &'a [u8],
    /// Raw value or tombstone; empty: the record is removed.
    pub(in crate::store) value: &'a [u8],
    pub(in crate::store) generation: u32,
}

/// A tombstone found by age.
#[derive(Debug, Clone)]
pub(in crate::store) struct Tombstone {
    pub(in crate::store) key: Box<[u8]>,
    pub(in crate::store) value: Vec<u8>,
    pub(in crate::store) generation: u32,
    /// Unix seconds of the deletion.
    pub(in crate::store) deleted: u32,
}

/// A table of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::store) enum Table {
    /// The first key of each hash.
    #[default]
    Record,
    /// Further keys of a hash.
    Twin,
}

/// The only connection that changes the tree.
pub(in crate::store) struct Writer {
    connection: Connection,
    tally: Cell<Tally>,
    /// The write-ahead log's file.
    wal: PathBuf,
    /// A write or sync has failed since the write-ahead log was last known to be with the kernel as it should: no sync
    /// of it proves anything before it has been written anew.
    suspect: Cell<bool>,
    /// A checkpoint has ended before its end: what it copied is noted as done, and not synced.
    half_copied: Cell<bool>,
}

impl Writer {
    /// Takes the connection of the tree whose write-ahead log is `wal`.
    ///
    /// That is written anew if there is one: who was killed may have met a sync that failed.
    pub(in crate::store) fn new(connection: Connection, tally: Tally, wal: PathBuf) -> rusqlite::Result<Self> {
        let (suspect, half_copied) = (Cell::new(true), Cell::new(false));
        let this = Self { connection, tally: Cell::new(tally), wal, suspect, half_copied };
        this.trust()?;
        Ok(this)
    }

    /// The tally as it is committed.
    pub(in crate::store) fn tally(&self) -> Tally {
        self.tally.get()
    }

    /// The connection, for a backup.
    pub(in crate::store) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Merges rows in one transaction. `existed` hears of each, in order, whether its key had a row before.
    ///
    /// `before_commit` may still refuse.
    pub(in crate::store) fn merge<'a>(
        &self,
        rows: impl Iterator<Item = MergeRow<'a>>,
        mut existed: impl FnMut(bool),
        before_commit: impl FnOnce(&Tally) -> std::io::Result<()>,
    ) -> rusqlite::Result<()> {
        let mut tally = self.tally.get();
        self.transaction(|connection| {
            for row in rows {
                existed(merge_row(connection, &mut tally, row)?);
            }
            before_commit(&tally).map_err(failed)?;
            put_tally(connection, &tally)
        })?;
        self.tally.set(tally);
        Ok(())
    }

    /// Adds rows in one transaction, to a tree that has none of their keys.
    pub(in crate::store) fn append<'a>(&self, rows: impl Iterator<Item = MergeRow<'a>>) -> rusqlite::Result<()> {
        let mut tally = self.tally.get();
        self.transaction(|connection| {
            for row in rows {
                let (rowid, key) = split_key(row.key);
                let deleted = deleted_at(row.value);
                if deleted.is_some() {
                    remember(&mut tally, key);
                }
                insert(connection, &mut tally, (rowid, key), row, deleted)?;
                tally.rows += 1;
            }
            put_tally(connection, &tally)
        })?;
        self.tally.set(tally);
        Ok(())
    }

    /// Changes the tally, and returns when that and everything before it is durable.
    pub(in crate::store) fn seal(&self, change: impl FnOnce(&mut Tally)) -> rusqlite::Result<()> {
        let before = self.tally.get();
        let mut tally = before;
        change(&mut tally);
        self.durably(|connection| {
            if tally.floor.is_some() != before.floor.is_some() {
                schema::set_format(connection, tally.floor.is_some())?;
            }
            put_tally(connection, &tally)
        })?;
        self.tally.set(tally);
        Ok(())
    }

    /// Deletes the rows below the floor among the next of a table, in one transaction: looks at `limit` rows after the raw
    /// key `after`, an empty one being before all, or at fewer if those to delete are long. Returns how many it has deleted,
    /// and the last key it has looked at; none at the table's end.
    pub(in crate::store) fn delete_old_rows(
        &self,
        table: Table,
        after: &[u8],
        limit: usize,
    ) -> rusqlite::Result<(u64, Option<Box<[u8]>>)> {
        let mut tally = self.tally.get();
        let (before, mut last) = (tally.old_rows(), None);
        self.transaction(|connection| {
            let (seen, old) = old_rows(connection, table, after, limit, tally.floor_generation())?;
            last = seen;
            for key in &old {
                let (rowid, key) = split_key(key);
                remove_old(connection, &mut tally, rowid, key)?;
            }
            put_tally(connection, &tally)
        })?;
        self.tally.set(tally);
        Ok((before.saturating_sub(tally.old_rows()), last))
    }

    /// A blob that [`Self::put_state`] has stored.
    pub(in crate::store) fn state(&self, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
        super::reader::get_state(&self.connection, name)
    }

    /// Stores a blob under a name, durably.
    pub(in crate::store) fn put_state(&self, name: &str, value: &[u8]) -> rusqlite::Result<()> {
        self.durably(|connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO meta(name, value) VALUES('state:' || ?1, ?2)")?
                .execute((name, value))
                .map(drop)
        })
    }

    /// Copies the write-ahead log into the tree and begins it anew once no reader needs it.
    ///
    /// Returns false if readers kept it from finishing.
    pub(in crate::store) fn checkpoint(&self, truncate: bool) -> rusqlite::Result<bool> {
        end_transaction(&self.connection)?;
        self.trust()?;
        let mode = if truncate { "TRUNCATE" } else { "RESTART" };
        let run = || {
            self.connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), (), |row| {
                let (busy, frames, copied): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok((busy == 0, copied < frames))
            })
        };
        let (finished, half_copied) = self.watch(run()).inspect_err(|error| {
            if is_io(error) && self.half_copied.get() {
                stop("a sync has failed after half a checkpoint");
            }
        })?;
        self.half_copied.set(half_copied);
        Ok(finished)
    }

    /// Up to `limit` tombstones deleted before `before`, oldest first, after the one at `after` (seconds and raw key).
    pub(in crate::store) fn tombstones(
        &self,
        after: (i64, &[u8]),
        before: u32,
        limit: usize,
    ) -> rusqlite::Result<Vec<Tombstone>> {
        let (rowid, key) = key_bound(after.1);
        let rows = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut found = Vec::new();
        let mut statement = self.connection.prepare_cached(
            "SELECT hash, key, value, generation, deleted FROM record
             WHERE deleted IS NOT NULL AND (deleted, hash) > (?1, ?2) AND deleted < ?3 ORDER BY deleted, hash LIMIT ?4",
        )?;
        gather(statement.query((after.0, rowid, before, rows))?, &mut found)?;
        if self.tally.get().collisions > 0 {
            let mut statement = self.connection.prepare_cached(
                "SELECT hash, key, value, generation, deleted FROM twin
                 WHERE deleted IS NOT NULL AND (deleted, hash, key) > (?1, ?2, ?5) AND deleted < ?3
                 ORDER BY deleted, hash, key LIMIT ?4",
            )?;
            gather(statement.query((after.0, rowid, before, rows, key))?, &mut found)?;
        }
        // Rows beyond the limit come with a later call.
        found.sort_by(|a, b| (a.deleted, split_key(&a.key)).cmp(&(b.deleted, split_key(&b.key))));
        found.truncate(limit);
        Ok(found)
    }

    /// Makes a finished copy of this tree a store of its own: another id, no redo log.
    pub(in crate::store) fn adopt_copy(copy: &Connection, tally: &Tally) -> rusqlite::Result<()> {
        let tally = Tally { clean: true, redo_from: 1, ..*tally };
        schema::set_identity(copy, random_id(), &tally)
    }

    /// Pages in the write-ahead log.
    pub(in crate::store) fn wal_pages(&self) -> rusqlite::Result<u64> {
        let pages: i64 =
            self.connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?.query_row((), |row| row.get(1))?;
        Ok(u64::try_from(pages).unwrap_or(0))
    }

    /// Closes the connection. If `tidy`, and the write-ahead log can be trusted, SQLite copies it into the tree and deletes
    /// it; otherwise the next start does.
    pub(in crate::store) fn close(self, tidy: bool) -> rusqlite::Result<()> {
        let trusted = self.trust();
        if tidy && trusted.is_ok() {
            self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        }
        self.connection.close().map_err(|(_, error)| error)?;
        trusted
    }

    /// Writes the write-ahead log anew if a write or a sync has failed.
    ///
    /// If the kernel has dropped some of it already the process ends: what is read would be wrong, and the next start
    /// has what was durable, and the redo log for the rest.
    fn trust(&self) -> rusqlite::Result<()> {
        if !self.suspect.get() {
            return Ok(());
        }
        let frames = self.wal_pages()?;
        if frames > 0 && !wal::write_anew(&self.wal, frames).map_err(failed)? {
            stop("the write-ahead log has lost what was written to it");
        }
        self.suspect.set(false);
        Ok(())
    }

    /// Takes note of an I/O error, and looks at once whether anything was dropped. No transaction may be open.
    fn watch<T>(&self, result: rusqlite::Result<T>) -> rusqlite::Result<T> {
        if result.as_ref().is_err_and(is_io) {
            self.suspect.set(true);
            // While that fails it is tried again before whatever needs it.
            let _ = self.trust();
        }
        result
    }

    fn durably(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        self.trust()?;
        end_transaction(&self.connection)?;
        self.connection.execute_batch("PRAGMA synchronous = FULL")?;
        let result = self.transaction(work);
        // Without it only more is synced than need be.
        let _ = self.connection.execute_batch("PRAGMA synchronous = NORMAL");
        result
    }

    fn transaction(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        let connection = &self.connection;
        end_transaction(connection)?;
        let result = connection
            .prepare_cached("BEGIN IMMEDIATE")?
            .execute(())
            .and_then(|_| work(connection))
            .and_then(|()| connection.prepare_cached("COMMIT")?.execute(()).map(drop));
        if result.is_err() {
            // One that fails is tried again before the next transaction.
            let _ = end_transaction(connection);
        }
        self.watch(result)
    }
}

fn failed(error: std::io::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(error.into())
}

/// Whether the system has refused to read, write or sync, other than for want of space.
fn is_io(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
}

fn stop(why: &str) -> ! {
    tracing::error!("{why}: stopping the process; at the next start the redo log has what is missing");
    std::process::abort();
}

fn gather(mut rows: rusqlite::Rows<'_>, found: &mut Vec<Tombstone>) -> rusqlite::Result<()> {
    while let Some(row) = rows.next()? {
        found.push(Tombstone {
            key: join_key(row.get(0)?, row.get_ref(1)?.as_blob()?),
            value: row.get_ref(2)?.as_blob()?.to_vec(),
            generation: row.get(3)?,
            deleted: row.get(4)?,
        });
    }
    Ok(())
}

fn put_tally(connection: &Connection, tally: &Tally) -> rusqlite::Result<()> {
    let text = serde_json::to_vec(tally).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    connection.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'tally'")?.execute([text]).map(drop)
}

/// Merges one row; true if its key had one before.
///
/// A live record that stays live is by far the most frequent case: one statement, and the tombstone index is not touched.
fn merge_row(connection: &Connection, tally: &mut Tally, row: MergeRow<'_>) -> rusqlite::Result<bool> {
    let (rowid, key) = split_key(row.key);
    let bytes = tombstone_bytes(key);
    let deleted = deleted_at(row.value);
    remove_old(connection, tally, rowid, key)?;
    let forget = |tally: &mut Tally| {
        tally.tombstones = tally.tombstones.saturating_sub(1);
        tally.tombstone_bytes = tally.tombstone_bytes.saturating_sub(bytes);
    };
    if row.value.is_empty() {
        let Some(was_tombstone) = remove(connection, tally, rowid, key, ANY_GENERATION)? else { return Ok(false) };
        tally.rows = tally.rows.saturating_sub(1);
        if was_tombstone {
            forget(tally);
        }
        return Ok(true);
    }
    let was_tombstone = update(connection, tally, (rowid, key), row, deleted)?;
    if deleted.is_some() && was_tombstone != Some(true) {
        remember(tally, key);
    }
    if let Some(was_tombstone) = was_tombstone {
        if was_tombstone && deleted.is_none() {
            forget(tally);
        }
        return Ok(true);
    }
    insert(connection, tally, (rowid, key), row, deleted)?;
    tally.rows += 1;
    Ok(false)
}

/// Unix seconds of the deletion that a tombstone stands for; `None` for a live value.
fn deleted_at(value: &[u8]) -> Option<u32> {
    let tombstone = RecordValue::new(value).ok().filter(RecordValue::is_tombstone)?;
    Some(tombstone.clocktime().seconds())
}

/// Bytes that the tombstone of a key (without the hash) counts with.
pub(in crate::store) fn tombstone_bytes(key: &[u8]) -> u64 {
    (key.len() + TOMBSTONE_LEN) as u64
}

/// Counts a tombstone.
fn remember(tally: &mut Tally, key: &[u8]) {
    tally.tombstones += 1;
    tally.tombstone_bytes += tombstone_bytes(key);
}

/// Updates an existing row; says whether it was a tombstone, `None` if there is no such row.
fn update(
    connection: &Connection,
    tally: &Tally,
    (rowid, key): (i64, &[u8]),
    row: MergeRow<'_>,
    deleted: Option<u32>,
) -> rusqlite::Result<Option<bool>> {
    let parameters = (rowid, key, row.value, row.generation, deleted);
    let live =
        "UPDATE record SET value = ?3, generation = ?4, deleted = ?5 WHERE hash = ?1 AND key = ?2 AND deleted IS NULL";
    let live_to_live =
        "UPDATE record SET value = ?3, generation = ?4 WHERE hash = ?1 AND key = ?2 AND deleted IS NULL AND ?5 IS NULL";
    let sql = if deleted.is_none() { live_to_live } else { live };
    if connection.prepare_cached(sql)?.execute(parameters)? > 0 {
        return Ok(Some(false));
    }
    if tally.tombstones > 0
        && connection
            .prepare_cached(
                "UPDATE record SET value = ?3, generation = ?4, deleted = ?5
                 WHERE hash = ?1 AND key = ?2 AND deleted IS NOT NULL",
            )?
            .execute(parameters)?
            > 0
    {
        return Ok(Some(true));
    }
    if tally.collisions > 0 {
        let was: Option<bool> = connection
            .prepare_cached("SELECT deleted IS NOT NULL FROM twin WHERE hash = ?1 AND key = ?2")?
            .query_row((rowid, key), |row| row.get(0))
            .optional()?;
        if was.is_some() {
            connection
                .prepare_cached(
                    "UPDATE twin SET value = ?3, generation = ?4, deleted = ?5 WHERE hash = ?1 AND key = ?2",
                )?
                .execute(parameters)?;
        }
        return Ok(was);
    }
    Ok(None)
}

/// Adds a row for a key that has none.
fn insert(
    connection: &Connection,
    tally: &mut Tally,
    (rowid, key): (i64, &[u8]),
    row: MergeRow<'_>,
    deleted: Option<u32>,
) -> rusqlite::Result<()> {
    let parameters = (rowid, key, row.value, row.generation, deleted);
    let added = connection
        .prepare_cached(
            "INSERT INTO record(hash, key, value, generation, deleted) VALUES(?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING",
        )?
        .execute(parameters)?;
    if added == 0 {
        connection
            .prepare_cached("INSERT INTO twin(hash, key, value, generation, deleted) VALUES(?1, ?2, ?3, ?4, ?5)")?
            .execute(parameters)?;
        tally.collisions += 1;
    }
    Ok(())
}

/// Removes a key's row if it lies below the floor: it counts as absent, and what is merged takes its place.
fn remove_old(connection: &Connection, tally: &mut Tally, rowid: i64, key: &[u8]) -> rusqlite::Result<()> {
    let Some(mut floor) = tally.floor.filter(|floor| floor.rows > 0) else { return Ok(()) };
    let Some(was_tombstone) = remove(connection, tally, rowid, key, i64::from(floor.generation))? else {
        return Ok(());
    };
    floor.rows -= 1;
    tally.rows = tally.rows.saturating_sub(1);
    if was_tombstone {
        let bytes = tombstone_bytes(key);
        floor.tombstones = floor.tombstones.saturating_sub(1);
        floor.tombstone_bytes = floor.tombstone_bytes.saturating_sub(bytes);
        tally.tombstones = tally.tombstones.saturating_sub(1);
        tally.tombstone_bytes = tally.tombstone_bytes.saturating_sub(bytes);
    }
    tally.floor = Some(floor);
    Ok(())
}

/// The last key among the next `limit` rows of a table, and the keys of those below the floor.
fn old_rows(
    connection: &Connection,
    table: Table,
    after: &[u8],
    limit: usize,
    floor: u32,
) -> rusqlite::Result<(Option<RawKey>, Vec<RawKey>)> {
    let mut statement = connection.prepare_cached(match table {
        Table::Record => {
            "SELECT hash, key, generation, length(value) FROM record WHERE (hash, key) > (?1, ?2) ORDER BY hash, key LIMIT ?3"
        }
        Table::Twin => {
            "SELECT hash, key, generation, length(value) FROM twin WHERE (hash, key) > (?1, ?2) ORDER BY hash, key LIMIT ?3"
        }
    })?;
    let (rowid, key) = key_bound(after);
    let mut rows = statement.query((rowid, key, i64::try_from(limit).unwrap_or(i64::MAX)))?;
    let (mut last, mut old, mut bytes) = (None, Vec::new(), 0_u64);
    while let Some(row) = rows.next()? {
        let key = join_key(row.get(0)?, row.get_ref(1)?.as_blob()?);
        if row.get::<_, u32>(2)? < floor {
            old.push(key.clone());
            bytes += row.get::<_, u32>(3).map(u64::from)?;
        }
        last = Some(key);
        if bytes >= OLD_BYTES {
            break;
        }
    }
    Ok((last, old))
}

/// Removes a key's row if it is of a generation before `before`; says whether it was a tombstone, `None` if there was none.
fn remove(
    connection: &Connection,
    tally: &mut Tally,
    rowid: i64,
    key: &[u8],
    before: i64,
) -> rusqlite::Result<Option<bool>> {
    let removed = connection
        .prepare_cached(
            "DELETE FROM record WHERE hash = ?1 AND key = ?2 AND generation < ?3 RETURNING deleted IS NOT NULL",
        )?
        .query_row((rowid, key, before), |row| row.get(0))
        .optional()?;
    if removed.is_some() || tally.collisions == 0 {
        return Ok(removed);
    }
    let removed = connection
        .prepare_cached(
            "DELETE FROM twin WHERE hash = ?1 AND key = ?2 AND generation < ?3 RETURNING deleted IS NOT NULL",
        )?
        .query_row((rowid, key, before), |row| row.get(0))
        .optional()?;
    if removed.is_some() {
        tally.collisions -= 1;
    }
    Ok(removed)
}
