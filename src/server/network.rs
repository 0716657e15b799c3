//! A server's place in the cluster: keep-alive to its managers, hash spaces, clocks of the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::state::Shared;
use super::{coordinate, memory};
use crate::clock::{ClockTime, unix_seconds};
use crate::net::{Link, STEPS, Session};
use crate::ring::HashSpace;
use crate::wire::NodeAddress;
use crate::wire::method::{ErrorCode, Method};
use crate::wire::params::{self, Seed};
use crate::wire::unpack::Reader;

/// How a manager is asked for its hash spaces, in the original's order.
const SPACE_REQUESTS: [Method; 2] = [Method::RhsRequest, Method::WhsRequest];
/// How long a newly attached server waits for the clocks of the others before it coordinates its first write.
const LEARN_LIMIT: Duration = Duration::from_secs(1);
/// Machines' clocks this many seconds apart are worth a warning; at five the original starts losing updates.
const SKEW_SECONDS: u32 = 2;
/// At most one such warning in this many seconds.
const SKEW_WARN_INTERVAL: u32 = 60;

/// Sends `KeepAlive` to every manager for ever; a manager that was away is dialled anew each time.
pub(super) async fn keep_alive(server: Arc<Shared>) {
    let mut ticks = tokio::time::interval(server.config.keepalive_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let managers: Vec<_> = server.config.managers.iter().map(|manager| server.peers.session(*manager)).collect();
    loop {
        ticks.tick().await;
        memory::remember_if_changed(&server);
        for manager in &managers {
            if manager.is_connected() {
                send_keep_alive(&server, manager);
                request_spaces(&server, manager);
            } else {
                server.peers.connect(manager.address());
            }
        }
    }
}

fn send_keep_alive(server: &Arc<Shared>, manager: &Arc<Session>) {
    let clock = server.clock.take();
    manager.call(Method::KeepAlive, STEPS, |out| params::write_keep_alive(out, clock), Box::new(|_| ()));
}

/// A manager has been (re)connected: greets it and asks for both hash spaces.
pub(super) fn greet_manager(server: &Arc<Shared>, manager: &Arc<Session>) {
    tracing::info!(peer = %manager.address(), "connected to manager");
    send_keep_alive(server, manager);
    let both = SPACE_REQUESTS.map(|method| (manager.address(), method));
    server.untold.lock().extend(both);
    request_spaces(server, manager);
}

/// Asks for the hash spaces that this manager has not told since it was connected, and for those that nobody has told.
///
/// What fails is asked again at the next keep-alive: one of the connections may have been about to close.
fn request_spaces(server: &Arc<Shared>, manager: &Arc<Session>) {
    let from = manager.address();
    for method in SPACE_REQUESTS {
        let ready = {
            let spaces = server.spaces();
            if method == Method::WhsRequest { spaces.whs.is_ready() } else { spaces.rhs.is_ready() }
        };
        if ready && !server.untold.lock().contains(&(from, method)) {
            continue;
        }
        let server = server.clone();
        let take = move |result: Result<&[u8], ErrorCode>| match result.map(params::seed) {
            Ok(Ok(seed)) => {
                server.untold.lock().remove(&(from, method));
                take_requested(&server, from, method, &seed);
            }
            Ok(Err(error)) => tracing::warn!(peer = %from, "hash space: {error}"),
            Err(error) => tracing::debug!(peer = %from, "hash space: {error}"),
        };
        manager.call(method, STEPS, params::write_empty, Box::new(take));
    }
}

/// Takes a hash space that was asked for if it is newer than the one held, or if none is held.
fn take_requested(server: &Arc<Shared>, from: NodeAddress, method: Method, seed: &Seed) {
    let wanted =
        |held: &HashSpace| seed.has_active() && (!held.is_ready() || held.clocktime().is_before(seed.clocktime));
    take(server, from, |whs, rhs| match method {
        Method::WhsRequest if wanted(whs) => (Some(seed.clone()), None),
        Method::RhsRequest if wanted(rhs) => (None, Some(seed.clone())),
        _ => (None, None),
    });
}

/// Takes each hash space that a manager has sent if it is usable and not older than the one held; says whether any was.
pub(super) fn take_synced(server: &Arc<Shared>, from: NodeAddress, whs: Seed, rhs: Seed) -> bool {
    take(server, from, |held_whs, held_rhs| {
        let current = |held: &HashSpace, seed: &Seed| seed.has_active() && !seed.clocktime.is_before(held.clocktime());
        let whs = Some(whs).filter(|seed| current(held_whs, seed));
        let rhs = Some(rhs).filter(|seed| current(held_rhs, seed));
        (whs, rhs)
    })
}

/// Takes what `which` gives of the hash spaces held; says whether that was any.
pub(super) fn take(
    server: &Arc<Shared>,
    from: NodeAddress,
    which: impl FnOnce(&HashSpace, &HashSpace) -> (Option<Seed>, Option<Seed>),
) -> bool {
    let change = server.change_spaces(|spaces| which(&spaces.whs, &spaces.rhs));
    if change.taken {
        memory::remember(server);
        let spaces = server.spaces();
        tracing::info!(
            peer = %from, whs = %spaces.whs.clocktime(), rhs = %spaces.rhs.clocktime(),
            active = spaces.whs.active_nodes().count(), "hash space taken"
        );
    }
    if change.joined {
        learn_clocks(server);
    }
    change.taken
}

/// Asks the other active servers for their clocks, for at most [`LEARN_LIMIT`], then lets the held writes go.
///
/// A server that joins lags behind all that was written elsewhere, and for five seconds the clock decides which of
/// two writes is later, not the time: its first writes would be ignored by the replicas.
pub(super) fn learn_clocks(server: &Arc<Shared>) {
    let server = server.clone();
    server.runtime.clone().spawn(async move {
        let spaces = server.spaces();
        let others = spaces.whs.active_nodes().chain(spaces.rhs.active_nodes()).filter(|node| *node != server.address);
        let mut asking = tokio::task::JoinSet::new();
        for node in others.collect::<std::collections::BTreeSet<_>>() {
            let session = server.clients.session(node);
            asking.spawn(async move {
                let result = session.ask(Method::GetStatus, STEPS, |out| params::write_status(out, 8)).await;
                (node, result)
            });
        }
        let learn = async {
            while let Some(answer) = asking.join_next().await {
                match answer {
                    Ok((node, Ok(result))) => learn_clock(&server, node, &result),
                    Ok((node, Err(error))) => tracing::warn!(peer = %node, "clock not learned: {error}"),
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
    let Ok(clocktime) = Reader::new(result).u64().map(ClockTime) else {
        tracing::warn!(peer = %node, "clock not learned: not a clocktime");
        return;
    };
    server.clock.observe(clocktime);
    warn_of_skew(node, clocktime);
}

/// Warns, now and then, when a node's time is far from ours.
fn warn_of_skew(node: impl std::fmt::Display, clocktime: ClockTime) {
    static WARNED: AtomicU32 = AtomicU32::new(0);
    let now = unix_seconds();
    let apart = now.abs_diff(clocktime.seconds());
    if apart < SKEW_SECONDS {
        return;
    }
    let last = WARNED.load(Ordering::Relaxed);
    let due = now.saturating_sub(last) >= SKEW_WARN_INTERVAL;
    if due && WARNED.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        tracing::warn!(peer = %node, "this peer's time is {apart} s from ours: at 5 s updates may be lost");
    }
}

impl Shared {
    /// Looks at the time in a replica's clocktime, which its coordinator took a moment ago.
    #[inline]
    pub(super) fn note_peer_time(&self, link: &Link, clocktime: ClockTime) {
        // Late ones may have been retried; only a time ahead of ours is certain to be wrong.
        if clocktime.seconds() >= self.clock.seconds().saturating_add(SKEW_SECONDS) {
            warn_of_skew(link.peer(), clocktime);
        }
    }
}
