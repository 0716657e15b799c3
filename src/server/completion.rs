//! A proposal that its manager has left half done, because it has died for example: a server that has accepted it
//! completes it.
//!
//! A voter that has accepted a successor acts by its configuration no more. If nobody told it what has become of the
//! proposal, it would wait until a manager is back, and so would its keys. Pure: who is asked `register` knows, what must be
//! durable `votes`.

use std::time::Duration;

use crate::register::{Acceptor, Answer, Ballot, Configuration, Progress, Proposal, Proposer, Version, Voter};
use crate::time::Moment;

/// How long a proposer may be silent before others take its proposal up.
const PATIENCE: Duration = Duration::from_secs(1);
/// Up to so many milliseconds longer, each server its own time: else they would outbid each other.
const SPREAD_MS: u64 = 500;

/// What a server does to complete proposals.
#[derive(Debug)]
pub(super) struct Completion {
    /// Drawn when the server started: no two proposers have the same.
    number: u64,
    proposer: Option<Proposer>,
    /// When a proposer was last heard.
    heard: Moment,
}

impl Completion {
    /// `number` is drawn by chance.
    pub(super) fn new(number: u64, now: Moment) -> Self {
        Self { number, proposer: None, heard: now }
    }

    /// The number that was drawn when the server started.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// A proposer is at work.
    pub(super) fn note_proposer(&mut self, now: Moment) {
        self.heard = now;
    }

    /// The configuration that was voted on is settled.
    pub(super) fn end(&mut self) {
        self.proposer = None;
    }

    /// Begins to propose what was accepted, if nobody else seems to.
    pub(super) fn begin_if_due(&mut self, acceptor: &Acceptor, now: Moment) {
        let patience = PATIENCE + Duration::from_millis(self.number % SPREAD_MS);
        let (vote, base) = (acceptor.vote(), acceptor.configuration());
        let Some((_, accepted)) = vote.accepted.as_ref().filter(|_| base.is_voted()) else { return };
        if self.proposer.is_none() && now >= self.heard + patience {
            let ballot = Ballot { round: vote.promised.round.saturating_add(1), proposer: self.number };
            self.proposer = Some(Proposer::new(base.clone(), ballot, accepted.clone()));
        }
    }

    /// What `voter` is to be asked, if anything.
    pub(super) fn proposal(&self, voter: Voter) -> Option<Proposal> {
        let proposer = self.proposer.as_ref()?;
        let next = proposer.asks()?.cloned();
        proposer.unheard().any(|unheard| unheard == voter).then(|| Proposal { ballot: proposer.ballot(), next })
    }

    /// `voter` has answered what it was asked under `asked`.
    pub(super) fn hear(&mut self, asked: (Version, Ballot), voter: Voter, answer: Answer, now: Moment) {
        if let Some(proposer) = &mut self.proposer {
            proposer.hear(asked, voter, answer, now);
        }
    }

    /// The configuration that is in force by now, if one is known to be.
    pub(super) fn progress(&mut self, now: Moment) -> Option<Configuration> {
        match self.proposer.as_ref()?.progress(now) {
            Progress::Asking | Progress::Waiting(_) => None,
            Progress::Committed(next) | Progress::Overtaken(next) => Some(next),
            Progress::Outbid(_) => {
                // Whoever it was is at work.
                self.proposer = None;
                self.heard = now;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::clock::ClockTime;
    use crate::register::Confirmations;
    use crate::wire::NodeAddress;
    use crate::wire::params::Seed;

    fn configuration(base: &Configuration, clocktime: u64) -> Configuration {
        let nodes: Vec<_> = (1..=3u16).map(|n| (NodeAddress::new(([10, 0, 0, 1], n).into()), true)).collect();
        let stores: BTreeMap<_, _> = nodes.iter().zip(1..).map(|((node, _), store)| (*node, store)).collect();
        let seed = Seed { nodes, clocktime: ClockTime(clocktime) };
        base.next(seed.clone(), seed, &stores, &BTreeSet::new()).unwrap()
    }

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(0) + Duration::from_millis(millis)
    }

    /// Three voters, the first of which has accepted what follows.
    fn voters() -> (Vec<Acceptor>, Configuration) {
        let first = configuration(&Configuration::default(), 1);
        let next = configuration(&first, 2);
        let mut voters = vec![Acceptor::new(first.clone(), crate::register::Vote::default()); 3];
        let ballot = Ballot { round: 0, proposer: 99 };
        let answer = voters[0].accept(first.version(), ballot, &next, &Confirmations::default(), at(0));
        assert!(matches!(answer, Answer::Accepted(_)));
        (voters, next)
    }

    #[test]
    fn what_a_silent_manager_has_left_is_completed_by_who_has_accepted_it() {
        let (mut voters, next) = voters();
        let mut completion = Completion::new(7, at(0));
        completion.begin_if_due(&voters[0], at(900));
        assert_eq!(completion.proposal(Voter::Server(1)), None, "the manager may be at work");
        completion.begin_if_due(&voters[1], at(9000));
        assert_eq!(completion.proposal(Voter::Server(1)), None, "it has accepted nothing");
        completion.begin_if_due(&voters[0], at(1007));
        let version = voters[0].configuration().version();
        for _ in 0..2 {
            for (voter, store) in voters.iter_mut().zip(1..).take(2) {
                let Some(proposal) = completion.proposal(Voter::Server(store)) else { continue };
                let answer = match &proposal.next {
                    None => voter.prepare(version, proposal.ballot),
                    Some(next) => voter.accept(version, proposal.ballot, next, &Confirmations::default(), at(1010)),
                };
                completion.hear((version, proposal.ballot), Voter::Server(store), answer, at(1010));
            }
        }
        assert_eq!(completion.progress(at(1010)), Some(next));
    }

    #[test]
    fn it_gives_way_to_a_proposer_that_is_there() {
        let (mut voters, _) = voters();
        let mut completion = Completion::new(7, at(0));
        completion.begin_if_due(&voters[0], at(2000));
        let proposal = completion.proposal(Voter::Server(2)).unwrap();
        let version = voters[1].configuration().version();
        let higher = Ballot { round: 9, proposer: 99 };
        assert_eq!(voters[1].prepare(version, higher), Answer::Promised(None));
        let refused = voters[1].prepare(version, proposal.ballot);
        assert_eq!(refused, Answer::Refused(higher));
        completion.hear((version, proposal.ballot), Voter::Server(2), refused, at(2000));
        assert_eq!(completion.progress(at(2000)), None);
        completion.begin_if_due(&voters[0], at(2900));
        assert_eq!(completion.proposal(Voter::Server(2)), None);
        completion.begin_if_due(&voters[0], at(3100));
        assert!(completion.proposal(Voter::Server(2)).is_some());
    }
}
