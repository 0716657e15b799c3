//! A server: stores records, coordinates writes, follows its managers.
//!
//! [`Server::start`] reads as the list of what there is, [`Server::stop`] takes it down in the opposite order.

mod admission;
mod claims;
mod clocks;
mod completion;
pub mod config;
mod control;
mod coordinate;
mod copies;
mod dispatch;
mod joined;
mod joining;
mod key_order;
mod last_spaces;
mod majority;
mod marks;
mod membership;
mod permit;
mod refusal;
mod register;
mod remote;
pub mod replace;
mod replace_host;
mod requests;
mod shared;
mod spaces;
pub mod stream;
mod submission;
mod taking;
mod undecided;
mod unsettled;
mod votes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use config::Config;

use crate::binlog::{self, Binlog, Record};
use crate::clock::Clock;
use crate::env::{Env, ListenError, Tasks, every, every_while};
use crate::net::{self, NamedNode, Service};
use crate::store::{self, Store};
use crate::wire::NodeAddress;
use dispatch::Dispatch;
use joined::Joined;
use replace::Replace;
use shared::Shared;
use undecided::Undecided;
use votes::Votes;

/// How often it is seen whether the disk answers.
const STALL_INTERVAL: Duration = Duration::from_secs(1);

/// How often stalled connections are looked for.
const REAP_INTERVAL: Duration = Duration::from_secs(1);

/// The least time that the store has to finish what is queued, also when the requests have used up all of theirs.
const STORE_TIME: Duration = Duration::from_secs(1);

/// The store could not be closed in time.
#[derive(Debug, thiserror::Error)]
#[error("the store was not closed")]
pub struct StopError(#[source] store::Error);

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The listening port is taken, or its address is not of this machine.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The state of the last replace cannot be read from the store.
    #[error("cannot resume the last replace")]
    Replace(#[source] store::Error),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The configuration that the store has kept cannot be read.
    #[error("cannot read the configuration of the cluster")]
    Configuration(#[source] store::Error),
    /// The binary log cannot be opened.
    #[error(transparent)]
    BinaryLog(#[from] binlog::OpenError),
    /// A fault of the program.
    #[error("cannot start: {0}")]
    Failed(String),
}

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    replace: Arc<Replace>,
    /// The peers hold it weakly.
    _service: Arc<dyn Service>,
    tasks: Tasks,
}

impl Server {
    /// Listens, opens the store and starts serving.
    pub async fn start(env: &Env, config: Config) -> Result<Self, StartError> {
        let listener = env.listen(config.bind).map_err(ListenError::at(config.bind))?;
        let port = listener.local_address().map_err(ListenError::at(config.bind))?.port();
        let address = NodeAddress::new(SocketAddr::new(config.address.socket().ip(), port));

        let binary_log = Binlog::open(config.binary_log.as_deref(), env.time())?;
        let time = env.time().clone();
        let options = store::Options { time: time.clone(), new_id: env.random(), ..config.store.clone() };
        let opening = env.blocking(move || {
            let mut clock = Arc::new(Clock::new(&time, 0));
            let store = Store::open(options, |first| {
                clock = Arc::new(Clock::new(&time, first));
                clock.clone()
            })?;
            Ok::<_, store::OpenError>((store, clock))
        });
        let (store, clock) = opening.await.map_err(|error| StartError::Failed(error.to_string()))??;
        let votes = Votes::open(&store, address, env.random(), env.time().now()).map_err(StartError::Configuration)?;
        let joined = Joined::open(&store).map_err(StartError::Configuration)?;
        let shared = Arc::new(Shared::new(env, config, address, clock, store, binary_log, (votes, joined)));
        let service: Arc<dyn Service> = Arc::new(Dispatch(shared.clone()));
        shared.peers.serve(&service);
        shared.clients.serve(&service);
        register::take_up(&shared);
        let undecided = Undecided { marks: shared.marks.clone(), unsettled: shared.unsettled.clone() };
        let store = shared.store.clone();
        env.blocking(move || store.keep_undecided(Arc::new(undecided)))
            .await
            .map_err(|error| StartError::Failed(error.to_string()))?
            .map_err(StartError::Configuration)?;

        let streams = SocketAddr::new(shared.config.bind.ip(), shared.config.stream_port);
        let (streams, stream_port) = stream::listen(env, streams)?;
        let replace = replace_host::start(&shared, streams, stream_port).map_err(StartError::Replace)?;
        let mut tasks = Tasks::default();
        tasks.add(env.spawn(net::accept(listener, shared.peers.clone())));
        let regularly = |period, work: fn(&Arc<Shared>)| {
            let shared = shared.clone();
            env.spawn(every(period, move || work(&shared)))
        };
        tasks.add(regularly(shared.config.keepalive_interval, membership::keep_alive));
        let asking = shared.clone();
        let pause = move || register::question_interval(&asking);
        let asking = shared.clone();
        tasks.add(env.spawn(every_while(pause, move || register::ask_all(&asking))));
        tasks.add(regularly(shared.config.clock_interval, |shared| {
            shared.peers.step();
            shared.clients.step();
        }));
        tasks.add(regularly(REAP_INTERVAL, |shared| shared.peers.reap()));
        tasks.add(regularly(STALL_INTERVAL, |shared| shared.store.warn_of_stall()));
        tasks.add(env.spawn(coordinate::settle::run(shared.clone())));
        log_start(&shared, replace.stream_address());
        tracing::info!(%address, stream = %replace.stream_address(), store = %shared.config.store.path.display(), "listening");
        Ok(Self { shared, replace, _service: service, tasks })
    }

    /// Who this server is, with the port that binding chose.
    pub fn address(&self) -> NodeAddress {
        self.shared.address
    }
}

impl Server {
    /// Accepts no more, finishes what is under way until `deadline`, and closes the store. An error if the disk does not
    /// answer: then the process should end, and the next one opens the store as after a crash.
    pub async fn stop(mut self, deadline: Instant) -> Result<(), StopError> {
        self.tasks.stop();
        self.replace.stop();
        if !self.shared.peers.drain_clients(deadline).await {
            tracing::warn!("the shutdown time-out ended requests in progress");
        }
        self.shared.peers.close();
        self.shared.clients.close();
        let store = self.shared.store.clone();
        let limit = deadline.saturating_duration_since(Instant::now()).max(STORE_TIME);
        match self.shared.env.blocking(move || store.close_within(limit)).await {
            Ok(Ok(())) => {}
            Ok(Err(error @ store::Error::Stalled { .. })) => return Err(StopError(error)),
            // What is not merged is in the redo log.
            Ok(Err(error)) => tracing::error!(%error, "closing the store failed"),
            Err(error) => tracing::error!(%error, "closing the store failed"),
        }
        Ok(())
    }

    /// Opens the binary log anew: it has been moved away.
    pub fn reopen(&self) {
        self.shared.binary_log.reopen();
    }
}

/// Writes the binary log's record of a start.
fn log_start(shared: &Shared, stream: NodeAddress) {
    let config = &shared.config;
    let manager = |place: usize| config.managers.get(place).and_then(NamedNode::address);
    let store = config.store.path.as_os_str().as_encoded_bytes();
    shared.binary_log.write(&Record::ServerStarted {
        address: shared.address,
        store,
        manager1: manager(0),
        manager2: manager(1),
        stream,
        offer_dir: config.offer_dir.as_os_str().as_encoded_bytes(),
        backup_prefix: &[store, b"-"].concat(),
    });
}
