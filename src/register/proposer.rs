//! A proposal: from the first question to the voters to the configuration that is in force.

use std::collections::BTreeMap;
use std::time::Duration;

use super::acceptor::Answer;
use super::configuration::{Ballot, Configuration, Version, Voter};
use crate::time::Moment;

/// What the proposer has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Ask the voters again that have not answered: to prepare, or to accept this configuration.
    Asking(Option<Configuration>),
    /// A majority has accepted; wait until then, for leases that still last.
    Waiting(Moment),
    /// This configuration is in force: tell everybody.
    Committed(Configuration),
    /// Begin anew: with a ballot of at least this round.
    Outbid(u64),
    /// Begin anew on this configuration, which is in force.
    Overtaken(Configuration),
}

/// A proposal for what follows a configuration.
#[derive(Debug)]
pub struct Proposer {
    base: Configuration,
    ballot: Ballot,
    /// What it wished to propose; another's proposal takes its place if that may have been accepted by a majority.
    proposal: Configuration,
    promises: BTreeMap<Voter, Option<(Ballot, Configuration)>>,
    /// Those that have accepted, with how long the leases last that they have confirmed.
    accepted: BTreeMap<Voter, Moment>,
    ended: Option<Progress>,
}

impl Proposer {
    /// Proposes `next` as what follows `base`, which is in force.
    pub fn new(base: Configuration, ballot: Ballot, next: Configuration) -> Self {
        assert!(base.precedes(&next), "a proposal that does not follow what it builds on");
        let (promises, accepted) = (BTreeMap::new(), BTreeMap::new());
        Self { base, ballot, proposal: next, promises, accepted, ended: None }
    }

    /// The configuration it builds on.
    pub fn base(&self) -> &Configuration {
        &self.base
    }

    /// Its ballot.
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// The voters that are still to be asked.
    pub fn unheard(&self) -> impl Iterator<Item = Voter> {
        let accepting = self.is_accepting();
        self.base.voters.iter().copied().filter(move |voter| {
            if accepting { !self.accepted.contains_key(voter) } else { !self.promises.contains_key(voter) }
        })
    }

    /// An answer of `voter` to what was asked under `version` and `ballot`, received at `now`. `lasting` of an acceptance:
    /// for how long leases last yet that it has confirmed for servers that lose a right.
    pub fn hear(&mut self, asked: (Version, Ballot), voter: Voter, answer: Answer, lasting: Duration, now: Moment) {
        // An answer to an earlier proposal says nothing on this one.
        let ours = asked == (self.base.version(), self.ballot);
        if !ours || self.ended.is_some() || !self.base.voters.contains(&voter) {
            return;
        }
        match answer {
            Answer::Promised(before) if !self.is_accepting() => {
                let before = before.filter(|(_, configuration)| self.base.precedes(configuration));
                self.promises.insert(voter, before);
                if self.is_accepting() {
                    let highest = self.promises.values().flatten().max_by_key(|(ballot, _)| *ballot);
                    if let Some((_, configuration)) = highest {
                        self.proposal = configuration.clone();
                    }
                }
            }
            Answer::Accepted if self.is_accepting() => {
                self.accepted.entry(voter).or_insert(now + lasting);
            }
            Answer::Refused(ballot) if ballot > self.ballot => {
                self.ended = Some(Progress::Outbid(ballot.round.saturating_add(1)));
            }
            Answer::Later(configuration) => {
                if configuration.version().is_after(self.base.version()) {
                    self.ended = Some(Progress::Overtaken(*configuration));
                }
            }
            // It comes again, or late.
            Answer::Promised(_) | Answer::Accepted | Answer::Earlier(_) | Answer::Refused(_) => {}
        }
    }

    /// What is to be done at `now`.
    pub fn progress(&self, now: Moment) -> Progress {
        if let Some(ended) = &self.ended {
            return ended.clone();
        }
        if !self.is_accepting() {
            return Progress::Asking(None);
        }
        if !self.base.is_majority(self.accepted.keys()) {
            return Progress::Asking(Some(self.proposal.clone()));
        }
        match self.accepted.values().max() {
            Some(until) if *until > now => Progress::Waiting(*until),
            _ => Progress::Committed(self.proposal.clone()),
        }
    }

    fn is_accepting(&self) -> bool {
        self.base.is_majority(self.promises.keys())
    }
}
