//! Error lines for operations that failed.

use crate::cli::exit::Stop;
use crate::client::Error;
use crate::wire::method::ErrorCode;

/// The one line for an operation that failed.
pub(in crate::cli) fn failed(error: Error) -> Stop {
    Stop::Failed(match error {
        Error::Manager(node, error) => format!("manager {node} {}", reason(error)),
        Error::Server(node, error) => format!("server {node} {}", reason(error)),
        error => error.to_string(),
    })
}

/// Why a node did not do what it was asked, to be read behind its name.
pub(in crate::cli) fn reason(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::NodeLost => "cannot be reached",
        ErrorCode::TimedOut => "does not answer",
        ErrorCode::TransportLost => "closed the connection",
        ErrorCode::Protocol => "does not support this request",
        ErrorCode::Server => "refuses",
        ErrorCode::TooLarge => "does not accept a message of this size",
        ErrorCode::Unknown => "sent an answer that is not understood",
    }
}

/// The line for a key that is not there.
pub(in crate::cli) fn not_found(key: &[u8]) -> Stop {
    Stop::Failed(format!("{}: not found", key.escape_ascii()))
}
