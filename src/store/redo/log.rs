//! The log being written: one shared buffer, one file, one writer at a time.
//!
//! Entries get their sequence number when they enter the buffer, so that the log's order is the order of decisions.
//! A commit writes everything that is buffered, by all threads; the next one then often finds its entries written.
//! Lock order: `syncing`, then `writer`, then `buffer`.

use super::file::{RedoOptions, create, marker};
use super::format::{Entry, FILE_HEADER, FLAG_EARLIER_DURABLE, FRAME_HEADER, FileHeader, seal_frame};
use crate::store::disk::LogFile;
use crate::store::error::Error;
use crate::store::failures::Operation;
use crate::store::paths::redo_file;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A buffer grown beyond this by large records is given back.
const SPARE_LIMIT: usize = 4 << 20;

/// The result of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Append {
    /// It is in the buffer under this sequence number.
    Buffered(u64),
    /// The log is at its limit.
    Full,
}

/// The log.
pub(in crate::store) struct Redo {
    pub(super) options: RedoOptions,
    pub(super) buffer: Mutex<Buffer>,
    pub(super) writer: Mutex<Writer>,
    /// Held while syncing: files must become durable in their order.
    pub(super) syncing: Mutex<()>,
    /// All up to this sequence number is written to files.
    pub(super) written: AtomicU64,
    /// All up to this sequence number is durable.
    pub(super) synced: AtomicU64,
    /// Bytes in files and buffer.
    pub(super) used: AtomicU64,
    /// Bytes in the buffer.
    pub(super) buffered: AtomicU64,
    /// A sync has failed: what the kernel still has of the files written so far proves nothing.
    pub(super) suspect: AtomicBool,
}

pub(super) struct Buffer {
    /// A frame without its header filled in.
    pub(super) frame: Vec<u8>,
    pub(super) count: u32,
    /// Sequence number of the first entry in it, or of the next if it is empty.
    pub(super) first: u64,
}

impl Buffer {
    fn next(&self) -> u64 {
        self.first.wrapping_add(u64::from(self.count))
    }
}

pub(super) struct Writer {
    pub(super) file: Arc<dyn LogFile>,
    pub(super) number: u64,
    pub(super) offset: u64,
    /// A frame that is not written yet: empty, or what the last write failed on.
    pub(super) pending: Vec<u8>,
    pub(super) pending_first: u64,
    pub(super) pending_count: u32,
    /// Files before this one that are not synced yet, oldest first.
    pub(super) unsynced: Vec<Arc<dyn LogFile>>,
    /// Files before this one that still exist: number and bytes, oldest first.
    pub(super) closed: VecDeque<(u64, u64)>,
}

impl Redo {
    /// Starts file `number` after those in `closed` (number, bytes, file), at sequence number `first`.
    pub(in crate::store) fn start(
        options: RedoOptions,
        number: u64,
        first: u64,
        closed: Vec<(u64, u64, Arc<dyn LogFile>)>,
    ) -> io::Result<Self> {
        let file = create(&options, number)?;
        let header = FileHeader { store_id: options.store_id, number, first };
        file.write_at(&header.encode(), 0)?;
        let used = closed.iter().map(|(_, bytes, _)| bytes).sum::<u64>() + FILE_HEADER as u64;
        let unsynced: Vec<_> = closed.iter().map(|(_, _, file)| file.clone()).collect();
        let suspect = marker(&options.store).exists();
        if suspect {
            options.failures.note(Operation::Sync, &"a sync of the redo log had failed when the store was last open");
        }
        // Entries that were read back may never have been synced.
        let synced = if unsynced.is_empty() { first.wrapping_sub(1) } else { 0 };
        let closed = closed.into_iter().map(|(number, bytes, _)| (number, bytes)).collect();
        Ok(Self {
            options,
            buffer: Mutex::new(Buffer { frame: vec![0; FRAME_HEADER], count: 0, first }),
            writer: Mutex::new(Writer {
                file,
                number,
                offset: FILE_HEADER as u64,
                pending: Vec::new(),
                pending_first: first,
                pending_count: 0,
                unsynced,
                closed,
            }),
            syncing: Mutex::new(()),
            written: AtomicU64::new(first.wrapping_sub(1)),
            synced: AtomicU64::new(synced),
            used: AtomicU64::new(used),
            buffered: AtomicU64::new(0),
            suspect: AtomicBool::new(suspect),
        })
    }

