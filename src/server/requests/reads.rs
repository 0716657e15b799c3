//! Reads: the result of one, and those that have to look at the disk.

use std::sync::Arc;

use crate::clock::ClockTime;
use crate::net::Reply;
use crate::server::coordinate::settle;
use crate::server::marks::Wait;
use crate::server::shared::Shared;
use crate::server::spaces::Spaces;
use crate::wire::method::ErrorCode;
use crate::wire::params::{Encode, Modified};
use crate::wire::record::TOMBSTONE_LEN;
use crate::wire::{RecordKey, RecordValue};

/// The kind of a read.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) enum Wanted {
    /// The live value.
    Value,
    /// The live value, or the tombstone.
    Record,
    /// The same as it is here now, whether all owners have it or not.
    Unsettled,
    /// The live value if it is after the asker's: `GetIfModified`.
    After(ClockTime),
}

/// A read that has to look at the disk.
pub(super) struct Miss {
    pub(super) key: Box<[u8]>,
    pub(super) reply: Reply,
    pub(super) wanted: Wanted,
}

/// The result of a read: the raw value, nil if there is none, true if it is not after the asker's.
pub(super) fn write_found(out: &mut Vec<u8>, value: Option<RecordValue<'_>>, wanted: Wanted) {
    let live = value.filter(|value| !value.is_tombstone());
    match wanted {
        Wanted::Record | Wanted::Unsettled => value.encode(out),
        Wanted::After(known) if live.is_some_and(|value| !known.is_before(value.clocktime())) => {
            Modified::No.encode(out);
        }
        Wanted::Value | Wanted::After(_) => live.encode(out),
    }
}

/// What must be waited for before it is told that `value` is stored for a raw key.
fn wait_for(
    server: &Shared,
    spaces: &Spaces,
    key: &[u8],
    value: Option<RecordValue<'_>>,
    wanted: Wanted,
) -> Option<Arc<Wait>> {
    let key = RecordKey::new(key).ok().filter(|_| !matches!(wanted, Wanted::Unsettled))?;
    settle::copy(server, spaces, key, value.map(|value| value.clocktime().clock()))
}

/// Reads on the store's read threads what memory could not answer, as an owner by `spaces`.
pub(super) fn read_misses(server: &Arc<Shared>, spaces: Arc<Spaces>, misses: Vec<Miss>) {
    let (keys, askers): (Vec<_>, Vec<_>) =
        misses.into_iter().map(|miss| (miss.key.clone(), (miss.reply, miss.wanted, miss.key))).unzip();
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
            for ((reply, wanted, key), value) in askers.into_iter().zip(found) {
                let value = value.as_deref().filter(|value| value.len() >= TOMBSTONE_LEN).map(RecordValue::new);
                match value.transpose() {
                    Ok(value) => match wait_for(&noting, &spaces, &key, value, wanted) {
                        None => reply.ok(|out| write_found(out, value, wanted)),
                        Some(wait) => {
                            let mut result = Vec::new();
                            write_found(&mut result, value, wanted);
                            settle::answer(&noting, wait, reply, result);
                        }
                    },
                    Err(_) => reply.error(ErrorCode::Server),
                }
            }
        });
    });
}
