//! Gathering records for one target: a compressed temporary file that can be sent as often as needed.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::format::NIL;
use crate::wire::{RecordKey, RecordValue, pack};

/// Bytes gathered before they are handed to the compressor, whose calls are dear for single records.
const PORTION: usize = 64 << 10;
/// Output that the compressor may be holding back, at most.
const HELD_BACK: u64 = 128 << 10;
/// Bytes around a record, or around all of them, at most.
const FRAME: u64 = 16;
/// Fast beats small: the streams of a replace cross a local network once.
const LEVEL: u32 = 1;

/// Records on their way into a stream.
#[derive(Debug)]
pub struct Encoder<W: Write> {
    zlib: ZlibEncoder<W>,
    plain: Vec<u8>,
    records: u64,
}

impl<W: Write> Encoder<W> {
    /// An empty stream into `out`.
    pub fn new(out: W) -> Self {
        Self { zlib: ZlibEncoder::new(out, Compression::new(LEVEL)), plain: Vec::with_capacity(PORTION), records: 0 }
    }

    /// Adds a record.
    pub fn push(&mut self, key: RecordKey<'_>, value: RecordValue<'_>) -> io::Result<()> {
        pack::array(&mut self.plain, 2);
        pack::raw(&mut self.plain, key.bytes());
        pack::raw(&mut self.plain, value.bytes());
        self.records += 1;
        if self.plain.len() < PORTION {
            return Ok(());
        }
        self.compress()
    }

    fn compress(&mut self) -> io::Result<()> {
        self.zlib.write_all(&self.plain)?;
        self.plain.clear();
        self.plain.shrink_to(2 * PORTION);
        Ok(())
    }

    /// How many records there are.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How long the stream may be when it is ended now, in bytes.
    pub fn size(&self) -> u64 {
        let compressed = self.zlib.total_out().saturating_add(HELD_BACK).min(at_most(self.zlib.total_in()));
        compressed.saturating_add(at_most(self.plain.len() as u64))
    }

    /// How long a record may make a stream.
    pub(crate) fn size_of(key: RecordKey<'_>, value: RecordValue<'_>) -> u64 {
        at_most((key.bytes().len() + value.bytes().len()) as u64).saturating_add(FRAME)
    }

    /// Ends the stream and returns what it was written to.
    fn end(mut self) -> io::Result<W> {
        self.plain.push(NIL);
        self.compress()?;
        self.zlib.finish()
    }
}

impl Encoder<File> {
    /// An empty stream into a file in `dir` that has no name: it is gone when it is closed, whatever happens.
    pub fn create(dir: &Path) -> io::Result<Self> {
        tempfile::tempfile_in(dir).map(Self::new)
    }

    /// Ends the stream; it can be sent now.
    pub fn finish(self) -> io::Result<Chunk> {
        let records = self.records;
        let file = self.end()?;
        let bytes = file.metadata()?.len();
        Ok(Chunk { file, bytes, records })
    }
}

/// A finished stream in its temporary file.
#[derive(Debug)]
pub struct Chunk {
    pub(super) file: File,
    pub(super) bytes: u64,
    pub(super) records: u64,
}

impl Chunk {
    /// How many records are in it.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Its length, compressed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The most that `len` bytes can become: at this level noise grows by up to a bit for each byte.
fn at_most(len: u64) -> u64 {
    len.saturating_add(len / 8)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Read;

    use super::*;

    /// A whole stream of these records.
    pub(in crate::server::stream) fn stream(records: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        for (key, value) in records {
            encoder.push(RecordKey::new(key).unwrap(), RecordValue::new(value).unwrap()).unwrap();
        }
        encoder.end().unwrap()
    }

    #[test]
    fn a_file_holds_what_was_pushed_and_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut encoder = Encoder::create(dir.path()).unwrap();
        let (key, value) = (crate::wire::record::raw_key(7, b"k"), vec![5; 300_000]);
        for _ in 0..3 {
            encoder.push(RecordKey::new(&key).unwrap(), RecordValue::new(&value).unwrap()).unwrap();
        }
        assert_eq!(encoder.records(), 3);
        let chunk = encoder.finish().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!((chunk.records(), chunk.bytes()), (3, chunk.file.metadata().unwrap().len()));
        let mut packed = vec![0; usize::try_from(chunk.bytes()).unwrap()];
        std::os::unix::fs::FileExt::read_exact_at(&chunk.file, &mut packed, 0).unwrap();
        let mut plain = Vec::new();
        flate2::read::ZlibDecoder::new(&packed[..]).read_to_end(&mut plain).unwrap();
        let mut one = vec![0x92, 0xa9];
        one.extend_from_slice(&key);
        one.extend_from_slice(&[0xdb, 0, 4, 0x93, 0xe0]);
        one.extend_from_slice(&value);
        assert_eq!(plain, [&one[..], &one, &one, &[0xc0]].concat());
    }
}
