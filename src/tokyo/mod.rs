//! Tokyo Cabinet hash database files: what servers of 2010 keep their records in. Read, and written from nothing.
//!
//! ```text
//! header    256 bytes: magic, type, flags, alignment, options, number of records, file size, first record
//! buckets, free block pool                                         not needed to read everything
//! record    C8 | hash u8 | left, right child u32 or u64 | padding u16 | key length, value length | key | value | padding
//! free      B0 | length u32 of the whole block
//! ```
//!
//! Integers are in the byte order of the machine that made the file; lengths of keys and values have base 128, lowest
//! digit first, all but the last as 255 minus the digit. Knows neither what the records mean nor any other kind of file.

mod header;
mod scan;
#[cfg(test)]
mod tests;
mod window;
mod write;

pub use header::{Header, Problem};
pub use scan::{Damage, Scan};
pub use window::Bytes;
pub use write::{Writer, bucket, file_order, key_of_order};

use std::io;

/// First bytes of every Tokyo Cabinet file.
pub const MAGIC: &[u8] = b"ToKyO CaBiNeT";

/// First byte of a record.
const RECORD: u8 = 0xc8;
/// First byte of a free block.
const FREE: u8 = 0xb0;

/// Why a file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The first bytes are others.
    #[error("not a Tokyo Cabinet file")]
    NotTokyoCabinet,
    /// A kind of Tokyo Cabinet database that servers never used.
    #[error("a Tokyo Cabinet {0}, not a hash database")]
    Type(String),
    /// Records are not stored as they are.
    #[error("records are compressed with {0}, which is not supported; `tchmgr optimize -td` undoes that")]
    Compressed(&'static str),
    /// Nothing can be found by this header.
    #[error("the header is damaged beyond use")]
    Header,
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}
