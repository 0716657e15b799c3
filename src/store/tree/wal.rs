//! Writing SQLite's write-ahead log anew after a sync of it has failed.
//!
//! The kernel may have dropped what it could not write, and would call the next sync good. What can still be read of the
//! log is checked frame by frame and written over itself, so that the kernel has all of it to write once more.
//!
//! This module knows the format of the log ("WAL File Format" in SQLite's documentation) and nothing of what it holds.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes before the first frame.
const HEADER: usize = 32;
/// Bytes before a frame's page.
const FRAME_HEADER: usize = 24;
/// Second word that both magic numbers share; the first bit says in which order checksums read their words.
const MAGIC: u32 = 0x377f_0682;
/// Bytes handled at once, about.
const STEP: usize = 1 << 20;

/// The running checksum of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sum {
    first: u32,
    second: u32,
    big_endian: bool,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(8) {
            let (a, b) = (self.word(pair, 0), self.word(pair, 4));
            self.first = self.first.wrapping_add(a).wrapping_add(self.second);
            self.second = self.second.wrapping_add(b).wrapping_add(self.first);
        }
    }

    fn word(self, bytes: &[u8], at: usize) -> u32 {
        let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// From the header: the size of a page, the salt that each frame repeats, and the checksum that they continue.
struct Header {
    page: usize,
    salt: [u32; 2],
    sum: Sum,
}

impl Header {
    fn check(bytes: &[u8]) -> Option<Self> {
        let magic = number(bytes, 0);
        let mut sum = Sum { first: 0, second: 0, big_endian: magic & 1 == 1 };
        sum.add(bytes.get(..24)?);
        let right = magic & !1 == MAGIC && (sum.first, sum.second) == (number(bytes, 24), number(bytes, 28));
        let page = usize::try_from(number(bytes, 8)).ok().filter(|page| (512..=65536).contains(page))?;
        right.then_some(Self { page, salt: [number(bytes, 16), number(bytes, 20)], sum })
    }

    /// Whether these are the frames that follow what has been checked so far.
    fn continues(&mut self, frames: &[u8]) -> bool {
        frames.chunks(FRAME_HEADER + self.page).all(|frame| {
            let (Some(start), Some(page)) = (frame.get(..8), frame.get(FRAME_HEADER..)) else { return false };
            self.sum.add(start);
            self.sum.add(page);
            [number(frame, 8), number(frame, 12)] == self.salt
                && (self.sum.first, self.sum.second) == (number(frame, 16), number(frame, 20))
        })
    }
}

/// Writes the first `frames` frames of the log at `path` over themselves and syncs them.
///
/// Returns false, without having changed anything that was not right, if what can be read of them is not what was
/// written.
pub(super) fn write_anew(path: &Path, frames: u64) -> io::Result<bool> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = vec![0; HEADER];
    if !read(&file, &mut bytes, 0)? {
        return Ok(false);
    }
    let Some(mut header) = Header::check(&bytes) else { return Ok(false) };
    file.write_all_at(&bytes, 0)?;
    let frame = FRAME_HEADER + header.page;
    let (mut offset, mut left) = (HEADER as u64, frames);
    while left > 0 {
        let some = left.min((STEP / frame).max(1) as u64);
        bytes.resize(usize::try_from(some).unwrap_or(1) * frame, 0);
        if !read(&file, &mut bytes, offset)? || !header.continues(&bytes) {
            return Ok(false);
        }
        file.write_all_at(&bytes, offset)?;
        offset += bytes.len() as u64;
        left -= some;
    }
    file.sync_data()?;
    Ok(true)
}

/// Fills `bytes`; false if the file ends before.
fn read(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        result => result.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    #[test]
    fn what_sqlite_has_written_is_recognised_and_what_is_not_right_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let connection = Connection::open(&path).unwrap();
        connection.query_row("PRAGMA journal_mode = WAL", (), |_| Ok(())).unwrap();
        connection.query_row("PRAGMA wal_autocheckpoint = 0", (), |_| Ok(())).unwrap();
        connection.execute_batch("CREATE TABLE t(x)").unwrap();
        for _ in 0..200 {
            connection.execute_batch("INSERT INTO t VALUES(randomblob(5000))").unwrap();
        }
        let frames: i64 = connection.query_row("PRAGMA wal_checkpoint(NOOP)", (), |row| row.get(1)).unwrap();
        let (frames, wal) = (frames.cast_unsigned(), folder.path().join("db-wal"));
        assert!(frames > 300, "{frames}: more than one step");
        let before = std::fs::read(&wal).unwrap();
        assert!(write_anew(&wal, frames).unwrap());
        assert_eq!(std::fs::read(&wal).unwrap(), before);
        assert!(!write_anew(&wal, frames + 1).unwrap(), "there is no such frame");
        for wrong in [0, 9, 20, 28, 40, 3000, usize::try_from(frames).unwrap() * 4120] {
            let mut damaged = before.clone();
            damaged[wrong] ^= 1;
            std::fs::write(&wal, &damaged).unwrap();
            assert!(!write_anew(&wal, frames).unwrap(), "byte {wrong}");
            assert_eq!(std::fs::read(&wal).unwrap(), damaged);
        }
        std::fs::write(&wal, &before).unwrap();
        drop(connection);
    }
}
