//! The parts of an operation on the cluster: its key, its tries, the pauses between them; and reads, from the first try to
//! the end.
//!
//! A caller that has made the first try itself hands in what came of it, and the operation goes on from there. Writes are
//! in `writes`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::doubt::{Record, Sight};
use super::tries::Tries;
use super::verdict::{self, Verdict};
use super::{Error, Node, Router, steps};
use crate::clock::ClockTime;
use crate::ring;
use crate::wire::extension::{Look, Route};
use crate::wire::method::{DELETE_ASYNC, ErrorCode, Get};
use crate::wire::params::{Parts, SET_OVERHEAD};
use crate::wire::record::KEY_HEADER;
use crate::wire::{Call, NodeAddress, RecordKey, RecordValue};

/// A key with its place in the hash space, as servers know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawKey(Box<[u8]>);

impl RawKey {
    /// The raw key of an application's key with `prefix` in front.
    pub fn new(prefix: &[u8], key: &[u8]) -> Self {
        let mut raw = Vec::with_capacity(KEY_HEADER + prefix.len() + key.len());
        raw.extend_from_slice(&[0; KEY_HEADER]);
        raw.extend_from_slice(prefix);
        raw.extend_from_slice(key);
        let hash = ring::hash(raw.get(KEY_HEADER..).unwrap_or_default());
        if let Some(head) = raw.first_chunk_mut() {
            *head = hash.to_be_bytes();
        }
        Self(raw.into())
    }

    /// As it travels.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its place in the hash space.
    #[inline]
    pub fn hash(&self) -> u64 {
        RecordKey::new(&self.0).map_or(0, |key| key.hash())
    }

    /// The key behind the hash, the prefix included.
    #[inline]
    pub fn key(&self) -> &[u8] {
        self.0.get(KEY_HEADER..).unwrap_or_default()
    }
}

impl AsRef<[u8]> for RawKey {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// A try that has ended.
#[derive(Debug)]
pub struct Tried {
    /// Whom it went to.
    pub node: Arc<Node>,
    /// The clock of [`Node::clock`] when it was sent.
    pub clock: Option<u32>,
    /// The result object's bytes, or why there is none.
    pub answer: Result<Vec<u8>, ErrorCode>,
}

/// A record as a look has found it, a tombstone included.
pub(super) struct Looked {
    at: NodeAddress,
    bytes: Option<Vec<u8>>,
    settled: bool,
}

impl Looked {
    fn value(&self) -> Option<RecordValue<'_>> {
        self.bytes.as_deref().and_then(|bytes| RecordValue::new(bytes).ok())
    }

    /// Which record it is, and where.
    pub(super) fn sight(&self) -> Sight {
        let record = match self.value() {
            None => Record::Absent,
            Some(value) if value.is_tombstone() => Record::Deleted(value.clocktime()),
            Some(value) => Record::Live(value.clocktime()),
        };
        Sight { at: self.at, record, settled: self.settled }
    }

    /// The clocktime of a live value; zero if there is none.
    pub(super) fn clocktime(&self) -> ClockTime {
        self.value().filter(|value| !value.is_tombstone()).map_or(ClockTime(0), |value| value.clocktime())
    }

    /// Whether it is a live value of this meta and data.
    pub(super) fn holds(&self, body: (u16, &[u8])) -> bool {
        self.value().is_some_and(|value| !value.is_tombstone() && (value.meta(), value.data()) == body)
    }
}

/// A record as read, if there is one: its clocktime, its meta and its data.
pub type Found = Option<(ClockTime, u16, Vec<u8>)>;

/// Keeps what was read.
fn keep(value: Option<RecordValue<'_>>) -> Found {
    value.map(|value| (value.clocktime(), value.meta(), value.data().to_vec()))
}

impl Router {
    /// Reads a record from its coordinator, or from the next owner that answers.
    pub async fn get(
        self: &Arc<Self>,
        key: &RawKey,
        limit: Duration,
        mut first: Option<Tried>,
    ) -> Result<Found, Error> {
        let mut rounds = self.tries(limit);
        loop {
            let mut failed = Error::NoServer;
            let mut asked = None;
            if let Some(tried) = first.take() {
                asked = Some(tried.node.address());
                match self.heard(&tried, verdict::get) {
                    Verdict::Done(value) => return Ok(keep(value)),
                    Verdict::Failed(error) => return Err(error),
                    Verdict::Again(error) | Verdict::Doubtful(error) | Verdict::Partial(error) => failed = error,
                }
            }
            let routes = self.routes();
            for node in routes.readers(key.hash()).filter(|node| Some(node.address()) != asked) {
                match self.heard(&self.read_once(node, &Get { key, look: None }, rounds.patience()).await, verdict::get)
                {
                    Verdict::Done(value) => return Ok(keep(value)),
                    Verdict::Failed(error) => return Err(error),
                    Verdict::Again(error) | Verdict::Doubtful(error) | Verdict::Partial(error) => failed = error,
                }
            }
            drop(routes);
            self.pause(&mut rounds, failed).await?;
        }
    }

