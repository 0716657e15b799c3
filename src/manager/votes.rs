//! A manager's part in the register: the configuration it knows, its own vote, and the proposal it has under way.
//!
//! Pure: what the rules are [`crate::register`] knows, who is asked and told is the affair of `shell` and its neighbours.

use std::collections::{BTreeMap, BTreeSet};

use super::spaces::Spaces;
use crate::register::{
    Acceptor, Answer, Ballot, Changed, Configuration, Confirmations, Heard, Machine, Progress, Proposal, Proposer,
    Question, Reply, Speaker, Timing, Version, Voter,
};
use crate::time::Moment;
use crate::wire::NodeAddress;

/// What a manager knows of the register.
#[derive(Debug)]
pub(super) struct Votes {
    /// The number of this start: a manager keeps nothing, and one that has started again is another.
    start: u64,
    /// This manager was told to keep the cluster without votes.
    compatible: bool,
    acceptor: Acceptor,
    confirmed: Confirmations,
    proposer: Option<Proposer>,
    /// That of the next ballot.
    round: u64,
    heard: Heard,
}

impl Votes {
    /// `start` is drawn by chance.
    pub(super) fn new(start: u64, compatible: bool) -> Self {
        Self {
            start,
            compatible,
            acceptor: Acceptor::default(),
            confirmed: Confirmations::default(),
            proposer: None,
            round: 0,
            heard: Heard::default(),
        }
    }

    /// What this manager says to others of itself.
    pub(super) fn speaker(&self) -> Speaker {
        Speaker::Manager { start: self.start, compatible: self.compatible }
    }

    /// The latest configuration known to be in force.
    pub(super) fn configuration(&self) -> &Configuration {
        self.acceptor.configuration()
    }

    /// Whether the servers of this cluster vote.
    pub(super) fn are_held(&self) -> bool {
        self.configuration().is_voted()
    }

    /// How far `node` has said it is.
    pub(super) fn held_by(&self, node: NodeAddress) -> Option<Version> {
        self.heard.version(node)
    }

    /// Voters that have not answered the proposal under way.
    pub(super) fn unheard(&self) -> impl Iterator<Item = Voter> {
        self.proposer.iter().flat_map(Proposer::unheard)
    }

    /// Whether `voter` is this manager.
    pub(super) fn is_own(&self, voter: Voter) -> bool {
        voter == Voter::Manager(self.start)
    }

    /// Where `voter` is, as far as is known.
    pub(super) fn node_of(&self, voter: Voter) -> Option<NodeAddress> {
        let mut members = self.configuration().members.iter();
        let member = members.find(|(_, member)| Voter::Server(member.store) == voter).map(|(node, _)| *node);
        member.or_else(|| self.heard.nodes().find(|(_, speaker)| speaker.voter() == voter).map(|(node, _)| node))
    }

    /// Whether a proposal is under way.
    pub(super) fn is_proposing(&self) -> bool {
        self.proposer.is_some()
    }

    /// Whether voters are asked to accept.
    pub(super) fn is_accepting(&self) -> bool {
        self.proposer.as_ref().is_some_and(Proposer::is_accepting)
    }

    /// Stops proposing. Somebody may have accepted.
    pub(super) fn abandon(&mut self) {
        if self.proposer.take().is_some() {
            self.round = self.round.saturating_add(1);
        }
    }

    /// Who was last heard at `node`; `None` if that is a node of another program, or was never heard.
    pub(super) fn heard(&self, node: NodeAddress) -> Option<Speaker> {
        self.heard.speaker(node)
    }

    /// Whether `node` was last heard to be a manager that keeps the cluster without votes.
    pub(super) fn is_compatible(&self, node: NodeAddress) -> bool {
        matches!(self.heard(node), Some(Speaker::Manager { compatible: true, .. }))
    }

    /// Whoever was at `node` may be another now.
    pub(super) fn forget(&mut self, node: NodeAddress) {
        self.heard.forget(node);
    }

    /// Whether `node` is asked regularly, and so found lost sooner than by keep-alives.
    pub(super) fn asks(&self, node: NodeAddress) -> bool {
        self.are_held() && (self.heard(node).is_some() || self.configuration().members.contains_key(&node))
    }

    /// Whether the server at `node` is a member, but not the one that it was.
    pub(super) fn changed(&self, node: NodeAddress) -> Option<Changed> {
        self.heard.changed(node, self.configuration())
    }

