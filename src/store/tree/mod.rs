//! The main tree: one SQLite file with every merged record, keyed by the hash.
//!
//! ```text
//! record(hash, key, value, generation, deleted)    one row per hash: the first key that came with it
//! twin(hash, key, value, generation, deleted)      further keys of a hash, normally empty
//! meta(name, value)                                store id, tally, named state
//! ```
//!
//! `hash` is the raw key's first eight bytes as a signed integer, `key` the bytes behind them, `value` the raw value with
//! its clocktime, `deleted` the unix seconds of a tombstone and NULL for a live record. A row of `twin` whose `record`
//! row has been removed stays where it is.
//!
//! This module knows SQL. It knows nothing of the redo log, of the cache or of threads.

mod reader;
mod schema;
mod wal;
mod writer;

pub(super) use reader::{Reader, Row, get_state};
pub(super) use schema::{identity, inspect, make, open, open_at_rest, open_reader, random_id};
pub(super) use writer::{MergeRow, Writer, tombstone_bytes};

use super::newest::Newest;
use crate::wire::record::KEY_HEADER;
use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, ValueRef};
use serde::{Deserialize, Serialize};

/// The tree's counts and bounds; written in the same transaction as the rows they are about.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Rows of both tables, tombstones included.
    pub(super) rows: u64,
    /// Rows of `twin`.
    #[serde(rename = "twins")]
    pub(super) collisions: u64,
    /// Rows that are tombstones.
    pub(super) tombstones: u64,
    /// Bytes of their keys (without the hash) and eight for each.
    pub(super) tombstone_bytes: u64,
    /// The clock's counter: after every clock stored.
    pub(super) clock: u32,
    /// Bounds of the clocktimes stored.
    pub(super) newest: Newest,
    /// Latest second of a record with a low clock.
    pub(super) low_seconds: u32,
    /// The store's generation.
    pub(super) generation: u32,
    /// Redo log files with smaller numbers are merged.
    pub(super) redo_from: u64,
    /// The store was closed; there is no redo log.
    pub(super) clean: bool,
}

/// Splits a raw key into its row id and the rest.
pub(super) fn split_key(raw: &[u8]) -> (i64, &[u8]) {
    match raw.split_first_chunk::<KEY_HEADER>() {
        Some((hash, key)) => (i64::from_be_bytes(*hash), key),
        None => (0, raw),
    }
}

/// Puts a raw key together again.
pub(super) fn join_key(rowid: i64, key: &[u8]) -> Box<[u8]> {
    let mut raw = Vec::with_capacity(KEY_HEADER + key.len());
    raw.extend_from_slice(&rowid.to_be_bytes());
    raw.extend_from_slice(key);
    raw.into_boxed_slice()
}

/// A raw key as a lower bound in comparisons; an empty one is below every key, for an integer is less than any blob.
fn key_bound(raw: &[u8]) -> (i64, ToSqlOutput<'_>) {
    if raw.is_empty() {
        return (i64::MIN, ToSqlOutput::Borrowed(ValueRef::Integer(0)));
    }
    let (rowid, key) = split_key(raw);
    (rowid, ToSqlOutput::Borrowed(ValueRef::Blob(key)))
}

/// Rolls back what a commit or rollback that failed has left open: it would keep the checkpoint waiting, and the next
/// transaction from beginning.
fn end_transaction(connection: &Connection) -> rusqlite::Result<()> {
    if connection.is_autocommit() { Ok(()) } else { connection.execute_batch("ROLLBACK") }
}
