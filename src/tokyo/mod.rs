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

mod error;
mod format;
mod header;
mod scan;
#[cfg(test)]
mod tests;
mod window;
mod write;

pub(crate) use error::Error;
pub(crate) use format::MAGIC;
pub(crate) use header::Problem;
pub(crate) use scan::{Damage, Scan};
pub(crate) use write::{Writer, file_order, key_of_order};
