//! Reading the log back after a process or machine has stopped.
//!
//! Which parts may be missing:
//!
//! * Bytes after the last whole frame of the *last* file are a write that was under way: cut off.
//! * If an *earlier* file does not reach up to where the next one begins, power was lost before it was synced, and
//!   everything from there on goes, so that what is left is a prefix. That is only believed as long as no later file
//!   notes that the earlier ones had become durable; otherwise the file is damaged, and that is an error.
//! * Files below the number in the main tree are merged; a loss of power may have brought them back.

use super::format::{
    FILE_HEADER, FLAG_EARLIER_DURABLE, FRAME_HEADER, FRAME_LIMIT, FRAME_SUMS, FileHeader, FrameHeader, ReadEntry,
    each_entry, frame_crc,
};
use crate::store::disk::{Disk, LogFile};
use crate::store::error::OpenError;
use crate::store::paths::{directory, redo_file};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of recovery.
pub(in crate::store) struct Recovered {
    /// Number for the next file.
    pub(in crate::store) next_number: u64,
    /// Sequence number for the next entry.
    pub(in crate::store) next_sequence: u64,
    /// Files read, oldest first: number, bytes, and a handle to sync.
    pub(in crate::store) files: Vec<(u64, u64, Arc<dyn LogFile>)>,
    /// Entries read.
    pub(in crate::store) entries: u64,
    /// Bytes cut off.
    pub(in crate::store) cut_bytes: u64,
}

