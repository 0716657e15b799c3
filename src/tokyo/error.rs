//! Why a file cannot be read.

use std::io;

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
