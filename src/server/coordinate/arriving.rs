//! Swaps of keys whose records are still being copied to their new coordinator.
//!
//! A set or deletion need not mind that its coordinator does not have the record yet. A swap compares with what is stored,
//! and that is with those who own the key in the hash space for reading.

use std::sync::Arc;

use super::submit;
use crate::server::remote;
use crate::server::shared::Shared;
use crate::server::submission::Submission;
use crate::wire::method::ErrorCode;
use crate::wire::{RecordKey, RecordValue};

/// Decides a swap after the record has been fetched from who owns it for reading. If none of those can tell, the client
/// hears error 6 and may try again.
pub(in crate::server) fn swap(server: &Arc<Shared>, submission: Submission) {
    let server = server.clone();
    server.env.clone().spawn(async move {
        if let Err(error) = fetch(&server, &submission.key).await {
            tracing::debug!(key = %submission.key.escape_ascii(), "swap refused, the record cannot be fetched: {error}");
            return;
        }
        if let Some(submission) = server.hold(submission) {
            submit(&server, vec![submission]);
        }
    });
}

/// Stores here what the first of the owners for reading that answers has of a key.
async fn fetch(server: &Arc<Shared>, key: &[u8]) -> Result<(), ErrorCode> {
    let Ok(record_key) = RecordKey::new(key) else { return Err(ErrorCode::Protocol) };
    let spaces = server.spaces();
    let mut failed = ErrorCode::Server;
    for owner in spaces.rhs.owners(record_key.hash()).active() {
        match remote::get(server, owner, key).await {
            Ok(None) => return Ok(()),
            Ok(Some(value)) => {
                let Ok(value) = RecordValue::new(&value) else { return Err(ErrorCode::Protocol) };
                return remote::store(server, &spaces, record_key, value).await.map(|_| ()).ok_or(ErrorCode::Server);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
