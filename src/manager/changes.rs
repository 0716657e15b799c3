//! Changes of the cluster, one after the other: each is worked out, put to the vote if the servers vote, and carried out.
//!
//! A change is worked out on a copy of the state. If it changes the hash spaces of a cluster that votes, the copy takes the
//! state's place once its configuration is in force; until then the next change waits. If another manager's
//! configuration comes first, the change is worked out anew on that.

use std::time::Duration;

use tokio::time::Instant;

use super::job::{Job, Pending, answer, refuse, refuse_impossible};
use super::mode::Mode;
use super::shell::{Inner, Shell};
use super::spaces::Spaces;
use super::state::{Action, State};
use crate::register::{Configuration, Progress, Voter};
use crate::wire::NodeAddress;

/// Changes that may wait. What nodes cause is noted once for each; the rest are requests of tools.
const CHANGES: usize = 4096;
/// How long the sender of a change waits for votes before it is told that there is no majority.
const VOTE_PATIENCE: Duration = Duration::from_secs(10);
/// How long the first vote of a cluster may take before its servers go on without.
const FOUNDING_PATIENCE: Duration = Duration::from_secs(3);
/// The longest pause before a proposal that another has outbid is made anew; doubled each time, five times at most.
const OUTBID_PAUSE: Duration = Duration::from_millis(100);

impl Inner {
    /// Notes why a server was given up, or is waited for.
    pub(super) fn note_reason(&mut self, server: NodeAddress, why: String) {
        let spaces = self.state.spaces();
        self.given_up.retain(|node, _| spaces.contain(*node));
        if spaces.contain(server) {
            self.given_up.insert(server, why);
        }
    }

    /// Something has happened that the state notes; a state that is voted on notes it, too.
    pub(super) fn note<T>(&mut self, event: impl Fn(&mut State) -> T) -> T {
        if let Some(pending) = &mut self.changes.pending {
            event(&mut pending.state);
        }
        event(&mut self.state)
    }
}

impl Shell {
    /// Makes a change, when those before it are done.
    pub(super) fn decide(&self, inner: &mut Inner, job: Job) {
        // A first vote must not hold anything up.
        if !inner.votes.are_held() {
            self.go_without(inner);
        }
        let changes = &mut inner.changes;
        let known = job.loss.is_some() && changes.waiting.iter().any(|waiting| waiting.loss == job.loss);
        if known {
            return;
        }
        if changes.waiting.len() >= CHANGES {
            return refuse(job.asker, "too many changes wait");
        }
        changes.waiting.push_back(job);
        self.go_on(inner);
    }

    /// Makes a change before all that wait, also before the one that is voted on, which may wait for those that are lost.
    pub(super) fn decide_first(&self, inner: &mut Inner, job: Job) {
        if let Some(pending) = inner.changes.pending.take() {
            inner.votes.abandon();
            inner.changes.waiting.push_front(pending.job);
        }
        inner.changes.waiting.push_front(job);
        self.go_on(inner);
    }

    /// Works out the changes that wait, until one has to be voted on.
    fn go_on(&self, inner: &mut Inner) {
        let now = Instant::now();
        while inner.changes.pending.is_none() && inner.changes.pause.is_none_or(|until| until <= now) {
            let Some(job) = inner.changes.waiting.pop_front() else { return };
            if job.loss.is_some_and(|server| inner.state.servers().contains(&server)) {
                // It has come back meanwhile.
                continue;
            }
            let mut state = inner.state.clone();
            match (job.change)(&mut state, &self.clock) {
                Err(impossible) => refuse_impossible(job.asker, impossible),
                Ok((result, actions)) if self.is_voted_on(inner, &state) => {
                    self.put_to_vote(inner, job, state, actions, result);
                }
                Ok((result, actions)) => self.carry_out(inner, job, state, actions, &result),
            }
        }
    }

    /// The last owner of some keys is not given up.
    fn say_if_waited_for(&self, inner: &mut Inner, server: NodeAddress) {
        if !inner.state.is_waited_for(server) {
            return;
        }
        let why = "it is the last owner of some keys, and is waited for";
        inner.note_reason(server, why.to_owned());
        if inner.said.is_due((server, "waited for"), self.env.time().now()) {
            tracing::warn!(peer = %server, "{why}");
        }
    }

