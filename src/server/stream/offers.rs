//! Open offers, and the stream port on which their targets come for them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, oneshot};

use super::{HELLO_LEN, read_hello};
use crate::env::{Env, ListenError, Listener, Stream};
use crate::net::accept_each;
use crate::wire::NodeAddress;

/// Time that a connection has to say hello.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Connections that may be about to say hello at once; more are refused.
const HELLO_LIMIT: usize = 64;

/// Listens on the stream port; returns the port, too. A taken one is not fatal, since every offer carries its address:
/// another one will do.
pub fn listen(env: &Env, address: SocketAddr) -> Result<(Listener, u16), ListenError> {
    let (listening, taken) = match env.listen(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => (env.listen(SocketAddr::new(address.ip(), 0)), true),
        listening => (listening, false),
    };
    let listener = listening.map_err(ListenError::at(address))?;
    let port = listener.local_address().map_err(ListenError::at(address))?.port();
    if taken {
        tracing::warn!("stream port {} is taken: using {port}", address.port());
    }
    Ok((listener, port))
}

/// Offers that wait for their targets, one for each target.
#[derive(Debug, Default)]
pub struct Offers {
    open: Mutex<HashMap<NodeAddress, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    taker: oneshot::Sender<Stream>,
    id: u64,
}

impl Offers {
    /// Opens an offer to `target`; one that is open already is closed by that.
    pub fn open(self: &Arc<Self>, target: NodeAddress) -> OpenOffer {
        let (sender, taken) = oneshot::channel();
        let mut open = self.open.lock();
        let id = open.get(&target).map_or(0, |waiting| waiting.id + 1);
        open.insert(target, Waiting { taker: sender, id });
        OpenOffer { offers: self.clone(), target, id, taken }
    }

    /// Accepts targets until the future is dropped.
    pub async fn run(self: Arc<Self>, env: Env, listener: Listener) {
        let hellos = Arc::new(Semaphore::new(HELLO_LIMIT));
        accept_each(listener, |stream, peer| {
            let Ok(permit) = hellos.clone().try_acquire_owned() else {
                tracing::warn!(%peer, "connection refused: {HELLO_LIMIT} stream connections have not sent their hello yet");
                return;
            };
            let offers = self.clone();
            env.spawn(async move {
                offers.welcome(stream, peer).await;
                drop(permit);
            });
        })
        .await;
    }

    /// Hears who has connected and hands the connection to that target's offer.
    async fn welcome(&self, mut stream: Stream, peer: SocketAddr) {
        let mut hello = [0; HELLO_LEN];
        match tokio::time::timeout(HELLO_TIME, stream.read_exact(&mut hello)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return tracing::warn!(%peer, "stream connection without a hello: {error}"),
            Err(_) => return tracing::warn!(%peer, "stream connection without a hello in {} s", HELLO_TIME.as_secs()),
        }
        let Ok(target) = read_hello(&hello) else {
            return tracing::warn!(%peer, "stream connection with a hello that names no server");
        };
        let Some(waiting) = self.open.lock().remove(&target) else {
            return tracing::warn!(%peer, %target, "stream connection without an offer");
        };
        // The offer may just have been given up.
        let _ = waiting.taker.send(stream);
    }
}

/// An offer that waits for its target; dropped, it is closed.
#[derive(Debug)]
pub struct OpenOffer {
    offers: Arc<Offers>,
    target: NodeAddress,
    id: u64,
    taken: oneshot::Receiver<Stream>,
}

impl OpenOffer {
    /// The target's connection, once it comes. `None`: another offer to it has been opened.
    pub async fn taken(&mut self) -> Option<Stream> {
        (&mut self.taken).await.ok()
    }
}

impl Drop for OpenOffer {
    fn drop(&mut self) {
        let mut open = self.offers.open.lock();
        if open.get(&self.target).is_some_and(|waiting| waiting.id == self.id) {
            open.remove(&self.target);
        }
    }
}
