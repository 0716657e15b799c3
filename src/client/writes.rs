//! Writes of the cluster, from the first try to the end: repeated until they are done, and never done twice.

use std::sync::Arc;
use std::time::Duration;

use super::doubt::{Doubt, Ended, Next, Sight};
use super::known::{Known, doubtful};
use super::operations::value;
use super::verdict::{self, Verdict};
use super::{Error, RawKey, Router, Tried, delete_flags, set_length};
use crate::clock::ClockTime;
use crate::wire::method::{Delete, Set};
use crate::wire::params::SetOp;

/// The outcome of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Done; the new clocktime.
    At(ClockTime),
    /// Done, and overwritten or deleted by somebody else before the new clocktime was known.
    Overwritten,
}

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

impl From<Stored> for Swapped {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::At(clocktime) => Self::At(clocktime),
            Stored::Overwritten => Self::Overwritten,
        }
    }
}

impl Router {
    /// Writes a key on all its owners, or with `op` [`SetOp::Async`] on the first.
    ///
    /// A try of which nobody knows whether it was done is looked up before it is repeated; see [`super::doubt`].
    pub async fn set(
        self: &Arc<Self>,
        key: &RawKey,
        op: SetOp,
        body: (u16, &[u8]),
        limit: Duration,
        mut first: Option<Tried>,
    ) -> Result<Stored, Error> {
        let mut rounds = self.tries(limit);
        let mut known = Known::default();
        let mut doubt = Doubt::default();
        // Of the next try, if it is a compare-and-swap.
        let mut expected = None;
        loop {
            self.check_size(key, body.1).map_err(|error| known.with(error))?;
            let (op, compared) = expected.map_or((op, ClockTime(0)), |expected| (SetOp::Cas, expected));
            let call = |route| Set { op, key, value: value(compared, body), route };
            let Some(tried) = self.write(key, call, &mut first).await else {
                self.pause(&mut rounds, known.with(Error::NoServer)).await?;
                continue;
            };
            let server = tried.node.address();
            let (failed, ended) = match self.heard(&tried, verdict::set) {
                Verdict::Done(Some(clocktime)) => {
                    tried.node.note_write(clocktime.clock());
                    return Ok(Stored::At(clocktime));
                }
                Verdict::Done(None) if expected.is_some() => (known.with(Error::NoServer), Ended::Refused),
                Verdict::Done(None) => return Err(known.with(Error::Answer(server))),
                Verdict::Failed(error) => return Err(known.with(error)),
                Verdict::Again(error) => {
                    self.pause(&mut rounds, known.with(error)).await?;
                    continue;
                }
                Verdict::Doubtful(error) => (known.with(doubtful(error)), Ended::Lost),
                Verdict::Partial(error) => (known.with(error), Ended::Partly),
            };
            if expected.is_none() {
                doubt.add_try(tried.clock);
            }
            self.pause(&mut rounds, failed.clone()).await?;
            let found = self.look(key, &mut rounds).await.map_err(|_| failed.clone())?;
            expected = match doubt.next((server, ended), found.sight(), found.holds(body)) {
                Next::Swap(expected) => Some(expected),
                Next::Blind => None,
                Next::Done => return Ok(Stored::At(found.clocktime())),
                Next::Overwritten => return Ok(Stored::Overwritten),
                Next::Unknown => return Err(failed),
            };
        }
    }

    /// Deletes a key on all its owners, or unless `wait` on the first. Says whether it was there; where an earlier try may
    /// have deleted it, that it was.
    ///
    /// A try of which nobody knows whether it was done is looked up before it is repeated, and not repeated if servers that
    /// vote show that the key is deleted. What is written between the look and the repetition, an exchange with the server,
    /// may be deleted although the first try was done: no request excludes that.
    pub async fn delete(
        self: &Arc<Self>,
        key: &RawKey,
        wait: bool,
        limit: Duration,
        mut first: Option<Tried>,
    ) -> Result<bool, Error> {
        let mut rounds = self.tries(limit);
        let mut known = Known::default();
        let mut doubt = Doubt::default();
        let mut perhaps = false;
        loop {
            let call = |route| Delete { flags: delete_flags(wait), key, route };
            let Some(tried) = self.write(key, call, &mut first).await else {
                self.pause(&mut rounds, known.with(Error::NoServer)).await?;
                continue;
            };
            let server = tried.node.address();
            let (failed, ended) = match self.heard(&tried, verdict::delete) {
                Verdict::Done(found) => return Ok(found || perhaps),
                Verdict::Failed(error) => return Err(known.with(error)),
                Verdict::Again(error) => {
                    self.pause(&mut rounds, known.with(error)).await?;
                    continue;
                }
                Verdict::Doubtful(error) => (known.with(doubtful(error)), Ended::Lost),
                Verdict::Partial(error) => (known.with(error), Ended::Partly),
            };
            perhaps = true;
            doubt.add_try(tried.clock);
            self.pause(&mut rounds, failed.clone()).await?;
            let found = self.look(key, &mut rounds).await.map_err(|_| failed.clone())?;
            match doubt.next_deletion((server, ended), found.sight()) {
                Next::Blind | Next::Swap(_) => {}
                Next::Done | Next::Overwritten => return Ok(perhaps),
                Next::Unknown => return Err(failed),
            }
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
        let mut doubt = Doubt::default();
        let as_it_was = expected;
        let mut expected = expected;
        // The server where a try was done; once it is found there, that is what is expected.
        let mut done_at = None;
        loop {
            self.check_size(key, body.1).map_err(|error| known.with(error))?;
            let call = |route| Set { op: SetOp::Cas, key, value: value(expected, body), route };
            let Some(tried) = self.write(key, call, &mut first).await else {
                self.pause(&mut rounds, known.with(Error::NoServer)).await?;
                continue;
            };
            let server = tried.node.address();
            let (failed, partial) = match self.heard(&tried, verdict::set) {
                Verdict::Done(Some(clocktime)) => {
                    tried.node.note_write(clocktime.clock());
                    return Ok(Swapped::At(clocktime));
                }
                // Overwritten, or gone with the server that had it.
                Verdict::Done(None) if done_at.is_some() => (known.with(Error::Partial(server)), true),
                Verdict::Done(None) => return known.doubt().map_or(Ok(Swapped::Mismatch), Err),
                Verdict::Failed(error) => return Err(known.with(error)),
                Verdict::Again(error) => {
                    self.pause(&mut rounds, known.with(error)).await?;
                    continue;
                }
                Verdict::Doubtful(error) => (known.with(doubtful(error)), false),
                Verdict::Partial(error) => {
                    done_at = Some(server);
                    (known.with(error), true)
                }
            };
            doubt.add_try(tried.clock);
            self.pause(&mut rounds, failed.clone()).await?;
            let found = self.look(key, &mut rounds).await.map_err(|_| failed.clone())?;
            let (there, Sight { at, record, settled }) = (found.clocktime(), found.sight());
            // A key that was absent and is deleted may have been written by this swap in between.
            if there == as_it_was && (there != ClockTime(0) || doubt.is_from_before(record)) {
                (expected, done_at) = (as_it_was, None);
                known.undone();
            } else if there != expected || there == ClockTime(0) {
                // Another server may have gone on from before this swap.
                let replaced = done_at == Some(at);
                match (partial && found.holds(body), replaced) {
                    (true, _) if settled => return Ok(Swapped::At(there)),
                    (true, _) => (expected, done_at) = (there, Some(at)),
                    (false, true) => return Ok(Swapped::Overwritten),
                    (false, false) => return Err(failed),
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
}
