//! The store's figures.

use super::core::Core;
use super::paths::side_path;
use serde::Serialize;
use std::sync::atomic::Ordering;

/// A snapshot of the store's figures; cheap, never waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Records stored, tombstones included. Exact if `unresolved` is 0, else an estimate.
    pub items: u64,
    /// Records written of which it is not known yet whether they existed before.
    pub unresolved: u64,
    /// Records that are not in the main tree yet.
    pub dirty: u64,
    /// Bytes of memory they take.
    pub dirty_bytes: u64,
    /// Bytes of memory all cached records take.
    pub cache_bytes: u64,
    /// Limit of `cache_bytes`.
    pub cache_limit: u64,
    /// Bytes of the redo log.
    pub redo_bytes: u64,
    /// Limit of `redo_bytes`.
    pub redo_limit: u64,
    /// Bytes of the main tree's file.
    pub tree_bytes: u64,
    /// Bytes of the main tree's write-ahead log.
    pub wal_bytes: u64,
    /// Limit of `wal_bytes`; one transaction may exceed it.
    pub wal_limit: u64,
    /// Tombstones in the main tree.
    pub tombstones: u64,
    /// Bytes of their keys and eight for each.
    pub tombstone_bytes: u64,
    /// Rows of keys that share a hash with another key.
    #[serde(rename = "twins")]
    pub collisions: u64,
    /// Merges since the store was opened.
    pub merges: u64,
    /// Records they moved.
    pub merged_records: u64,
    /// Microseconds they took, pauses included.
    pub merge_micros: u64,
    /// The store's generation.
    pub generation: u32,
    /// Why no write is acknowledged at the moment.
    pub failed: Option<String>,
}

/// Records stored, blind writes counted as far as recent merges let expect.
pub(super) fn estimate(core: &Core) -> u64 {
    let (items, blind) = core.cache.items();
    items + blind * u64::from(core.figures.new_share.load(Ordering::Relaxed)) / 1000
}

pub(super) fn status(core: &Core) -> Status {
    let size = |suffix| std::fs::metadata(side_path(&core.options.path, suffix)).map_or(0, |file| file.len());
    Status {
        items: estimate(core),
        unresolved: core.cache.items().1,
        dirty: core.cache.dirty_count(),
        dirty_bytes: core.cache.dirty_bytes(),
        cache_bytes: core.cache.used(),
        cache_limit: core.cache.limit(),
        redo_bytes: core.redo.used(),
        redo_limit: core.options.redo_bytes,
        tree_bytes: size(""),
        wal_bytes: size("-wal"),
        wal_limit: core.options.wal_bytes,
        tombstones: core.tombstones.load(Ordering::Relaxed),
        tombstone_bytes: core.tombstone_bytes.load(Ordering::Relaxed),
        collisions: core.collisions.load(Ordering::Relaxed),
        merges: core.figures.merges.load(Ordering::Relaxed),
        merged_records: core.figures.records.load(Ordering::Relaxed),
        merge_micros: core.figures.micros.load(Ordering::Relaxed),
        generation: core.generation.load(Ordering::Relaxed),
        failed: core.failures.reason().map(|reason| reason.to_string()),
    }
}
