//! Sorting records that may be more than memory holds: sorted runs in temporary files without a name, merged at the
//! end. When many runs of a size have come together they are merged into one, so that the files stay few.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::error::Error;
use super::stream::{Item, Merge, Stream};
use crate::store::at_rest::tree_order;

/// Runs of one size that are merged into one of the next.
const FAN_IN: usize = 32;
/// Bytes that a record takes in memory besides its own.
const OVERHEAD: usize = 40;
/// Bytes of the buffer in front of each file.
const BUFFER: usize = 64 << 10;
/// Length that stands for no value.
const NONE: u32 = u32::MAX;

/// Where sorting may put things, and how much memory it may take.
#[derive(Debug, Clone)]
pub(super) struct SortSpace {
    /// Folder of temporary files.
    pub(super) folder: PathBuf,
    /// Bytes of memory.
    pub(super) memory: usize,
}

/// Takes records in any order.
pub(super) struct Sorter {
    space: SortSpace,
    source: usize,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Runs on disk, by how often they have been merged.
    levels: Vec<Vec<File>>,
}

/// A record in the buffer.
struct Entry {
    start: usize,
    key_len: usize,
    value_len: Option<usize>,
    order: u64,
}

impl Entry {
    fn key<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes.get(self.start..self.start + self.key_len).unwrap_or_default()
    }

    fn value<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let start = self.start + self.key_len;
        self.value_len.map(|len| bytes.get(start..start + len).unwrap_or_default())
    }
}

impl Sorter {
    pub(super) fn new(space: SortSpace, source: usize) -> Self {
        Self { space, source, bytes: Vec::new(), entries: Vec::new(), levels: Vec::new() }
    }

    /// Adds a record.
    pub(super) fn push(&mut self, key: &[u8], order: u64, value: Option<&[u8]>) -> io::Result<()> {
        let (start, key_len, value_len) = (self.bytes.len(), key.len(), value.map(<[u8]>::len));
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.entries.push(Entry { start, key_len, value_len, order });
        if self.bytes.len() + self.entries.len() * OVERHEAD >= self.space.memory {
            self.spill()?;
        }
        Ok(())
    }

    /// All of them in order.
    pub(super) fn finish(mut self) -> Result<Merge<'static>, Error> {
        let folder = self.space.folder.clone();
        self.sort();
        let source = self.source;
        let mut streams: Vec<Box<dyn Stream>> = Vec::new();
        for file in self.levels.drain(..).flatten() {
            streams.push(Box::new(FileRun::new(file, &folder, source)));
        }
        streams.push(Box::new(MemoryRun { bytes: self.bytes, entries: self.entries.into_iter(), source }));
        Merge::new(streams)
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.entries
            .sort_unstable_by(|a, b| tree_order(a.key(bytes), b.key(bytes)).then_with(|| a.order.cmp(&b.order)));
    }

    /// Puts what is in memory into a run.
    fn spill(&mut self) -> io::Result<()> {
        self.sort();
        let mut run = self.new_run()?;
        for entry in self.entries.drain(..) {
            write(&mut run, entry.key(&self.bytes), entry.order, entry.value(&self.bytes))?;
        }
        self.bytes.clear();
        // A buffer grown for a large record is given back.
        self.bytes.shrink_to(self.space.memory);
        self.keep(run, 0)
    }

    fn new_run(&self) -> io::Result<BufWriter<File>> {
        tempfile::tempfile_in(&self.space.folder).map(|file| BufWriter::with_capacity(BUFFER, file))
    }

    fn keep(&mut self, run: BufWriter<File>, level: usize) -> io::Result<()> {
        let mut file = run.into_inner()?;
        file.rewind()?;
        if self.levels.len() <= level {
            self.levels.push(Vec::new());
        }
        let Some(runs) = self.levels.get_mut(level) else { return Ok(()) };
        runs.push(file);
        if runs.len() < FAN_IN {
            return Ok(());
        }
        let streams = runs
            .drain(..)
            .map(|file| -> Box<dyn Stream> { Box::new(FileRun::new(file, &self.space.folder, self.source)) });
        let mut merge = Merge::new(streams.collect()).map_err(io::Error::other)?;
        let mut run = self.new_run()?;
        while let Some(item) = merge.next_item().map_err(io::Error::other)? {
            write(&mut run, &item.key, item.order, item.value.as_deref())?;
        }
        self.keep(run, level + 1)
    }
}

