//! The gathering half of a copy: what [`super::fill`] has filled is handed over to be delivered.
//!
//! It is never more than two streams per target ahead of the network: while the stream before is still being fetched it
//! waits. So temporary files and memory stay bounded however large the store.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::context::{Context, Failure, Settling};
use super::fill::{Filler, Full, SCAN_ROWS, Tombstone};
use super::late::Written;
use super::plan::Plan;
use crate::server::stream::Chunk;
use crate::store::{Position, Store};
use crate::wire::RecordKey;

/// Batches of tombstones that may be under way.
const TOMBSTONE_BATCHES: usize = 2;

/// Records that are ready to be sent. The permit is given back when that is done, and lets the next one be handed over.
#[derive(Debug)]
pub(super) enum Shipment {
    Chunk { target: usize, chunk: Chunk, permit: OwnedSemaphorePermit },
    Tombstones { batch: Vec<Tombstone>, permit: OwnedSemaphorePermit },
}

/// Fills streams and hands them over.
pub(super) struct Gatherer {
    context: Arc<Context>,
    plan: Arc<Plan>,
    /// Away while a step is under way.
    filler: Option<Box<Filler>>,
    /// One permit for each target, in the order of [`Plan::all_targets`]: held by the stream that is being sent.
    permits: Vec<Arc<Semaphore>>,
    tombstone_batches: Arc<Semaphore>,
    shipments: mpsc::Sender<Shipment>,
}

impl Gatherer {
    /// `failed` has a flag for each target; what would go to a failed one is left out.
    pub(super) fn new(
        context: Arc<Context>,
        plan: Arc<Plan>,
        failed: &[Arc<AtomicBool>],
        shipments: mpsc::Sender<Shipment>,
    ) -> Self {
        Self {
            filler: Some(Box::new(Filler::new(context.clone(), plan.clone(), failed))),
            context,
            plan,
            permits: failed.iter().map(|_| Arc::new(Semaphore::new(1))).collect(),
            tombstone_batches: Arc::new(Semaphore::new(TOMBSTONE_BATCHES)),
            shipments,
        }
    }

    /// Goes through the store, then once more through what was written late.
    pub(super) async fn run(mut self, generation: u32, settling: Settling) -> Result<(), Failure> {
        flush(&self.context).await?;
        self.scan(None).await?;
        self.step(Filler::finish).await?;
        match settling.wait(&self.context).await {
            Written::Keys(keys) => self.look_up(keys).await?,
            Written::TooMany => {
                flush(&self.context).await?;
                self.scan(Some(generation)).await?;
            }
        }
        self.step(Filler::finish).await?;
        self.filler.and_then(|filler| filler.too_large()).map_or(Ok(()), Err)
    }

    /// Sends all records, or those of this generation and later ones.
    async fn scan(&mut self, generation: Option<u32>) -> Result<(), Failure> {
        let mut position = Position::default();
        while !position.is_end() {
            let free: Vec<_> =
                (0..self.permits.len()).filter(|permit| self.permits.get(*permit).is_some_and(is_free)).collect();
            position = self
                .step(move |filler| {
                    let next = filler.scan(position, generation)?;
                    // Where nothing has to be waited for.
                    filler.finish_aged(&free)?;
                    Ok(next)
                })
                .await?;
        }
        Ok(())
    }

    async fn look_up(&mut self, mut keys: Vec<Box<[u8]>>) -> Result<(), Failure> {
        keys.retain(|key| RecordKey::new(key).is_ok_and(|key| self.plan.sends(key.hash())));
        for keys in keys.chunks(SCAN_ROWS) {
            let values = read(self.context.host.store(), keys).await?;
            let found: Vec<_> =
                keys.iter().cloned().zip(values).filter_map(|(key, value)| Some((key, value?))).collect();
            self.step(move |filler| found.iter().try_for_each(|(key, value)| filler.put(key, value))).await?;
        }
        Ok(())
    }

    /// Has the filler do a step where it may block, and hands over what has become full by that.
    async fn step<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Filler) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let mut filler = self.filler.take().ok_or(Failure::Cancelled)?;
        let worked = self.context.host.env().blocking(move || {
            let result = work(&mut filler);
            (filler, result)
        });
        let (mut filler, result) = worked.await.map_err(|_| Failure::Cancelled)?;
        let full = filler.take_full();
        self.filler = Some(filler);
        let result = result?;
        for full in full {
            self.hand_over(full).await?;
        }
        Ok(result)
    }

    /// Hands over what is full, as soon as what was before it is done with.
    async fn hand_over(&self, full: Full) -> Result<(), Failure> {
        let shipment = match full {
            Full::Chunk(target, chunk) => {
                let Some(permit) = self.permits.get(target) else { return Ok(()) };
                Shipment::Chunk { target, chunk, permit: acquire(permit).await? }
            }
            Full::Tombstones(batch) => Shipment::Tombstones { batch, permit: acquire(&self.tombstone_batches).await? },
        };
        self.shipments.send(shipment).await.map_err(|_| Failure::Cancelled)
    }
}

fn is_free(permit: &Arc<Semaphore>) -> bool {
    permit.available_permits() > 0
}

async fn acquire(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Failure> {
    semaphore.clone().acquire_owned().await.map_err(|_| Failure::Cancelled)
}

/// Merges what the store holds in memory, so that a scan finds it.
pub(super) async fn flush(context: &Context) -> Result<(), Failure> {
    let store = context.host.store().clone();
    Ok(context.host.env().blocking(move || store.flush()).await.map_err(|_| Failure::Cancelled)??)
}

/// Reads records on the store's threads and waits for them.
pub(super) async fn read(store: &Store, keys: &[Box<[u8]>]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
    let (sender, receiver) = oneshot::channel();
    store.read(keys.to_vec(), move |values| {
        // Nobody waits any more if this server is being stopped.
        let _ = sender.send(values);
    });
    Ok(receiver.await.map_err(|_| Failure::Cancelled)??)
}
