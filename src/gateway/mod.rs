//! The gateway: memcached clients on one side, a cluster on the other.
//!
//! A request passes through these, in order:
//!
//! 1. `listen` binds ports and a Unix socket; [`crate::net`] accepts, reads, sends, and bounds the connections.
//! 2. `connection` has the requests of one read parsed by [`protocol`], and puts each into the `pipeline` of the connection,
//!    which keeps the answers in the order of the requests and the requests for one key apart (`key_order`).
//! 3. `operation` is what a request asks of the servers, `job` its operation with the duty to answer it.
//! 4. `dispatch` sends all of them to their servers at once; where one call is not enough, `execute` goes on, and `acknowledge`
//!    holds back the answer to a write while a flush is under way. [`crate::client`] decides which server is asked.
//! 5. `view` decides what of a record the client sees, the outcome goes back through the pipeline.
//!
//! [`change`] decides how a record is changed, [`item`] is a record as clients see it, [`layout`] its bytes. These know neither
//! streams nor the cluster, and nor does [`protocol`]. `flush` decides which records a `flush_all` hides, `flushes` carries it
//! out.

mod acknowledge;
pub mod change;
pub mod config;
mod connection;
mod dispatch;
mod execute;
pub mod failure;
#[cfg(test)]
mod fake;
mod flush;
mod flushes;
mod holdings;
pub mod item;
mod item_locks;
mod job;
mod key_order;
pub mod layout;
mod listen;
mod operation;
pub mod outcome;
mod pipeline;
pub mod protocol;
mod report;
mod shared;
mod stats;
mod swap;
mod view;

use std::sync::Arc;
use std::time::Duration;

pub use config::{Config, Limits, Listen};

use crate::binlog::{self, Binlog, Record};
use crate::env::{Env, ListenError, Tasks, every};
use crate::net::{NamedNode, accept_each};
use connection::Clients;
use listen::Listening;
use shared::Shared;

/// How often stalled connections are looked for.
const REAP_INTERVAL: Duration = Duration::from_secs(1);

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port or path is taken, or not one of this machine.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The binary log cannot be written.
    #[error(transparent)]
    Binlog(#[from] binlog::OpenError),
}

/// A running gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    clients: Arc<Clients>,
    tasks: Tasks,
}

impl Gateway {
    /// Listens, follows the managers, and serves from now on, whether or not a manager can be reached yet. Must be
    /// called within a runtime.
    pub fn start(env: &Env, config: Config) -> Result<Self, StartError> {
        let mut listeners = Vec::new();
        for listen in &config.listen {
            listeners.push(listen::on_port(env, *listen).map_err(ListenError::at(listen))?);
        }
        if let Some(path) = &config.unix {
            listeners.push(listen::on_path(env, path).map_err(ListenError::at(path.display()))?);
        }
        let binary_log = Binlog::open(config.binary_log.as_deref(), env.time())?;
        let manager = |place: usize| config.managers.get(place).and_then(NamedNode::address);
        binary_log.write(&Record::GatewayStarted { manager1: manager(0), manager2: manager(1) });
        let shared = Shared::new(env, config, binary_log);
        let clients = Arc::new(Clients::new(env.time()));
        let mut tasks = Tasks::default();
        for Listening { listener, name, path } in listeners {
            tracing::info!(address = name, "listening");
            let (shared, clients) = (shared.clone(), clients.clone());
            tasks.add(env.spawn(accept_each(listener, move |stream, peer| {
                let peer = path.as_ref().map_or_else(|| peer.to_string(), ToString::to_string);
                connection::accept(&shared, &clients, stream, peer);
            })));
        }
        let (reaped, stalled) = (clients.clone(), shared.config.limits.stalled);
        tasks.add(env.spawn(every(REAP_INTERVAL, move || reap(&reaped, stalled))));
        Ok(Self { shared, clients, tasks })
    }

    /// Opens the binary log anew, after it has been moved away.
    pub fn reopen(&self) {
        self.shared.binary_log.reopen();
    }

    /// Accepts no more, answers what is under way until `deadline`, and closes.
    pub async fn stop(mut self, deadline: tokio::time::Instant) {
        self.tasks.stop();
        let left = self.clients.drain(deadline, |_| true).await;
        if left > 0 {
            tracing::warn!("closing with {left} connections open");
            self.clients.close_all();
        }
    }
}

/// Closes connections that have owed a request, or left answers unread, for so long.
fn reap(clients: &Clients, stalled: Duration) {
    clients.reap(stalled, |_, limit| tracing::info!("closing a client: no progress for {limit} s"));
}
