//! The floor: the generation from which on records count. It is set, and what lies below it is deleted, in steps.
//!
//! While the floor changes no write is decided and nothing is unmerged, so that every entry of the redo log belongs to one
//! side of it. What the tree's tally says is all that a start needs to know; whoever is killed leaves the old floor or the
//! new one. Knows the thread that does this as a [`Host`] only.

use crate::store::core::Core;
use crate::store::disk::Step;
use crate::store::error::Error;
use crate::store::tree::{Table, Tally, Writer};
use std::sync::atomic::Ordering;

/// Rows looked at in one step.
const STEP_ROWS: usize = 1000;

/// The thread that owns the tree.
pub(super) trait Host {
    /// The store's shared state.
    fn core(&self) -> &Core;
    /// The tree.
    fn tree(&self) -> &Writer;
    /// Merges everything written so far.
    fn flush(&self) -> Result<(), Error>;
    /// Makes all writes so far durable.
    fn order_before(&self) -> Result<(), Error>;
    /// Changes the tally, durably.
    fn seal(&self, change: impl FnOnce(&mut Tally)) -> Result<(), Error>;
    /// Checkpoints if the write-ahead log has reached its bound.
    fn bound_wal(&self) -> Result<(), Error>;
    /// Checkpoints.
    fn checkpoint(&self) -> Result<(), Error>;
    /// Called at each [`Step`].
    fn reached(&self, step: Step) -> Result<(), Error>;
}

/// Where the deletion is. After a restart it begins anew, and finds what is left.
#[derive(Debug, Default)]
pub(super) struct OldRows {
    /// Of the floor whose rows these are.
    floor: u32,
    table: Table,
    /// The last key looked at.
    after: Box<[u8]>,
    deleted: u64,
}

/// Has everything stored so far count as absent. Returns the first generation that counts.
pub(super) fn set(host: &impl Host) -> Result<u32, Error> {
    let core = host.core();
    let floor = core.generation.load(Ordering::Relaxed).checked_add(1);
    let floor = floor.ok_or_else(|| Error::failed("there is no further generation"))?;
    let held = core.hold_writes();
    merge_all(host)?;
    // Also if what follows fails: a start may find the floor all the same, and what is stored from now on above it.
    core.generation.store(floor, Ordering::Relaxed);
    host.seal(|tally| tally.hide_all(floor))?;
    let tally = host.tree().tally();
    core.take_floor(floor, tally.current_rows());
    core.publish(&tally);
    host.reached(Step::FloorChanged)?;
    drop(held);
    // So that the header of the file says it, too. If that fails, the next checkpoint does it.
    let _ = host.checkpoint();
    Ok(floor)
}

/// Merges until nothing is unmerged; writes are held back.
fn merge_all(host: &impl Host) -> Result<(), Error> {
    host.flush()?;
    if host.core().cache.dirty_count() > 0 {
        return Err(Error::failed("not everything could be merged"));
    }
    host.order_before()
}

/// Begins to delete what lies below the floor.
pub(super) fn begin_dropping(host: &impl Host) -> Result<(), Error> {
    if host.tree().tally().floor.is_none_or(|floor| floor.dropping) {
        return Ok(());
    }
    host.order_before()?;
    host.seal(|tally| {
        if let Some(floor) = &mut tally.floor {
            floor.dropping = true;
        }
    })
}

impl OldRows {
    /// Deletes some of what lies below the floor, if it may go. True if another step should follow soon.
    pub(super) fn step(&mut self, host: &impl Host) -> bool {
        let Some(floor) = host.tree().tally().floor.filter(|floor| floor.dropping) else { return false };
        if host.core().failures.any() {
            return false;
        }
        if self.floor != floor.generation {
            *self = Self { floor: floor.generation, ..Self::default() };
        }
        self.delete_some(host).unwrap_or_else(|error| {
            tracing::warn!(%error, "deleting the records below the floor failed; it is tried again later");
            false
        })
    }

    fn delete_some(&mut self, host: &impl Host) -> Result<bool, Error> {
        let step = host.tree().delete_old_rows(self.table, &self.after, STEP_ROWS);
        let (deleted, last) = step.map_err(Error::failed)?;
        self.deleted += deleted;
        host.core().publish(&host.tree().tally());
        host.bound_wal()?;
        host.reached(Step::OldDeleted)?;
        match (last, self.table) {
            (Some(last), _) => self.after = last,
            (None, Table::Record) => (self.table, self.after) = (Table::Twin, Box::default()),
            (None, Table::Twin) => return self.finish(host).map(|()| false),
        }
        Ok(true)
    }

    fn finish(&mut self, host: &impl Host) -> Result<(), Error> {
        // A start without a floor would put back what the log still has of before it.
        host.flush()?;
        let left = host.tree().tally().old_rows();
        host.seal(|tally| tally.floor = None)?;
        // First the figures: once there is no floor they are right.
        host.core().publish(&host.tree().tally());
        host.core().end_floor();
        tracing::info!(deleted = self.deleted, "deleted the records below the floor");
        if left > 0 {
            tracing::error!(left, "the store's count of old records was wrong");
        }
        *self = Self::default();
        host.checkpoint()
    }
}
