//! Copies of writes that other servers coordinate, where the previous record is on the disk.

use std::sync::Arc;

use crate::net::Reply;
use crate::server::shared::Shared;
use crate::store::{Outcome, OwnedWrite, WriteJob};
use crate::wire::RecordKey;
use crate::wire::method::ErrorCode;
use crate::wire::params::{Encode, Written};

/// The answer to a copy: whether it was newer.
pub(super) fn was_stored(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Stored { .. })
}

/// Stores on the store's write threads the copies that need the previous record from the disk. `token`: of the hash spaces by
/// which they were taken.
pub(super) fn store_replicas(server: &Arc<Shared>, token: u64, replicas: Vec<(OwnedWrite, Reply)>) {
    let (writes, replies): (Vec<_>, Vec<_>) = replicas.into_iter().unzip();
    let keys: Vec<Box<[u8]>> = writes.iter().map(|write: &OwnedWrite| write.key().into()).collect();
    let noting = server.clone();
    let stored = Arc::new(parking_lot::Mutex::new(vec![None; replies.len()]));
    let decided = stored.clone();
    let store = server.store.clone();
    server.writes.enter(&server.env, move |permit| {
        let job = WriteJob::new(
            writes,
            move |index, outcome| {
                if let Some(key) = keys.get(index).and_then(|key| RecordKey::new(key).ok()) {
                    noting.late_writes.note(key);
                }
                if let Some(slot) = decided.lock().get_mut(index) {
                    *slot = Some(was_stored(outcome));
                }
            },
            move |result| {
                drop(permit);
                for (reply, stored) in replies.into_iter().zip(stored.lock().iter()) {
                    match (&result, stored) {
                        (Ok(()), Some(stored)) => reply.ok(|out| Written::Is(*stored).encode(out)),
                        _ => reply.error(ErrorCode::Server),
                    }
                }
            },
        );
        store.submit_write(job.fenced(token));
    });
}
