//! The loop that accepts connections from a listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Peers;
use crate::env::{Listener, Stream};

/// How long to wait when accepting fails for want of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections for `peers` until the future is dropped.
pub async fn accept(listener: Listener, peers: Arc<Peers>) {
    accept_each(listener, |stream, peer| peers.accept(stream, peer)).await;
}

/// Hands each connection that comes to `take`, until the future is dropped.
pub(crate) async fn accept_each(mut listener: Listener, mut take: impl FnMut(Stream, SocketAddr)) {
    let address = listener.local_address().ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => take(stream, peer),
            // The connection was gone before it was accepted: no matter.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                let address = address.map(tracing::field::display);
                tracing::error!(address, %error, "accepting a connection failed; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
