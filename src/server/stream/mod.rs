//! The replace stream: records from one server to another over a connection of its own (protocol, sections 8.3, 8.4).
//!
//! ```text
//! target to offerer   hello, 23 bytes: length of address u8 | address | zeros
//!                     then an empty array (0x90) after every 100 records, and nil (0xc0) after the final nil
//! offerer to target   one zlib stream (RFC 1950) of: [raw key, raw value] for each record, then nil
//! ```
//!
//! Knows how records travel and what the peer may not do, not why they are sent: who sends what to whom is decided in
//! [`super::replace`], and what a received record does to the store is the business of a [`Sink`].

mod batch;
mod decode;
mod encode;
mod hello;
mod offers;
mod receive;
mod send;

use std::io;
use std::time::Duration;

pub use batch::RecordBatch;
pub use decode::Decoder;
pub use encode::{Chunk, Encoder};
pub use hello::{HELLO_LEN, read_hello, write_hello};
pub use offers::{Offers, OpenOffer, bind};
pub use receive::{Receiver, Sink, Stored};
pub use send::send;

use crate::{store, wire};

/// A side that shows no progress for this long is given up.
pub const SILENCE: Duration = Duration::from_mins(1);
/// Records after which a target gives a sign of life.
pub const SIGN_INTERVAL: u64 = 100;
/// The sign of life: an empty array.
const SIGN: u8 = 0x90;
/// What ends the records, and what acknowledges them.
const NIL: u8 = 0xc0;

/// Why a stream was not taken over in full. Nothing of it counts as copied; what arrived stays, since it is true.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection failed.
    #[error("connection: {0}")]
    Connection(#[from] io::Error),
    /// The temporary file failed.
    #[error("temporary file: {0}")]
    File(io::Error),
    /// No progress for [`SILENCE`], or whatever the limit was.
    #[error("no progress for {} s", .0.as_secs())]
    Silent(Duration),
    /// The peer closed the connection before the end.
    #[error("closed before the end of the stream")]
    Truncated,
    /// The compressed bytes are damaged.
    #[error("damaged zlib stream")]
    Corrupt,
    /// What was compressed is no record stream.
    #[error("not a record stream: {0}")]
    Record(#[from] wire::Error),
    /// Records or other bytes behind the final nil.
    #[error("something follows the end of the records")]
    BehindEnd,
    /// The target sent something else than signs of life and an acknowledgement at its time.
    #[error("unexpected byte {0:#04x} from the target")]
    Unexpected(u8),
    /// Storing what arrived failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Too many streams are being fetched already.
    #[error("too many streams at a time")]
    Busy,
}

#[cfg(test)]
mod tests;
