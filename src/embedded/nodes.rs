//! The nodes of a cluster in this process: their settings, and waiting until they agree. Knows no threads.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::error::Error;
use crate::client::{Caller, Options};
use crate::env::Env;
use crate::manager::{self, Manager};
use crate::net::{DialPolicy, Limits};
use crate::register::Timing;
use crate::server::{self, Server};
use crate::store;
use crate::wire::NodeAddress;
use crate::wire::method::{STATUS_FLAGS, STATUS_RHS, STATUS_WHS};
use crate::wire::params::Seed;

/// Memory for the records of one server, in bytes.
const CACHE_BYTES: u64 = 32 << 20;
/// Pause between two keep-alives: on one machine a loss may be noticed soon.
const KEEP_ALIVE: Duration = Duration::from_millis(100);
/// How long the nodes may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long requests that are under way may take at the end.
const END: Duration = Duration::from_secs(5);
/// Pause between two polls of the nodes.
const POLL_PAUSE: Duration = Duration::from_millis(10);

/// A manager and its servers.
pub(super) struct Nodes {
    env: Env,
    folder: PathBuf,
    manager: Manager,
    servers: Vec<Place>,
    caller: Caller,
}

/// A server with what it keeps when it is stopped.
struct Place {
    address: NodeAddress,
    running: Option<Server>,
}

/// The store's file of the server with this number.
pub(super) fn store(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("server{number}.tch"))
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn dial() -> DialPolicy {
    DialPolicy { timeout: Duration::from_secs(1), retry_limit: 4 }
}

impl Nodes {
    /// Starts the manager. Must be called within a runtime.
    pub(super) fn start(folder: &Path) -> Result<Self, Error> {
        let env = Env::real();
        let config = manager::Config {
            address: NodeAddress::new(any_port()),
            bind: any_port(),
            partner: None,
            auto_replace: false,
            replace_delay: Duration::ZERO,
            keepalive_interval: KEEP_ALIVE,
            votes: true,
            timing: Timing::default(),
            dial: dial(),
            clock_interval: Duration::from_secs(2),
            binary_log: None,
            limits: Limits::default(),
        };
        let manager = Manager::start(&env, config).map_err(|error| Error::start("the manager", error))?;
        let caller = Caller::new(&env, &Options::default());
        Ok(Self { env, folder: folder.to_owned(), manager, servers: Vec::new(), caller })
    }

    pub(super) fn manager(&self) -> SocketAddr {
        self.manager.address().socket()
    }

    /// Starts `count` more servers on empty stores and attaches them.
    pub(super) async fn add(&mut self, count: usize) -> Result<Vec<SocketAddr>, Error> {
        let first = self.servers.len();
        for _ in 0..count {
            let path = store(&self.folder, self.servers.len());
            if path.exists() {
                return Err(Error::Exists(path));
            }
            let running = self.server(NodeAddress::new(any_port()), path).await?;
            self.servers.push(Place { address: running.address(), running: Some(running) });
        }
        self.wait_attached().await?;
        Ok(self.servers.iter().skip(first).map(|place| place.address.socket()).collect())
    }

    async fn server(&self, address: NodeAddress, path: PathBuf) -> Result<Server, Error> {
        let mut store = store::Options::new(path);
        store.sync = store::SyncMode::Os;
        store.cache_bytes = CACHE_BYTES;
        let config = server::Config {
            stream_port: 0,
            keepalive_interval: KEEP_ALIVE,
            dial: dial(),
            clock_interval: Duration::from_secs(2),
            ..server::Config::new(address, vec![self.manager.address().into()], store)
        };
        Server::start(&self.env, config).await.map_err(|error| Error::start("a server", error))
    }

    /// Stops the server with this number, and waits until the others go on without it.
    pub(super) async fn stop_server(&mut self, number: usize) -> Result<(), Error> {
        let place = self.servers.get_mut(number).ok_or(Error::NoServer(number))?;
        let server = place.running.take().ok_or(Error::NoServer(number))?;
        let address = place.address;
        server.stop(Instant::now() + END).await.map_err(|error| Error::Stop(Box::new(error)))?;
        if self.running().next().is_none() {
            // The manager keeps the hash space of a cluster that has lost all its servers.
            return Ok(());
        }
        let what = format!("the manager has taken {address} out of the hash space");
        wait(what, async || {
            let (whs, _) = self.settled().await?;
            (!is_active(&whs, address)).then_some(())
        })
        .await
    }

    /// Starts the server with this number again, and attaches it if it has been given up.
    pub(super) async fn start_server(&mut self, number: usize) -> Result<(), Error> {
        let address = match self.servers.get(number) {
            Some(Place { address, running: None }) => *address,
            _ => return Err(Error::NoServer(number)),
        };
        let running = self.server(address, store(&self.folder, number)).await?;
        if let Some(place) = self.servers.get_mut(number) {
            place.running = Some(running);
        }
        self.wait_attached().await
    }

    fn running(&self) -> impl Iterator<Item = NodeAddress> {
        self.servers.iter().filter(|place| place.running.is_some()).map(|place| place.address)
    }

    /// Has the servers attached that wait for it, and waits until all that run are active and have their records.
    async fn wait_attached(&self) -> Result<(), Error> {
        let manager = self.manager.address();
        wait("all servers are attached and have their records".to_owned(), async || {
            let known = self.caller.overview(manager).await.ok()?;
            let is_known = |server| known.detached.contains(&server) || is_active(&known.whs, server);
            if !known.detached.is_empty() && self.running().all(is_known) {
                self.caller.attach(manager, true, None).await.ok()?;
            }
            let (whs, rhs) = self.settled().await?;
            (whs == rhs && self.running().all(|server| is_active(&whs, server))).then_some(())
        })
        .await
    }

    /// The manager's hash spaces, if every server that runs has them and is neither copying nor deleting.
    async fn settled(&self) -> Option<(Seed, Seed)> {
        let (whs, rhs) = self.caller.spaces(self.manager.address()).await.ok()?;
        for server in self.running().filter(|server| is_active(&whs, *server)) {
            let same = self.caller.space(server, STATUS_WHS).await.ok()? == whs
                && self.caller.space(server, STATUS_RHS).await.ok()? == rhs;
            if !same || self.caller.number(server, STATUS_FLAGS).await.ok()? != 0 {
                return None;
            }
        }
        Some((whs, rhs))
    }

    /// Stops all servers together, then the manager.
    pub(super) async fn stop(self) {
        let deadline = Instant::now() + END;
        let mut stopping = crate::env::Group::new(&self.env);
        for server in self.servers.into_iter().filter_map(|place| place.running) {
            stopping.add(server.stop(deadline));
        }
        while let Some(stopped) = stopping.next().await {
            if let Ok(Err(error)) = stopped {
                tracing::error!(%error, "a server was not stopped in order");
            }
        }
        self.manager.stop(deadline).await;
    }
}

fn is_active(space: &Seed, server: NodeAddress) -> bool {
    space.nodes.contains(&(server, true))
}

/// Looks again and again until there is something to see; `what` is that.
async fn wait(what: String, mut look: impl AsyncFnMut() -> Option<()>) -> Result<(), Error> {
    let looking = async {
        while look().await.is_none() {
            tokio::time::sleep(POLL_PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.map_err(|_| Error::Late(what))
}
