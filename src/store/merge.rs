//! Moving dirty records from the cache to the main tree.

use super::cache::{Cache, Dirty};
use super::disk::{Disk, Step};
use super::tree::{MergeRow, Writer};
use std::io;
use std::ops::Range;

/// Rows in one transaction: short enough that nobody waits long, long enough to share its cost.
const CHUNK_ROWS: usize = 1000;
/// Bytes in one transaction.
const CHUNK_BYTES: usize = 4 << 20;

/// One transaction's rows, copied so that no lock is held while they are written.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    rows: Vec<ChunkRow>,
    existed: Vec<bool>,
}

struct ChunkRow {
    dirty: Dirty,
    key: Range<usize>,
    value: Range<usize>,
    generation: u32,
}

impl Chunk {
    /// Copies records until the chunk is full; returns how many of `rest` that covers.
    fn fill(&mut self, cache: &Cache, rest: &[Dirty]) -> usize {
        self.bytes.clear();
        self.rows.clear();
        self.existed.clear();
        let mut covered = 0;
        for dirty in rest {
            if self.rows.len() >= CHUNK_ROWS || self.bytes.len() >= CHUNK_BYTES {
                break;
            }
            cache.with_dirty(dirty, |slot| {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(slot.key());
                let middle = self.bytes.len();
                self.bytes.extend_from_slice(slot.value_bytes());
                self.rows.push(ChunkRow {
                    dirty: dirty.as_of(slot),
                    key: start..middle,
                    value: middle..self.bytes.len(),
                    generation: slot.generation,
                });
            });
            covered += 1;
        }
        covered
    }

    fn slice(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }
}

/// How much a merge moved.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moved {
    /// Rows written.
    pub(super) rows: u64,
    /// Of those, the keys that had no row before.
    pub(super) new: u64,
    /// It was stopped before its end.
    pub(super) cut_short: bool,
}

/// Where records are merged from and to.
pub(super) struct Merge<'a> {
    pub(super) cache: &'a Cache,
    pub(super) tree: &'a Writer,
    pub(super) disk: &'a dyn Disk,
}

impl Merge<'_> {
    /// Merges all records that are dirty now, in the tree's order and in short transactions. `next_seq` tells the log's
    /// next sequence number; `merged` is told each key that was written, `between` is called after each transaction with
    /// the numbers of records done and left, and says whether to go on.
    ///
    /// `before_commit` hears how many rows of `twin` there will be and the newest sequence number among the rows; it may
    /// still refuse.
    pub(super) fn run(
        &self,
        next_seq: impl Fn() -> u64,
        before_commit: impl Fn(u64, u64) -> io::Result<()>,
        mut merged: impl FnMut(&[u8]),
        mut between: impl FnMut(usize, usize) -> rusqlite::Result<bool>,
    ) -> rusqlite::Result<Moved> {
        let dirty = self.cache.collect(next_seq);
        let mut rest = &dirty[..];
        self.reached(Step::MergeCollected).inspect_err(|_| self.cache.uncollect(rest))?;
        let mut moved = Moved::default();
        let mut chunk = Chunk::default();
        while !rest.is_empty() {
            let covered = chunk.fill(self.cache, rest);
            let result = self.write(&mut chunk, &before_commit);
            if let Err(error) = result {
                self.cache.uncollect(rest);
                return Err(error);
            }
            self.mark(&chunk, &mut moved);
            chunk.rows.iter().for_each(|row| merged(chunk.slice(&row.key)));
            rest = rest.get(covered..).unwrap_or_default();
            let go_on = between(dirty.len() - rest.len(), rest.len());
            if !matches!(go_on, Ok(true)) {
                self.cache.uncollect(rest);
                moved.cut_short = !rest.is_empty();
                go_on?;
                break;
            }
        }
        if !self.cache.all_listed() {
            tracing::error!("a merge has missed records: stopping the process, the redo log still has them");
            std::process::abort();
        }
        Ok(moved)
    }

    fn write(&self, chunk: &mut Chunk, before_commit: &impl Fn(u64, u64) -> io::Result<()>) -> rusqlite::Result<()> {
        if chunk.rows.is_empty() {
            return Ok(());
        }
        let mut existed = std::mem::take(&mut chunk.existed);
        let rows = chunk.rows.iter().map(|row| MergeRow {
            key: chunk.slice(&row.key),
            value: chunk.slice(&row.value),
            generation: row.generation,
        });
        let newest = chunk.rows.iter().map(|row| row.dirty.seq).max().unwrap_or(0);
        let result = self.tree.merge(
            rows,
            |row_existed| existed.push(row_existed),
            |tally| {
                before_commit(tally.collisions, newest)?;
                self.disk.reached(Step::MergeCommit)
            },
        );
        chunk.existed = existed;
        result?;
        self.reached(Step::MergeCommitted)
    }

    fn reached(&self, step: Step) -> rusqlite::Result<()> {
        self.disk.reached(step).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
    }

    /// The rows are committed: what has not been written again is clean now.
    fn mark(&self, chunk: &Chunk, moved: &mut Moved) {
        self.cache.begin_epoch();
        for (row, &existed) in chunk.rows.iter().zip(&chunk.existed) {
            self.cache.merged(&row.dirty, chunk.slice(&row.key), existed);
            moved.rows += 1;
            moved.new += u64::from(!existed);
        }
    }
}
