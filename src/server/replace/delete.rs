//! The delete phase: scanning the store and dropping what the plan does not keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::context::{Context, Failure, Settling};
use super::copy::on_thread;
use super::gather::{SCAN_BYTES, SCAN_ROWS, read};
use super::job::Job;
use super::late::Written;
use super::plan::Plan;
use crate::store::{self, Outcome, OwnedWrite, Position, Write};
use crate::wire::{RecordKey, RecordValue};

/// Batches of removals that the store may be busy with.
const IN_FLIGHT: u32 = 4;

/// Drops what this server need not keep.
///
/// What is written here by the old hash space until all is settled is dropped, too. Dropping the future cancels.
pub(super) async fn run(context: &Arc<Context>, job: &Job, plan: Arc<Plan>, settling: Settling) -> Result<(), Failure> {
    if plan.keeps_all() || job.newcomer {
        return Ok(());
    }
    let cancel = CancelOnDrop::default();
    let dropper = Dropper {
        context: context.clone(),
        plan,
        generation: job.generation,
        cancelled: cancel.0.clone(),
        places: Arc::new(Semaphore::new(IN_FLIGHT as usize)),
        trouble: Arc::default(),
        runtime: Handle::current(),
    };
    on_thread(move || dropper.run(settling))?.await.unwrap_or(Err(Failure::Cancelled))
}

#[derive(Default)]
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Dropper {
    context: Arc<Context>,
    plan: Arc<Plan>,
    generation: u32,
    cancelled: Arc<AtomicBool>,
    /// A permit for each batch that the store may be busy with.
    places: Arc<Semaphore>,
    trouble: Arc<Mutex<Option<store::Error>>>,
    runtime: Handle,
}

impl Dropper {
    fn run(self, settling: Settling) -> Result<(), Failure> {
        self.scan()?;
        match settling.wait(&self.context, || self.check())? {
            Written::Keys(keys) => self.look_up(keys)?,
            Written::TooMany => self.scan()?,
        }
        // All permits: nothing is under way any more.
        drop(self.runtime.block_on(self.places.acquire_many(IN_FLIGHT)));
        self.check()
    }

    fn scan(&self) -> Result<(), Failure> {
        self.context.host.store().flush()?;
        let mut position = Position::default();
        while !position.is_end() {
            self.check()?;
            let wants = |hash| self.plan.may_drop(hash);
            let batch = self.context.host.store().scan_where(position, SCAN_ROWS, SCAN_BYTES, wants)?;
            self.context.progress.scanned.add(batch.rows.len());
            let removals = batch.rows.iter().filter_map(|row| {
                let fresh = row.generation >= self.generation;
                self.removal(&row.key, &row.value, fresh)
            });
            self.remove(removals.collect())?;
            position = batch.next;
        }
        Ok(())
    }

    fn look_up(&self, mut keys: Vec<Box<[u8]>>) -> Result<(), Failure> {
        keys.retain(|key| RecordKey::new(key).is_ok_and(|key| !self.plan.keeps(key.hash(), false, true)));
        for keys in keys.chunks(SCAN_ROWS) {
            self.check()?;
            let values = read(self.context.host.store(), keys)?;
            let records = keys.iter().zip(&values);
            self.remove(records.filter_map(|(key, value)| self.removal(key, value.as_ref()?, true)).collect())?;
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
    fn remove(&self, removals: Vec<OwnedWrite>) -> Result<(), Failure> {
        if removals.is_empty() {
            return Ok(());
        }
        let place = self.runtime.block_on(self.places.clone().acquire_owned()).map_err(|_| Failure::Cancelled)?;
        let (context, trouble) = (self.context.clone(), self.trouble.clone());
        let decided = move |_, outcome| {
            if outcome == Outcome::Removed {
                context.progress.dropped.add(1);
            }
        };
        self.context.host.store().write(removals, decided, move |committed| {
            if let Err(error) = committed {
                *trouble.lock() = Some(error);
            }
            drop(place);
        });
        Ok(())
    }

    fn check(&self) -> Result<(), Failure> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Failure::Cancelled);
        }
        self.trouble.lock().take().map_or(Ok(()), |error| Err(error.into()))
    }
}
