//! A change of the cluster as a piece of work, and the list of those that wait.
//!
//! What a change does is in it, as a function on the state; when it is made, `changes` decides.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::state::{Action, Impossible, State};
use crate::clock::Clock;
use crate::net::Reply;
use crate::wire::NodeAddress;
use crate::wire::method::ErrorCode;

/// Works a change out: the result object, and what there is to do. It may have to do so again.
pub(super) type Change = Box<dyn Fn(&mut State, &Clock) -> Result<(Vec<u8>, Vec<Action>), Impossible> + Send>;

/// Who has asked for a change: where the answer goes, and the method.
pub(super) type Asker = (Reply, u32);

/// A change that waits, or is under way.
pub(super) struct Job {
    /// In words.
    pub(super) what: String,
    pub(super) change: Change,
    /// An operator vouches for those whose votes are missing.
    pub(super) forced: bool,
    /// The server whose loss it is.
    pub(super) loss: Option<NodeAddress>,
    pub(super) asker: Option<Asker>,
}

impl Job {
    pub(super) fn new(what: impl Into<String>, change: Change, asker: Option<Asker>) -> Self {
        Self { what: what.into(), change, forced: false, loss: None, asker }
    }

    /// `server` is lost.
    pub(super) fn loss(server: NodeAddress) -> Self {
        let change = move |state: &mut State, clock: &Clock| Ok((Vec::new(), state.server_lost(server, clock)));
        Self { loss: Some(server), ..Self::new(format!("loss of {server}"), Box::new(change), None) }
    }

    /// `server` is there, but not the one that it was.
    pub(super) fn exchange(server: NodeAddress) -> Self {
        let change = move |state: &mut State, clock: &Clock| {
            let actions = state.server_lost(server, clock);
            state.server_bound(server);
            Ok((Vec::new(), actions))
        };
        Self::new(format!("giving up {server}"), Box::new(change), None)
    }

    /// A copying that was given up is begun anew.
    pub(super) fn copy_anew() -> Self {
        let change = |state: &mut State, clock: &Clock| Ok((Vec::new(), state.begin_anew(clock)?));
        Self::new("copying anew", Box::new(change), None)
    }

    /// Nothing but going over to votes, or from them.
    pub(super) fn mode() -> Self {
        Self::new("going over to votes, or from them", Box::new(|_, _| Ok((Vec::new(), Vec::new()))), None)
    }
}

/// A change whose configuration is put to the vote.
pub(super) struct Pending {
    pub(super) job: Job,
    /// The state once it is in force, what there is to do then, and the result.
    pub(super) state: State,
    pub(super) actions: Vec<Action>,
    pub(super) result: Vec<u8>,
    pub(super) since: Instant,
}

/// The changes that wait, and the one that is voted on.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) waiting: VecDeque<Job>,
    pub(super) pending: Option<Pending>,
    /// Nothing is proposed before: another had the higher ballot.
    pub(super) pause: Option<Instant>,
    /// How often that was so since the last configuration.
    pub(super) outbid: u32,
}

impl Changes {
    /// Whether there is nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_none() && self.waiting.is_empty()
    }
}

/// Tells who has asked for a change that it is not made.
pub(super) fn refuse(asker: Option<Asker>, why: &str) {
    if let Some((reply, method)) = asker {
        tracing::warn!(peer = %reply.link().peer(), method, "request refused: {why}");
        reply.error(ErrorCode::Server);
    }
}

pub(super) fn refuse_impossible(asker: Option<Asker>, impossible: Impossible) {
    match asker {
        Some(_) => refuse(asker, &impossible.to_string()),
        None => tracing::warn!("not done: {impossible}"),
    }
}

pub(super) fn answer(asker: Option<Asker>, result: &[u8]) {
    if let Some((reply, _)) = asker {
        reply.ok(|out| out.extend_from_slice(result));
    }
}
