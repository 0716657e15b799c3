//! Get, set, compare-and-swap and delete on a cluster: each to the server that owns the key now.

use std::sync::Arc;

use super::{Error, Options, RawKey, Router, Swapped};
use crate::clock::ClockTime;
use crate::env::Env;
use crate::net::NamedNode;
use crate::wire::NodeAddress;
use crate::wire::params::SetOp;

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

/// A cluster, known by its managers.
#[derive(Debug)]
pub struct Cluster {
    router: Arc<Router>,
}

impl Cluster {
    /// Asks the managers for the hash spaces; the first that answers counts.
    pub async fn connect(managers: Vec<impl Into<NamedNode>>, options: Options) -> Result<Self, Error> {
        Self::connect_from(&Env::real(), managers, options).await
    }

    /// The same from a machine that may be simulated.
    pub async fn connect_from(env: &Env, managers: Vec<impl Into<NamedNode>>, options: Options) -> Result<Self, Error> {
        let router = Router::new(env, managers, options);
        router.refresh().await?;
        Ok(Self { router })
    }

    /// Asks the managers again. Returns when one has answered with hash spaces that can be used, or all have been asked.
    pub async fn refresh(&self) -> Result<(), Error> {
        self.router.refresh().await
    }

    /// The servers that are active for writing.
    pub fn servers(&self) -> Vec<NodeAddress> {
        self.router.routes().whs().active_nodes().collect()
    }

    /// Reads a key from its coordinator, or from the next owner that answers.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        let found = self.router.get(&raw(key), self.deadline(), None).await?;
        Ok(found.map(|(clocktime, meta, data)| Value { clocktime, meta, data }))
    }

    /// Writes a key on all its owners. Returns its clocktime.
    pub async fn set(&self, key: &[u8], meta: u16, data: &[u8]) -> Result<ClockTime, Error> {
        self.router.set(&raw(key), SetOp::Sync, (meta, data), self.deadline(), None).await
    }

    /// Writes a key if its clocktime is `expected`; zero: if it is absent. Returns the new clocktime, or `None` if it
    /// was another one.
    ///
    /// [`Error::Doubtful`] means that the swap may have been done; see [`Router::swap`]. The clocktime is zero if the
    /// swap was done and somebody else has written since.
    pub async fn cas(
        &self,
        key: &[u8],
        expected: ClockTime,
        meta: u16,
        data: &[u8],
    ) -> Result<Option<ClockTime>, Error> {
        Ok(match self.router.swap(&raw(key), expected, (meta, data), self.deadline(), None).await? {
            Swapped::At(clocktime) => Some(clocktime),
            Swapped::Overwritten => Some(ClockTime(0)),
            Swapped::Mismatch => None,
        })
    }

    /// Deletes a key on all its owners. Says whether it was there, as far as the tries could see.
    pub async fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        self.router.delete(&raw(key), true, self.deadline(), None).await
    }

    fn deadline(&self) -> std::time::Duration {
        self.router.options().deadline
    }
}

fn raw(key: &[u8]) -> RawKey {
    RawKey::new(b"", key)
}