/// A run in memory.
struct MemoryRun {
    bytes: Vec<u8>,
    entries: std::vec::IntoIter<Entry>,
    source: usize,
}

impl Stream for MemoryRun {
    fn next_item(&mut self) -> Result<Option<Item>, Error> {
        Ok(self.entries.next().map(|entry| Item {
            key: entry.key(&self.bytes).into(),
            source: self.source,
            order: entry.order,
            value: entry.value(&self.bytes).map(<[u8]>::to_vec),
        }))
    }
}

/// A run in a file.
struct FileRun {
    input: BufReader<File>,
    folder: PathBuf,
    source: usize,
}

impl FileRun {
    fn new(file: File, folder: &Path, source: usize) -> Self {
        Self { input: BufReader::with_capacity(BUFFER, file), folder: folder.to_path_buf(), source }
    }

    fn read(&mut self) -> io::Result<Option<Item>> {
        let mut head = [0; 16];
        match self.input.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let (lengths, order) = head.split_at(8);
        let (key_len, value_len) = lengths.split_at(4);
        let length = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let order = order.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let key = self.take(length(key_len))?.into_boxed_slice();
        let value = match length(value_len) {
            NONE => None,
            len => Some(self.take(len)?),
        };
        Ok(Some(Item { key, source: self.source, order, value }))
    }

    fn take(&mut self, len: u32) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl Stream for FileRun {
    fn next_item(&mut self) -> Result<Option<Item>, Error> {
        self.read().map_err(|source| Error::Io { path: self.folder.clone(), source })
    }
}

fn write(run: &mut impl Write, key: &[u8], order: u64, value: Option<&[u8]>) -> io::Result<()> {
    let length =
        |bytes: &[u8]| u32::try_from(bytes.len()).ok().filter(|len| *len != NONE).ok_or(io::ErrorKind::FileTooLarge);
    let value_len = value.map_or(Ok(NONE), length)?;
    run.write_all(&length(key)?.to_le_bytes())?;
    run.write_all(&value_len.to_le_bytes())?;
    run.write_all(&order.to_le_bytes())?;
    run.write_all(key)?;
    run.write_all(value.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So little memory that runs are merged twice over, with keys that come again.
    #[test]
    fn all_come_out_in_order_however_little_memory_there_is() {
        let folder = tempfile::tempdir().unwrap();
        for memory in [300, 4000, 1 << 20] {
            let mut sorter = Sorter::new(SortSpace { folder: folder.path().to_path_buf(), memory }, 3);
            let mut expected = Vec::new();
            for order in 0..8000_u64 {
                let hash = (order.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 5000) << 50;
                let key = [&hash.to_be_bytes()[..], b"key"].concat();
                let value = (order % 7 != 0).then(|| vec![7; usize::try_from(order % 50).unwrap()]);
                sorter.push(&key, order, value.as_deref()).unwrap();
                expected.push(Item { key: key.into(), source: 3, order, value });
            }
            expected.sort_by(|a, b| tree_order(&a.key, &b.key).then(a.order.cmp(&b.order)));
            assert!(sorter.levels.iter().all(|runs| runs.len() < FAN_IN), "{memory}");
            let mut out = sorter.finish().unwrap();
            for item in expected {
                assert_eq!(out.next_item().unwrap(), Some(item));
            }
            assert_eq!(out.next_item().unwrap(), None);
        }
    }
}
