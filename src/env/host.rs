//! The operations a machine offers to what runs on it. The real machine and simulated ones implement them.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::network::{BoxFuture, Listener, Stream};
use super::tasks::Task;

/// The work of a task.
pub type Work = BoxFuture<'static, ()>;

/// A machine, or a simulated one.
pub trait Host: Send + Sync + 'static {
    /// Sixty-four bits of chance.
    fn random(&self) -> u64;

    /// The number of the process.
    fn process_id(&self) -> u32 {
        std::process::id()
    }

    /// Runs a task.
    fn spawn(&self, work: Work) -> Task;

    /// Runs what may wait for a disk, where that keeps no task waiting.
    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>);

    /// Connects to a port, for as long as that takes.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Stream>>;

    /// Listens on a port; zero: on one that is free.
    fn listen(&self, address: SocketAddr) -> io::Result<Listener>;

    /// The same, where `[::]` stands for all IPv6 addresses only. A machine with one address need not know this.
    fn listen_ipv6_only(&self, address: SocketAddr) -> io::Result<Listener> {
        self.listen(address)
    }

    /// Listens on a Unix socket. A machine without them need not know this.
    fn listen_unix(&self, path: &Path) -> io::Result<Listener> {
        let error = format!("{}: there are no Unix sockets", path.display());
        Err(io::Error::new(io::ErrorKind::Unsupported, error))
    }

    /// The addresses that a name stands for, each with `port`, for as long as finding them takes. A machine without names
    /// need not know this.
    fn resolve(&self, name: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let error = io::Error::new(io::ErrorKind::Unsupported, format!("'{name}:{port}' is not an address"));
        Box::pin(std::future::ready(Err(error)))
    }
}
