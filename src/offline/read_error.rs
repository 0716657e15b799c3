//! Why a store cannot be read, as far as a program that reads it would act on the reason.

use super::error::Error;
use crate::store::OpenError;

/// Why a store cannot be read, or not all of it. Each holds one line that names the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A server has it open. Stop the server, or have it write a backup (`kumo-server ctl MANAGER backup`) and read that.
    #[error("{0}")]
    InUse(String),
    /// There is no file, or it is no store that this version knows.
    #[error("{0}")]
    NotAStore(String),
    /// Some of it is damaged.
    #[error("{0}")]
    Damaged(String),
    /// The system or the database library has refused to read.
    #[error("{0}")]
    Failed(String),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        let line = error.to_string();
        match error {
            Error::Open(OpenError::Locked { .. }) => Self::InUse(line),
            Error::Open(OpenError::Foreign { .. } | OpenError::TokyoCabinet { .. } | OpenError::Newer { .. })
            | Error::NotOurs(_)
            | Error::Tokyo { .. } => Self::NotAStore(line),
            Error::Open(OpenError::RedoDamaged { .. } | OpenError::RedoForeign { .. }) | Error::Damaged { .. } => {
                Self::Damaged(line)
            }
            _ => Self::Failed(line),
        }
    }
}
