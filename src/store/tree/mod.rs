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
mod row;
mod schema;
mod wal;
mod writer;

pub(super) use reader::{Reader, Row, get_state};
pub(super) use row::{Tally, join_key, split_key};
pub(super) use schema::{identity, inspect, make, open, open_at_rest, open_reader};
pub(super) use writer::{MergeRow, Table, Writer, tombstone_bytes};