/// Reads the log of the store at `store`, from file `first_number` on, and hands each entry to `see` in order.
///
/// `clean` says that the store was closed properly: then there need not be any file.
pub(in crate::store) fn recover(
    store: &Path,
    store_id: u64,
    first_number: u64,
    clean: bool,
    disk: &dyn Disk,
    mut see: impl FnMut(ReadEntry<'_>) -> Result<(), OpenError>,
) -> Result<Recovered, OpenError> {
    let mut numbers = Vec::new();
    for number in list(store)? {
        if number < first_number {
            let path = redo_file(store, number);
            tracing::info!(path = %path.display(), "deleting a redo log file whose records are in the database");
            disk.remove(&path).map_err(|source| OpenError::Io { path, source })?;
        } else {
            numbers.push(number);
        }
    }
    let mut found =
        Recovered { next_number: first_number.max(1), next_sequence: 1, files: Vec::new(), entries: 0, cut_bytes: 0 };
    if numbers.is_empty() {
        return if clean { Ok(found) } else { Err(missing(store, first_number)) };
    }
    for (expected, &number) in (first_number..).zip(&numbers) {
        if number != expected {
            return Err(missing(store, expected));
        }
    }
    for (index, &number) in numbers.iter().enumerate() {
        let later = numbers.get(index + 1..).unwrap_or_default();
        let mut reader = FileReader::open(store, number)?;
        let header = reader.header()?;
        if let Some(header) = header
            && header.store_id != store_id
        {
            return Err(OpenError::RedoForeign { path: reader.path, store: store.to_path_buf() });
        }
        let begins_right =
            header.is_some_and(|header| header.number == number && (index == 0 || header.first == found.next_sequence));
        if !begins_right {
            // The file was being made, or it follows one whose end has not reached the disk.
            refuse_if_durable(store, &reader.path, numbers.get(index..).unwrap_or_default())?;
            // The first one is only emptied: whoever finds no file at all must take it for lost.
            found.cut_bytes += remove_all(store, numbers.get(index.max(1)..).unwrap_or_default(), disk)?;
            if index == 0 {
                found.cut_bytes += reader.length;
                disk.open(&reader.path)
                    .and_then(|file| file.truncate(0))
                    .map_err(|source| OpenError::Io { path: reader.path.clone(), source })?;
            }
            // Its number is used again, so that there is no gap.
            found.next_number = number;
            break;
        }
        found.next_number = number + 1;
        if let Some(header) = header
            && index == 0
        {
            found.next_sequence = header.first;
        }
        while let Some(frame) = reader.frame(found.next_sequence)? {
            let mut result = Ok(());
            each_entry(&reader.payload, frame.first, frame.count, |entry| {
                if result.is_ok() {
                    result = see(entry);
                }
            });
            result?;
            found.entries += u64::from(frame.count);
            found.next_sequence += u64::from(frame.count);
        }
        let file = disk.open(&reader.path).map_err(|source| OpenError::Io { path: reader.path.clone(), source })?;
        let tail = reader.length.saturating_sub(reader.good);
        if tail > 0 && later.is_empty() {
            found.cut_bytes += tail;
            file.truncate(reader.good).map_err(|source| OpenError::Io { path: reader.path.clone(), source })?;
        }
        found.files.push((number, reader.good, file));
    }
    Ok(found)
}

/// Numbers of the log files beside `store`, ascending.
pub(in crate::store) fn list(store: &Path) -> Result<Vec<u64>, OpenError> {
    let directory = directory(store);
    let failed = |source| OpenError::Io { path: directory.to_path_buf(), source };
    let mut prefix = store.file_name().unwrap_or_default().to_os_string();
    prefix.push(".redo.");
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let digits = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        if let Some(number) = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn missing(store: &Path, number: u64) -> OpenError {
    OpenError::RedoDamaged { path: redo_file(store, number), what: "this redo log file is missing".to_owned() }
}

/// Deletes files, youngest first so that a crash leaves a prefix; returns the bytes they had.
fn remove_all(store: &Path, numbers: &[u64], disk: &dyn Disk) -> Result<u64, OpenError> {
    let mut bytes = 0;
    for &number in numbers.iter().rev() {
        let path = redo_file(store, number);
        bytes += std::fs::metadata(&path).map_or(0, |file| file.len());
        disk.remove(&path).map_err(|source| OpenError::Io { path, source })?;
    }
    Ok(bytes)
}

/// An error if any of these files notes that those before it had become durable.
fn refuse_if_durable(store: &Path, damaged: &Path, numbers: &[u64]) -> Result<(), OpenError> {
    for &number in numbers {
        let mut reader = FileReader::open(store, number)?;
        let Some(header) = reader.header()? else { continue };
        let mut next = header.first;
        while let Some(frame) = reader.frame(next)? {
            if frame.flags & FLAG_EARLIER_DURABLE != 0 {
                let what = "it, or the file before it, is damaged where it had been safely on disk".to_owned();
                return Err(OpenError::RedoDamaged { path: damaged.to_path_buf(), what });
            }
            next += u64::from(frame.count);
        }
    }
    Ok(())
}

struct FileReader {
    path: PathBuf,
    input: BufReader<File>,
    /// Bytes of the file.
    length: u64,
    /// Bytes up to the end of the last good frame.
    good: u64,
    number: u64,
    /// Entries of the frame read last.
    payload: Vec<u8>,
}

impl FileReader {
    fn open(store: &Path, number: u64) -> Result<Self, OpenError> {
        let path = redo_file(store, number);
        let failed = |source| OpenError::Io { path: path.clone(), source };
        let file = File::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let input = BufReader::with_capacity(1 << 20, file);
        Ok(Self { path, input, length, good: 0, number, payload: Vec::new() })
    }

    /// The file's header, `None` if it is not whole.
    fn header(&mut self) -> Result<Option<FileHeader>, OpenError> {
        let mut bytes = [0; FILE_HEADER];
        if !self.fill(&mut bytes)? {
            return Ok(None);
        }
        let header = FileHeader::decode(&bytes);
        if header.is_some() {
            self.good = FILE_HEADER as u64;
        }
        Ok(header)
    }

    /// The next frame, if it is whole and begins at sequence number `first`; its entries are in `payload`.
    fn frame(&mut self, first: u64) -> Result<Option<FrameHeader>, OpenError> {
        let mut bytes = [0; FRAME_HEADER];
        if !self.fill(&mut bytes)? {
            return Ok(None);
        }
        let Some(header) = FrameHeader::decode(&bytes) else { return Ok(None) };
        let end = self.good + FRAME_HEADER as u64 + u64::from(header.length);
        if header.first != first || end > self.length || u64::from(header.length) > FRAME_LIMIT {
            return Ok(None);
        }
        // The checksum covers the rest of the header and the entries.
        self.payload.clear();
        self.payload.extend_from_slice(bytes.get(FRAME_SUMS..).unwrap_or_default());
        let covered = self.payload.len();
        self.payload.resize(covered + usize::try_from(header.length).unwrap_or(0), 0);
        let mut payload = std::mem::take(&mut self.payload);
        let whole = self.fill(payload.get_mut(covered..).unwrap_or_default())?;
        let sums_match = whole && frame_crc(self.number, header.length, &payload) == header.crc;
        payload.drain(..covered);
        self.payload = payload;
        let adds_up = sums_match && each_entry(&self.payload, header.first, header.count, |_| ());
        if adds_up {
            self.good = end;
        }
        Ok(adds_up.then_some(header))
    }

    /// Fills `bytes`, or says that the file ends before.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<bool, OpenError> {
        match self.input.read_exact(bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(source) => Err(OpenError::Io { path: self.path.clone(), source }),
        }
    }
}
