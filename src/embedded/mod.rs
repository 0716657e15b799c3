//! A whole cluster in this process, for the tests of programs that use one: a manager and some servers on free loopback
//! ports, with real sockets and real files.
//!
//! ```
//! use kumo_server::client::Client;
//! use kumo_server::embedded::Cluster;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = Cluster::start(3).await?;
//! let client = Client::connect([cluster.manager()]).await?;
//! client.set(b"key", b"value").await?;
//!
//! // The application under test must go on without one of them.
//! cluster.stop_server(0).await?;
//! assert_eq!(client.get(b"key").await?.unwrap().data, b"value");
//!
//! cluster.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! The cluster has a thread and a runtime of its own, so that it also goes on while a test blocks its own thread, or has
//! paused tokio's clock. Several clusters may run side by side. A process is killed with everything in it: to try what a
//! program does when a machine dies, run `kumo-server cluster`.

mod error;
mod nodes;
mod thread;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

pub use error::Error;

use thread::{Command, Started};

/// Most servers of one cluster.
pub const SERVERS_MAX: usize = 16;

/// A running cluster. It ends by [`Cluster::stop`], or when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    manager: SocketAddr,
    servers: Vec<SocketAddr>,
    folder: PathBuf,
    /// Closed: the cluster is to end.
    commands: Option<mpsc::Sender<Command>>,
    /// Closed when it has ended.
    ended: Option<oneshot::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Cluster {
    /// Starts a manager and `servers` servers, from 1 to [`SERVERS_MAX`], with empty stores in a temporary folder that is
    /// removed at the end. Returns when all of them are attached and serve, after about half a second.
    pub async fn start(servers: usize) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("kumo-embedded-").tempdir();
        let folder = folder.map_err(|source| Error::Folder { path: std::env::temp_dir(), source })?;
        let path = folder.path().to_owned();
        Self::run(servers, path, Some(folder)).await
    }

    /// The same with the stores in `folder`, where they stay. The folder is made if it is not there; it must not have stores
    /// of another cluster in it.
    pub async fn start_in(folder: impl AsRef<Path>, servers: usize) -> Result<Self, Error> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(|source| Error::Folder { path: folder.to_owned(), source })?;
        Self::run(servers, folder.to_owned(), None).await
    }

    async fn run(servers: usize, folder: PathBuf, temporary: Option<tempfile::TempDir>) -> Result<Self, Error> {
        if !(1..=SERVERS_MAX).contains(&servers) {
            return Err(Error::TooMany(servers));
        }
        let (commands, received) = mpsc::channel(1);
        let (ready, started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let stores = folder.clone();
        let work = move || {
            thread::run(&stores, servers, ready, received);
            // Its files are closed.
            drop(temporary);
            drop(end);
        };
        let thread = std::thread::Builder::new().name("kumo-embedded".to_owned()).spawn(work);
        let thread = thread.map_err(|error| Error::start("a thread", error))?;
        let Started { manager, servers } = started.await.map_err(|_| Error::Ended)??;
        Ok(Self { manager, servers, folder, commands: Some(commands), ended: Some(ended), thread: Some(thread) })
    }

    /// Where the manager listens: what to give to [`Client::connect`](crate::client::Client::connect), or to the flag `-m` of
    /// a gateway or tool.
    pub fn manager(&self) -> SocketAddr {
        self.manager
    }

    /// Where the servers listen, in the order in which they were started, those that have been stopped included.
    pub fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// The file of the store of the server with this place in [`Cluster::servers`]. Others can read it when that server has
    /// been stopped; see [`offline`](crate::offline).
    pub fn store(&self, server: usize) -> PathBuf {
        nodes::store(&self.folder, server)
    }

    /// Starts one more server and attaches it. Returns its address when the records that belong to it have been copied.
    pub async fn add_server(&mut self) -> Result<SocketAddr, Error> {
        if self.servers.len() >= SERVERS_MAX {
            return Err(Error::TooMany(self.servers.len() + 1));
        }
        let address = self.command(Command::Add).await?;
        self.servers.push(address);
        Ok(address)
    }

    /// Stops a server, and waits until the manager has taken it out of the hash space. Its store stays.
    pub async fn stop_server(&self, server: usize) -> Result<(), Error> {
        self.command(|reply| Command::Stop(server, reply)).await
    }

    /// Starts a server that has been stopped, on its port and with its store. Returns when it is attached again and has
    /// everything that was written meanwhile.
    pub async fn start_server(&self, server: usize) -> Result<(), Error> {
        self.command(|reply| Command::Start(server, reply)).await
    }

    async fn command<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command) -> Result<T, Error> {
        let (reply, replied) = oneshot::channel();
        let commands = self.commands.as_ref().ok_or(Error::Ended)?;
        commands.send(command(reply)).await.map_err(|_| Error::Ended)?;
        replied.await.map_err(|_| Error::Ended)?
    }

    /// Stops all of it, and waits until the stores are closed.
    pub async fn stop(mut self) {
        self.commands = None;
        if let Some(ended) = self.ended.take() {
            // Nothing is ever sent.
            let _ = ended.await;
        }
    }
}

/// Stops all of it and blocks until the stores are closed, usually for some milliseconds.
impl Drop for Cluster {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // If it panicked that has been printed.
            let _ = thread.join();
        }
    }
}
