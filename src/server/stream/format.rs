//! The signs and times of a stream, and why one is not taken over.

use std::io;
use std::time::Duration;

use crate::{store, wire};

/// A side that shows no progress for this long is given up.
pub(crate) const SILENCE: Duration = Duration::from_mins(1);
/// Records after which a target gives a sign of life.
pub(crate) const SIGN_INTERVAL: u64 = 100;
/// The sign of life: an empty array.
pub(super) const SIGN: u8 = 0x90;
/// The nil that ends the records, and the one that acknowledges them.
pub(super) const NIL: u8 = 0xc0;

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
    /// The decompressed bytes are no record stream.
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
    /// The offerer acts by another configuration than this server.
    #[error("the offerer acts by another configuration of the cluster")]
    Fenced,
}
