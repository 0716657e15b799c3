//! The manager's role: knows the servers and owns the hash space.
//!
//! `state` decides, without a network; `shell` tells the others, `service` hears from them, `timers` does what happens by
//! itself, and `adopt` learns what was there before this process. Knows no flags and no signals.

mod addresses;
mod adopt;
mod auto;
mod changes;
mod claims;
pub mod config;
mod force;
mod heartbeat;
mod job;
mod mixed;
mod mode;
mod reach;
mod replace;
mod report;
mod service;
mod shell;
mod spaces;
mod state;
mod timers;
mod votes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use config::Config;

use crate::binlog::{self, Binlog, Record};
use crate::env::{Env, ListenError, Tasks};
use crate::net::{self, NamedNode, Service};
use crate::wire::NodeAddress;
use shell::Shell;

/// How long after the start the servers of an older cluster may take to find this manager again, beyond the
/// interval of their keep-alives.
const REDIAL: Duration = Duration::from_millis(300);
/// The longest that a starting manager listens before it acts, however rarely it sends keep-alives.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// Why a manager cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not one of this machine.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The binary log cannot be written.
    #[error(transparent)]
    Binlog(#[from] binlog::OpenError),
}

/// A running manager.
pub struct Manager {
    shell: Arc<Shell>,
    listening: Tasks,
    timers: Tasks,
}

impl Manager {
    /// Listens, finds the partner, and serves from now on.
    pub fn start(env: &Env, config: Config) -> Result<Self, StartError> {
        let listener = env.listen(config.bind).map_err(ListenError::at(config.bind))?;
        let bound = listener.local_address().map_err(ListenError::at(config.bind))?;
        let address = NodeAddress::new(SocketAddr::new(config.address.socket().ip(), bound.port()));
        let settle_until = tokio::time::Instant::now() + config.keepalive_interval.min(SETTLE_MAX) + REDIAL;
        let binlog = Binlog::open(config.binary_log.as_deref(), env.time())?;
        binlog
            .write(&Record::ManagerStarted { address, partner: config.partner.as_ref().and_then(NamedNode::address) });
        let shell = Shell::new(env, config, address, binlog, settle_until);
        let service: Arc<dyn Service> = shell.clone();
        shell.peers.serve(&service);
        let (mut listening, mut timers) = (Tasks::default(), Tasks::default());
        listening.add(env.spawn(net::accept(listener, shell.peers.clone())));
        timers.add(env.spawn(timers::run(shell.clone())));
        tracing::info!(%address, partner = ?shell.config.partner, "manager started");
        Ok(Self { shell, listening, timers })
    }

    /// Where it listens; the port is the one that binding chose.
    pub fn address(&self) -> NodeAddress {
        self.shell.address
    }

    /// Opens the binary log anew, after it has been moved away.
    pub fn reopen(&self) {
        self.shell.binlog.reopen();
    }

    /// Stops accepting, answers what is under way until `deadline`, and closes.
    pub async fn stop(mut self, deadline: tokio::time::Instant) {
        self.listening.stop();
        if !self.shell.peers.drain_clients(deadline).await {
            tracing::warn!("closing with requests unanswered");
        }
        self.timers.stop();
        self.shell.peers.close();
    }
}