    /// Whether the change that has led to `state` is put to the vote: it changes the hash spaces of a cluster that votes, or
    /// founds one that can vote from the start.
    fn is_voted_on(&self, inner: &Inner, state: &State) -> bool {
        if inner.votes.are_held() {
            return state.spaces() != inner.state.spaces();
        }
        let new = inner.state.spaces().are_new() && state.spaces().are_ready() && !state.spaces().rhs.has_active();
        let now = Instant::now();
        new && self.mode(inner, now) == Mode::Votes && inner.can_vote(state.spaces(), now)
    }

    fn carry_out(&self, inner: &mut Inner, job: Job, state: State, actions: Vec<Action>, result: &[u8]) {
        let Job { loss, asker, .. } = job;
        inner.state = state;
        if let Some(server) = loss {
            self.say_if_waited_for(inner, server);
        }
        // Clients hear of the hash space before the one that asked gets its answer.
        self.perform(inner, actions);
        answer(asker, result);
    }

    /// Makes the change without votes that the first vote of the cluster was on; should that be in force all the same, the
    /// servers will say so.
    fn go_without(&self, inner: &mut Inner) {
        inner.votes.abandon();
        let Some(Pending { job, .. }) = inner.changes.pending.take() else { return };
        // On what is known now: other changes may have come in between.
        let mut state = inner.state.clone();
        match (job.change)(&mut state, &self.clock) {
            Err(impossible) => refuse_impossible(job.asker, impossible),
            Ok((result, actions)) => self.carry_out(inner, job, state, actions, &result),
        }
    }

    fn put_to_vote(&self, inner: &mut Inner, job: Job, state: State, actions: Vec<Action>, result: Vec<u8>) {
        let votes = !matches!(self.mode(inner, Instant::now()), Mode::Without(_));
        let timing = self.timing(inner);
        let next = if job.forced {
            inner.votes.forced(state.spaces())
        } else {
            inner.votes.next(state.spaces(), votes, timing)
        };
        let Some(next) = next else {
            return refuse(job.asker, "there is no configuration that could follow");
        };
        inner.votes.propose(next);
        if let Some(server) = job.loss.filter(|server| inner.ended.contains(server)) {
            inner.votes.set_gone(server);
        }
        inner.changes.pending = Some(Pending { job, state, actions, result, since: Instant::now() });
        self.ask_all(inner);
        self.consider_votes(inner);
    }

    /// Does what the proposal under way needs next.
    pub(super) fn consider_votes(&self, inner: &mut Inner) {
        match inner.votes.progress(self.env.time().now()) {
            // At once: until they have accepted, another manager may outbid this one.
            Some(Progress::Asking) if inner.votes.begins_to_accept() => self.ask_all(inner),
            None | Some(Progress::Asking) => {}
            Some(Progress::Waiting(until)) => {
                let pause = until.since(self.env.time().now());
                self.spawn(async move |shell| {
                    tokio::time::sleep(pause).await;
                    shell.consider_votes(&mut shell.lock());
                });
            }
            Some(Progress::Committed(next) | Progress::Overtaken(next)) => self.take(inner, &next),
            Some(Progress::Outbid(round)) => {
                inner.votes.outbid(round);
                let changes = &mut inner.changes;
                let pause = self.env.random_share(OUTBID_PAUSE * (1 << changes.outbid.min(5)));
                changes.outbid += 1;
                if let Some(pending) = changes.pending.take() {
                    changes.waiting.push_front(pending.job);
                }
                changes.pause = Instant::now().checked_add(pause);
                self.spawn(async move |shell| {
                    tokio::time::sleep(pause).await;
                    shell.go_on(&mut shell.lock());
                });
            }
        }
    }

    /// A node has shown a configuration that is in force. Only what belongs to this cluster is believed: the partner, and the
    /// members of the configuration known; a manager that knows none has to learn it from whoever is there.
    pub(super) fn shown(&self, inner: &mut Inner, node: NodeAddress, next: &Configuration) {
        let known = inner.votes.configuration();
        if known.counter == 0 || self.is_partner(node) || known.contains(node) {
            self.take(inner, next);
        } else if next.version().is_after(known.version()) {
            tracing::warn!(peer = %node, "shows the configuration of another cluster");
        }
    }

