//! How much the cluster holds: asked of its servers when somebody wants to know, and kept for a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::client::Router;
use crate::env::Group;
use crate::wire::NodeAddress;
use crate::wire::method::STATUS_ITEMS;

/// How long an answer is good for.
const KEPT: Duration = Duration::from_secs(1);
/// How long servers are waited for. Of those that have not answered, what they said before counts.
const PATIENCE: Duration = Duration::from_millis(500);

/// The contents of the cluster, each key counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Keys. Those that have expired and are still stored count, and so do deletions that no server has merged yet.
    pub(super) items: u64,
    /// Bytes that they take on disk.
    pub(super) bytes: u64,
}

/// The last answer of each server, and when they were asked.
#[derive(Debug, Default)]
pub(super) struct Holdings(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    at: Option<Instant>,
    servers: HashMap<NodeAddress, Held>,
}

impl Holdings {
    /// The contents of the servers now, or as they were less than a second ago. Those who ask meanwhile wait for the same answers.
    pub(super) async fn get(&self, router: &Arc<Router>) -> Held {
        let mut asked = self.0.lock().await;
        let known = router.routes();
        if asked.at.is_none_or(|at| at.elapsed() >= KEPT) {
            let active: Vec<_> = known.whs().active_nodes().collect();
            asked.servers.retain(|server, _| active.contains(server));
            let mut asking = Group::new(router.env());
            for server in active {
                let router = router.clone();
                asking.add(async move { (server, ask(&router, server).await) });
            }
            let deadline = Instant::now() + PATIENCE;
            while let Ok(Some(answer)) = timeout_at(deadline, asking.next()).await {
                if let Ok((server, Some(held))) = answer {
                    asked.servers.insert(server, held);
                }
            }
            asked.at = Some(Instant::now());
        }
        once(asked.servers.values(), known.copies())
    }
}

/// The contents of one server; an original one has only a number of records to say.
async fn ask(router: &Router, server: NodeAddress) -> Option<Held> {
    match router.caller().figures(server).await {
        Ok(Some(figures)) => {
            let store = figures.store;
            Some(Held { items: store.items.saturating_sub(store.tombstones), bytes: store.tree_bytes })
        }
        Ok(None) => router.caller().number(server, STATUS_ITEMS).await.ok().map(|items| Held { items, bytes: 0 }),
        Err(_) => None,
    }
}

/// The contents of these servers, divided by the number of copies that they have of a key.
fn once<'a>(servers: impl ExactSizeIterator<Item = &'a Held>, copies: usize) -> Held {
    let copies = copies.min(servers.len()).max(1) as u64;
    let all = servers.fold(Held::default(), |all, held| Held {
        items: all.items.saturating_add(held.items),
        bytes: all.bytes.saturating_add(held.bytes),
    });
    Held { items: all.items.div_ceil(copies), bytes: all.bytes / copies }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_a_key_count_once() {
        let of = |servers: &[u64]| {
            let servers: Vec<_> = servers.iter().map(|items| Held { items: *items, bytes: items * 100 }).collect();
            once(servers.iter(), servers.len().min(3))
        };
        assert_eq!(of(&[]), Held::default());
        assert_eq!(of(&[7]), Held { items: 7, bytes: 700 });
        assert_eq!(of(&[7, 7]), Held { items: 7, bytes: 700 });
        assert_eq!(of(&[6, 5, 8, 5]), Held { items: 8, bytes: 800 });
    }
}
