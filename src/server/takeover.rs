//! Records of other servers that this one must have before it decides a write, and its own that nobody took.
//!
//! While records are being copied, the coordinator of a key may not have it yet. A set or deletion need not mind; a swap
//! compares with what is stored, and what is stored is with those who own the key in the hash space for reading.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::coordinate::{Submission, submit};
use super::state::Shared;
use crate::clock::ClockTime;
use crate::net::STEPS;
use crate::store::{Outcome, OwnedWrite, Write};
use crate::wire::method::{ErrorCode, Method};
use crate::wire::unpack::Reader;
use crate::wire::{NodeAddress, RecordKey, RecordValue, params};

/// Decides a swap after the record has been fetched from who owns it for reading. If none of those can tell, the client
/// hears error 6 and may try again.
pub(super) fn swap(server: &Arc<Shared>, submission: Submission) {
    let server = server.clone();
    server.runtime.clone().spawn(async move {
        if let Err(error) = fetch(&server, submission.key()).await {
            tracing::debug!(key = %submission.key().escape_ascii(), "swap refused, the record cannot be fetched: {error}");
            return;
        }
        if let Err(submission) = server.hold(submission) {
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
        match get(server, owner, key).await {
            Ok(None) => return Ok(()),
            Ok(Some(value)) => {
                let Ok(value) = RecordValue::new(&value) else { return Err(ErrorCode::Protocol) };
                return store(server, record_key, value).await.map(|_| ()).ok_or(ErrorCode::Server);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The value that `node` answers for a key; `None` if it is absent or deleted there.
pub(super) async fn get(server: &Shared, node: NodeAddress, key: &[u8]) -> Result<Option<Vec<u8>>, ErrorCode> {
    let session = server.clients.session(node);
    let result = session.ask(Method::Get, STEPS, |out| params::write_get(out, key)).await?;
    let mut reader = Reader::new(&result);
    if reader.nil() {
        return Ok(None);
    }
    let value = reader.raw().and_then(RecordValue::live).map_err(|_| ErrorCode::Protocol)?;
    Ok(Some(value.bytes().to_vec()))
}

/// Stores a record of another server if it is newer; what came of it when that is committed, `None` if it failed.
pub(super) async fn store(server: &Arc<Shared>, key: RecordKey<'_>, value: RecordValue<'_>) -> Option<Outcome> {
    server.late_writes.note(key);
    write(server, &Write::Update { key, value, touch: false }).await
}

/// Forgets a record that has exactly this clocktime.
pub(super) async fn forget(server: &Arc<Shared>, key: RecordKey<'_>, clocktime: ClockTime) {
    // If it fails, that stands in the log and in the status of the store.
    let _ = write(server, &Write::Remove { key, clocktime }).await;
}

async fn write(server: &Arc<Shared>, write: &Write<'_>) -> Option<Outcome> {
    let write = OwnedWrite::from(write);
    let (done, committed) = oneshot::channel();
    let store = server.store.clone();
    let outcome = Arc::new(parking_lot::Mutex::new(None));
    let decided = outcome.clone();
    server.writes.enter(&server.runtime, move |turn| {
        store.write(
            vec![write],
            move |_, outcome| *decided.lock() = Some(outcome),
            move |result| {
                drop(turn);
                // The waiter may have gone with the runtime.
                let _ = done.send(result.is_ok());
            },
        );
    });
    let durable = committed.await.unwrap_or(false);
    outcome.lock().take().filter(|_| durable)
}