    /// Takes a configuration that is in force, if it is later than the one known, and tells everybody.
    fn take(&self, inner: &mut Inner, next: &Configuration) {
        let before = inner.votes.configuration().clone();
        if !inner.votes.adopt(next) {
            return;
        }
        if before.counter > 0 && next.is_forced_since(&before) {
            let out: Vec<_> = before.members.keys().filter(|node| !next.members.contains_key(*node)).collect();
            tracing::warn!(
                version = next.counter,
                before = before.counter,
                "a configuration was put in force by an operator: {out:?} are out of it; what they hold counts as absent when they are attached again"
            );
        }
        tracing::info!(version = next.counter, clocktime = %next.whs.clocktime, voted = next.is_voted(), "configuration in force");
        inner.configured = Instant::now();
        inner.changes.outbid = 0;
        self.compare_timing(next);
        let spaces = Spaces { whs: next.whs.clone(), rhs: next.rhs.clone() };
        match inner.changes.pending.take() {
            Some(Pending { job, state, actions, result, .. }) if *state.spaces() == spaces => {
                inner.state = state;
                inner.state.set_voted(next.is_voted());
                self.ask_all(inner);
                self.perform(inner, actions);
                answer(job.asker, &result);
            }
            other => {
                // Another's, or ours after all that was thought to be withdrawn: the change is worked out anew on it.
                if let Some(pending) = other {
                    inner.changes.waiting.push_front(pending.job);
                }
                if next.is_voted() {
                    inner.state.take(spaces, &self.clock);
                } else {
                    inner.state.take_later(spaces, &self.clock);
                }
                inner.state.set_voted(next.is_voted());
                self.ask_all(inner);
                self.perform(inner, vec![Action::SyncPartner, Action::SyncServers, Action::PushClients]);
            }
        }
        self.go_on(inner);
    }

    /// A server has come back: its loss need not be voted on any more.
    pub(super) fn found_again(&self, inner: &mut Inner, server: NodeAddress) {
        inner.ended.remove(&server);
        let lost = inner.changes.pending.as_ref().is_some_and(|pending| pending.job.loss == Some(server));
        if lost && inner.votes.withdraw() {
            inner.changes.pending = None;
            self.go_on(inner);
        }
    }

    /// What is done regularly: goes over to votes when all can vote, and from them when one cannot; says who is waited for.
    pub(super) fn look_at_votes(&self, inner: &mut Inner) {
        self.consider_votes(inner);
        let now = Instant::now();
        let mode = self.mode(inner, now);
        inner.say_mode(mode);
        let due = inner.changes.is_idle() && self.is_due(inner, mode, now);
        match &mut inner.changes.pending {
            Some(pending) if pending.since.elapsed() < FOUNDING_PATIENCE => {}
            Some(_) if !inner.votes.are_held() => {
                tracing::warn!("the servers have not agreed on a first configuration: they go on without votes");
                self.go_without(inner);
                self.go_on(inner);
            }
            Some(pending) if pending.since.elapsed() >= VOTE_PATIENCE && pending.job.forced => {
                tracing::warn!("the forced detach is given up: not all of the servers that would be left have agreed");
                inner.give_up();
                self.go_on(inner);
            }
            Some(pending) if pending.since.elapsed() >= VOTE_PATIENCE && pending.job.asker.is_some() => {
                let asker = pending.job.asker.take();
                let silent: Vec<_> = inner.votes.unheard().map(|voter| inner.name(voter)).collect();
                let silent = silent.join(", ");
                refuse(
                    asker,
                    &format!(
                        "no majority of the voters answers ({silent} do not); it may be done all the same when one does"
                    ),
                );
            }
            Some(_) => {}
            None if due => {
                let state = inner.state.clone();
                self.put_to_vote(inner, Job::mode(), state, Vec::new(), Vec::new());
            }
            None if inner.changes.waiting.is_empty() && inner.state.may_copy_anew() => {
                self.decide(inner, Job::copy_anew());
            }
            None => self.go_on(inner),
        }
    }
}

impl Inner {
    /// Gives up what is voted on first of all; should it be in force all the same, the servers will say so.
    fn give_up(&mut self) {
        self.votes.abandon();
        if let Some(pending) = self.changes.pending.take() {
            refuse(pending.job.asker, "given up");
        }
    }

    /// A voter in words.
    pub(super) fn name(&self, voter: Voter) -> String {
        match (self.votes.node_of(voter), voter) {
            _ if self.votes.is_own(voter) => "this manager".to_owned(),
            (Some(node), Voter::Server(_)) => node.to_string(),
            (Some(node), Voter::Manager(_)) => format!("manager {node}"),
            (None, Voter::Server(store)) => format!("the server with store {store:016x}"),
            (None, Voter::Manager(_)) => "a manager that has ended".to_owned(),
        }
    }
}
