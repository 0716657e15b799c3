//! Going through all records in bounded steps, each in a read transaction of its own.

use super::core::Core;
use super::error::Error;
use super::tree::{Reader, Row};
use std::sync::atomic::Ordering;

/// Where a scan is. [`Position::default`] is before everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position(Place);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In the main table, at this row id.
    Record(i64),
    /// Among keys that share a hash with another, after this raw key.
    Collision(Box<[u8]>),
    /// Behind the last.
    End,
}

impl Default for Place {
    fn default() -> Self {
        Self::Record(i64::MIN)
    }
}

impl Position {
    /// Whether nothing is left.
    pub fn is_end(&self) -> bool {
        self.0 == Place::End
    }
}

/// A record with its current value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRow {
    /// Raw key.
    pub key: Box<[u8]>,
    /// Raw value or tombstone.
    pub value: Vec<u8>,
    /// The store's generation when it was last written or touched.
    pub generation: u32,
}

/// Some records, and where to go on.
#[derive(Debug, Clone)]
pub struct ScanBatch {
    /// In no order to rely on. May be empty before the end, if what was there has been removed.
    pub rows: Vec<ScanRow>,
    /// For the next call.
    pub next: Position,
}

pub(super) fn scan(
    core: &Core,
    from: Position,
    max_rows: usize,
    max_bytes: usize,
    wants: impl Fn(u64) -> bool,
) -> Result<ScanBatch, Error> {
    let (rows, next) = core.with_connection(|connection| {
        let mut reader = Reader::new(connection)?;
        reader.within(|reader| step(core, reader, from.0, max_rows, max_bytes, wants))
    })?;
    let rows = rows.into_iter().filter_map(|row| current(core, row)).collect();
    Ok(ScanBatch { rows, next: Position(next) })
}

fn step(
    core: &Core,
    reader: &mut Reader<'_>,
    from: Place,
    max_rows: usize,
    max_bytes: usize,
    wants: impl Fn(u64) -> bool,
) -> rusqlite::Result<(Vec<Row>, Place)> {
    let first_collision = || Place::Collision(Box::default());
    match from {
        Place::End => Ok((Vec::new(), Place::End)),
        Place::Record(from) => {
            let wants = |rowid: i64| wants(rowid.cast_unsigned());
            let (rows, last) = reader.records_from(from, max_rows, max_bytes, wants)?;
            let next = match last.map(|last| last.checked_add(1)) {
                Some(Some(next)) => Place::Record(next),
                Some(None) => first_collision(),
                None if core.collisions.load(Ordering::Acquire) > 0 => first_collision(),
                None => Place::End,
            };
            Ok((rows, next))
        }
        Place::Collision(after) => {
            let rows = reader.collisions_after(&after, max_rows, max_bytes)?;
            let next = rows.last().map_or(Place::End, |row| Place::Collision(row.key.clone()));
            Ok((rows, next))
        }
    }
}

/// The row as it is now; memory knows better than the tree.
fn current(core: &Core, row: Row) -> Option<ScanRow> {
    let place = core.cache.find(&row.key);
    match place.slot() {
        Some(slot) => {
            let value = slot.value()?.bytes().to_vec();
            let generation = slot.generation;
            drop(place);
            Some(ScanRow { key: row.key, value, generation })
        }
        None if row.generation < core.floor() => None,
        None => Some(ScanRow { key: row.key, value: row.value, generation: row.generation }),
    }
}
