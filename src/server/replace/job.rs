//! The state of a replace that outlives a restart, and the generations that tell fresh records from old.
//!
//! ```text
//! [version = 1, [generation, full, newcomer, copied, old seed, new seed]]      MessagePack, in the store's state "replace"
//! seed: [[[address, active], ...], clocktime]
//! ```

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

use crate::clock::ClockTime;
use crate::env::Env;
use crate::store::{self, Store};
use crate::wire::params::Seed;

/// Name of the blob in the store.
const STATE: &str = "replace";
const VERSION: u64 = 1;
/// How long before a replace reaches this server its first stream may.
const EARLY: Duration = Duration::from_secs(3);

/// One replace, as this server takes part in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    /// Records of this generation or a later one were received in the replace or written since it began.
    pub(super) generation: u32,
    pub(super) full: bool,
    /// This server began it with nothing, and owned nothing: what it has at the end, it should have.
    pub(super) newcomer: bool,
    /// The copying has ended well here: records may be deleted when the manager says so.
    pub(super) copied: bool,
    pub(super) old: Seed,
    pub(super) new: Seed,
}

impl Job {
    fn to_bytes(&self) -> Result<Vec<u8>, store::Error> {
        rmp_serde::to_vec(&(VERSION, self)).map_err(|error| store::Error::Failed(error.to_string().into()))
    }

    fn parse(bytes: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        let (version, job): (u64, Self) = rmp_serde::from_slice(bytes)?;
        if version == VERSION { Ok(job) } else { Err(rmp_serde::decode::Error::OutOfRange) }
    }

    /// The replace that was under way when the store was closed, or when the process died.
    pub(super) fn load(store: &Store) -> Result<Option<Self>, store::Error> {
        let Some(bytes) = store.state_get(STATE)?.filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
        let job = Self::parse(&bytes);
        if let Err(error) = &job {
            // Then nothing is deleted that a replace of before would allow to be: the next one sees to it.
            tracing::warn!("cannot read the state of the last replace: {error}");
        }
        Ok(job.ok())
    }
}

/// The one place that writes the state and counts generations up, in order.
pub(super) struct Ledger {
    env: Env,
    store: Store,
    last: Arc<Mutex<Last>>,
}

#[derive(Debug, Default)]
struct Last {
    opened: Option<Opened>,
    /// The replace that was begun last and has not ended, by the clocktime of its new hash space.
    begun: Option<(ClockTime, Begun)>,
}

/// The generation of a replace, and whether there was nothing in the store before it.
type Begun = (u32, bool);

/// A generation that a stream has opened before the replace it belongs to was known here.
#[derive(Debug, Clone, Copy)]
struct Opened {
    generation: u32,
    was_empty: bool,
    at: Instant,
    by_stream: bool,
}

impl Opened {
    fn is_recent(&self) -> bool {
        self.at.elapsed() < EARLY
    }
}

impl Ledger {
    /// `job`: the replace that was under way when the store was closed.
    pub(super) fn new(env: &Env, store: Store, job: Option<&Job>) -> Self {
        let begun = job.map(|job| (job.new.clocktime, (job.generation, job.newcomer)));
        Self { env: env.clone(), store, last: Arc::new(Mutex::new(Last { opened: None, begun })) }
    }

    /// The generation of a replace that begins now, for the hash space `new`, and whether there was nothing in the store
    /// before it.
    ///
    /// A manager that has found this server again has it begin once more: what came since the first time belongs to the
    /// replace, and is not sent again. Other servers may have learned of it a moment earlier and sent a first stream; what
    /// came by that belongs to it, too.
    pub(super) async fn begin(&self, new: ClockTime) -> Result<Begun, store::Error> {
        let mut last = self.last.clone().lock_owned().await;
        if let Some((_, begun)) = last.begun.filter(|(known, _)| *known == new) {
            return Ok(begun);
        }
        let early = last.opened.as_mut().filter(|opened| opened.by_stream && opened.is_recent());
        let begun = if let Some(opened) = early {
            opened.by_stream = false;
            (opened.generation, opened.was_empty)
        } else {
            let opened;
            (last, opened) = self.open(last, false).await?;
            (opened.generation, opened.was_empty)
        };
        last.begun = Some((new, begun));
        Ok(begun)
    }

    /// A stream is about to be fetched: what it brings shall not look older than a replace that begins soon.
    pub(super) async fn before_stream(&self) -> Result<(), store::Error> {
        let last = self.last.clone().lock_owned().await;
        if last.opened.is_some_and(|opened| opened.is_recent()) {
            return Ok(());
        }
        self.open(last, true).await.map(drop)
    }