    /// The nodes that take part in votes, or can.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeAddress> {
        self.heard.nodes().map(|(node, _)| node)
    }

    /// What follows with these hash spaces: with votes, and this timing, if every server that is active in them takes part in
    /// those.
    pub(super) fn next(&self, spaces: &Spaces, votes: bool, timing: Timing) -> Option<Configuration> {
        let Spaces { whs, rhs } = spaces.clone();
        let mut stores = BTreeMap::new();
        let mut managers = BTreeSet::from([self.start]);
        for (node, speaker) in self.heard.nodes() {
            match speaker {
                Speaker::Server { store, .. } => _ = stores.insert(node, store),
                Speaker::Manager { start, .. } => _ = managers.insert(start),
            }
        }
        // A member is the one that it was, or none: with another store it has to be given up first.
        stores.extend(self.configuration().members.iter().map(|(node, member)| (*node, member.store)));
        let next = votes.then(|| self.configuration().next(whs.clone(), rhs.clone(), &stores, &managers)).flatten();
        let next = next.map(|next| Configuration { timing, ..next });
        next.filter(Configuration::is_sound).or_else(|| self.configuration().without_votes(whs, rhs))
    }

    /// What an operator puts in force with these hash spaces, without the votes of those that are not active in them.
    pub(super) fn forced(&self, spaces: &Spaces) -> Option<Configuration> {
        let Spaces { whs, rhs } = spaces.clone();
        let stores = self.configuration().members.iter().map(|(node, member)| (*node, member.store)).collect();
        let forced = self.configuration().forced(whs, rhs, &stores, &BTreeSet::from([self.start]));
        forced.filter(Configuration::is_sound)
    }

    /// Begins to propose `next`, which follows the configuration held.
    pub(super) fn propose(&mut self, next: Configuration) {
        let ballot = Ballot { round: self.round, proposer: self.start };
        self.proposer = Some(Proposer::new(self.configuration().clone(), ballot, next));
    }

    /// Gives the proposal up, if that is certain to leave no trace. Says whether it did.
    pub(super) fn withdraw(&mut self) -> bool {
        let early = self.proposer.is_some() && !self.is_accepting();
        if early {
            self.abandon();
        }
        early
    }

    /// The process of the server at `node` has ended: its lease is not waited for.
    pub(super) fn set_gone(&mut self, node: NodeAddress) {
        let member = self.configuration().members.get(&node).map(|member| member.store);
        if let (Some(store), Some(proposer)) = (member, &mut self.proposer) {
            proposer.set_gone(store);
        }
    }

    /// The question for `node`, with the proposal if it is a voter that has not answered, and with the configuration if it is
    /// known not to have it.
    pub(super) fn question(&self, node: NodeAddress) -> Question {
        let configuration = self.configuration();
        let version = configuration.version();
        let proposal = self.proposer.as_ref().and_then(|proposer| {
            let voter = self.heard(node)?.voter();
            let next = proposer.asks()?.cloned();
            let proposal = Proposal { ballot: proposer.ballot(), next };
            proposer.unheard().any(|unheard| unheard == voter).then_some(proposal)
        });
        let configuration = self.heard.lacks(node, version).then(|| configuration.clone());
        Question { speaker: self.speaker(), version, configuration, proposal, settled: None, unreached: Vec::new() }
    }

    /// A node asks: it is answered, and confirmed if it needs a lease.
    pub(super) fn answer(&mut self, from: NodeAddress, question: &Question, now: Moment) -> Reply {
        self.heard.note(from, question.speaker, question.version, self.acceptor.configuration());
        let configuration = self.acceptor.configuration();
        let version = configuration.version();
        let own = Voter::Manager(self.start);
        let confirmed = match question.speaker {
            Speaker::Server { store, .. } => {
                let named = configuration.members.get(&from).is_some_and(|member| member.store == store);
                let member = named && self.heard.changed(from, configuration).is_none();
                let votes = configuration.voters.contains(&own) && !self.acceptor.is_leaving();
                let confirms = member && votes && question.version == version;
                if confirms {
                    self.confirmed.confirm(store, now, configuration.timing.lease());
                }
                confirms
            }
            Speaker::Manager { .. } => false,
        };
        let later = version.is_after(question.version).then(|| configuration.clone());
        let answer = question.proposal.as_ref().map(|proposal| self.vote(question.version, proposal, now));
        Reply { speaker: self.speaker(), version, configuration: later, confirmed, answer, refused: None }
    }

    /// The answer to a server that announces the address of another machine.
    pub(super) fn refusal(&self, owner: Machine) -> Reply {
        let version = self.configuration().version();
        let refused = Some(owner);
        Reply { speaker: self.speaker(), version, configuration: None, confirmed: false, answer: None, refused }
    }

    fn vote(&mut self, version: Version, proposal: &Proposal, now: Moment) -> Answer {
        match &proposal.next {
            None => self.acceptor.prepare(version, proposal.ballot),
            Some(next) => self.acceptor.accept(version, proposal.ballot, next, &self.confirmed, now),
        }
    }

    /// A node has answered a question.
    pub(super) fn hear(&mut self, from: NodeAddress, asked: &Question, reply: Reply, now: Moment) {
        self.heard.note(from, reply.speaker, reply.version, self.acceptor.configuration());
        if let (Some(proposer), Some(proposal), Some(answer)) = (&mut self.proposer, &asked.proposal, reply.answer) {
            proposer.hear((asked.version, proposal.ballot), reply.speaker.voter(), answer, now);
        }
    }

    /// How far the proposal is at `now`; this manager's own vote is given first, if it has one.
    pub(super) fn progress(&mut self, now: Moment) -> Option<Progress> {
        let own = Voter::Manager(self.start);
        loop {
            let proposer = self.proposer.as_ref()?;
            let own_vote = || proposer.unheard().any(|voter| voter == own);
            let Some(next) = proposer.asks().filter(|_| own_vote()).map(Option::<&_>::cloned) else {
                return Some(proposer.progress(now));
            };
            let (version, ballot) = (proposer.base().version(), proposer.ballot());
            let answer = self.vote(version, &Proposal { ballot, next }, now);
            let before = self.proposer.as_ref().map(|proposer| proposer.unheard().count());
            if let Some(proposer) = &mut self.proposer {
                proposer.hear((version, ballot), own, answer, now);
            }
            let after = self.proposer.as_ref().map(|proposer| proposer.unheard().count());
            if before == after {
                return self.proposer.as_ref().map(|proposer| proposer.progress(now));
            }
        }
    }

    /// Another has a higher ballot: the next one is of this round.
    pub(super) fn outbid(&mut self, round: u64) {
        self.round = self.round.max(round);
        self.proposer = None;
    }

    /// Takes a configuration that is in force, if it is later. Whatever was proposed for its place is settled by it.
    pub(super) fn adopt(&mut self, configuration: &Configuration) -> bool {
        let later = self.acceptor.adopt(configuration);
        if later {
            self.proposer = None;
            self.round = 0;
        }
        later
    }
}
