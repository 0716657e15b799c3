//! Which servers hold which keys, shown to applications: the hash spaces at one moment, and their changes.

use std::sync::Arc;

use tokio::sync::watch;

use super::Routes;
use crate::ring;
use crate::wire::NodeAddress;

/// Which servers hold which keys at one moment: the hash spaces of the cluster. It does not change; see [`Changes`].
#[derive(Debug, Clone)]
pub struct Placement {
    routes: Arc<Routes>,
}

impl Placement {
    pub(super) fn new(routes: Arc<Routes>) -> Self {
        Self { routes }
    }

    /// The servers that writes go to, in the order of their addresses.
    pub fn servers(&self) -> Vec<NodeAddress> {
        self.routes.whs().active_nodes().collect()
    }

    /// The servers that hold a copy of `key`, at most three. The first is the one that writes go through, the
    /// coordinator.
    pub fn owners(&self, key: &[u8]) -> Vec<NodeAddress> {
        self.routes.whs().owners(ring::hash(key)).active().collect()
    }

    /// Whether records are being copied to where they belong, so that some reads still go to other servers than writes.
    /// So it is during a replace, after servers have been attached or detached.
    pub fn is_changing(&self) -> bool {
        self.routes.whs().seed() != self.routes.rhs().seed()
    }
}

/// The changes of the placement, one after another. Who is slow to ask misses some, never the last.
#[derive(Debug, Clone)]
pub struct Changes {
    routes: watch::Receiver<Arc<Routes>>,
}

impl Changes {
    pub(super) fn new(routes: watch::Receiver<Arc<Routes>>) -> Self {
        Self { routes }
    }

    /// Waits for the next change. `None` if there will be none, because the client was dropped.
    ///
    /// May be dropped while it waits, in a `select!` say: no change is lost.
    pub async fn next(&mut self) -> Option<Placement> {
        self.routes.changed().await.ok()?;
        Some(Placement::new(self.routes.borrow_and_update().clone()))
    }
}
