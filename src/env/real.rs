//! The machine that this process runs on.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;

use super::dial::dial;
use super::host::{Host, Work};
use super::network::{BoxFuture, Listener, Stream};
use super::socket::bind;
use super::tasks::Task;
use super::unix;

/// This machine, with the runtime that tasks belong to: they are started from threads that are not the runtime's, too.
pub(super) struct Machine {
    runtime: Handle,
}

impl Machine {
    /// Must be called within a runtime.
    pub(super) fn current() -> Self {
        Self { runtime: Handle::current() }
    }
}

impl Host for Machine {
    fn random(&self) -> u64 {
        fastrand::u64(..)
    }

    fn spawn(&self, work: Work) -> Task {
        let handle = self.runtime.spawn(work).abort_handle();
        Task::new(move || handle.abort())
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        self.runtime.spawn_blocking(work);
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Stream>> {
        Box::pin(async move { dial(address).await.map(Stream::Tcp) })
    }

    fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        let _runtime = self.runtime.enter();
        TcpListener::from_std(bind(address, false)?).map(Listener::Tcp)
    }

    fn listen_ipv6_only(&self, address: SocketAddr) -> io::Result<Listener> {
        let _runtime = self.runtime.enter();
        TcpListener::from_std(bind(address, true)?).map(Listener::Tcp)
    }

    fn listen_unix(&self, path: &Path) -> io::Result<Listener> {
        let _runtime = self.runtime.enter();
        let (listener, file) = unix::bind(path)?;
        Ok(Listener::Unix(UnixListener::from_std(listener)?, file))
    }

    fn resolve(&self, name: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let name = name.to_owned();
        Box::pin(async move { tokio::net::lookup_host((name, port)).await.map(Iterator::collect) })
    }
}