    /// Reads a record from the server that a compare-and-swap will ask.
    pub async fn get_to_change(self: &Arc<Self>, key: &RawKey, limit: Duration) -> Result<Found, Error> {
        let call = Get { key, look: None };
        let mut rounds = self.tries(limit);
        let read = self.read_arbiter(key, &call, &mut rounds, |server, answer| verdict::get(server, answer).map(keep));
        read.await
    }

    /// The same of a write whose outcome is not known: tombstones are told, too.
    pub(super) async fn look(self: &Arc<Self>, key: &RawKey, rounds: &mut Tries) -> Result<Looked, Error> {
        let call = Get { key, look: Some(Look::default()) };
        let voted = self.routes().votes();
        let read = self.read_arbiter(key, &call, rounds, |server, answer| {
            verdict::look(server, answer).map(|bytes| (server, bytes))
        });
        let (at, bytes) = read.await?;
        Ok(Looked { at, bytes, settled: voted && self.routes().votes() })
    }

    async fn read_arbiter<T>(
        self: &Arc<Self>,
        key: &RawKey,
        call: &impl Call,
        rounds: &mut Tries,
        judge: impl Fn(NodeAddress, Result<&[u8], ErrorCode>) -> Verdict<T>,
    ) -> Result<T, Error> {
        loop {
            let node = self.routes().arbiter(key.hash()).cloned();
            let failed = match node {
                None => Error::NoServer,
                // Only one server can answer: it gets all the time a call may take.
                Some(node) => {
                    let timeout = self.options().call_timeout;
                    match self.heard(&self.read_once(&node, call, timeout).await, &judge) {
                        Verdict::Done(read) => return Ok(read),
                        Verdict::Failed(error) => return Err(error),
                        Verdict::Again(error) | Verdict::Doubtful(error) | Verdict::Partial(error) => error,
                    }
                }
            };
            self.pause(rounds, failed).await?;
        }
    }

    pub(super) fn tries(&self, limit: Duration) -> Tries {
        Tries::within(limit, self.options().read_patience)
    }

    /// Reads from one server, for at most `timeout`.
    async fn read_once(&self, node: &Arc<Node>, call: &impl Call, timeout: Duration) -> Tried {
        let steps = steps(timeout.min(self.options().call_timeout));
        let answer = node.session().ask(call, steps);
        Tried { node: node.clone(), clock: None, answer: answer.await }
    }

    /// Sends a write to the coordinator, unless `first` is what came of it; `None` if there is no coordinator.
    pub(super) async fn write<C: Call>(
        &self,
        key: &RawKey,
        call: impl FnOnce(Option<Route>) -> C,
        first: &mut Option<Tried>,
    ) -> Option<Tried> {
        if first.is_some() {
            return first.take();
        }
        let routes = self.routes();
        let node = routes.coordinator(key.hash())?.clone();
        let clock = node.clock();
        let answer = node.session().ask(&call(routes.route()), steps(self.options().call_timeout));
        Some(Tried { node, clock, answer: answer.await })
    }

    /// The verdict on a try, of which note is taken if it has failed.
    pub(super) fn heard<'t, T>(
        self: &Arc<Self>,
        Tried { node, answer, .. }: &'t Tried,
        judge: impl FnOnce(NodeAddress, Result<&'t [u8], ErrorCode>) -> Verdict<T>,
    ) -> Verdict<T> {
        let answer = answer.as_deref().map_err(|error| *error);
        if let Err(error) = answer {
            self.note(node, error);
        }
        judge(node.address(), answer)
    }

    /// Asks the managers where the key belongs now, and pauses until they have an answer or it is time; fails with
    /// `failed` when the time for all tries is up.
    pub(super) async fn pause(&self, rounds: &mut Tries, failed: Error) -> Result<(), Error> {
        let mut changes = self.changes();
        self.ask_managers();
        let Some(next) = rounds.next(Instant::now(), self.env()) else { return Err(failed) };
        let _ = tokio::time::timeout_at(next, changes.changed()).await;
        Ok(())
    }
}

/// Meta and data to be set; `clocktime` is what a compare-and-swap expects.
pub(super) fn value(clocktime: ClockTime, (meta, data): (u16, &[u8])) -> Parts<'_> {
    Parts { clocktime, meta, data }
}

/// Bytes of a Set, at most. A server that takes it takes the copy from another server, too.
pub fn set_length(key: &RawKey, data: &[u8]) -> usize {
    key.bytes().len().saturating_add(data.len()).saturating_add(SET_OVERHEAD)
}

/// The flags of a Delete that waits for the replicas, or does not.
pub fn delete_flags(wait: bool) -> u32 {
    if wait { 0 } else { DELETE_ASYNC }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_key_is_the_hash_of_all_of_it() {
        let key = RawKey::new(b"pre:", b"key");
        assert_eq!(key.bytes(), ring::raw_key(b"pre:key"));
        assert_eq!((key.hash(), key.key()), (ring::hash(b"pre:key"), &b"pre:key"[..]));
    }
}
