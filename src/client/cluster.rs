//! Get, set, compare-and-swap and delete on a cluster: each to the server that owns the key now.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Caller, Error, Options};
use crate::clock::ClockTime;
use crate::ring::{self, HashSpace};
use crate::wire::method::{ErrorCode, Method};
use crate::wire::params::{self, Seed, SetOp};
use crate::wire::record::raw_value;
use crate::wire::unpack::Reader;
use crate::wire::{NodeAddress, RecordValue};

/// The first pause between two rounds of tries; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause between two rounds of tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// When it was written: what a compare-and-swap compares.
    pub clocktime: ClockTime,
    /// Two bytes kept as they came.
    pub meta: u16,
    /// The application's bytes.
    pub data: Vec<u8>,
}

/// Hash spaces as far as they are known.
#[derive(Default)]
struct Spaces {
    whs: HashSpace,
    rhs: HashSpace,
}

/// A cluster, known by its managers.
pub struct Cluster {
    managers: Vec<NodeAddress>,
    spaces: Arc<Mutex<Arc<Spaces>>>,
    caller: Caller,
    deadline: Duration,
}

/// What to do after a failed try of a write.
enum Verdict<T> {
    Done(T),
    Again(Error),
    Failed(Error),
}

impl Cluster {
    /// Asks the managers for the hash spaces; the first that answers counts. Must be called within a runtime.
    pub async fn connect(managers: Vec<NodeAddress>, options: Options) -> Result<Self, Error> {
        let spaces: Arc<Mutex<Arc<Spaces>>> = Arc::default();
        let pushed = spaces.clone();
        let caller = Caller::with_push(&options, Box::new(move |whs, rhs| take(&pushed, whs, rhs)));
        let cluster = Self { managers, spaces, caller, deadline: options.deadline };
        cluster.refresh().await?;
        Ok(cluster)
    }

    /// Asks the managers again. Returns when one has answered with hash spaces that can be used, or all have been asked.
    pub async fn refresh(&self) -> Result<(), Error> {
        let mut failed = None;
        let mut answered = false;
        for manager in &self.managers {
            match self.caller.ask(*manager, Method::HashSpaceRequest, params::write_empty).await {
                Ok(result) => {
                    let (whs, rhs) = params::hash_spaces(&result).map_err(|_| Error::Answer(*manager))?;
                    let usable = rhs.has_active();
                    take(&self.spaces, whs, rhs);
                    answered = true;
                    if usable {
                        break;
                    }
                }
                Err(error) => failed = Some(Error::Manager(*manager, error)),
            }
        }
        if answered { Ok(()) } else { Err(failed.unwrap_or(Error::NoServer)) }
    }

    /// The servers that are active for writing.
    pub fn servers(&self) -> Vec<NodeAddress> {
        self.spaces().whs.active_nodes().collect()
    }

