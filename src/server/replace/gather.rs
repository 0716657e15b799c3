//! The blocking half of a copy: scanning the store and filling one stream for each target.
//!
//! Runs on a thread of its own. It is never more than one stream per target ahead of the network: what it has filled is
//! handed over, and while the stream before is still being fetched it waits. So temporary files and memory stay
//! bounded however large the store.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::context::{Context, Failure, Settling};
use super::late::Written;
use super::plan::Plan;
use crate::clock::ClockTime;
use crate::server::stream::{Chunk, Encoder};
use crate::store::{Position, Store};
use crate::wire::params::COPY_OVERHEAD;
use crate::wire::record::KEY_HEADER;
use crate::wire::{MESSAGE_LIMIT_MIN, RecordKey, RecordValue};

/// Rows and bytes that one step of a scan takes out of the store.
pub(super) const SCAN_ROWS: usize = 1000;
pub(super) const SCAN_BYTES: usize = 1 << 20;
/// Compressed bytes of one stream: enough that an offer's round trips do not matter.
const CHUNK_BYTES: u64 = 8 << 20;
/// The least that `-M` can make of it.
const CHUNK_BYTES_MIN: u64 = 64 << 10;
/// A stream that fills slowly is handed over after this time, so that what was read does not grow old.
const CHUNK_AGE: Duration = Duration::from_secs(2);
/// Tombstones sent at a time; two such batches may be under way.
const TOMBSTONES: usize = 256;
/// See [`TOMBSTONES`].
const TOMBSTONE_BATCHES: usize = 2;

/// A deletion to be told to a target.
#[derive(Debug)]
pub(super) struct Tombstone {
    /// Position in [`Plan::all_targets`].
    pub(super) target: usize,
    pub(super) key: Box<[u8]>,
    pub(super) clocktime: ClockTime,
}

/// What is ready to be sent. The permit is given back when that is done, and lets the next one be handed over.
#[derive(Debug)]
pub(super) enum Parcel {
    Chunk { target: usize, chunk: Chunk, permit: OwnedSemaphorePermit },
    Tombstones { batch: Vec<Tombstone>, permit: OwnedSemaphorePermit },
}

/// The way to one target.
#[derive(Debug)]
struct Lane {
    filling: Option<(Encoder<File>, Instant)>,
    /// One permit: held by the stream that is being sent.
    turn: Arc<Semaphore>,
    failed: Arc<AtomicBool>,
}

/// Fills streams.
pub(super) struct Gatherer {
    context: Arc<Context>,
    plan: Arc<Plan>,
    /// In the order of [`Plan::all_targets`].
    lanes: Vec<Lane>,
    chunk_bytes: u64,
    tombstones: Vec<Tombstone>,
    tombstone_turns: Arc<Semaphore>,
    parcels: mpsc::Sender<Parcel>,
    runtime: Handle,
    /// The first record that a target does not take.
    too_large: Option<Failure>,
}

impl Gatherer {
    /// `failed` has a flag for each target; what would go to a failed one is left out.
    pub(super) fn new(
        context: Arc<Context>,
        plan: Arc<Plan>,
        failed: &[Arc<AtomicBool>],
        parcels: mpsc::Sender<Parcel>,
    ) -> Self {
        let lane = |failed: &Arc<AtomicBool>| Lane {
            filling: None,
            turn: Arc::new(Semaphore::new(1)),
            failed: failed.clone(),
        };
        Self {
            chunk_bytes: chunk_bytes(context.settings.file_limit, failed.len()),
            context,
            plan,
            lanes: failed.iter().map(lane).collect(),
            tombstones: Vec::new(),
            tombstone_turns: Arc::new(Semaphore::new(TOMBSTONE_BATCHES)),
            parcels,
            runtime: Handle::current(),
            too_large: None,
        }
    }

    /// Goes through the store, then once more through what was written late. Blocks.
    pub(super) fn run(mut self, generation: u32, settling: Settling) -> Result<(), Failure> {
        self.context.host.store().flush()?;
        self.scan(None)?;
        self.finish()?;
        match settling.wait(&self.context, || self.check_cancelled())? {
            Written::Keys(keys) => self.look_up(keys)?,
            Written::TooMany => {
                self.context.host.store().flush()?;
                self.scan(Some(generation))?;
            }
        }
        self.finish()?;
        self.too_large.map_or(Ok(()), Err)
    }

    /// Sends all records, or those of this generation and later ones.
    fn scan(&mut self, generation: Option<u32>) -> Result<(), Failure> {
        let mut position = Position::default();
        while !position.is_end() {
            self.check_cancelled()?;
            let wants = |hash| self.plan.sends(hash);
            let batch = self.context.host.store().scan_where(position, SCAN_ROWS, SCAN_BYTES, wants)?;
            self.context.progress.scanned.add(batch.rows.len());
            for row in &batch.rows {
                if generation.is_none_or(|generation| row.generation >= generation) {
                    self.put(&row.key, &row.value)?;
                }
            }
            self.hand_over_aged()?;
            position = batch.next;
        }
        Ok(())
    }

    fn look_up(&mut self, mut keys: Vec<Box<[u8]>>) -> Result<(), Failure> {
        keys.retain(|key| RecordKey::new(key).is_ok_and(|key| self.plan.sends(key.hash())));
        for keys in keys.chunks(SCAN_ROWS) {
            self.check_cancelled()?;
            let values = read(self.context.host.store(), keys)?;
            for (key, value) in keys.iter().zip(values) {
                if let Some(value) = value {
                    self.put(key, &value)?;
                }
            }
        }
        Ok(())
    }

