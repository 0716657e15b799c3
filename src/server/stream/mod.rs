//! The replace stream: records from one server to another over a connection of its own (protocol, sections 8.3, 8.4).
//!
//! ```text
//! target to offerer   hello, 23 bytes: length of address u8 | address | zeros
//!                     then an empty array (0x90) after every 100 records, and nil (0xc0) after the final nil
//! offerer to target   one zlib stream (RFC 1950) of: [raw key, raw value] for each record, then nil
//! ```
//!
//! Knows how records travel and what the peer may not do, not why they are sent: who sends what to whom is decided in
//! [`super::replace`], and a [`Sink`] decides what a received record does to the store.

mod batch;
mod decode;
mod encode;
mod format;
mod hello;
mod offers;
mod receive;
mod send;

pub use batch::RecordBatch;
pub use decode::Decoder;
pub use encode::{Chunk, Encoder};
pub use format::Error;
pub(crate) use format::SILENCE;
pub(crate) use hello::{HELLO_LEN, read_hello, write_hello};
pub use offers::{Offers, OpenOffer, listen};
pub use receive::{Receiver, Sink, Stored};
pub use send::send;

#[cfg(test)]
mod tests;
