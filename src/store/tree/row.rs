//! Rows of the tree: how a raw key is split over the columns, and the counts that are kept of all of them.

use crate::store::newest::Newest;
use crate::wire::record::KEY_HEADER;
use rusqlite::types::{ToSqlOutput, ValueRef};
use serde::{Deserialize, Serialize};

/// The tree's counts and bounds; written in the same transaction as the rows they are about.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(in crate::store) struct Tally {
    /// Rows of both tables, tombstones included.
    pub(in crate::store) rows: u64,
    /// Rows of `twin`.
    #[serde(rename = "twins")]
    pub(in crate::store) collisions: u64,
    /// Rows that are tombstones.
    pub(in crate::store) tombstones: u64,
    /// Bytes of their keys (without the hash) and eight for each.
    pub(in crate::store) tombstone_bytes: u64,
    /// The clock's counter: after every clock stored.
    pub(in crate::store) clock: u32,
    /// Bounds of the clocktimes stored.
    pub(in crate::store) newest: Newest,
    /// Latest second of a record with a low clock.
    pub(in crate::store) low_seconds: u32,
    /// The store's generation.
    pub(in crate::store) generation: u32,
    /// Redo log files with smaller numbers are merged.
    pub(in crate::store) redo_from: u64,
    /// The store was closed; there is no redo log.
    pub(in crate::store) clean: bool,
    /// Records from before it count as absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::store) floor: Option<Floor>,
}

/// The generation from which on records count, and the rows of before. They are part of the tally's other counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Floor {
    /// The first generation that counts.
    pub(in crate::store) generation: u32,
    /// Rows of earlier ones, tombstones included.
    pub(in crate::store) rows: u64,
    /// Of those, tombstones.
    pub(in crate::store) tombstones: u64,
    /// Bytes of the tombstones' keys (without the hash) and eight for each.
    pub(in crate::store) tombstone_bytes: u64,
    /// They are being deleted.
    pub(in crate::store) dropping: bool,
}

impl Tally {
    /// Has everything stored so far count as absent; `generation` is later than that of any row.
    pub(in crate::store) fn hide_all(&mut self, generation: u32) {
        self.generation = generation;
        self.floor = Some(Floor {
            generation,
            rows: self.rows,
            tombstones: self.tombstones,
            tombstone_bytes: self.tombstone_bytes,
            dropping: false,
        });
    }

    /// The first generation that counts.
    pub(in crate::store) fn floor_generation(&self) -> u32 {
        self.floor.map_or(0, |floor| floor.generation)
    }

    /// Rows that count as absent.
    pub(in crate::store) fn old_rows(&self) -> u64 {
        self.floor.map_or(0, |floor| floor.rows)
    }

    /// Rows that count, tombstones included.
    pub(in crate::store) fn current_rows(&self) -> u64 {
        self.rows.saturating_sub(self.old_rows())
    }

    /// Tombstones that count, and the bytes of their keys with eight for each.
    pub(in crate::store) fn current_tombstones(&self) -> (u64, u64) {
        let (tombstones, bytes) = self.floor.map_or((0, 0), |floor| (floor.tombstones, floor.tombstone_bytes));
        (self.tombstones.saturating_sub(tombstones), self.tombstone_bytes.saturating_sub(bytes))
    }
}

/// Splits a raw key into its row id and the rest.
pub(in crate::store) fn split_key(raw: &[u8]) -> (i64, &[u8]) {
    match raw.split_first_chunk::<KEY_HEADER>() {
        Some((hash, key)) => (i64::from_be_bytes(*hash), key),
        None => (0, raw),
    }
}

/// Puts a raw key together again.
pub(in crate::store) fn join_key(rowid: i64, key: &[u8]) -> Box<[u8]> {
    let mut raw = Vec::with_capacity(KEY_HEADER + key.len());
    raw.extend_from_slice(&rowid.to_be_bytes());
    raw.extend_from_slice(key);
    raw.into_boxed_slice()
}

/// A raw key as a lower bound in comparisons; an empty one is below every key, for an integer is less than any blob.
pub(super) fn key_bound(raw: &[u8]) -> (i64, ToSqlOutput<'_>) {
    if raw.is_empty() {
        return (i64::MIN, ToSqlOutput::Borrowed(ValueRef::Integer(0)));
    }
    let (rowid, key) = split_key(raw);
    (rowid, ToSqlOutput::Borrowed(ValueRef::Blob(key)))
}
