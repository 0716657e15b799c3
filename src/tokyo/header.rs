//! The header: which layout the file has, and how much of what it says can be believed.

use super::{Error, MAGIC};

/// Bytes of the header.
pub(super) const LEN: usize = 256;
/// Flag: the file was not closed.
const FLAG_OPEN: u8 = 1;
/// Flag: the library has met an error it could not mend.
const FLAG_FATAL: u8 = 2;
/// Option: places of records have 64 bits.
pub(super) const OPTION_LARGE: u8 = 1;
/// Options under which records are not stored as they are.
const COMPRESSIONS: [(u8, &str); 4] = [(2, "deflate"), (4, "bzip2"), (8, "TCBS"), (16, "an external codec")];

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) big_endian: bool,
    /// Places of children have eight bytes instead of four.
    pub(super) large: bool,
}

impl Layout {
    /// The number in up to eight bytes.
    pub(super) fn number(self, bytes: &[u8]) -> u64 {
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if self.big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
    }

    /// A number in `len` bytes, eight at most.
    pub(super) fn bytes(self, number: u64, len: usize) -> Vec<u8> {
        let bytes = number.to_le_bytes().into_iter().take(len);
        if self.big_endian { bytes.rev().collect() } else { bytes.collect() }
    }
}

/// A sign in the header that the file is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The file was not closed: its server was killed, or still runs.
    NotClosed,
    /// The library that wrote it has marked it as broken.
    Broken,
    /// The file has fewer bytes than it should.
    Truncated {
        /// How many are missing.
        bytes: u64,
    },
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotClosed => f.write_str("the file was not closed"),
            Self::Broken => f.write_str("the file is marked as broken"),
            Self::Truncated { bytes } => write!(f, "{bytes} bytes are missing at its end"),
        }
    }
}

/// A header as far as it makes sense.
#[derive(Debug, Clone)]
pub struct Header {
    /// Records that the file should hold.
    pub records: u64,
    /// Whether numbers are big-endian.
    pub big_endian: bool,
    /// Signs that the file is not whole.
    pub problems: Vec<Problem>,
    pub(super) layout: Layout,
    pub(super) file_size: u64,
    pub(super) first_record: u64,
}

impl Header {
    /// Reads the header of a file of `size` bytes.
    pub(super) fn parse(bytes: &[u8], size: u64) -> Result<Self, Error> {
        if !bytes.starts_with(MAGIC) {
            return Err(Error::NotTokyoCabinet);
        }
        let byte = |offset: usize| bytes.get(offset).copied().unwrap_or_default();
        if bytes.len() < LEN {
            return Err(Error::Header);
        }
        match byte(32) {
            0 => {}
            1 => return Err(Error::Type("B+ tree database".to_owned())),
            2 => return Err(Error::Type("fixed-length database".to_owned())),
            3 => return Err(Error::Type("table database".to_owned())),
            other => return Err(Error::Type(format!("file of type {other}"))),
        }
        let options = byte(36);
        if let Some((_, name)) = COMPRESSIONS.iter().find(|(bit, _)| options & bit != 0) {
            return Err(Error::Compressed(name));
        }
        let read = |big_endian: bool| {
            let layout = Layout { big_endian, large: options & OPTION_LARGE != 0 };
            let field = |offset: usize| layout.number(bytes.get(offset..offset + 8).unwrap_or_default());
            Self {
                records: field(48),
                big_endian,
                problems: Vec::new(),
                layout,
                file_size: field(56),
                first_record: field(64),
            }
        };
        let (big, little) = (read(true), read(false));
        let mut header = if big.likelihood(size) > little.likelihood(size) { big } else { little };
        if header.likelihood(size) == 0 {
            return Err(Error::Header);
        }
        let flags = byte(33);
        if flags & FLAG_OPEN != 0 {
            header.problems.push(Problem::NotClosed);
        }
        if flags & FLAG_FATAL != 0 {
            header.problems.push(Problem::Broken);
        }
        Ok(header)
    }

    /// How much speaks for this reading of the header: each field alone may be damaged.
    fn likelihood(&self, size: u64) -> u32 {
        let exact = self.file_size == size;
        let near = self.file_size >= size / 16 && self.file_size <= size.saturating_mul(16);
        let first = (LEN as u64..=size).contains(&self.first_record);
        let records = self.records <= size / 16;
        u32::from(exact) * 4 + u32::from(near) * 2 + u32::from(first) * 2 + u32::from(near && records)
    }
}
