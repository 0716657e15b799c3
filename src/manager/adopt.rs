//! A manager that starts without a hash space learns it from those who were there before: its partner, or servers.
//!
//! The managers of 2010 kept it in memory only and lost it when the last of them ended. Servers still hold it, so a
//! manager that has none asks them; the newest counts. Until that is settled, nothing is founded anew: a second
//! hash space would make servers drop records that the first one gave them. If no server holds one either, all of the
//! cluster has ended: our servers remember the last one, and when all that were active in it are back it goes on.

use std::time::Duration;

use tokio::time::Instant;

use super::shell::{Inner, Shell};
use crate::client::{Caller, Options};
use crate::net::STEPS;
use crate::wire::method::{GetStatus, RhsRequest, STATUS_REMEMBERED, STATUS_RHS, STATUS_WHS, WhsRequest};
use crate::wire::params::{Seed, decode};
use crate::wire::{Call, NodeAddress};

/// How long one server, or the partner, may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a server says of hash spaces, for writing and for reading.
enum HeldSpaces {
    Holds(Seed, Seed),
    /// It has none since its restart.
    Remembers(Seed, Seed),
}

impl Shell {
    /// Asks a server that may have been there before this process; until it has answered, nothing is settled.
    pub(super) fn ask_server(&self, inner: &mut Inner, server: NodeAddress) {
        inner.asking += 1;
        self.spawn(async move |shell| {
            shell.learn_from(server).await;
            let inner = &mut *shell.lock();
            inner.asking -= 1;
            shell.recall(inner);
            if let Some(missing) = inner.state.missing() {
                tracing::info!(%missing, "the last hash space waits for a server that was active in it");
            }
            shell.news.notify_waiters();
        });
    }

    /// Asks a server which hash spaces it holds, and takes what is newer.
    pub(super) async fn learn_from(&self, server: NodeAddress) {
        let held = tokio::time::timeout(PATIENCE, self.held_by(server)).await.ok().flatten();
        let inner = &mut *self.lock();
        let (whs, rhs) = match held {
            Some(HeldSpaces::Holds(whs, rhs)) => (whs, rhs),
            Some(HeldSpaces::Remembers(whs, rhs)) => {
                return inner.note(|state| state.server_remembers(server, whs.clone(), rhs.clone()));
            }
            None => return,
        };
        if inner.votes.are_held() {
            return;
        }
        let actions = inner.state.server_spaces(whs, rhs, &self.clock);
        if !actions.is_empty() {
            let clocktime = inner.state.spaces().whs.clocktime;
            tracing::info!(peer = %server, %clocktime, "hash space learnt from a server");
        }
        self.perform(inner, actions);
    }

    /// Takes up the hash spaces of a cluster that had ended, if there is nobody left to wait for.
    pub(super) fn recall(&self, inner: &mut Inner) {
        if inner.is_learning(Instant::now()) || inner.votes.are_held() {
            return;
        }
        let actions = inner.state.recall(&self.clock);
        if !actions.is_empty() {
            let clocktime = inner.state.spaces().whs.clocktime;
            tracing::info!(%clocktime, "all servers are back: the last hash space is taken up again");
            self.perform(inner, actions);
        }
    }

    /// The hash spaces that a server holds or has held, asked as a client.
    async fn held_by(&self, server: NodeAddress) -> Option<HeldSpaces> {
        let options = Options {
            connect_timeout: self.config.dial.timeout.min(PATIENCE),
            call_timeout: PATIENCE,
            ..Options::default()
        };
        let caller = Caller::new(&self.env, &options);
        let whs = caller.space(server, STATUS_WHS).await.ok()?;
        if whs.has_active() {
            return Some(HeldSpaces::Holds(whs, caller.space(server, STATUS_RHS).await.ok()?));
        }
        let last = caller.ask(server, &GetStatus { number: STATUS_REMEMBERED }).await.ok()?;
        let (whs, rhs) = decode(&last).ok()?;
        Some(HeldSpaces::Remembers(whs, rhs))
    }

    /// Asks the partner, which has just connected, for its hash spaces.
    pub(super) fn ask_partner(&self, inner: &mut Inner, partner: NodeAddress) {
        inner.asking += 1;
        let session = self.peers.session(partner);
        let whs = session.ask(&WhsRequest {}, STEPS);
        let rhs = session.ask(&RhsRequest {}, STEPS);
        self.spawn(async move |shell| {
            let answers = async { (whs.await, rhs.await) };
            let answers = tokio::time::timeout(PATIENCE, answers).await;
            let inner = &mut *shell.lock();
            inner.asking -= 1;
            if let Ok((Ok(whs), Ok(rhs))) = answers
                && let (Ok(whs), Ok(rhs)) = (WhsRequest::answer(&whs), RhsRequest::answer(&rhs))
                && !inner.votes.are_held()
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
                biased;
                () = news => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }
}
