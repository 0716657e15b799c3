//! The delete phase: scanning the store and dropping what the plan does not keep.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::context::{Context, Failure, Settling};
use super::fill::{SCAN_BYTES, SCAN_ROWS};
use super::gather::{flush, read};
use super::job::Job;
use super::late::Written;
use super::plan::Plan;
use crate::store::{self, Outcome, OwnedWrite, Position, Write};
use crate::wire::{RecordKey, RecordValue};

/// Batches of removals that the store may be busy with.
const IN_FLIGHT: u32 = 4;

/// Drops what this server need not keep.
///
/// Records that are written here by the old hash space until all is settled are dropped, too. Dropping the future cancels.
pub(super) async fn run(context: &Arc<Context>, job: &Job, plan: Arc<Plan>, settling: Settling) -> Result<(), Failure> {
    if plan.keeps_all() || job.newcomer {
        return Ok(());
    }
    let dropper = Deleter {
        context: context.clone(),
        plan,
        generation: job.generation,
        places: Arc::new(Semaphore::new(IN_FLIGHT as usize)),
        failure: Arc::default(),
    };
    dropper.run(settling).await
}

struct Deleter {
    context: Arc<Context>,
    plan: Arc<Plan>,
    generation: u32,
    /// A permit for each batch that the store may be busy with.
    places: Arc<Semaphore>,
    failure: Arc<Mutex<Option<store::Error>>>,
}

impl Deleter {
    async fn run(self, settling: Settling) -> Result<(), Failure> {
        self.scan().await?;
        match settling.wait(&self.context).await {
            Written::Keys(keys) => self.look_up(keys).await?,
            Written::TooMany => self.scan().await?,
        }
        // All permits: nothing is under way any more.
        drop(self.places.acquire_many(IN_FLIGHT).await);
        self.check()
    }

    async fn scan(&self) -> Result<(), Failure> {
        flush(&self.context).await?;
        let mut position = Position::default();
        while !position.is_end() {
            self.check()?;
            let (store, plan) = (self.context.host.store().clone(), self.plan.clone());
            let step = move || store.scan_where(position, SCAN_ROWS, SCAN_BYTES, |hash| plan.may_drop(hash));
            let batch = self.context.host.env().blocking(step).await.map_err(|_| Failure::Cancelled)??;
            self.context.progress.scanned.add(batch.rows.len());
            let removals = batch.rows.iter().filter_map(|row| {
                let fresh = row.generation >= self.generation;
                self.removal(&row.key, &row.value, fresh)
            });
            self.remove(removals.collect()).await?;
            position = batch.next;
        }
        Ok(())
    }

    async fn look_up(&self, mut keys: Vec<Box<[u8]>>) -> Result<(), Failure> {
        keys.retain(|key| RecordKey::new(key).is_ok_and(|key| !self.plan.keeps(key.hash(), false, true)));
        for keys in keys.chunks(SCAN_ROWS) {
            self.check()?;
            let values = read(self.context.host.store(), keys).await?;
            let records = keys.iter().zip(&values);
            let removals = records.filter_map(|(key, value)| self.removal(key, value.as_ref()?, true)).collect();
            self.remove(removals).await?;
        }
        Ok(())
    }

    /// The removal of a record, unless it stays. It applies only if the record is still the same by then.
    fn removal(&self, key: &[u8], value: &[u8], fresh: bool) -> Option<OwnedWrite> {
        let (key, value) = (RecordKey::new(key).ok()?, RecordValue::new(value).ok()?);
        if self.plan.keeps(key.hash(), value.is_tombstone(), fresh) {
            return None;
        }
        Some(OwnedWrite::from(&Write::Remove { key, clocktime: value.clocktime() }))
    }

    /// Hands removals to the store, waiting for a place.
    async fn remove(&self, removals: Vec<OwnedWrite>) -> Result<(), Failure> {
        if removals.is_empty() {
            return Ok(());
        }
        let place = self.places.clone().acquire_owned().await.map_err(|_| Failure::Cancelled)?;
        let (context, failure) = (self.context.clone(), self.failure.clone());
        let decided = move |_, outcome| {
            if outcome == Outcome::Removed {
                context.progress.dropped.add(1);
            }
        };
        self.context.host.store().write(removals, decided, move |committed| {
            if let Err(error) = committed {
                *failure.lock() = Some(error);
            }
            drop(place);
        });
        Ok(())
    }

    fn check(&self) -> Result<(), Failure> {
        self.failure.lock().take().map_or(Ok(()), |error| Err(error.into()))
    }
}
