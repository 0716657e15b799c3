//! A manager that starts without a hash space learns it from those who were there before: its partner, or servers.
//!
//! The managers of 2010 kept it in memory only and lost it when the last of them ended. Servers still hold it, so a
//! manager that has none asks them; the newest counts. Until that is settled, nothing is founded anew: a second
//! hash space would make servers drop records that the first one gave them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shell::{Inner, Shell, tell};
use crate::net::{DialPolicy, Link, Peers, STEPS, Service};
use crate::wire::method::{ErrorCode, Method, STATUS_RHS, STATUS_WHS};
use crate::wire::params::{self, Seed};
use crate::wire::{NodeAddress, Request, frame};

/// How long one server, or the partner, may take to tell.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a client connection of ours may be asked: nothing.
struct Mute;

impl Service for Mute {
    fn handle(&self, _: &Arc<Link>, requests: &mut dyn Iterator<Item = Request<'_>>, out: &mut Vec<u8>) {
        for request in requests {
            frame::error_response(out, request.msgid, ErrorCode::Protocol);
        }
    }
}

impl Shell {
    /// Asks a server that has just connected which hash spaces it holds.
    pub(super) fn ask_server(&self, inner: &mut Inner, server: NodeAddress) {
        inner.asking += 1;
        self.spawn(async move |shell| {
            let held = tokio::time::timeout(PATIENCE, shell.held_by(server)).await.ok().flatten();
            let inner = &mut *shell.lock();
            inner.asking = inner.asking.saturating_sub(1);
            if let Some((whs, rhs)) = held
                && whs.has_active()
                && !inner.state.spaces().are_ready()
            {
                tracing::info!(peer = %server, clocktime = %whs.clocktime, "hash space learnt from a server");
                let actions = inner.state.server_spaces(whs, rhs, &shell.clock);
                shell.perform(inner, actions);
            }
            shell.news.notify_waiters();
        });
    }

    /// The hash spaces that a server holds, asked as a client.
    async fn held_by(&self, server: NodeAddress) -> Option<(Seed, Seed)> {
        let policy = DialPolicy { retry_limit: 0, ..self.config.dial.clone() };
        let peers = Peers::new(None, policy, self.config.limits.clone());
        let mute: Arc<dyn Service> = Arc::new(Mute);
        peers.serve(&mute);
        let session = peers.session(server);
        let ask = |number| tell(&session, Method::GetStatus, STEPS, |out| params::write_status(out, number));
        let (whs, rhs) = (ask(STATUS_WHS), ask(STATUS_RHS));
        let held = match (whs.await, rhs.await) {
            (Ok(whs), Ok(rhs)) => Some((params::seed(&whs).ok()?, params::seed(&rhs).ok()?)),
            _ => None,
        };
        peers.close();
        held
    }

    /// Asks the partner, which has just connected, for its hash spaces.
    pub(super) fn ask_partner(&self, inner: &mut Inner, partner: NodeAddress) {
        inner.asking += 1;
        let session = self.peers.session(partner);
        let whs = tell(&session, Method::WhsRequest, STEPS, params::write_empty);
        let rhs = tell(&session, Method::RhsRequest, STEPS, params::write_empty);
        self.spawn(async move |shell| {
            let answers = async { (whs.await, rhs.await) };
            let answers = tokio::time::timeout(PATIENCE, answers).await;
            let inner = &mut *shell.lock();
            inner.asking = inner.asking.saturating_sub(1);
            if let Ok((Ok(whs), Ok(rhs))) = answers
                && let (Ok(whs), Ok(rhs)) = (params::seed(&whs), params::seed(&rhs))
            {
                let (_, actions) = inner.state.partner_spaces(whs, rhs, &shell.clock);
                shell.perform(inner, actions);
            }
            shell.news.notify_waiters();
        });
    }

    /// Waits until the cluster may be changed; see [`Inner::is_settled`].
    pub(super) async fn settled(&self) {
        loop {
            let news = self.news.notified();
            let now = Instant::now();
            let until = {
                let inner = self.lock();
                if inner.is_settled(now) {
                    return;
                }
                inner.settle_until
            };
            // Later than that only an answer or a connection is missing, or the loss of a server: each is news.
            let until = if until > now { until } else { now + PATIENCE };
            tokio::select! {
                () = news => {}
                () = tokio::time::sleep_until(until.into()) => {}
            }
        }
    }
}
