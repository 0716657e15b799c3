//! Get, set, compare-and-swap and delete on a cluster, as an application wants them. Knows no server: the router does.

use std::sync::Arc;

use super::changes::{Changes, Placement};
use super::managers::named;
use super::{Error, Options, RawKey, Router, Stored, Swapped};
use crate::clock::ClockTime;
use crate::env::Env;
use crate::net::NamedNode;
use crate::wire::NodeAddress;
use crate::wire::params::SetOp;
use crate::wire::record::META_BARE;

/// The clocktime of a value that somebody else has overwritten already: no record has it.
const NEVER: ClockTime = ClockTime(1);

/// A stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// When it was written, as the coordinator of the key counts: [`Client::cas`] compares it.
    pub clocktime: ClockTime,
    /// The layout of `data`, for gateways: `0x4b00` if all of it is the application's, as [`Client::set`] writes it.
    /// After other numbers, a gateway with `-F` or `-E` has put flags or an expiry time in front; `docs/protocol.md`
    /// ("The layout of a value") has the bytes.
    pub meta: u16,
    /// The value's bytes.
    pub data: Vec<u8>,
}

/// A client of one cluster. Clones are the same client: they share its connections, and are cheap.
///
/// Many operations may be under way at the same time; each ends within [`Options::deadline`], or soon after. The client
/// follows the cluster in the background: it learns from the managers when servers come and go, and from failed calls.
/// It stops doing so when the last clone is dropped. It must be made and used within a tokio runtime with I/O and time.
///
/// Keys and values are bytes. Together they may be about as long as the servers' `--max-message`, which is 64 MiB
/// unless it is set; above that they are [`Error::TooLarge`].
#[derive(Debug, Clone)]
pub struct Client {
    router: Arc<Router>,
}

impl Client {
    /// Connects to the cluster of these managers, one or two: the first that answers counts.
    ///
    /// A manager is named by `host` or `host:port` (the port is 19700 if there is none; IPv6 addresses with a port stand
    /// in brackets), or is a [`SocketAddr`](std::net::SocketAddr).
    ///
    /// Fails if no manager can be reached. A cluster without servers is no error: operations on it are.
    pub async fn connect(managers: impl IntoIterator<Item = impl ToString>) -> Result<Self, Error> {
        Self::connect_with(managers, Options::default()).await
    }

    /// [`Client::connect`] with other time limits than the usual ones.
    pub async fn connect_with(
        managers: impl IntoIterator<Item = impl ToString>,
        options: Options,
    ) -> Result<Self, Error> {
        let env = Env::real();
        let managers = named(&env, managers, options.deadline).await?;
        Self::connect_from(&env, managers, options).await
    }

    /// The same from a machine that may be simulated.
    #[doc(hidden)]
    pub async fn connect_from(env: &Env, managers: Vec<impl Into<NamedNode>>, options: Options) -> Result<Self, Error> {
        let router = Router::new(env, managers, options);
        router.refresh().await?;
        Ok(Self { router })
    }

    /// Reads a key; `None` if it is not there.
    ///
    /// Asks the server that writes of the key go through, or if that does not answer the next one that holds a copy.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        let found = self.router.get(&raw(key), self.router.options().deadline, None).await?;
        Ok(found.map(|(clocktime, meta, data)| Value { clocktime, meta, data }))
    }

    /// Writes a key, whatever it holds. Returns its clocktime when every server that holds a copy has written it.
    ///
    /// A set is never done twice, though it is tried again when a call fails; where it cannot be known whether it was done,
    /// the error says so. If somebody else has overwritten it before its clocktime could be learned, the result is a
    /// clocktime that no record has.
    pub async fn set(&self, key: &[u8], data: &[u8]) -> Result<ClockTime, Error> {
        self.set_with_meta(key, META_BARE, data).await
    }

    /// The same with another [`Value::meta`].
    pub(crate) async fn set_with_meta(&self, key: &[u8], meta: u16, data: &[u8]) -> Result<ClockTime, Error> {
        let limit = self.router.options().deadline;
        match self.router.set(&raw(key), SetOp::Sync, (meta, data), limit, None).await? {
            Stored::At(clocktime) => Ok(clocktime),
            Stored::Overwritten => Ok(NEVER),
        }
    }

    /// Writes a key if nobody else has since it was read: if the clocktime that it has is `expected`, or with `None` if it
    /// is not there.
    ///
    /// A swap that another write has forestalled is no error but [`Swapped::Mismatch`]: read again, and decide again. A
    /// swap is never done twice, though it is tried again when a call fails: after [`Error::Doubtful`] it may have been
    /// done, once.
    pub async fn cas(&self, key: &[u8], expected: Option<ClockTime>, data: &[u8]) -> Result<Swapped, Error> {
        let expected = expected.unwrap_or(ClockTime(0));
        self.router.swap(&raw(key), expected, (META_BARE, data), self.router.options().deadline, None).await
    }

    /// Deletes a key on all servers that hold a copy. Returns whether it was there, as far as is known: if a first try was
    /// not answered and a second one finds nothing, the first may have deleted it, and the result is `true`.
    pub async fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        self.router.delete(&raw(key), true, self.router.options().deadline, None).await
    }

    /// Asks the managers now for the hash space, rather than to wait until they tell. Returns when one has answered, or all
    /// have failed to.
    pub async fn refresh(&self) -> Result<(), Error> {
        self.router.refresh().await
    }

    /// The servers that writes go to, in the order of their addresses.
    pub fn servers(&self) -> Vec<NodeAddress> {
        self.placement().servers()
    }

    /// Which servers hold which keys now, as far as this client knows.
    pub fn placement(&self) -> Placement {
        Placement::new(self.router.routes())
    }

    /// Tells of every change of the placement from now on.
    pub fn changes(&self) -> Changes {
        Changes::new(self.router.changes())
    }
}

fn raw(key: &[u8]) -> RawKey {
    RawKey::new(b"", key)
}
