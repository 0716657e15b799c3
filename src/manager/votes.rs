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

/// How a member stands that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is the one that it was, as far as is known.
    Sound,
    /// Others are to go on without it.
    GivenUp(Changed),
    /// Its store is older than it was, and the members that may have more are not back.
    Waits,
    /// All members have come back with older stores: there is nothing better, so they go on with what they have.
    Settled,
}

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
    /// Voters have been asked to accept what is proposed.
    asked_to_accept: bool,
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
            asked_to_accept: false,
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

    /// What becomes of the server at `node`, a member that may not be the one that it was: one with an older store is given
    /// up only if another member, one that is `present`, has all records.
    pub(super) fn look_at(&mut self, node: NodeAddress, present: impl Fn(NodeAddress) -> bool) -> Standing {
        let configuration = self.acceptor.configuration();
        let Some(changed) = self.heard.changed(node, configuration) else { return Standing::Sound };
        let has_all = |other: &NodeAddress| {
            present(*other) && self.heard(*other).is_some() && self.heard.changed(*other, configuration).is_none()
        };
        if changed == Changed::Store || configuration.members.keys().any(has_all) {
            return Standing::GivenUp(changed);
        }
        if self.heard.settle_for_older(configuration, present) { Standing::Settled } else { Standing::Waits }
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
        self.asked_to_accept = false;
    }

    /// Whether voters are to be asked to accept by now, and were not yet. Says so once.
    pub(super) fn begins_to_accept(&mut self) -> bool {
        self.is_accepting() && !std::mem::replace(&mut self.asked_to_accept, true)
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
        Question {
            speaker: self.speaker(),
            version,
            configuration,
            proposal,
            settled: None,
            unreached: Vec::new(),
            older: false,
        }
    }

    /// A node asks: it is answered, and confirmed if it needs a lease.
    pub(super) fn answer(&mut self, from: NodeAddress, question: &Question, now: Moment) -> Reply {
        let configuration = self.acceptor.configuration();
        self.heard.note_question(from, question, configuration);
        let older = self.heard.remembers_more(from, question.version, configuration);
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
        Reply { speaker: self.speaker(), version, configuration: later, confirmed, answer, refused: None, older }
    }

    /// The answer to a server that announces the address of another machine.
    pub(super) fn refusal(&self, owner: Machine) -> Reply {
        let version = self.configuration().version();
        let refused = Some(owner);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockTime;
    use crate::wire::params::Seed;

    const NOW: Moment = Moment::from_nanos(1_000_000_000);

    fn node(number: u8) -> NodeAddress {
        NodeAddress::new(([10, 0, 0, number], 19800).into())
    }

    fn spaces(active: [bool; 3]) -> Spaces {
        let seed = Seed { nodes: (1..).map(node).zip(active).collect(), clocktime: ClockTime(1) };
        Spaces { whs: seed.clone(), rhs: seed }
    }

    /// A server with as many commits says that it holds what the manager does.
    fn heard(votes: &mut Votes, number: u8, start: u64, commits: u64) {
        asks(votes, number, (start, commits), false);
    }

    fn asks(votes: &mut Votes, number: u8, (start, commits): (u64, u64), older: bool) {
        let speaker = Speaker::Server { store: number.into(), commits, start };
        let version = votes.configuration().version();
        let (configuration, proposal, settled) = (None, None, None);
        let question = Question { speaker, version, configuration, proposal, settled, unreached: Vec::new(), older };
        votes.answer(node(number), &question, NOW);
    }

    /// Of a cluster of three servers.
    fn votes() -> Votes {
        let mut votes = Votes::new(9, false);
        for number in 1..=3 {
            heard(&mut votes, number, 1, 100);
        }
        let first = votes.next(&spaces([true; 3]), true, Timing::default()).unwrap();
        votes.adopt(&first);
        for number in 1..=3 {
            heard(&mut votes, number, 1, 100);
        }
        votes
    }

    #[test]
    fn voters_are_asked_to_accept_once_as_soon_as_a_majority_has_promised() {
        let mut votes = votes();
        let next = votes.next(&spaces([true, true, false]), true, Timing::default()).unwrap();
        votes.propose(next);
        for number in 1..=2_u8 {
            assert!(!votes.begins_to_accept());
            let asked = votes.question(node(number));
            let speaker = Speaker::Server { store: number.into(), commits: 100, start: 1 };
            let (version, answer) = (votes.configuration().version(), Some(Answer::Promised(None)));
            let (configuration, confirmed, refused, older) = (None, false, None, false);
            let reply = Reply { speaker, version, configuration, confirmed, answer, refused, older };
            votes.hear(node(number), &asked, reply, NOW);
        }
        assert_eq!(votes.progress(NOW), Some(Progress::Asking));
        assert!(votes.begins_to_accept() && !votes.begins_to_accept());
        let again = votes.next(&spaces([true, false, true]), true, Timing::default()).unwrap();
        votes.propose(again);
        assert!(!votes.begins_to_accept());
    }

    #[test]
    fn an_older_store_is_given_up_if_another_has_all_and_counts_if_none_has() {
        let mut votes = votes();
        let all = |_| true;
        assert_eq!(votes.look_at(node(1), all), Standing::Sound);
        votes.forget(node(1));
        heard(&mut votes, 1, 2, 99);
        assert_eq!(votes.look_at(node(1), |other| other == node(1)), Standing::Waits, "the others are away");
        assert_eq!(votes.look_at(node(1), all), Standing::GivenUp(Changed::Older));
        for number in [2, 3] {
            heard(&mut votes, number, 2, 90);
        }
        assert_eq!(votes.look_at(node(1), |other| other != node(3)), Standing::Waits, "one may have more");
        assert_eq!(votes.look_at(node(1), all), Standing::Settled);
        assert_eq!((1..=3).map(|number| votes.look_at(node(number), all)).collect::<Vec<_>>(), [Standing::Sound; 3]);
        asks(&mut votes, 2, (2, 90), true);
        assert_eq!(votes.look_at(node(2), all), Standing::Sound, "it does not know yet");
        asks(&mut votes, 2, (3, 90), true);
        assert_eq!(votes.look_at(node(2), all), Standing::GivenUp(Changed::Older), "another manager remembers more");
    }
}
