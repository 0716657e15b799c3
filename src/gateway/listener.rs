//! Listening for clients: ports and a Unix socket, and the loop that accepts from each.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::time::Instant;

use super::clients::Clients;
use super::config::Listen;
use super::connection::accept;
use super::shared::Shared;
use super::stats::Stats;
use crate::env::{self, set_silence_limit};

/// How long to wait when accepting fails for want of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);
/// At most one warning in this time about connections that were turned away.
const WARN_INTERVAL: Duration = Duration::from_secs(10);
/// What a client is told that is turned away; memcached says the same.
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

/// A socket that clients connect to.
#[derive(Debug)]
pub(super) enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A path; the file goes with it.
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// Binds a port. One that is taken for either kind of addresses is an error, also where the other kind is free: a
    /// gateway that clients reach or not, as their resolver likes, is worse than none.
    pub(super) fn tcp(listen: Listen) -> io::Result<Self> {
        let every = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let bound = match listen {
            Listen::Everywhere(port) => env::bind(every(port)).or_else(|error| {
                if !env::is_without_ipv6(&error) {
                    return Err(error);
                }
                tracing::info!(port, "this machine has no IPv6: listening on IPv4 alone");
                env::bind((Ipv4Addr::UNSPECIFIED, port).into())
            }),
            Listen::Ipv6Only(port) => env::bind_ipv6_only(every(port)),
            Listen::At(address) => env::bind(address),
        };
        Ok(Self::Tcp(TcpListener::from_std(bound?)?))
    }

    /// Binds a Unix socket. The file of one that nobody listens on any more is replaced, nothing else.
    pub(super) fn unix(path: &Path) -> io::Result<Self> {
        let left_over = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
            && StdUnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if left_over {
            fs::remove_file(path)?;
        }
        let listener = StdUnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(UnixListener::from_std(listener)?, SocketFile(path.to_owned())))
    }

    /// Where it listens, for the log.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string()),
            Self::Unix(_, file) => file.0.display().to_string(),
        }
    }

    /// Accepts until the future is dropped.
    pub(super) async fn run(self, shared: Arc<Shared>, clients: Arc<Clients>) {
        let mut warned: Option<Instant> = None;
        loop {
            let accepted = match &self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, peer)| {
                    let peer = env::canonical(peer);
                    // Answers are awaited: never wait to fill a packet.
                    let stalled = shared.config.limits.stalled;
                    if let Err(error) = stream.set_nodelay(true).and_then(|()| set_silence_limit(&stream, stalled)) {
                        tracing::debug!(%peer, %error, "socket options");
                    }
                    accept(&shared, &clients, stream, peer.to_string())
                        .map_err(|stream| drop(stream.try_write(TOO_MANY)))
                }),
                Self::Unix(listener, file) => listener.accept().await.map(|(stream, _)| {
                    let peer = file.0.display().to_string();
                    accept(&shared, &clients, stream, peer).map_err(|stream| drop(stream.try_write(TOO_MANY)))
                }),
            };
            match accepted {
                Ok(Ok(())) => {}
                Ok(Err(())) => {
                    Stats::add(&shared.stats.rejected);
                    if warned.is_none_or(|at| at.elapsed() > WARN_INTERVAL) {
                        warned = Some(Instant::now());
                        let limit = shared.config.limits.connections;
                        tracing::warn!("connections turned away: {limit} are open");
                    }
                }
                // The connection was gone before it was accepted: no matter.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::error!(%error, "accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// The file of a Unix socket, removed when dropped.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may have been removed already.
        let _ = fs::remove_file(&self.0);
    }
}
