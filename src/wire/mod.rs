//! The `MessagePack` dialect and message layouts of kumofs, as bytes in memory.
//!
//! Everything here is a pure function of a byte slice: no runtime, no sockets, no clock, no store. What the
//! fields mean is decided in the layers above; see `docs/protocol.md` for the grammar in full.
//!
//! ```text
//! request   [0, msgid u32, method u32, params]
//! response  [1, msgid u32, error, result]        error nil: success; else the result is nil
//! init      [2, address raw, role u8]            opens a cluster connection
//! ```

pub mod address;
pub mod extension;
pub mod figures;
pub mod frame;
pub mod method;
mod numbers;
pub mod pack;
pub mod params;
pub mod record;
pub mod requests;
pub mod scan;
pub mod unpack;

pub use address::NodeAddress;
pub use extension::Extension;
pub use frame::{Init, Message, Request, Response};
pub use method::Call;
pub use record::{RecordKey, RecordValue};
pub use scan::Scanner;

/// Nesting of arrays and maps that a message may have; deeper is [`Error::TooDeep`].
pub(crate) const DEPTH_LIMIT: usize = 8;

/// Largest message accepted unless `--max-message` says otherwise, in bytes.
pub(crate) const MESSAGE_LIMIT: usize = 64 << 20;

/// The least that a node may take as its largest message, in bytes: a message of this length is too long for none.
pub(crate) const MESSAGE_LIMIT_MIN: usize = 1 << 20;

/// Bytes that a message from a node may be longer than one from a client: a copy is a little longer than the Set that it
/// comes from, and must not be refused where that is taken.
pub(crate) const NODE_MARGIN: usize = 1024;

/// Why bytes from a peer are not a message of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A byte that no kumofs message can have at this place, or a field of the wrong type.
    #[error("malformed message")]
    Malformed,
    /// The message is, or declares to be, longer than the limit in bytes.
    #[error("message longer than {0} bytes")]
    TooLong(usize),
    /// More than [`DEPTH_LIMIT`] arrays within arrays.
    #[error("message nested deeper than {DEPTH_LIMIT}")]
    TooDeep,
}

#[cfg(test)]
mod tests;
