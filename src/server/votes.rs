//! This server's part in the register: its votes, its lease, and what it confirms to others.
//!
//! What the rules are [`crate::register`] knows; here are the state of one voter, what of it is durable before an answer
//! leaves, and when this server may act. It knows nothing of records and of how hash spaces are used.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::completion::Completion;
use super::permit::Permit;
use crate::register::{
    Acceptor, Answer, Configuration, Confirmations, Heard, Lease, Machine, Proposal, Question, Reply, Restart, Settled,
    Speaker, Version, Vote, Voter, pack, unpack,
};
use crate::store::{self, Store};
use crate::time::Moment;
use crate::wire::NodeAddress;

/// Name of the blob in the store: the configuration, and the vote on its successor.
const STATE: &str = "register";

/// One voter.
pub(super) struct Votes {
    store: Store,
    /// Who this server is to the others.
    address: NodeAddress,
    /// The number of this start.
    start: u64,
    state: Mutex<State>,
    /// Held while the state is stored, so that of two changes the later one stays.
    storing: Mutex<()>,
}

struct State {
    acceptor: Acceptor,
    lease: Lease,
    confirmed: Confirmations,
    /// Until when this server may act by the configuration.
    permit: Arc<Permit>,
    heard: Heard,
    restart: Restart,
    completion: Completion,
}

impl Votes {
    /// Takes up what the store of the server `address` has kept. `start` is drawn by chance. Blocks.
    pub(super) fn open(store: &Store, address: NodeAddress, start: u64, now: Moment) -> Result<Self, store::Error> {
        let kept = store.state_get(STATE)?;
        let kept: Option<(u64, Configuration, Vote)> = kept.and_then(|bytes| unpack(&bytes));
        // A backup that is used as a store is another one than that whose votes it has copied.
        let kept = kept.filter(|(id, ..)| *id == store.id());
        let (configuration, vote) = kept.map(|(_, configuration, vote)| (configuration, vote)).unwrap_or_default();
        // Before the restart anything may have been confirmed to anybody.
        let stores = configuration.members.values().map(|member| member.store);
        let confirmed = Confirmations::forget(stores, now, configuration.timing.lease());
        let permit = Arc::new(Permit::of(&configuration));
        let acceptor = Acceptor::new(configuration, vote);
        let restart = Restart::new(acceptor.configuration(), address, now);
        let completion = Completion::new(start, now);
        let (lease, heard) = (Lease::default(), Heard::default());
        let state = State { acceptor, lease, confirmed, permit, heard, restart, completion };
        let votes = Self { store: store.clone(), address, start, state: Mutex::new(state), storing: Mutex::default() };
        votes.renew(now);
        Ok(votes)
    }

    /// Works out until when this server may act by the configuration, since time has passed.
    pub(super) fn renew(&self, now: Moment) {
        self.state.lock().renew(self.own(), self.address, now);
    }

    /// This server's vote.
    fn own(&self) -> Voter {
        Voter::Server(self.store.id())
    }

    /// What this server says to others of itself.
    pub(super) fn speaker(&self) -> Speaker {
        Speaker::Server { store: self.store.id(), commits: self.store.commits(), start: self.start }
    }

    /// The latest configuration known to be in force, with the permit to act by it.
    pub(super) fn configuration(&self) -> (Configuration, Arc<Permit>) {
        let state = self.state.lock();
        (state.acceptor.configuration().clone(), state.permit.clone())
    }

    /// Whether the servers of this cluster vote: then hash spaces come with configurations only.
    pub(super) fn is_voted(&self) -> bool {
        self.state.lock().acceptor.configuration().is_voted()
    }

