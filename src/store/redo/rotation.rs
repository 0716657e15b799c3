//! The files of the log being written: begun, handed over to the merge, deleted.

use super::file::create;
use super::format::{FILE_HEADER, FRAME_HEADER, FileHeader};
use super::log::{Redo, Writer};
use crate::store::error::Error;
use crate::store::paths::{directory, redo_file};
use std::io;
use std::sync::atomic::Ordering;

impl Redo {
    /// Begins a new file. Returns its number and the sequence number from which on entries are in it; those before are
    /// in older files. An untouched file is not followed by another.
    ///
    /// Only the merge thread calls this.
    pub(in crate::store) fn rotate(&self) -> Result<(u64, u64), Error> {
        let number = {
            let writer = self.writer.lock();
            if self.is_untouched(&writer) && !self.suspect.load(Ordering::Acquire) {
                return Ok((writer.number, self.next()));
            }
            writer.number + 1
        };
        let refused = |error: io::Error| {
            let name = redo_file(&self.options.store, number);
            Error::failed(format!("{}: {error}", name.display()))
        };
        let file = create(&self.options, number).map_err(refused)?;
        let mut writer = self.writer.lock();
        let first = if writer.pending.is_empty() { self.buffer.lock().first } else { writer.pending_first };
        let header = FileHeader { store_id: self.options.store_id, number, first };
        if let Err(error) = file.write_at(&header.encode(), 0) {
            drop(writer);
            let _ = self.options.disk.remove(&redo_file(&self.options.store, number));
            return Err(refused(error));
        }
        let old = std::mem::replace(&mut writer.file, file);
        let closed = (writer.number, writer.offset);
        writer.unsynced.push(old);
        writer.closed.push_back(closed);
        writer.number = number;
        writer.offset = FILE_HEADER as u64;
        self.used.fetch_add(FILE_HEADER as u64, Ordering::Relaxed);
        Ok((number, first))
    }

    /// Whether there are no entries in any file or in the buffer: a start would find nothing to replay.
    pub(in crate::store) fn is_empty(&self) -> bool {
        let writer = self.writer.lock();
        writer.closed.is_empty() && self.is_untouched(&writer)
    }

    /// Whether the current file, and the buffer, have no entries. A note that earlier files are durable is none.
    fn is_untouched(&self, writer: &Writer) -> bool {
        writer.offset <= (FILE_HEADER + FRAME_HEADER) as u64
            && writer.pending.is_empty()
            && self.written() == self.next().wrapping_sub(1)
    }

    /// Deletes the files before `number`, oldest first: their contents are durable elsewhere.
    ///
    /// A file that cannot be deleted is kept for the next time, and so are those after it.
    pub(in crate::store) fn delete_before(&self, number: u64) {
        // A sync under way may hold files that go; it must not report on them afterwards.
        let _guard = self.syncing.lock();
        let mut deleted = false;
        loop {
            let oldest = self.writer.lock().closed.front().copied();
            let Some((oldest, bytes)) = oldest.filter(|(oldest, _)| *oldest < number) else { break };
            let path = redo_file(&self.options.store, oldest);
            match self.options.disk.remove(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot delete a redo log file whose records are in the database");
                    return;
                }
            }
            let mut writer = self.writer.lock();
            writer.closed.pop_front();
            deleted = true;
            self.used.fetch_sub(bytes.min(self.used()), Ordering::Relaxed);
        }
        let mut writer = self.writer.lock();
        if deleted && writer.closed.is_empty() {
            writer.unsynced.clear();
        }
    }

    /// Deletes every file, the current one too: all is merged and nothing will be written any more.
    pub(in crate::store) fn finish(&self) {
        let number = self.number();
        self.delete_before(number);
        if self.writer.lock().closed.is_empty() {
            let path = redo_file(&self.options.store, number);
            if let Err(error) = self.options.disk.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot delete an empty redo log file");
            }
        }
        let _ = self.options.disk.sync_directory(directory(&self.options.store));
    }
}
