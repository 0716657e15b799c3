//! Reading the tree: single records and bounded pieces of the whole.

use super::row::{join_key, key_bound, split_key};
use super::schema::end_transaction;
use rusqlite::{Connection, OptionalExtension, Statement};

/// Unwanted rows that one step passes over at most, for each wanted one it may return: a step must stay short.
const PASSED_SHARE: usize = 16;

/// A row as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Row {
    pub(in crate::store) key: Box<[u8]>,
    pub(in crate::store) value: Vec<u8>,
    pub(in crate::store) generation: u32,
}

/// Prepared statements of a reading connection.
pub(in crate::store) struct Reader<'c> {
    connection: &'c Connection,
    begin: Statement<'c>,
    end: Statement<'c>,
    record: Statement<'c>,
    collision: Statement<'c>,
    records: Statement<'c>,
    collisions: Statement<'c>,
}

impl<'c> Reader<'c> {
    pub(in crate::store) fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            begin: connection.prepare("BEGIN")?,
            end: connection.prepare("COMMIT")?,
            record: connection.prepare("SELECT key, value, generation FROM record WHERE hash = ?1")?,
            collision: connection.prepare("SELECT value, generation FROM twin WHERE hash = ?1 AND key = ?2")?,
            records: connection
                .prepare("SELECT hash, key, value, generation FROM record WHERE hash >= ?1 ORDER BY hash")?,
            collisions: connection.prepare(
                "SELECT hash, key, value, generation FROM twin WHERE (hash, key) > (?1, ?2) ORDER BY hash, key",
            )?,
        })
    }

    /// Runs `work` within one read transaction.
    pub(in crate::store) fn within<R>(
        &mut self,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<R>,
    ) -> rusqlite::Result<R> {
        end_transaction(self.connection)?;
        self.begin.execute(())?;
        let result = work(self);
        if self.end.execute(()).is_err() {
            // Nothing was written, so what was read is right. One that stays open is ended by the next call.
            let _ = end_transaction(self.connection);
        }
        result
    }

    /// The record of a raw key, as raw value and generation. `collisions` says whether there are any; one of a generation
    /// before `floor` counts as absent.
    pub(in crate::store) fn get<R>(
        &mut self,
        raw_key: &[u8],
        collisions: bool,
        floor: u32,
        see: impl FnOnce(Option<(&[u8], u32)>) -> R,
    ) -> rusqlite::Result<R> {
        let (rowid, key) = split_key(raw_key);
        let mut rows = self.record.query([rowid])?;
        if let Some(row) = rows.next()?
            && row.get_ref(0)?.as_blob()? == key
        {
            let found = (row.get_ref(1)?.as_blob()?, row.get(2)?);
            return Ok(see(Some(found).filter(|(_, generation)| *generation >= floor)));
        }
        drop(rows);
        if collisions {
            let mut rows = self.collision.query((rowid, key))?;
            if let Some(row) = rows.next()? {
                let found = (row.get_ref(0)?.as_blob()?, row.get(1)?);
                return Ok(see(Some(found).filter(|(_, generation)| *generation >= floor)));
            }
        }
        Ok(see(None))
    }

    /// Rows of `record` from row id `from` on that are wanted, until there are `max_rows` of them or `max_bytes`, or many
    /// more have been passed over; and the row id reached, if there was any row.
    pub(in crate::store) fn records_from(
        &mut self,
        from: i64,
        max_rows: usize,
        max_bytes: usize,
        wants: impl Fn(i64) -> bool,
    ) -> rusqlite::Result<(Vec<Row>, Option<i64>)> {
        gather(self.records.query([from])?, max_rows, max_bytes, wants)
    }

    /// As [`Reader::records_from`] with all rows wanted, for `twin` and after the given raw key; an empty one is before all.
    pub(in crate::store) fn collisions_after(
        &mut self,
        raw_key: &[u8],
        max_rows: usize,
        max_bytes: usize,
    ) -> rusqlite::Result<Vec<Row>> {
        Ok(gather(self.collisions.query(key_bound(raw_key))?, max_rows, max_bytes, |_| true)?.0)
    }
}

/// A named blob.
pub(in crate::store) fn get_state(connection: &Connection, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    connection.query_row("SELECT value FROM meta WHERE name = 'state:' || ?1", [name], |row| row.get(0)).optional()
}

fn gather(
    mut rows: rusqlite::Rows<'_>,
    max_rows: usize,
    max_bytes: usize,
    wants: impl Fn(i64) -> bool,
) -> rusqlite::Result<(Vec<Row>, Option<i64>)> {
    let (mut gathered, mut bytes) = (Vec::new(), 0_usize);
    let (mut passed, mut last) = (0, None);
    while gathered.len() < max_rows.max(1)
        && (gathered.is_empty() || bytes < max_bytes)
        && passed < max_rows.saturating_mul(PASSED_SHARE)
    {
        let Some(row) = rows.next()? else { break };
        let rowid = row.get(0)?;
        last = Some(rowid);
        if !wants(rowid) {
            passed += 1;
            continue;
        }
        let row = Row {
            key: join_key(rowid, row.get_ref(1)?.as_blob()?),
            value: row.get_ref(2)?.as_blob()?.to_vec(),
            generation: row.get(3)?,
        };
        bytes += row.key.len() + row.value.len();
        gathered.push(row);
    }
    Ok((gathered, last))
}
