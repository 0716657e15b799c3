//! One operation on the cluster, from its first try to its end: the next server, the next round, the last word.
//!
//! A caller that has made the first try itself hands in what came of it, and the operation goes on from there.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::known::{Known, doubtful};
use super::tries::Tries;
use super::verdict::{self, Verdict};
use super::{Error, Node, Router, steps};
use crate::clock::ClockTime;
use crate::ring;
use crate::wire::method::{DELETE_ASYNC, Delete, ErrorCode, Get, Set};
use crate::wire::params::{Parts, SET_OVERHEAD, SetOp};
use crate::wire::record::KEY_HEADER;
use crate::wire::{Call, RecordKey, RecordValue};

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

/// A try that has ended: whom it went to, and the result object's bytes or why there is none.
pub type Tried = (Arc<Node>, Result<Vec<u8>, ErrorCode>);

/// The outcome of a compare-and-swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swapped {
    /// Done; the new clocktime.
    At(ClockTime),
    /// Done, and overwritten or deleted by somebody else before the new clocktime was known.
    Overwritten,
    /// Not done: somebody else has written or deleted the key, so that it has another clocktime than the expected one.
    Mismatch,
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
                asked = Some(tried.0.address());
                match self.heard(&tried, verdict::get) {
                    Verdict::Done(value) => return Ok(keep(value)),
                    Verdict::Failed(error) => return Err(error),
                    Verdict::Again(error) | Verdict::Doubtful(error) | Verdict::Partial(error) => failed = error,
                }
            }
            let routes = self.routes();
            for node in routes.readers(key.hash()).filter(|node| Some(node.address()) != asked) {
                match self.heard(&self.read_once(node, key, rounds.patience()).await, verdict::get) {
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
        self.read_arbiter(key, &mut self.tries(limit)).await
    }

    async fn read_arbiter(self: &Arc<Self>, key: &RawKey, rounds: &mut Tries) -> Result<Found, Error> {
        loop {
            let node = self.routes().arbiter(key.hash()).cloned();
            let failed = match node {
                None => Error::NoServer,
                // Only one server can answer: it gets all the time a call may take.
                Some(node) => {
                    let timeout = self.options().call_timeout;
                    match self.heard(&self.read_once(&node, key, timeout).await, verdict::get) {
                        Verdict::Done(value) => return Ok(keep(value)),
                        Verdict::Failed(error) => return Err(error),
                        Verdict::Again(error) | Verdict::Doubtful(error) | Verdict::Partial(error) => error,
                    }
                }
            };
            self.pause(rounds, failed).await?;
        }
    }

    /// Writes a key on all its owners, or with `op` [`SetOp::Async`] on the first. Returns its clocktime.
    pub async fn set(
        self: &Arc<Self>,
        key: &RawKey,
        op: SetOp,
        body: (u16, &[u8]),
        limit: Duration,
        mut first: Option<Tried>,
    ) -> Result<ClockTime, Error> {
        let mut rounds = self.tries(limit);
        let mut known = Known::default();
        loop {
            self.check_size(key, body.1).map_err(|error| known.with(error))?;
            let call = Set { op, key, value: value(ClockTime(0), body) };
            let failed = match self.write(key, &call, &mut first).await {
                None => Error::NoServer,
                Some(tried) => match self.heard(&tried, verdict::set) {
                    Verdict::Done(Some(clocktime)) => return Ok(clocktime),
                    Verdict::Done(None) => return Err(known.with(Error::Answer(tried.0.address()))),
                    Verdict::Failed(error) => return Err(known.with(error)),
                    Verdict::Again(error) | Verdict::Partial(error) => error,
                    Verdict::Doubtful(error) => doubtful(error),
                },
            };
            self.pause(&mut rounds, known.with(failed)).await?;
        }
    }

    /// Deletes a key on all its owners, or with `flags` of [`DELETE_ASYNC`] on the first. Says whether it was there;
    /// where an earlier try may have deleted it, that it was.
    pub async fn delete(
        self: &Arc<Self>,
        key: &RawKey,
        wait: bool,
        limit: Duration,
        mut first: Option<Tried>,
    ) -> Result<bool, Error> {
        let mut rounds = self.tries(limit);
        let mut known = Known::default();
        let mut perhaps = false;
        loop {
            let call = Delete { flags: delete_flags(wait), key };
            let failed = match self.write(key, &call, &mut first).await {
                None => Error::NoServer,
                Some(tried) => match self.heard(&tried, verdict::delete) {
                    Verdict::Done(found) => return Ok(found || perhaps),
                    Verdict::Failed(error) => return Err(known.with(error)),
                    Verdict::Again(error) => error,
                    Verdict::Doubtful(error) | Verdict::Partial(error) => {
                        perhaps = true;
                        doubtful(error)
                    }
                },
            };
            self.pause(&mut rounds, known.with(failed)).await?;
        }
    }

    /// Writes a key if its clocktime is `expected`; zero: if it is absent.
    ///
    /// A swap whose outcome is not known is looked up: if the record is as it was, it is tried again; if not, it was
    /// either this swap or somebody else's, and the error says so. One that is done on some owners only is completed,
    /// or made again if its server has taken it back or is gone with it.
    pub async fn swap(
        self: &Arc<Self>,
        key: &RawKey,
        expected: ClockTime,
        body: (u16, &[u8]),
        limit: Duration,
        mut first: Option<Tried>,
    ) -> Result<Swapped, Error> {
        let mut rounds = self.tries(limit);
        let mut known = Known::default();
        let as_it_was = expected;
        let mut expected = expected;
        // A try was done, and is what is expected now.
        let mut certain = false;
        loop {
            self.check_size(key, body.1).map_err(|error| known.with(error))?;
            let call = Set { op: SetOp::Cas, key, value: value(expected, body) };
            let Some(tried) = self.write(key, &call, &mut first).await else {
                self.pause(&mut rounds, known.with(Error::NoServer)).await?;
                continue;
            };
            let (failed, partial) = match self.heard(&tried, verdict::set) {
                Verdict::Done(Some(clocktime)) => return Ok(Swapped::At(clocktime)),
                // Overwritten, or gone with the server that had it.
                Verdict::Done(None) if certain => (known.with(Error::Partial(tried.0.address())), true),
                Verdict::Done(None) => return known.doubt().map_or(Ok(Swapped::Mismatch), Err),
                Verdict::Failed(error) => return Err(known.with(error)),
                Verdict::Again(error) => {
                    self.pause(&mut rounds, known.with(error)).await?;
                    continue;
                }
                Verdict::Doubtful(error) => (known.with(doubtful(error)), false),
                Verdict::Partial(error) => (known.with(error), true),
            };
            self.pause(&mut rounds, failed.clone()).await?;
            let found = self.read_arbiter(key, &mut rounds).await.map_err(|_| failed.clone())?;
            let there = found.as_ref().map_or(ClockTime(0), |(clocktime, ..)| *clocktime);
            if there == as_it_was {
                (expected, certain) = (as_it_was, false);
                known.undone();
            } else if there != expected {
                let same = found.is_some_and(|(_, meta, data)| (meta, &data[..]) == body);
                match (partial, same) {
                    (true, true) => (expected, certain) = (there, true),
                    (true, false) => return Ok(Swapped::Overwritten),
                    (false, _) if certain => return Ok(Swapped::Overwritten),
                    (false, _) => return Err(failed),
                }
            }
        }
    }

    /// Refuses what one of the servers that must store it would not take.
    fn check_size(&self, key: &RawKey, data: &[u8]) -> Result<(), Error> {
        match self.routes().too_large(key.hash(), set_length(key, data)) {
            Some((server, limit)) => Err(Error::TooLarge(server, limit)),
            None => Ok(()),
        }
    }

    fn tries(&self, limit: Duration) -> Tries {
        Tries::within(limit, self.options().read_patience)
    }

    /// Reads from one server, for at most `timeout`.
    async fn read_once(&self, node: &Arc<Node>, key: &RawKey, timeout: Duration) -> Tried {
        let steps = steps(timeout.min(self.options().call_timeout));
        let answer = node.session().ask(&Get { key }, steps);
        (node.clone(), answer.await)
    }

    /// Sends a write to the coordinator, unless `first` is what came of it; `None` if there is no coordinator.
    async fn write(&self, key: &RawKey, call: &impl Call, first: &mut Option<Tried>) -> Option<Tried> {
        if first.is_some() {
            return first.take();
        }
        let node = self.routes().coordinator(key.hash())?.clone();
        let answer = node.session().ask(call, steps(self.options().call_timeout));
        Some((node, answer.await))
    }

    /// The verdict on a try, of which note is taken if it has failed.
    fn heard<'t, T>(
        self: &Arc<Self>,
        (node, answer): &'t Tried,
        judge: impl FnOnce(crate::wire::NodeAddress, Result<&'t [u8], ErrorCode>) -> Verdict<T>,
    ) -> Verdict<T> {
        let answer = answer.as_deref().map_err(|error| *error);
        if let Err(error) = answer {
            self.note(node, error);
        }
        judge(node.address(), answer)
    }

    /// Asks the managers where the key belongs now, and pauses until they have an answer or it is time; fails with
    /// `failed` when the time for all tries is up.
    async fn pause(&self, rounds: &mut Tries, failed: Error) -> Result<(), Error> {
        let mut changes = self.changes();
        self.ask_managers();
        let Some(next) = rounds.next(Instant::now(), self.env()) else { return Err(failed) };
        let _ = tokio::time::timeout_at(next, changes.changed()).await;
        Ok(())
    }
}

/// Meta and data to be set; `clocktime` is what a compare-and-swap expects.
fn value(clocktime: ClockTime, (meta, data): (u16, &[u8])) -> Parts<'_> {
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
