//! The sweeper: removes tombstones that are old enough, a few at a time.
//!
//! It goes by what is in the tree, so it also finds those from before a restart. Each is removed by an ordinary
//! conditional write; if the key was written again in the meantime, that one is kept.

use crate::clock::ClockTime;
use crate::store::batch::{Applied, Base, Batch};
use crate::store::core::Core;
use crate::store::disk::Step;
use crate::store::options::SweepPolicy;
use crate::store::tree::{Writer, tombstone_bytes};
use crate::store::write::Write;
use crate::wire::{RecordKey, RecordValue};
use std::sync::atomic::Ordering;

/// Tombstones looked at in one step.
const STEP_ROWS: usize = 256;

/// Where the sweeper is. It begins anew after each merge, since only then have removed ones left the tree.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Seconds and raw key of the last tombstone looked at.
    after: (i64, Box<[u8]>),
    /// Bytes of tombstones that were removed and are still in the tree.
    removed_bytes: u64,
    /// There is nothing more to do before the next merge or the next second.
    done_until: u32,
    merges: u64,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { after: (-1, Box::default()), removed_bytes: 0, done_until: 0, merges: 0 }
    }
}

/// Before which second a tombstone may go, given how much memory all of them take.
fn horizon(policy: SweepPolicy, now: u32, bytes: u64) -> u32 {
    let age = if bytes > policy.memory_limit { policy.min_age } else { policy.max_age };
    now.saturating_sub(u32::try_from(age.as_secs()).unwrap_or(u32::MAX))
}

impl Sweep {
    /// Does one step. True if another one should follow soon.
    pub(super) fn step(&mut self, core: &Core, tree: &Writer) -> rusqlite::Result<bool> {
        let merges = core.figures.merges.load(Ordering::Relaxed);
        if merges != self.merges {
            *self = Self { merges, ..Self::default() };
        }
        let tally = tree.tally();
        let now = core.clock.seconds();
        let (tombstones, bytes) = tally.current_tombstones();
        if tombstones == 0 || now <= self.done_until || !core.may_sweep() {
            return Ok(false);
        }
        let left = bytes.saturating_sub(self.removed_bytes);
        let before = horizon(core.options.sweep, now, left);
        let found = tree.tombstones((self.after.0, &self.after.1), before, STEP_ROWS)?;
        if found.is_empty() {
            // Those beyond the horizon will have aged by then.
            *self = Self { done_until: now, removed_bytes: self.removed_bytes, merges, ..Self::default() };
            return Ok(false);
        }
        let epoch = core.cache.epoch();
        let mut batch = Batch::unthrottled(core);
        let mut full = false;
        for tombstone in &found {
            if tombstone.generation < tally.floor_generation() {
                // It counts as absent, and goes with all that does.
                self.after = (i64::from(tombstone.deleted), tombstone.key.clone());
                continue;
            }
            let left = bytes.saturating_sub(self.removed_bytes);
            if tombstone.deleted >= horizon(core.options.sweep, now, left) {
                self.done_until = now;
                break;
            }
            let (Ok(key), Ok(value)) = (RecordKey::new(&tombstone.key), RecordValue::new(&tombstone.value)) else {
                continue;
            };
            let clocktime: ClockTime = value.clocktime();
            let base = Base { value: Some(&tombstone.value), generation: tombstone.generation, epoch };
            match batch.apply_on(&Write::Remove { key, clocktime }, Some(&base)) {
                Applied::Done(_) => self.removed_bytes += tombstone_bytes(key.key()),
                Applied::Later | Applied::Failed(_) => {
                    full = true;
                    break;
                }
            }
            self.after = (i64::from(tombstone.deleted), tombstone.key.clone());
        }
        batch.commit(|_| ());
        core.disk.reached(Step::Sweep).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok(!full && self.done_until < now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn memory_pressure_shortens_the_age_but_not_below_the_least() {
        let policy =
            SweepPolicy { min_age: Duration::from_secs(10), max_age: Duration::from_secs(100), memory_limit: 1000 };
        assert_eq!(horizon(policy, 1000, 1000), 900);
        assert_eq!(horizon(policy, 1000, 1001), 990);
        assert_eq!(horizon(policy, 50, 0), 0);
    }
}