    /// Gives an entry its sequence number and buffers it. Call with the record's shard locked.
    #[inline]
    pub(in crate::store) fn append(&self, entry: &Entry<'_>) -> Append {
        let bytes = entry.len() as u64;
        let mut buffer = self.buffer.lock();
        if self.used.load(Ordering::Relaxed) + bytes > self.options.limit {
            return Append::Full;
        }
        if !entry.encode(&mut buffer.frame) {
            return Append::Full;
        }
        let sequence = buffer.next();
        buffer.count += 1;
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.buffered.fetch_add(bytes, Ordering::Relaxed);
        Append::Buffered(sequence)
    }

    /// The sequence number that the next entry gets.
    pub(in crate::store) fn next(&self) -> u64 {
        self.buffer.lock().next()
    }

    /// Bytes in all files and the buffer.
    #[inline]
    pub(in crate::store) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that no `write` has taken yet.
    #[inline]
    pub(in crate::store) fn buffered(&self) -> u64 {
        self.buffered.load(Ordering::Relaxed)
    }

    /// Up to which sequence number everything is durable.
    pub(in crate::store) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Up to which sequence number everything is with the kernel.
    pub(in crate::store) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Hands everything up to sequence number `need` to the kernel, with all else that is buffered.
    #[inline]
    pub(in crate::store) fn write_out(&self, need: u64) -> Result<(), Error> {
        if self.written.load(Ordering::Acquire) >= need {
            return Ok(());
        }
        let mut writer = self.writer.lock();
        if self.written.load(Ordering::Acquire) >= need {
            return Ok(());
        }
        self.write_locked(&mut writer)
    }

    /// As [`Redo::write_out`], unless another thread writes for longer than `patience`.
    #[inline]
    pub(in crate::store) fn write_out_within(&self, need: u64, patience: Duration) -> Option<Result<(), Error>> {
        if self.written.load(Ordering::Acquire) >= need {
            return Some(Ok(()));
        }
        let mut writer = self.writer.try_lock().or_else(|| self.writer.try_lock_for(patience))?;
        if self.written.load(Ordering::Acquire) >= need {
            return Some(Ok(()));
        }
        Some(self.write_locked(&mut writer))
    }

    /// Writes what is buffered, also when nobody has asked for it.
    pub(in crate::store) fn write_all(&self) -> Result<(), Error> {
        self.write_locked(&mut self.writer.lock())
    }

    fn write_locked(&self, writer: &mut Writer) -> Result<(), Error> {
        if !writer.pending.is_empty() {
            self.write_pending(writer)?;
        }
        {
            let mut buffer = self.buffer.lock();
            if buffer.count == 0 {
                return Ok(());
            }
            std::mem::swap(&mut writer.pending, &mut buffer.frame);
            buffer.frame.clear();
            buffer.frame.resize(FRAME_HEADER, 0);
            (writer.pending_first, writer.pending_count) = (buffer.first, buffer.count);
            buffer.first = buffer.next();
            buffer.count = 0;
            self.buffered.store(0, Ordering::Relaxed);
        }
        self.write_pending(writer)
    }

    /// Writes the pending frame at the end of the last good one, so that a retry covers what a failure left behind.
    fn write_pending(&self, writer: &mut Writer) -> Result<(), Error> {
        let (first, count) = (writer.pending_first, writer.pending_count);
        let written = self.written.load(Ordering::Acquire);
        assert_eq!(first, written.wrapping_add(1), "a frame of the redo log does not continue the one before");
        if !seal_frame(&mut writer.pending, writer.number, first, count, 0) {
            return Err(self
                .options
                .failures
                .note(Operation::Append, &"a frame of the redo log has outgrown its format"));
        }
        self.options.writes.fetch_add(1, Ordering::Relaxed);
        let result = writer.file.write_at(&writer.pending, writer.offset);
        self.options.writes.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = result {
            // Best effort: the space is wanted back, and the tail is recognised as torn in any case.
            let _ = writer.file.truncate(writer.offset);
            let name = redo_file(&self.options.store, writer.number);
            return Err(self.options.failures.note(Operation::Append, &format!("{}: {error}", name.display())));
        }
        writer.offset += writer.pending.len() as u64;
        self.used.fetch_add(FRAME_HEADER as u64, Ordering::Relaxed);
        writer.pending.clear();
        if writer.pending.capacity() > SPARE_LIMIT {
            writer.pending = Vec::new();
        }
        self.written.store(first.wrapping_add(u64::from(count)).wrapping_sub(1), Ordering::Release);
        self.options.failures.clear(Operation::Append);
        Ok(())
    }

