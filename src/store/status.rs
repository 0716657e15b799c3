//! The store's figures.

use super::core::Core;
use super::paths::side_path;
use std::sync::atomic::Ordering;

/// A snapshot of the store's figures.
pub use crate::wire::figures::StoreFigures as Status;

/// Records stored, blind writes counted as far as recent merges let expect.
pub(super) fn estimate(core: &Core) -> u64 {
    let (items, blind) = core.cache.items();
    items + blind * u64::from(core.figures.new_share.load(Ordering::Relaxed)) / 1000
}

/// The figures now; cheap, never waits.
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
        old_records: core.old_records.load(Ordering::Relaxed),
        collisions: core.collisions.load(Ordering::Relaxed),
        merges: core.figures.merges.load(Ordering::Relaxed),
        merged_records: core.figures.records.load(Ordering::Relaxed),
        merge_micros: core.figures.micros.load(Ordering::Relaxed),
        generation: core.generation.load(Ordering::Relaxed),
        failed: core.failures.reason().map(|reason| reason.to_string()),
    }
}
