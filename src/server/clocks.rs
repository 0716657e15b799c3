//! The clocks of the other servers: learned before the first write, and compared with ours.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::coordinate;
use super::shared::Shared;
use crate::clock::ClockTime;
use crate::env::Group;
use crate::net::{Link, STEPS};
use crate::wire::NodeAddress;
use crate::wire::method::{GetStatus, STATUS_CLOCKTIME};
use crate::wire::params::decode;

/// How long a newly attached server waits for the clocks of the others before it coordinates its first write.
const LEARN_LIMIT: Duration = Duration::from_secs(1);
/// Machines' clocks this many seconds apart are worth a warning; at five the original starts losing updates.
const SKEW_SECONDS: u32 = 2;
/// At most one such warning in this many seconds.
const SKEW_WARN_INTERVAL: u32 = 60;

/// Asks the other active servers for their clocks, for at most [`LEARN_LIMIT`], then lets the held writes go.
///
/// A server that joins lags behind all that was written elsewhere, and for five seconds the clock decides which of
/// two writes is later, not the time: its first writes would be ignored by the replicas.
pub(super) fn learn(server: &Arc<Shared>) {
    let server = server.clone();
    server.env.clone().spawn(async move {
        let spaces = server.spaces();
        let others = spaces.whs.active_nodes().chain(spaces.rhs.active_nodes()).filter(|node| *node != server.address);
        let mut asking = Group::new(&server.env);
        for node in others.collect::<std::collections::BTreeSet<_>>() {
            let session = server.clients.session(node);
            asking.add(async move { (node, session.ask(&GetStatus { number: STATUS_CLOCKTIME }, STEPS).await) });
        }
        let learn = async {
            while let Some(answer) = asking.next().await {
                match answer {
                    Ok((node, Ok(result))) => learn_clock(&server, node, &result),
                    Ok((node, Err(error))) => {
                        tracing::warn!(peer = %node, "cannot read the clock of a server: {error}");
                    }
                    Err(_) => {}
                }
            }
        };
        if tokio::time::timeout(LEARN_LIMIT, learn).await.is_err() {
            tracing::warn!("not all clocks learned within {LEARN_LIMIT:?}");
        }
        coordinate::decide(&server, server.learned());
    });
}

fn learn_clock(server: &Shared, node: NodeAddress, result: &[u8]) {
    let Ok(clocktime) = decode::<ClockTime>(result) else {
        tracing::warn!(peer = %node, "cannot read the clock of a server: the answer is no clocktime");
        return;
    };
    server.clock.observe(clocktime);
    warn_of_skew(server, node, clocktime);
}

/// Warns, now and then, when a node's time is far from ours.
fn warn_of_skew(server: &Shared, node: impl std::fmt::Display, clocktime: ClockTime) {
    let now = server.clock.seconds();
    let apart = now.abs_diff(clocktime.seconds());
    if apart < SKEW_SECONDS {
        return;
    }
    let warned = &server.warned_of_skew;
    let last = warned.load(Ordering::Relaxed);
    let due = now.saturating_sub(last) >= SKEW_WARN_INTERVAL;
    if due && warned.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        tracing::warn!(peer = %node, "this peer's time is {apart} s from ours: at 5 s updates may be lost");
    }
}

impl Shared {
    /// Looks at the time in a replica's clocktime, which its coordinator took a moment ago.
    #[inline]
    pub(super) fn note_peer_time(&self, link: &Link, clocktime: ClockTime) {
        // Late ones may have been retried; only a time ahead of ours is certain to be wrong.
        if clocktime.seconds() >= self.clock.seconds().saturating_add(SKEW_SECONDS) {
            warn_of_skew(self, link.peer(), clocktime);
        }
    }
}
