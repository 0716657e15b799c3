//! Client connections to any nodes: one call at a time or many, each with a time-out.

use std::sync::Arc;
use std::time::Duration;

use super::Options;
use crate::env::{Env, Tasks, every};
use crate::net::{DialPolicy, Limits, Link, Peers, Service, Session};
use crate::wire::method::{ErrorCode, Method};
use crate::wire::params::{Nil, Seed};
use crate::wire::requests::ManagerToClient;
use crate::wire::{Call, Extension, NodeAddress, Request, frame};

/// How often calls grow older: no time-out of a call is more exact than this.
const STEP: Duration = Duration::from_millis(50);

/// The steps of a call's time-out, at least two, so that it is never cut to nothing.
pub fn steps(timeout: Duration) -> u16 {
    u16::try_from(timeout.as_millis() / STEP.as_millis()).unwrap_or(u16::MAX).max(2)
}

/// Gets the hash spaces that a manager pushes, for writing and for reading, and what it says besides. Runs on a network
/// thread.
pub(super) type OnPush = Box<dyn Fn(Seed, Seed, Option<Extension>) + Send + Sync>;

/// Calls nodes as their client.
pub struct Caller {
    peers: Arc<Peers>,
    /// The peers hold it weakly.
    _listener: Arc<dyn Service>,
    _stepping: Tasks,
    /// Steps of an ordinary call.
    steps: u16,
}

impl Caller {
    /// Connects to nobody yet.
    pub fn new(env: &Env, options: &Options) -> Self {
        Self::with_push(env, options, Box::new(|_, _, _| ()))
    }

    /// The same; hash spaces that managers push go to `on_push`.
    pub(super) fn with_push(env: &Env, options: &Options, on_push: OnPush) -> Self {
        let policy = DialPolicy { timeout: options.connect_timeout, retry_limit: 0 };
        let peers = Peers::new(env, None, policy, Limits::default());
        let listener: Arc<dyn Service> = Arc::new(Pushes(on_push));
        peers.serve(&listener);
        let stepped = peers.clone();
        let mut stepping = Tasks::default();
        stepping.add(env.spawn(every(STEP, move || stepped.step())));
        Self { peers, _listener: listener, _stepping: stepping, steps: steps(options.call_timeout) }
    }

    /// Calls a method of `node`. The result is the result object's bytes.
    ///
    /// A connection that had been closed meanwhile is no error: the call is made again on a new one, if it was lost
    /// without an answer and the method changes nothing.
    pub async fn ask<C: Call>(&self, node: NodeAddress, call: &C) -> Result<Vec<u8>, ErrorCode> {
        let session = self.session(node);
        match session.ask(call, self.steps).await {
            Err(ErrorCode::TransportLost) if is_question(C::METHOD) => session.ask(call, self.steps).await,
            answer => answer,
        }
    }

    /// Calls to `node`; nothing is dialled before the first.
    pub(super) fn session(&self, node: NodeAddress) -> Arc<Session> {
        self.peers.session(node)
    }
}

/// Whether a method may be called twice as well as once.
fn is_question(method: Method) -> bool {
    matches!(
        method,
        Method::Get | Method::GetIfModified | Method::GetStatus | Method::GetNodesInfo | Method::HashSpaceRequest
    )
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.peers.close();
    }
}

/// Requests of nodes to their clients: a manager sends hash spaces, nothing else.
struct Pushes(OnPush);

impl Service for Pushes {
    fn handle(&self, _: &Arc<Link>, requests: &mut dyn Iterator<Item = Request<'_>>, out: &mut Vec<u8>) {
        for request in requests {
            match ManagerToClient::read(request.method, request.params, |_| true) {
                Ok(ManagerToClient::HashSpacePush(push)) => {
                    (self.0)(push.whs, push.rhs, push.extension);
                    frame::response(out, request.msgid, &Nil);
                }
                Err(rejected) => frame::error_response(out, request.msgid, rejected.code()),
            }
        }
    }
}
