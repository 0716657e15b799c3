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
