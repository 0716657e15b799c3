//! The header: which layout the file has, and how much of what it says can be believed.

use super::error::Error;
use super::format::{HEADER_LEN, Layout, MAGIC, OPTION_LARGE};

/// Flag: the file was not closed.
const FLAG_OPEN: u8 = 1;
/// Flag: the library has met an error it could not mend.
const FLAG_FATAL: u8 = 2;
/// Options under which records are not stored as they are.
const COMPRESSIONS: [(u8, &str); 4] = [(2, "deflate"), (4, "bzip2"), (8, "TCBS"), (16, "an external codec")];

/// A sign in the header that the file is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
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
pub(crate) struct Header {
    /// Records that the file should hold.
    pub records: u64,
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
        if bytes.len() < HEADER_LEN {
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
            Self { records: field(48), problems: Vec::new(), layout, file_size: field(56), first_record: field(64) }
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
        let first = (HEADER_LEN as u64..=size).contains(&self.first_record);
        let records = self.records <= size / 16;
        u32::from(exact) * 4 + u32::from(near) * 2 + u32::from(first) * 2 + u32::from(near && records)
    }
}