    /// The question for `node`; it brings the configuration to one that is known not to have it, and the proposal that this
    /// server completes to a voter that has not answered. `settled`: the clock before which all writes that this server
    /// coordinates are on all owners.
    pub(super) fn question(&self, node: NodeAddress, settled: Option<u32>) -> Question {
        let state = self.state.lock();
        let configuration = state.acceptor.configuration();
        let version = configuration.version();
        let configuration = state.heard.lacks(node, version).then(|| configuration.clone());
        let voter = state.heard.speaker(node).map(Speaker::voter);
        let proposal = voter.and_then(|voter| state.completion.proposal(voter));
        let settled = settled.map(|clock| Settled { start: state.completion.number(), clock });
        Question {
            speaker: self.speaker(),
            version,
            configuration,
            proposal,
            settled,
            unreached: Vec::new(),
            older: !state.restart.doubting().is_empty(),
        }
    }

    /// Takes `configuration`, which is in force, unless it is known. Says whether it was later.
    pub(super) fn adopt(&self, configuration: &Configuration, now: Moment) -> bool {
        let state = &mut *self.state.lock();
        let later = state.acceptor.adopt(configuration);
        if later {
            // At once: what was begun by the old one must not be finished by the new one's lease.
            state.permit.end();
            state.permit = Arc::new(Permit::of(configuration));
            state.completion.end();
            state.restart.adopt(configuration, self.address);
            state.renew(self.own(), self.address, now);
        }
        later
    }

    /// A node has said who it is and how far; of a member that asks for it, its lease is confirmed.
    pub(super) fn hear(&self, from: NodeAddress, question: &Question, now: Moment) -> Reply {
        let state = &mut *self.state.lock();
        let configuration = state.acceptor.configuration();
        state.heard.note_question(from, question, configuration);
        let version = configuration.version();
        let member = |store: u64| {
            let named = configuration.members.get(&from).is_some_and(|member| member.store == store);
            named && state.heard.changed(from, configuration).is_none()
        };
        let confirmed = match question.speaker {
            Speaker::Server { store, .. } => {
                let confirms = question.version == version && member(store) && !state.acceptor.is_leaving();
                confirms && configuration.voters.contains(&self.own()) && {
                    state.confirmed.confirm(store, now, configuration.timing.lease());
                    true
                }
            }
            Speaker::Manager { .. } => false,
        };
        // Who has no records that count leaves it to those that have.
        let own = configuration.members.contains_key(&self.address);
        let older = own && state.heard.remembers_more(from, question.version, configuration);
        let configuration = version.is_after(question.version).then(|| configuration.clone());
        Reply { speaker: self.speaker(), version, configuration, confirmed, answer: None, refused: None, older }
    }

    /// The answer to a node that is not known to be the one that it says; `refused`: the machine that its address belongs to.
    pub(super) fn refusal(&self, refused: Option<Machine>) -> Reply {
        let version = self.state.lock().acceptor.configuration().version();
        Reply {
            speaker: self.speaker(),
            version,
            configuration: None,
            confirmed: false,
            answer: None,
            refused,
            older: false,
        }
    }

    /// A node has answered a question that left at `sent`.
    pub(super) fn heard(&self, from: NodeAddress, asked: &Question, reply: Reply, sent: Moment, now: Moment) {
        let state = &mut *self.state.lock();
        state.heard.note(from, reply.speaker, reply.version, state.acceptor.configuration());
        let voter = reply.speaker.voter();
        let configuration = state.acceptor.configuration();
        if asked.version == configuration.version() {
            if reply.confirmed {
                state.lease.confirmed(asked.version, voter, sent, configuration.timing.lease());
            }
            if reply.older {
                state.permit.suspend();
            }
            if state.restart.answered(from, reply.older) {
                tracing::error!(peer = %from, "requests are refused: this store is older than that node remembers it. It waits for the other members: if one has all records, this server is given up, and to be attached again");
            }
            state.renew(self.own(), self.address, now);
        }
        if let (Some(proposal), Some(answer)) = (&asked.proposal, reply.answer) {
            state.completion.hear((asked.version, proposal.ballot), voter, answer, now);
        }
    }

