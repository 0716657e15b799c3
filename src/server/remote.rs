//! Single records: read at other servers as a client, stored or forgotten here, sent to other owners.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::shared::Shared;
use super::spaces::{Spaces, Target};
use crate::clock::ClockTime;
use crate::net::STEPS;
use crate::store::{Outcome, OwnedWrite, Write, WriteJob};
use crate::wire::extension::Look;
use crate::wire::method::{ErrorCode, Get, ReplicateDelete, ReplicateSet};
use crate::wire::params::{Written, decode};
use crate::wire::{NodeAddress, RecordKey, RecordValue};

/// The value that `node` answers for a key; `None` if it is absent or deleted there.
pub(super) async fn get(server: &Shared, node: NodeAddress, key: &[u8]) -> Result<Option<Vec<u8>>, ErrorCode> {
    ask(server, node, &Get { key: &key, look: None }).await
}

/// The record or tombstone that `node` holds of a key, though not all owners may have it. A node of 2010 tells of no tombstone.
pub(super) async fn look(server: &Shared, node: NodeAddress, key: &[u8]) -> Result<Option<Vec<u8>>, ErrorCode> {
    ask(server, node, &Get { key: &key, look: Some(Look { unsettled: true }) }).await
}

async fn ask(server: &Shared, node: NodeAddress, get: &Get<&&[u8]>) -> Result<Option<Vec<u8>>, ErrorCode> {
    let result = server.clients.session(node).ask(get, STEPS).await?;
    let value: Option<&[u8]> = decode(&result).map_err(|_| ErrorCode::Protocol)?;
    let sound = value.is_none_or(|value| RecordValue::new(value).is_ok());
    if sound { Ok(value.map(<[u8]>::to_vec)) } else { Err(ErrorCode::Protocol) }
}

/// Stores a record of another server, asked for by `spaces`, if it is newer; what came of it when that is committed, `None` if it
/// failed, or if there are other hash spaces by now.
pub(super) async fn store(
    server: &Arc<Shared>,
    spaces: &Spaces,
    key: RecordKey<'_>,
    value: RecordValue<'_>,
) -> Option<Outcome> {
    if !spaces.may_store() {
        return None;
    }
    server.late_writes.note(key);
    write(server, &Write::Update { key, value, touch: false }, Some(spaces.token())).await
}

/// Sends a record to another owner; whether it has stored it, or holds one that is not older. It is on its way when this
/// returns.
pub(super) fn send(
    target: &Target,
    key: RecordKey<'_>,
    value: RecordValue<'_>,
) -> impl Future<Output = Result<bool, ErrorCode>> + use<> {
    let (clocktime, flags) = (value.clocktime(), target.flags());
    let clock = clocktime.clock();
    let answer = if value.is_tombstone() {
        target.session.ask(&ReplicateDelete { clock, flags, clocktime, key, fence: target.fence }, STEPS)
    } else {
        target.session.ask(&ReplicateSet { clock, flags, key, value, fence: target.fence }, STEPS)
    };
    async move {
        match decode(&answer.await?) {
            Ok(Written::Is(stored)) => Ok(stored),
            _ => Err(ErrorCode::Protocol),
        }
    }
}

/// Forgets a record that has exactly this clocktime.
pub(super) async fn forget(server: &Arc<Shared>, key: RecordKey<'_>, clocktime: ClockTime) {
    // If it fails, that stands in the log and in the status of the store.
    let _ = write(server, &Write::Remove { key, clocktime }, None).await;
}

async fn write(server: &Arc<Shared>, write: &Write<'_>, token: Option<u64>) -> Option<Outcome> {
    let write = OwnedWrite::from(write);
    let (done, committed) = oneshot::channel();
    let store = server.store.clone();
    let outcome = Arc::new(parking_lot::Mutex::new(None));
    let decided = outcome.clone();
    server.writes.enter(&server.env, move |permit| {
        let job = WriteJob::new(
            vec![write],
            move |_, outcome| *decided.lock() = Some(outcome),
            move |result| {
                drop(permit);
                // The waiter may have gone with the runtime.
                let _ = done.send(result.is_ok());
            },
        );
        store.submit_write(match token {
            Some(token) => job.fenced(token),
            None => job,
        });
    });
    let durable = committed.await.unwrap_or(false);
    outcome.lock().take().filter(|_| durable)
}
