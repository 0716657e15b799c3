//! A view of a file's bytes that moves along: one read for many small looks, whatever the size of the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Something with bytes at offsets.
pub(crate) trait Bytes {
    /// How many there are.
    fn size(&self) -> io::Result<u64>;
    /// Reads some from `offset` on; 0 at the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl Bytes for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }
}

impl Bytes for &[u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let len = rest.len().min(into.len());
        into.iter_mut().zip(rest).for_each(|(place, byte)| *place = *byte);
        Ok(len)
    }
}

/// The bytes around the place of a scan.
pub(super) struct Window<B> {
    source: B,
    size: u64,
    start: u64,
    bytes: Vec<u8>,
    read: u64,
}

impl<B: Bytes> Window<B> {
    pub(super) fn new(source: B) -> io::Result<Self> {
        Ok(Self { size: source.size()?, source, start: 0, bytes: Vec::new(), read: 0 })
    }

    /// Bytes of the whole file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes read so far to move the window.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// The byte at `offset`. Leaves the window where it is.
    pub(super) fn byte(&self, offset: u64) -> io::Result<Option<u8>> {
        if let Some(byte) = self.place(offset).and_then(|place| self.bytes.get(place)) {
            return Ok(Some(*byte));
        }
        let mut byte = [0];
        loop {
            match self.source.read_at(&mut byte, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return Ok((read? == 1).then_some(byte[0])),
            }
        }
    }

    /// Up to `len` bytes from `offset` on; fewer at the end of the file.
    pub(super) fn at(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let here = self.place(offset).filter(|place| self.bytes.len().saturating_sub(*place) >= len);
        let place = match here {
            Some(place) => place,
            None => {
                self.fill(offset, len.max(CHUNK))?;
                0
            }
        };
        let rest = self.bytes.get(place..).unwrap_or_default();
        Ok(rest.get(..len).unwrap_or(rest))
    }

    fn place(&self, offset: u64) -> Option<usize> {
        usize::try_from(offset.checked_sub(self.start)?).ok()
    }

    fn fill(&mut self, offset: u64, len: usize) -> io::Result<()> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(left);
        self.start = offset;
        self.bytes.resize(len, 0);
        // A buffer grown for a large record is given back.
        self.bytes.shrink_to(CHUNK);
        let mut filled = 0;
        while let Some(rest) = self.bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read_at(rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.bytes.clear();
                    return Err(error);
                }
            }
        }
        self.bytes.truncate(filled);
        self.read = self.read.saturating_add(filled as u64);
        Ok(())
    }
}