    /// Goes on with a proposal that was left half done, if there is one: gives this server's own vote, and says which
    /// configuration is in force by now. Blocks.
    pub(super) fn complete(&self, now: Moment) -> Result<Option<Configuration>, store::Error> {
        loop {
            let asked = {
                let state = &mut *self.state.lock();
                state.completion.begin_if_due(&state.acceptor, now);
                state
                    .completion
                    .proposal(self.own())
                    .map(|proposal| (state.acceptor.configuration().version(), proposal))
            };
            let Some((version, proposal)) = asked else { break };
            tracing::info!(
                version = version.counter,
                ballot = proposal.ballot.round,
                "completes a change that its manager has left half done"
            );
            let answer = self.vote(version, &proposal, now, |_| true)?;
            let state = &mut *self.state.lock();
            state.completion.hear((version, proposal.ballot), self.own(), answer, now);
            if state.completion.proposal(self.own()).is_some_and(|again| again == proposal) {
                // It cannot be given.
                break;
            }
        }
        Ok(self.state.lock().completion.progress(now))
    }

    /// Whether a proposal was accepted here, and it is not known what has become of it.
    pub(super) fn is_leaving(&self) -> bool {
        self.state.lock().acceptor.is_leaving()
    }

    /// Votes on a proposal for what follows `version`. The answer is durable when this returns. Blocks.
    ///
    /// `holds` says whether this server has the hash spaces of a configuration that is to be the first.
    pub(super) fn vote(
        &self,
        version: Version,
        proposal: &Proposal,
        now: Moment,
        holds: impl FnOnce(&Configuration) -> bool,
    ) -> Result<Answer, store::Error> {
        let _storing = self.storing.lock();
        let (answer, bytes) = {
            let state = &mut *self.state.lock();
            let answer = match &proposal.next {
                None => state.acceptor.prepare(version, proposal.ballot),
                Some(next) if state.acceptor.configuration().is_voted() || holds(next) => {
                    state.acceptor.accept(version, proposal.ballot, next, &state.confirmed, now)
                }
                Some(_) => return Ok(Answer::Refused(state.acceptor.vote().promised)),
            };
            if state.acceptor.is_leaving() && state.acceptor.configuration().is_voted() {
                state.permit.end();
            }
            state.completion.note_proposer(now);
            (answer, state.as_stored(self.store.id()))
        };
        self.store.state_put(STATE, &bytes)?;
        Ok(answer)
    }

    /// Who would have to confirm that this server may act, and does not: servers by their addresses.
    pub(super) fn missing(&self, now: Moment) -> Vec<String> {
        let state = self.state.lock();
        let configuration = state.acceptor.configuration();
        let named = |voter| match voter {
            Voter::Server(store) => {
                let member = configuration.members.iter().find(|(_, member)| member.store == store);
                member.map_or_else(|| format!("the store {store:016x}"), |(address, _)| address.to_string())
            }
            Voter::Manager(_) => "the manager that votes".to_owned(),
        };
        let missing = state.lease.missing(configuration, self.own(), now).into_iter().map(named);
        let awaited = state.restart.awaited(now).map(|node| node.to_string());
        let doubting = state.restart.doubting().iter().map(|node| format!("{node}, which remembers a later store"));
        missing.chain(awaited).chain(doubting).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Stores the configuration, once it has been taken. Blocks.
    pub(super) fn keep(&self) {
        let _storing = self.storing.lock();
        let bytes = self.state.lock().as_stored(self.store.id());
        if let Err(error) = self.store.state_put(STATE, &bytes) {
            tracing::warn!(%error, "the configuration cannot be stored");
        }
    }
}

impl State {
    /// Works out until when this server may act: as a member, with its store as it was, while a majority confirms.
    fn renew(&mut self, own: Voter, address: NodeAddress, now: Moment) {
        let configuration = self.acceptor.configuration();
        let member = configuration.members.get(&address).is_some_and(|member| Voter::Server(member.store) == own);
        if member && !self.acceptor.is_leaving() && self.restart.permits(now) {
            self.permit.extend(self.lease.until(configuration, own));
        }
    }

    fn as_stored(&self, store: u64) -> Vec<u8> {
        pack(&(store, self.acceptor.configuration(), self.acceptor.vote()))
    }
}
