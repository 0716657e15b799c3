//! A replica that has ignored a write, for it holds something later: asks it, and takes its record over.
//!
//! A write is given by its raw key and its clocktime. What becomes of it the caller decides.

use std::sync::Arc;

use crate::clock::{ClockTime, is_behind};
use crate::server::remote;
use crate::server::shared::Shared;
use crate::server::spaces::Spaces;
use crate::store::Outcome;
use crate::wire::{NodeAddress, RecordKey, RecordValue, record};

/// The record that a replica holds which has ignored a write.
#[derive(Debug)]
pub(super) enum Held {
    /// This very write: an earlier try, or the stream of a replace, has brought it.
    Same,
    /// A later value, or tombstone.
    Later(Vec<u8>),
    /// None. Of a node of 2010: a tombstone, which it does not tell of.
    Absent,
    /// It was not asked, or has not answered.
    Unknown,
}

impl Held {
    /// Whether it was stamped before a write under `clocktime`: it is later by its time alone.
    pub(super) fn is_earlier_by_clock(&self, clocktime: ClockTime) -> bool {
        let Self::Later(value) = self else { return false };
        RecordValue::new(value).is_ok_and(|value| is_behind(value.clocktime().clock(), clocktime.clock()))
    }

    /// Whether the key is deleted there.
    pub(super) fn is_deleted(&self) -> bool {
        match self {
            Self::Later(value) => RecordValue::new(value).is_ok_and(|value| value.is_tombstone()),
            Self::Absent => true,
            Self::Same | Self::Unknown => false,
        }
    }
}

/// Takes over what `node` holds of a key, so that what is stamped next here is after it: the later record's time is ahead
/// of ours, and to raise the clock was not enough.
pub(super) async fn follow_time(server: &Arc<Shared>, node: NodeAddress, key: &[u8], clocktime: ClockTime) {
    let spaces = server.spaces();
    if let Held::Later(value) = held_by(server, node, key, clocktime).await
        && let (Ok(key), Ok(value)) = (RecordKey::new(key), RecordValue::new(&value))
    {
        remote::store(server, &spaces, key, value).await;
    }
}

/// Replaces what is stored here of a key under `clocktime` by the later record of a replica; says whether it is replaced.
/// The other owners may have what is replaced. `spaces`: by which the replica was asked.
pub(super) async fn give_way(
    server: &Arc<Shared>,
    spaces: &Spaces,
    key: &[u8],
    clocktime: ClockTime,
    held: Held,
) -> bool {
    let value = match held {
        Held::Later(value) => value,
        // When it was deleted is not known: just after this record, which nothing else that is later minds.
        Held::Absent => {
            let after = ClockTime::new(clocktime.seconds(), clocktime.clock().wrapping_add(1));
            record::tombstone(after).to_vec()
        }
        Held::Same | Held::Unknown => return false,
    };
    let (Ok(key), Ok(value)) = (RecordKey::new(key), RecordValue::new(&value)) else { return false };
    // Else what is stored is the same record still, or nobody knows.
    let replaced = |outcome| !matches!(outcome, Outcome::Ignored { stored } if stored == clocktime);
    if !remote::store(server, spaces, key, value).await.is_some_and(replaced) {
        tracing::warn!(key = %key.bytes().escape_ascii(), "a replica's later record could not be stored");
        return false;
    }
    true
}

/// Asks `node` for its record of a key whose write of `clocktime` it has ignored.
pub(super) async fn held_by(server: &Shared, node: NodeAddress, key: &[u8], clocktime: ClockTime) -> Held {
    match remote::look(server, node, key).await {
        Ok(None) => Held::Absent,
        Ok(Some(value)) if RecordValue::new(&value).is_ok_and(|value| value.clocktime() == clocktime) => Held::Same,
        Ok(Some(value)) => Held::Later(value),
        Err(_) => Held::Unknown,
    }
}
