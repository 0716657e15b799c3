//! Where a gateway listens: ports and a Unix socket.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use super::config::Listen;
use crate::env::{self, Env, Listener};

/// A listener, and what it is called in the log.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) listener: Listener,
    pub(super) name: String,
    /// Stands for its clients in the log, where they have no addresses.
    pub(super) path: Option<Arc<str>>,
}

/// Binds a port. One that is taken for either kind of addresses is an error, also where the other kind is free: a gateway
/// that clients reach or not, as their resolver likes, is worse than none.
pub(super) fn on_port(env: &Env, listen: Listen) -> io::Result<Listening> {
    let every = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = match listen {
        Listen::Everywhere(port) => env.listen(every(port)).or_else(|error| {
            if !env::is_without_ipv6(&error) {
                return Err(error);
            }
            tracing::info!(port, "this machine has no IPv6: listening on IPv4 alone");
            env.listen((Ipv4Addr::UNSPECIFIED, port).into())
        }),
        Listen::Ipv6Only(port) => env.listen_ipv6_only(every(port)),
        Listen::At(address) => env.listen(address),
    }?;
    let name = listener.local_address().map_or_else(|_| "?".to_owned(), |address| address.to_string());
    Ok(Listening { listener, name, path: None })
}

/// Binds a Unix socket.
pub(super) fn on_path(env: &Env, path: &Path) -> io::Result<Listening> {
    let name = path.display().to_string();
    Ok(Listening { listener: env.listen_unix(path)?, path: Some(name.as_str().into()), name })
}
