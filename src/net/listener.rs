//! The loop that accepts connections from a listener.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Peers;
use crate::env::Listener;

/// How long to wait when accepting fails for want of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections for `peers` until the future is dropped.
pub async fn accept(mut listener: Listener, peers: Arc<Peers>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => peers.accept(stream, peer),
            // The connection was gone before it was accepted: no matter.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::error!(%error, "accepting a connection failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
