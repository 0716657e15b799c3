//! Reads: the result of one, and those that have to look at the disk.

use std::sync::Arc;

use crate::clock::ClockTime;
use crate::net::Reply;
use crate::server::shared::Shared;
use crate::server::spaces::Spaces;
use crate::wire::RecordValue;
use crate::wire::method::ErrorCode;
use crate::wire::params::{Encode, Modified};
use crate::wire::record::TOMBSTONE_LEN;

/// A read that has to look at the disk.
pub(super) struct Miss {
    pub(super) key: Box<[u8]>,
    pub(super) reply: Reply,
    /// Of `GetIfModified`.
    pub(super) unless_after: Option<ClockTime>,
}

/// The result of a Get: the raw value, nil if there is none, true if it is not after the asker's.
pub(super) fn write_found(out: &mut Vec<u8>, value: Option<RecordValue<'_>>, unless_after: Option<ClockTime>) {
    let live = value.filter(|value| !value.is_tombstone());
    let unchanged = |known: ClockTime| live.is_some_and(|value| !known.is_before(value.clocktime()));
    if unless_after.is_some_and(unchanged) { Modified::No } else { Modified::Now(live) }.encode(out);
}

/// Reads on the store's read threads what memory could not answer, as an owner by `spaces`.
pub(super) fn read_misses(server: &Arc<Shared>, spaces: Arc<Spaces>, misses: Vec<Miss>) {
    let (keys, askers): (Vec<_>, Vec<_>) =
        misses.into_iter().map(|miss| (miss.key, (miss.reply, miss.unless_after))).unzip();
    let (store, noting) = (server.store.clone(), server.clone());
    server.reads.enter(&server.env, move |permit| {
        store.read(keys, move |found| {
            drop(permit);
            // Without a result the replies answer error 6 as they are dropped.
            let Ok(found) = found else { return };
            if !spaces.permit.holds(noting.env.time()) {
                // Likewise: the lease has ended meanwhile.
                return;
            }
            let largest = found.iter().flatten().map(Vec::len).max().unwrap_or(0);
            noting.note_read_length(largest);
            for ((reply, unless_after), value) in askers.into_iter().zip(found) {
                let value = value.as_deref().filter(|value| value.len() >= TOMBSTONE_LEN).map(RecordValue::new);
                match value.transpose() {
                    Ok(value) => reply.ok(|out| write_found(out, value, unless_after)),
                    Err(_) => reply.error(ErrorCode::Server),
                }
            }
        });
    });
}
