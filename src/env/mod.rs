//! Everything that a role uses of the machine it runs on: time, chance, tasks, threads, and the network.
//!
//! A role is given an [`Env`] and asks nothing else of the outside world but its files. [`Env::real`] is the machine;
//! a simulation has others, in which one thread runs a whole cluster and one seed decides everything that is left to
//! chance. Timers are the runtime's: a simulation runs it with a clock of its own.

mod dial;
mod group;
mod host;
mod network;
mod pause;
mod real;
mod seldom;
mod socket;
mod tasks;
mod unix;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

pub(crate) use dial::{dial, dial_blocking, outgoing, refuse_itself};
pub use group::Group;
pub use host::{Host, Work};
pub use network::{BoxFuture, ByteStream, ListenError, Listener, Stream};
pub use pause::{Backoff, every, every_while};
pub(crate) use seldom::Seldom;
pub(crate) use socket::is_without_ipv6;
pub use tasks::{Task, Tasks};
pub use unix::SocketFile;

use crate::rules::Rules;
use crate::time::Time;

/// A handle to a machine; cheap to clone.
#[derive(Clone)]
pub struct Env {
    time: Time,
    rules: Rules,
    host: Arc<dyn Host>,
}

impl Env {
    /// This machine. Must be called within a runtime, which all tasks then belong to.
    pub fn real() -> Self {
        Self::new(Time::real(), real::Machine::current())
    }

    /// Another machine, with its clocks.
    pub fn new(time: Time, host: impl Host) -> Self {
        Self { time, rules: Rules::default(), host: Arc::new(host) }
    }

    /// The same machine, whose roles follow these rules alone.
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// The rules that roles follow here.
    #[inline]
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Its clocks.
    pub fn time(&self) -> &Time {
        &self.time
    }

    /// Sixty-four bits of chance.
    pub fn random(&self) -> u64 {
        self.host.random()
    }

    /// The number of the process.
    pub(crate) fn process_id(&self) -> u32 {
        self.host.process_id()
    }

    /// A share of `whole` that chance decides: at least nothing, less than all.
    pub(crate) fn random_share(&self, whole: Duration) -> Duration {
        let thousandths = u32::try_from(self.random() % 1024).unwrap_or_default();
        whole / 1024 * thousandths
    }

    /// Runs a task until it ends or is stopped through what is returned; dropping that leaves it running.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Task {
        self.host.spawn(Box::pin(work))
    }

    /// Runs what may wait for a disk; it is run to its end even if nobody waits for the result. [`Gone`]: it panicked, or
    /// the machine is being stopped.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (sender, receiver) = oneshot::channel();
        self.detach_blocking(move || {
            // Nobody may wait any more.
            let _ = sender.send(work());
        });
        receiver.await.map_err(|_| Gone)
    }

    /// Runs what may wait for a disk, and tells nobody.
    pub fn detach_blocking(&self, work: impl FnOnce() + Send + 'static) {
        self.host.run_blocking(Box::new(work));
    }

    /// Connects to a port within `timeout`.
    pub async fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<Stream> {
        match tokio::time::timeout(timeout, self.host.connect(address)).await {
            Ok(connected) => connected,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {timeout:?}"))),
        }
    }

    /// The addresses that a name stands for, each with `port`. Takes as long as the machine does.
    pub async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.host.resolve(name, port).await
    }

    /// Listens on a port; zero: on one that is free. `[::]` stands for all addresses of the machine.
    pub fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        self.host.listen(address)
    }

    /// The same, where `[::]` stands for all IPv6 addresses only.
    pub(crate) fn listen_ipv6_only(&self, address: SocketAddr) -> io::Result<Listener> {
        self.host.listen_ipv6_only(address)
    }

    /// Listens on a Unix socket, whose file is removed with the listener. A file that is left of a socket that nobody
    /// listens on any more is replaced.
    pub(crate) fn listen_unix(&self, path: &Path) -> io::Result<Listener> {
        self.host.listen_unix(path)
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Env({:?})", self.time)
    }
}

/// The work has not been done to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a thread has ended before its work was done")]
pub struct Gone;