    /// Makes everything written before the call durable.
    ///
    /// After one failure it fails until [`Redo::trust_again`]: the kernel drops pages that it could not write, and a second
    /// sync of the same file would call that good.
    pub(in crate::store) fn sync(&self) -> Result<(), Error> {
        self.sync_up_to(u64::MAX)
    }

    /// As [`Redo::sync`], unless everything up to `need` is durable already.
    pub(in crate::store) fn sync_up_to(&self, need: u64) -> Result<(), Error> {
        let _guard = self.syncing.lock();
        if self.suspect.load(Ordering::Acquire) {
            return Err(self.options.failures.error().unwrap_or_else(|| Error::failed("a sync has failed")));
        }
        if self.synced() >= need {
            return Ok(());
        }
        let (file, unsynced, target) = {
            let mut writer = self.writer.lock();
            (writer.file.clone(), std::mem::take(&mut writer.unsynced), self.written.load(Ordering::Acquire))
        };
        for file in unsynced.iter().chain([&file]) {
            if let Err(error) = file.sync() {
                self.suspect.store(true, Ordering::Release);
                // For whoever opens the store after a kill: to him the kernel would call the next sync good. If the disk
                // takes no file either there is nothing more to be done.
                let _ = self.options.disk.create(&marker(&self.options.store));
                return Err(self.options.failures.note(Operation::Sync, &format!("sync of the redo log: {error}")));
            }
        }
        self.synced.fetch_max(target, Ordering::AcqRel);
        if !unsynced.is_empty() {
            self.mark_earlier_durable();
        }
        Ok(())
    }

    /// Notes in the current file that those before it are durable: damage to them is damage from now on, and not a
    /// loss of power. Without the note recovery is only more lenient, so a failure may be ignored.
    fn mark_earlier_durable(&self) {
        let mut writer = self.writer.lock();
        if !writer.unsynced.is_empty() || !writer.pending.is_empty() {
            return;
        }
        let mut frame = [0; FRAME_HEADER];
        let next = self.written.load(Ordering::Acquire).wrapping_add(1);
        if seal_frame(&mut frame, writer.number, next, 0, FLAG_EARLIER_DURABLE)
            && writer.file.write_at(&frame, writer.offset).is_ok()
        {
            writer.offset += FRAME_HEADER as u64;
            self.used.fetch_add(FRAME_HEADER as u64, Ordering::Relaxed);
        }
    }

    /// Everything below sequence number `durable` is safe in the main tree and the current file is younger than any
    /// failed sync: syncing makes sense again.
    pub(in crate::store) fn trust_again(&self, durable: u64) {
        let _guard = self.syncing.lock();
        if self.suspect.load(Ordering::Acquire) {
            self.writer.lock().unsynced.clear();
            self.synced.fetch_max(durable.wrapping_sub(1), Ordering::AcqRel);
            self.suspect.store(false, Ordering::Release);
            if let Err(error) = self.options.disk.remove(&marker(&self.options.store))
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "cannot delete the marker of a failed sync; the next start merges before it trusts a sync");
            }
            // With the lock held: a sync that fails next must not find its own note taken away.
            self.options.failures.clear(Operation::Sync);
        }
    }

    /// Number of the current file.
    pub(in crate::store) fn number(&self) -> u64 {
        self.writer.lock().number
    }

    /// Whether a sync has failed and not been forgiven.
    pub(in crate::store) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }
}
