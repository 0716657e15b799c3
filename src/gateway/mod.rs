//! The gateway: memcached clients on one side, a cluster on the other.
//!
//! [`protocol`] turns bytes into tasks and outcomes into bytes; [`change`] decides what a task does to a record;
//! [`item`] is what clients see of a record, [`layout`] how it lies in there. These know neither sockets nor the cluster. `connection` owns a
//! client's socket, `desk` keeps its answers in order, `work` carries a request to its server and back; whom to ask,
//! and whom next, is the affair of [`crate::client`]. `flush` says what a `flush_all` hides, `flushes` carries it out.

#[cfg(test)]
mod bed;
mod budget;
pub mod change;
mod changes;
pub mod config;
mod connection;
mod desk;
mod flush;
mod flushes;
mod holdings;
pub mod item;
pub mod layout;
mod listener;
pub mod outcome;
pub mod protocol;
mod report;
mod stats;
mod swap;
mod turns;
mod work;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

pub use config::{Config, Limits, Listen};

use crate::binlog::{self, Binlog, Record};
use crate::client::{Options, Router};
use crate::clock::ClockTime;
use crate::env::Env;
use crate::net::NamedNode;
use budget::Budget;
use changes::Changes;
use connection::Closed;
use desk::Desk;
use flushes::Flushes;
use holdings::Holdings;
use listener::Listener;
use stats::Stats;

/// How often stalled connections are looked for.
const REAP_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between two looks at the connections that are left when draining.
const DRAIN_PAUSE: Duration = Duration::from_millis(5);

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port or path is taken, or not one of this machine.
    #[error("cannot listen on {0}: {1}")]
    Listen(String, io::Error),
    /// The binary log cannot be written.
    #[error(transparent)]
    Binlog(#[from] binlog::OpenError),
}

/// What all connections of a gateway share.
#[derive(Debug)]
struct Shared {
    config: Config,
    router: Arc<Router>,
    budget: Arc<Budget>,
    flushes: Flushes,
    changes: Changes,
    stats: Stats,
    holdings: Holdings,
    binary_log: Binlog,
    desks: Mutex<HashMap<u64, Arc<Desk>>>,
    last: AtomicU64,
    started: Instant,
}

/// A running gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Gateway {
    /// Listens, follows the managers, and serves from now on, whether or not a manager can be reached yet. Must be
    /// called within a runtime.
    pub fn start(env: &Env, config: Config) -> Result<Self, StartError> {
        let mut listeners = Vec::new();
        for listen in &config.listen {
            let listener = Listener::tcp(*listen);
            listeners.push(listener.map_err(|error| StartError::Listen(listen.to_string(), error))?);
        }
        if let Some(path) = &config.unix {
            let listener = Listener::unix(path);
            listeners.push(listener.map_err(|error| StartError::Listen(path.display().to_string(), error))?);
        }
        let binary_log = Binlog::open(config.binary_log.as_deref())?;
        let manager = |place: usize| config.managers.get(place).and_then(NamedNode::address);
        binary_log.write(&Record::GatewayStarted { manager1: manager(0), manager2: manager(1) });
        let options = Options {
            connect_timeout: config.connect_timeout,
            call_timeout: config.call_timeout,
            renew_threshold: config.renew_threshold,
            follow_interval: config.keepalive_interval,
            ..Options::default()
        };
        let shared = Arc::new(Shared {
            router: Router::new(env, config.managers.clone(), options),
            budget: Arc::new(Budget::new(config.limits.memory)),
            flushes: Flushes::default(),
            changes: Changes::default(),
            stats: Stats::default(),
            holdings: Holdings::default(),
            binary_log,
            desks: Mutex::default(),
            last: AtomicU64::new(0),
            started: Instant::now(),
            config,
        });
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tracing::info!(address = listener.name(), "listening");
            tasks.spawn(listener.run(shared.clone()));
        }
        tasks.spawn(reap(shared.clone()));
        Ok(Self { shared, tasks })
    }

    /// Opens the binary log anew, after it has been moved away.
    pub fn reopen(&self) {
        self.shared.binary_log.reopen();
    }

    /// Accepts no more, answers what is under way until `deadline`, and closes.
    pub async fn stop(mut self, deadline: tokio::time::Instant) {
        self.tasks.shutdown().await;
        loop {
            let desks: Vec<_> = self.shared.desks.lock().values().cloned().collect();
            if desks.is_empty() {
                return;
            }
            for desk in &desks {
                desk.drain();
            }
            if tokio::time::timeout_at(deadline, tokio::time::sleep(DRAIN_PAUSE)).await.is_err() {
                tracing::warn!("closing with {} connections open", desks.len());
                return desks.iter().for_each(|desk| desk.close());
            }
        }
    }
}

impl Shared {
    /// Serves a client on a task of its own; beyond the limit of connections the stream is given back.
    fn accept<S>(self: &Arc<Self>, stream: S, peer: String) -> Result<(), S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        let desk = Arc::new(Desk::new(self.budget.clone()));
        {
            let mut desks = self.desks.lock();
            if desks.len() >= self.config.limits.connections {
                return Err(stream);
            }
            desks.insert(id, desk.clone());
        }
        Stats::add(&self.stats.connections);
        let leaving = Leaving { shared: self.clone(), desk, id };
        tokio::spawn(async move {
            match connection::serve(stream, &leaving.shared, &leaving.desk).await {
                closed @ Closed::MemoryLimit => tracing::warn!(peer, "closed: {closed}"),
                closed => tracing::debug!(peer, "closed: {closed}"),
            }
        });
        Ok(())
    }

    /// Whether a flush hides a record of this hash that was written then.
    fn is_hidden(&self, hash: u64, written: ClockTime) -> bool {
        self.flushes.is_used() && self.flushes.hides(hash, written, &self.router.routes())
    }

    fn open_connections(&self) -> usize {
        self.desks.lock().len()
    }

    /// Seconds since the start, at least one: the reaper's clock.
    fn uptime_seconds(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX).saturating_add(1)
    }
}

/// Cleans up after a connection, also when a panic ends its task.
struct Leaving {
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    id: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("closed: a request of this client caused a panic");
        }
        self.desk.leave();
        self.shared.desks.lock().remove(&self.id);
    }
}

/// Closes connections that have owed a request, or left answers unread, for too long.
async fn reap(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(REAP_INTERVAL);
    loop {
        ticks.tick().await;
        let now = shared.uptime_seconds();
        let limit = u32::try_from(shared.config.limits.stalled.as_secs()).unwrap_or(u32::MAX).max(1);
        let owes = |desk: &Desk| match desk.owing_since.load(Ordering::Relaxed) {
            0 => 0,
            since => now.saturating_sub(since),
        };
        let stalled: Vec<_> = shared.desks.lock().values().filter(|desk| owes(desk) >= limit).cloned().collect();
        for desk in stalled {
            tracing::info!("closing a client: no progress for {limit} s");
            desk.close();
        }
    }
}