    async fn open(
        &self,
        mut last: OwnedMutexGuard<Last>,
        by_stream: bool,
    ) -> Result<(OwnedMutexGuard<Last>, Opened), store::Error> {
        let store = self.store.clone();
        self.blocking(move || {
            let was_empty = store.count() == 0;
            let generation = store.bump_generation()?;
            let opened = Opened { generation, was_empty, at: Instant::now(), by_stream };
            last.opened = Some(opened);
            Ok((last, opened))
        })
        .await
    }

    /// Stores the state of the replace; with `None` it has ended. Goes on to the end even if the caller does not.
    pub(super) async fn store(&self, job: Option<&Job>) -> Result<(), store::Error> {
        let mut order = self.last.clone().lock_owned().await;
        if job.is_none() {
            order.begun = None;
        }
        let (store, bytes) = (self.store.clone(), job.map(Job::to_bytes).transpose()?.unwrap_or_default());
        self.blocking(move || {
            let stored = store.state_put(STATE, &bytes);
            drop(order);
            stored
        })
        .await
    }

    /// Runs what blocks on a thread for that.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, store::Error> + Send + 'static,
    ) -> Result<T, store::Error> {
        self.env.blocking(work).await.unwrap_or(Err(store::Error::Closed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::store::Options;
    use crate::wire::NodeAddress;

    fn job() -> Job {
        let node = |port| NodeAddress::new(([127, 0, 0, 1], port).into());
        let old = Seed { nodes: vec![(node(1), true), (node(2), false)], clocktime: ClockTime(5) };
        let new = Seed { nodes: vec![(node(3), true)], clocktime: ClockTime(6) };
        Job { generation: 9, full: true, newcomer: true, copied: true, old, new }
    }

    fn open(dir: &tempfile::TempDir) -> Store {
        Store::open(Options::new(dir.path().join("db")), |first| {
            Arc::new(Clock::new(&crate::time::Time::real(), first))
        })
        .unwrap()
    }

    #[test]
    fn damaged_state_is_not_read() {
        let whole = job().to_bytes().unwrap();
        assert_eq!(Job::parse(&whole).unwrap(), job());
        for len in 0..whole.len() {
            assert!(Job::parse(&whole[..len]).is_err(), "{len}");
        }
    }

    #[tokio::test]
    async fn a_job_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        assert_eq!(Job::load(&store).unwrap(), None);
        Ledger::new(&Env::real(), store.clone(), None).store(Some(&job())).await.unwrap();
        store.close().unwrap();
        drop(store);
        let store = open(&dir);
        assert_eq!(Job::load(&store).unwrap(), Some(job()));
        Ledger::new(&Env::real(), store.clone(), None).store(None).await.unwrap();
        assert_eq!(Job::load(&store).unwrap(), None);
    }

    #[tokio::test]
    async fn a_replace_takes_over_the_generation_of_an_early_stream() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let ledger = Ledger::new(&Env::real(), store.clone(), None);
        let before = store.generation();
        ledger.before_stream().await.unwrap();
        ledger.before_stream().await.unwrap();
        assert_eq!(store.generation(), before + 1);
        assert_eq!(ledger.begin(ClockTime(6)).await.unwrap(), (before + 1, true));
        // But only once: what came for one replace is old in the next.
        assert_eq!(ledger.begin(ClockTime(7)).await.unwrap(), (before + 2, true));
        // A stream of a replace that has just begun changes nothing.
        ledger.before_stream().await.unwrap();
        assert_eq!(store.generation(), before + 2);
    }

    #[tokio::test]
    async fn a_replace_that_is_begun_once_more_keeps_its_generation_until_it_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let ledger = Ledger::new(&Env::real(), store.clone(), None);
        let begun = ledger.begin(ClockTime(6)).await.unwrap();
        assert_eq!(ledger.begin(ClockTime(6)).await.unwrap(), begun, "the manager has found this server again");
        let under_way = Job { generation: begun.0, copied: false, ..job() };
        ledger.store(Some(&under_way)).await.unwrap();
        let after = Ledger::new(&Env::real(), store.clone(), Job::load(&store).unwrap().as_ref());
        assert_eq!(after.begin(ClockTime(6)).await.unwrap(), begun, "after a restart");
        after.store(None).await.unwrap();
        assert!(after.begin(ClockTime(6)).await.unwrap().0 > begun.0, "another one of the same hash space");
    }
}