    /// Reads a key from its coordinator, or from the next owner that answers.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        let raw_key = ring::raw_key(key);
        let hash = ring::hash(key);
        let mut tries = Tries::until(Instant::now() + self.deadline);
        loop {
            let spaces = self.spaces();
            let mut failed = Error::NoServer;
            for owner in spaces.rhs.owners(hash).active() {
                match self.caller.ask(owner, Method::Get, |out| params::write_get(out, &raw_key)).await {
                    Ok(result) => return value(owner, &result),
                    Err(error) => failed = Error::Server(owner, error),
                }
            }
            self.again(&mut tries, failed).await?;
        }
    }

    /// Writes a key on all its owners. Returns its clocktime.
    pub async fn set(&self, key: &[u8], meta: u16, data: &[u8]) -> Result<ClockTime, Error> {
        let raw_value = raw_value(ClockTime(0), meta, data);
        let raw_key = ring::raw_key(key);
        let write = |out: &mut Vec<u8>| params::write_set(out, SetOp::Sync, &raw_key, &raw_value);
        self.write(key, Method::Set, write, |owner, answer| match answer {
            Err(error) => Verdict::Again(Error::Server(owner, error)),
            Ok(result) => match written(owner, &result) {
                Ok(Some(clocktime)) => Verdict::Done(clocktime),
                Ok(None) => Verdict::Failed(Error::Answer(owner)),
                Err(error) => Verdict::Again(error),
            },
        })
        .await
    }

    /// Writes a key if its clocktime is `expected`; zero: if it is absent. Returns the new clocktime, or `None` if it
    /// was another one.
    ///
    /// An error after which the swap may have been done is not tried again.
    pub async fn cas(
        &self,
        key: &[u8],
        expected: ClockTime,
        meta: u16,
        data: &[u8],
    ) -> Result<Option<ClockTime>, Error> {
        let raw_value = raw_value(expected, meta, data);
        let raw_key = ring::raw_key(key);
        let write = |out: &mut Vec<u8>| params::write_set(out, SetOp::Cas, &raw_key, &raw_value);
        self.write(key, Method::Set, write, |owner, answer| match answer {
            // Not sent, or refused.
            Err(error @ (ErrorCode::NodeLost | ErrorCode::Server)) => Verdict::Again(Error::Server(owner, error)),
            Err(error) => Verdict::Failed(Error::Server(owner, error)),
            Ok(result) => match written(owner, &result) {
                Ok(swapped) => Verdict::Done(swapped),
                Err(error) => Verdict::Failed(error),
            },
        })
        .await
    }

    /// Deletes a key on all its owners. Says whether it was there, as far as the try that succeeded could see.
    pub async fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        let raw_key = ring::raw_key(key);
        let write = |out: &mut Vec<u8>| params::write_delete(out, 0, &raw_key);
        self.write(key, Method::Delete, write, |owner, answer| match answer {
            Err(error) => Verdict::Again(Error::Server(owner, error)),
            Ok(result) => {
                let mut reader = Reader::new(&result);
                if reader.nil() {
                    return Verdict::Again(Error::Partial(owner));
                }
                reader.bool().map_or(Verdict::Failed(Error::Answer(owner)), Verdict::Done)
            }
        })
        .await
    }

    /// Asks a server for one of its numbers; see `GetStatus` in the protocol. The result is the result object's bytes.
    pub async fn status(&self, server: NodeAddress, number: u32) -> Result<Vec<u8>, Error> {
        let answer = self.caller.ask(server, Method::GetStatus, |out| params::write_status(out, number)).await;
        answer.map_err(|error| Error::Server(server, error))
    }

    /// Sends a write to the coordinator of `key` until `judge` is content or the time is up.
    async fn write<T>(
        &self,
        key: &[u8],
        method: Method,
        write: impl Fn(&mut Vec<u8>),
        judge: impl Fn(NodeAddress, Result<Vec<u8>, ErrorCode>) -> Verdict<T>,
    ) -> Result<T, Error> {
        let hash = ring::hash(key);
        let mut tries = Tries::until(Instant::now() + self.deadline);
        loop {
            let spaces = self.spaces();
            let failed = match spaces.whs.owners(hash).coordinator() {
                None => Error::NoServer,
                Some(owner) => match judge(owner, self.caller.ask(owner, method, &write).await) {
                    Verdict::Done(done) => return Ok(done),
                    Verdict::Failed(error) => return Err(error),
                    Verdict::Again(error) => error,
                },
            };
            self.again(&mut tries, failed).await?;
        }
    }

    /// Asks the managers where the key belongs now and pauses; fails with `failed` when the time is up.
    async fn again(&self, tries: &mut Tries, failed: Error) -> Result<(), Error> {
        if !tries.pause().await {
            return Err(failed);
        }
        // Without a manager the hash spaces at hand must do.
        let _ = self.refresh().await;
        Ok(())
    }

    fn spaces(&self) -> Arc<Spaces> {
        self.spaces.lock().clone()
    }
}

/// Pauses between tries, until a deadline.
struct Tries {
    deadline: Instant,
    pause: Duration,
}

impl Tries {
    fn until(deadline: Instant) -> Self {
        Self { deadline, pause: PAUSE_MIN }
    }

    /// Pauses, longer each time; `false` if the deadline would be over.
    async fn pause(&mut self) -> bool {
        let next = Instant::now() + self.pause;
        if next >= self.deadline {
            return false;
        }
        tokio::time::sleep_until(next).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}

/// Takes each hash space that is newer than the one known.
fn take(spaces: &Mutex<Arc<Spaces>>, whs: Seed, rhs: Seed) {
    let mut known = spaces.lock();
    let newer = |held: &HashSpace, seed: &Seed| {
        seed.has_active() && (!held.is_ready() || held.clocktime().is_before(seed.clocktime))
    };
    let choose = |held: &HashSpace, seed: Seed| if newer(held, &seed) { HashSpace::new(seed) } else { held.clone() };
    *known = Arc::new(Spaces { whs: choose(&known.whs, whs), rhs: choose(&known.rhs, rhs) });
}

/// The answer to a Get.
fn value(server: NodeAddress, result: &[u8]) -> Result<Option<Value>, Error> {
    let mut reader = Reader::new(result);
    if reader.nil() {
        return Ok(None);
    }
    let value = reader.raw().and_then(RecordValue::live).map_err(|_| Error::Answer(server))?;
    let meta = value.body().first_chunk().map_or(0, |meta| u16::from_be_bytes(*meta));
    Ok(Some(Value { clocktime: value.clocktime(), meta, data: value.data().to_vec() }))
}

/// The answer to a Set: its clocktime, or `None` for a compare-and-swap that did not match.
fn written(server: NodeAddress, result: &[u8]) -> Result<Option<ClockTime>, Error> {
    let mut reader = Reader::new(result);
    if reader.nil() {
        return Err(Error::Partial(server));
    }
    if let Ok(clocktime) = reader.clone().u64() {
        return Ok(Some(ClockTime(clocktime)));
    }
    match reader.bool() {
        Ok(false) => Ok(None),
        _ => Err(Error::Answer(server)),
    }
}
