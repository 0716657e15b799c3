//! A client's write while it waits, and its answer.
//!
//! Knows the store's words for a write and an outcome; not the server, nor how a write is carried out.

use super::marks::Mark;
use crate::clock::ClockTime;
use crate::net::{InFlight, Reply};
use crate::store::{Outcome, OwnedWrite, Write};
use crate::wire::RecordKey;
use crate::wire::extension::Route;
use crate::wire::params::Written;

/// The change that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Set,
    /// Only if the stored clocktime is this one.
    Cas(ClockTime),
    Delete,
}

impl Change {
    /// The store's write for it.
    pub(super) fn as_write<'a>(self, key: RecordKey<'a>, body: &'a [u8]) -> Write<'a> {
        match self {
            Self::Set => Write::Set { key, body },
            Self::Cas(expected) => Write::Cas { key, body, expected },
            Self::Delete => Write::Delete { key },
        }
    }
}

/// A client's write, owned: it waits for the disk, for clocks, or for a new clocktime.
pub(super) struct Submission {
    pub(super) change: Change,
    /// Whether the client waits for the replicas.
    pub(super) wait: bool,
    /// The raw key.
    pub(super) key: Box<[u8]>,
    pub(super) body: Box<[u8]>,
    /// By which hash space the client has sent it.
    pub(super) route: Option<Route>,
    pub(super) reply: Option<Reply>,
    /// Counts an answered asynchronous write until its replicas are done.
    pub(super) in_flight: Option<InFlight>,
    /// Clocktimes that it has had.
    pub(super) stamps: u8,
    /// Under an earlier one of them a live value was deleted.
    pub(super) deleted: bool,
    /// Of its key, from when it may be stored here.
    pub(super) mark: Option<Mark>,
}

impl Submission {
    /// A write that `reply` answers. Key and body count for the bounds of its connection until then.
    pub(super) fn new(
        change: Change,
        wait: bool,
        key: RecordKey<'_>,
        body: &[u8],
        route: Option<Route>,
        reply: Reply,
    ) -> Self {
        Self {
            change,
            wait,
            key: key.bytes().into(),
            body: body.into(),
            route,
            reply: Some(reply.weighing(key.bytes().len() + body.len())),
            in_flight: None,
            stamps: 0,
            deleted: false,
            mark: None,
        }
    }

    /// The place of the key in the hash space.
    pub(super) fn hash(&self) -> u64 {
        RecordKey::new(&self.key).map_or(0, |key| key.hash())
    }

    /// The store's write for it; `None` if the key is none.
    pub(super) fn to_write(&self) -> Option<OwnedWrite> {
        let key = RecordKey::new(&self.key).ok()?;
        Some(OwnedWrite::from(&self.change.as_write(key, &self.body)))
    }
}

/// Whether a decided write goes to the other owners: all but a swap that did not match.
pub(super) fn replicates(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Stored { .. } | Outcome::Deleted { .. })
}

/// The answer to a write that has succeeded everywhere; `deleted`: a live value was deleted by an earlier try.
pub(super) fn answer_to(outcome: Outcome, deleted: bool) -> Written {
    match outcome {
        Outcome::Stored { clocktime } => Written::At(clocktime),
        Outcome::Deleted { live, .. } => Written::Is(live || deleted),
        _ => Written::Is(deleted),
    }
}
