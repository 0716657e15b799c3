//! The task of one connection: the options of its socket, its end, and what is cleaned up then. Knows no protocol.

use std::fmt::Display;
use std::time::Duration;

use super::driver::Closed;
use crate::env::{Env, Stream};

/// Has `serve` serve a connection with `peer` on a task of its own; when it is over, however that came about, it is
/// logged and `ended` is called.
///
/// The connection fails when the other machine has not been heard of for `silence`.
pub(crate) fn spawn<F>(
    env: &Env,
    stream: Stream,
    peer: impl Display + Send + 'static,
    silence: Duration,
    serve: impl FnOnce(Stream) -> F + Send + 'static,
    ended: impl FnOnce() + Send + 'static,
) where
    F: Future<Output = Closed> + Send,
{
    let ending = Ending { peer, closed: None, ended: Some(ended) };
    env.spawn(async move {
        ending.prepare(&stream, silence);
        let closed = serve(stream).await;
        ending.with(closed);
    });
}

/// Cleans up after a connection, also when a panic ends its task.
struct Ending<P: Display, F: FnOnce()> {
    peer: P,
    closed: Option<Closed>,
    ended: Option<F>,
}

impl<P: Display, F: FnOnce()> Ending<P, F> {
    fn prepare(&self, stream: &Stream, silence: Duration) {
        let peer = &self.peer;
        // Messages are small and answers are awaited: never wait to fill a packet.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
        }
        if let Err(error) = stream.set_silence_limit(silence) {
            tracing::debug!(%peer, %error, "cannot set the keep-alive of the socket");
        }
    }

    fn with(mut self, closed: Closed) {
        self.closed = Some(closed);
    }
}

impl<P: Display, F: FnOnce()> Drop for Ending<P, F> {
    fn drop(&mut self) {
        let peer = &self.peer;
        match &self.closed {
            None if std::thread::panicking() => {
                tracing::error!(%peer, "closed: a message of this peer caused a panic");
            }
            // The runtime is going.
            None => {}
            Some(closed @ (Closed::Wire(_) | Closed::Backlog(_) | Closed::MemoryLimit)) => {
                tracing::warn!(%peer, "closed: {closed}");
            }
            Some(closed) => tracing::debug!(%peer, "closed: {closed}"),
        }
        if let Some(ended) = self.ended.take() {
            ended();
        }
    }
}
