//! Filling one stream for each target: the part of a copy that scans the store and writes temporary files.
//!
//! Everything here may wait for a disk, and runs where that keeps no task waiting, in steps of bounded work. Knows no
//! network: what is full is returned, and [`super::gather`] hands it over.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::context::{Context, Failure};
use super::plan::Plan;
use crate::clock::ClockTime;
use crate::server::stream::{Chunk, Encoder};
use crate::store::Position;
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
/// Tombstones sent at a time.
const TOMBSTONES: usize = 256;

/// A deletion to be sent to a target.
#[derive(Debug)]
pub(super) struct Tombstone {
    /// Position in [`Plan::all_targets`].
    pub(super) target: usize,
    pub(super) key: Box<[u8]>,
    pub(super) clocktime: ClockTime,
}

/// Something to be handed over.
#[derive(Debug)]
pub(super) enum Full {
    /// A stream for the target at this position in [`Plan::all_targets`].
    Chunk(usize, Chunk),
    Tombstones(Vec<Tombstone>),
}

/// The stream of one target that is being filled.
#[derive(Debug)]
struct TargetStream {
    filling: Option<(Encoder<File>, Instant)>,
    failed: Arc<AtomicBool>,
}

/// The streams that are being filled.
pub(super) struct Filler {
    context: Arc<Context>,
    plan: Arc<Plan>,
    /// In the order of [`Plan::all_targets`].
    streams: Vec<TargetStream>,
    chunk_bytes: u64,
    tombstones: Vec<Tombstone>,
    full: Vec<Full>,
    /// The first record that a target does not take.
    too_large: Option<Failure>,
}

impl Filler {
    /// `failed` has a flag for each target; what would go to a failed one is left out.
    pub(super) fn new(context: Arc<Context>, plan: Arc<Plan>, failed: &[Arc<AtomicBool>]) -> Self {
        let stream = |failed: &Arc<AtomicBool>| TargetStream { filling: None, failed: failed.clone() };
        Self {
            chunk_bytes: chunk_bytes(context.settings.file_limit, failed.len()),
            context,
            plan,
            streams: failed.iter().map(stream).collect(),
            tombstones: Vec::new(),
            full: Vec::new(),
            too_large: None,
        }
    }

    /// Takes the next step of a scan: all records from `position` on, or those of `generation` and later ones. Returns
    /// where the next step begins.
    pub(super) fn scan(&mut self, position: Position, generation: Option<u32>) -> Result<Position, Failure> {
        let (context, plan) = (self.context.clone(), self.plan.clone());
        let wants = |hash| plan.sends(hash);
        // No more than one stream for each target can become full in a step.
        let bytes = usize::try_from(self.chunk_bytes).unwrap_or(SCAN_BYTES).min(SCAN_BYTES);
        let batch = context.host.store().scan_where(position, SCAN_ROWS, bytes, wants)?;
        context.progress.scanned.add(batch.rows.len());
        for row in &batch.rows {
            if generation.is_none_or(|generation| row.generation >= generation) {
                self.put(&row.key, &row.value)?;
            }
        }
        Ok(batch.next)
    }

    /// Adds a record to the streams of its targets.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let (Ok(key), Ok(value)) = (RecordKey::new(key), RecordValue::new(value)) else {
            return Ok(());
        };
        let plan = self.plan.clone();
        for target in plan.targets(key.hash()) {
            if value.is_tombstone() {
                self.tombstones.push(Tombstone { target, key: key.bytes().into(), clocktime: value.clocktime() });
                if self.tombstones.len() >= TOMBSTONES {
                    self.finish_tombstones();
                }
                continue;
            }
            if self.is_too_large(target, key, value) {
                continue;
            }
            if self.is_full(target, Encoder::<File>::size_of(key, value)) {
                self.finish_stream(target)?;
            }
            let Some(stream) = self.streams.get_mut(target) else { continue };
            if stream.failed.load(Ordering::Relaxed) {
                stream.filling = None;
                continue;
            }
            let (encoder, _) = match &mut stream.filling {
                Some(filling) => filling,
                None => {
                    let encoder = create(&self.context.settings.offer_dir)?;
                    stream.filling.insert((encoder, Instant::now()))
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

    /// The failure that stands for the records which were left out.
    pub(super) fn too_large(self) -> Option<Failure> {
        self.too_large
    }

    /// Whether a stream that is being filled has no space for a record of `size` bytes.
    fn is_full(&self, target: usize, size: u64) -> bool {
        let filling = self.streams.get(target).and_then(|stream| stream.filling.as_ref());
        filling.is_some_and(|(encoder, _)| encoder.size().saturating_add(size) > self.chunk_bytes)
    }

    /// Ends the stream that is being filled for a target.
    fn finish_stream(&mut self, target: usize) -> Result<(), Failure> {
        let filling = self.streams.get_mut(target).and_then(|stream| stream.filling.take());
        if let Some((encoder, _)) = filling {
            let chunk = encoder.finish().map_err(|error| self.context.file_failure(error))?;
            self.full.push(Full::Chunk(target, chunk));
        }
        Ok(())
    }

    fn finish_tombstones(&mut self) {
        if !self.tombstones.is_empty() {
            self.full.push(Full::Tombstones(std::mem::take(&mut self.tombstones)));
        }
    }

    /// Ends the streams of those targets that have been filling for long.
    pub(super) fn finish_aged(&mut self, targets: &[usize]) -> Result<(), Failure> {
        for target in targets {
            let filling = self.streams.get(*target).and_then(|stream| stream.filling.as_ref());
            if filling.is_some_and(|(_, since)| since.elapsed() >= CHUNK_AGE) {
                self.finish_stream(*target)?;
            }
        }
        Ok(())
    }

    /// Ends all streams.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        for target in 0..self.streams.len() {
            self.finish_stream(target)?;
        }
        self.finish_tombstones();
        Ok(())
    }

    /// Returns what has become full.
    pub(super) fn take_full(&mut self) -> Vec<Full> {
        std::mem::take(&mut self.full)
    }
}

/// How long a stream may become. For each target one may be under way, while another one is full and a third is filled.
fn chunk_bytes(file_limit: u64, targets: usize) -> u64 {
    if file_limit == 0 {
        return CHUNK_BYTES;
    }
    let files = u64::try_from(targets.max(1)).unwrap_or(u64::MAX).saturating_mul(3);
    (file_limit / files).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES)
}

fn create(dir: &Path) -> Result<Encoder<File>, Failure> {
    Encoder::create(dir).map_err(|error| Failure::File(dir.to_path_buf(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_shared_by_all_files() {
        assert_eq!(chunk_bytes(0, 7), CHUNK_BYTES);
        assert_eq!(chunk_bytes(3 << 19, 1), 512 << 10);
        assert_eq!(chunk_bytes(24 << 20, 4), 2 << 20);
        assert_eq!(chunk_bytes(1 << 40, 4), CHUNK_BYTES);
        assert_eq!(chunk_bytes(1 << 20, 1000), CHUNK_BYTES_MIN);
    }
}