    /// Adds a record to the streams of its targets.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let (Ok(key), Ok(value)) = (RecordKey::new(key), RecordValue::new(value)) else {
            return Ok(());
        };
        let plan = self.plan.clone();
        for target in plan.targets(key.hash()) {
            if value.is_tombstone() {
                self.tombstones.push(Tombstone { target, key: key.bytes().into(), clocktime: value.clocktime() });
                if self.tombstones.len() >= TOMBSTONES {
                    self.hand_over_tombstones()?;
                }
                continue;
            }
            if self.is_too_large(target, key, value) {
                continue;
            }
            let size = Encoder::<File>::size_of(key, value);
            if self.is_full(target, size) {
                self.hand_over(target)?;
            }
            let Some(lane) = self.lanes.get_mut(target) else { continue };
            if lane.failed.load(Ordering::Relaxed) {
                lane.filling = None;
                continue;
            }
            let (encoder, _) = match &mut lane.filling {
                Some(filling) => filling,
                None => {
                    let encoder = create(&self.context.settings.offer_dir)?;
                    lane.filling.insert((encoder, Instant::now()))
                }
            };
            encoder.push(key, value).map_err(|error| self.context.file_failure(error))?;
        }
        Ok(())
    }

    /// Whether a target would give the stream up at this record. Others of it are sent, but the copy will not have ended
    /// well.
    fn is_too_large(&mut self, target: usize, key: RecordKey<'_>, value: RecordValue<'_>) -> bool {
        let length = key.bytes().len().saturating_add(value.bytes().len()).saturating_add(COPY_OVERHEAD);
        if length <= MESSAGE_LIMIT_MIN {
            return false;
        }
        let Some(server) = self.plan.all_targets().get(target).copied() else { return false };
        let limit = self.context.host.peers().session(server).message_limit();
        if length > limit {
            let (key, size) = (key.bytes().get(KEY_HEADER..).unwrap_or_default(), value.bytes().len());
            tracing::error!(key = %key.escape_ascii(), size, "not copied: too large for server {server}: its limit is {limit}");
            self.too_large.get_or_insert(Failure::TooLarge(server, limit));
        }
        length > limit
    }

    /// Whether a stream that is being filled has no room for a record of `size` bytes.
    fn is_full(&self, target: usize, size: u64) -> bool {
        let filling = self.lanes.get(target).and_then(|lane| lane.filling.as_ref());
        filling.is_some_and(|(encoder, _)| encoder.size().saturating_add(size) > self.chunk_bytes)
    }

    /// Hands over the stream that is being filled for a target, as soon as the one before is done with.
    fn hand_over(&mut self, target: usize) -> Result<(), Failure> {
        let Some(lane) = self.lanes.get_mut(target) else { return Ok(()) };
        let Some((encoder, _)) = lane.filling.take() else { return Ok(()) };
        let chunk = encoder.finish().map_err(|error| self.context.file_failure(error))?;
        let permit = self.runtime.block_on(lane.turn.clone().acquire_owned()).map_err(|_| Failure::Cancelled)?;
        self.send(Parcel::Chunk { target, chunk, permit })
    }

    /// Hands over what has been filling for long, where nothing has to be waited for.
    fn hand_over_aged(&mut self) -> Result<(), Failure> {
        for target in 0..self.lanes.len() {
            let due = self.lanes.get(target).is_some_and(|lane| {
                lane.turn.available_permits() > 0
                    && lane.filling.as_ref().is_some_and(|(_, since)| since.elapsed() >= CHUNK_AGE)
            });
            if due {
                self.hand_over(target)?;
            }
        }
        Ok(())
    }

    fn hand_over_tombstones(&mut self) -> Result<(), Failure> {
        if self.tombstones.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.tombstones);
        let permit = self.runtime.block_on(self.tombstone_turns.clone().acquire_owned());
        self.send(Parcel::Tombstones { batch, permit: permit.map_err(|_| Failure::Cancelled)? })
    }

    /// Hands over everything.
    fn finish(&mut self) -> Result<(), Failure> {
        for target in 0..self.lanes.len() {
            self.hand_over(target)?;
        }
        self.hand_over_tombstones()
    }

    fn send(&self, parcel: Parcel) -> Result<(), Failure> {
        self.parcels.blocking_send(parcel).map_err(|_| Failure::Cancelled)
    }

    fn check_cancelled(&self) -> Result<(), Failure> {
        if self.parcels.is_closed() { Err(Failure::Cancelled) } else { Ok(()) }
    }
}

/// How long a stream may become. For each target one may be under way while another one is filled.
fn chunk_bytes(file_limit: u64, targets: usize) -> u64 {
    if file_limit == 0 {
        return CHUNK_BYTES;
    }
    let files = u64::try_from(targets.max(1)).unwrap_or(u64::MAX).saturating_mul(2);
    (file_limit / files).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES)
}

fn create(dir: &Path) -> Result<Encoder<File>, Failure> {
    Encoder::create(dir).map_err(|error| Failure::File(dir.to_path_buf(), error))
}

/// Reads records on the store's threads and waits for them.
pub(super) fn read(store: &Store, keys: &[Box<[u8]>]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
    let (sender, receiver) = oneshot::channel();
    store.read(keys.to_vec(), move |values| {
        // Nobody waits any more if this server is being stopped.
        let _ = sender.send(values);
    });
    Ok(receiver.blocking_recv().map_err(|_| Failure::Cancelled)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_shared_by_all_files() {
        assert_eq!(chunk_bytes(0, 7), CHUNK_BYTES);
        assert_eq!(chunk_bytes(1 << 20, 1), 512 << 10);
        assert_eq!(chunk_bytes(16 << 20, 4), 2 << 20);
        assert_eq!(chunk_bytes(1 << 40, 4), CHUNK_BYTES);
        assert_eq!(chunk_bytes(1 << 20, 1000), CHUNK_BYTES_MIN);
    }
}
