//! A proposal: from the first question to the voters to the configuration that is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::acceptor::Answer;
use super::configuration::{Ballot, Configuration, Version, Voter};
use crate::time::Moment;

/// The next step of the proposer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Ask the voters that have not answered; see [`Proposer::asks`].
    Asking,
    /// A majority has accepted; wait until then, for leases that still last. Those whose leases they are may be asked to
    /// accept as well: then there is nothing to wait for.
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
    /// The configuration it set out to propose; another's proposal takes its place if that may have been accepted by a majority.
    proposal: Configuration,
    /// Who decides.
    electors: BTreeSet<Voter>,
    promises: BTreeMap<Voter, Option<(Ballot, Configuration)>>,
    accepted: BTreeSet<Voter>,
    /// Until when stores that lose a right may have leases that rest on those who have accepted.
    leases: BTreeMap<u64, Moment>,
    /// Stores whose processes are known to have ended.
    gone: BTreeSet<u64>,
    ended: Option<Progress>,
}

impl Proposer {
    /// Proposes `next` as what follows `base`, which is in force.
    pub fn new(base: Configuration, ballot: Ballot, next: Configuration) -> Self {
        assert!(base.precedes(&next), "a proposal that does not follow what it builds on");
        Self {
            electors: base.electors(&next),
            base,
            ballot,
            proposal: next,
            promises: BTreeMap::new(),
            accepted: BTreeSet::new(),
            leases: BTreeMap::new(),
            gone: BTreeSet::new(),
            ended: None,
        }
    }

    /// The process of the server with `store` has ended: nobody waits for its lease. It still counts as a voter.
    pub fn set_gone(&mut self, store: u64) {
        self.gone.insert(store);
    }

    /// Whether another's proposal, or this one, may have been accepted by somebody.
    pub fn is_accepting(&self) -> bool {
        is_majority(&self.electors, self.promises.len())
    }

    /// The configuration it builds on.
    pub fn base(&self) -> &Configuration {
        &self.base
    }

    /// Its ballot.
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// What the voters are asked that have not answered: to prepare, or to accept this configuration. `None` once the proposal
    /// has failed.
    pub fn asks(&self) -> Option<Option<&Configuration>> {
        if self.ended.is_some() {
            return None;
        }
        Some(self.is_accepting().then_some(&self.proposal))
    }

    /// The voters that are still to be asked.
    pub fn unheard(&self) -> impl Iterator<Item = Voter> {
        let accepting = self.is_accepting();
        self.electors.iter().copied().filter(move |voter| {
            if accepting { !self.accepted.contains(voter) } else { !self.promises.contains_key(voter) }
        })
    }

    /// An answer of `voter` to what was asked under `version` and `ballot`, received at `now`.
    pub fn hear(&mut self, asked: (Version, Ballot), voter: Voter, answer: Answer, now: Moment) {
        // An answer to an earlier proposal says nothing on this one.
        let ours = asked == (self.base.version(), self.ballot);
        if !ours || self.ended.is_some() || !self.electors.contains(&voter) {
            return;
        }
        match answer {
            Answer::Promised(before) if !self.is_accepting() => {
                let before = before.filter(|(_, configuration)| self.base.precedes(configuration));
                self.promises.insert(voter, before.map(|(ballot, configuration)| (ballot, *configuration)));
                if self.is_accepting() {
                    let highest = self.promises.values().flatten().max_by_key(|(ballot, _)| *ballot);
                    if let Some((_, configuration)) = highest {
                        self.proposal = configuration.clone();
                    }
                }
            }
            Answer::Accepted(leases) if self.is_accepting() && self.accepted.insert(voter) => {
                for (store, lasting) in leases {
                    let until = self.leases.entry(store).or_insert(now);
                    *until = (*until).max(now + Duration::from_millis(lasting));
                }
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
            Answer::Promised(_) | Answer::Accepted(_) | Answer::Earlier(_) | Answer::Refused(_) => {}
        }
    }

    /// The step to take at `now`.
    pub fn progress(&self, now: Moment) -> Progress {
        if let Some(ended) = &self.ended {
            return ended.clone();
        }
        if !is_majority(&self.electors, self.accepted.len()) {
            return Progress::Asking;
        }
        // Who has accepted acts by the old configuration no more.
        let acts = |store: &u64| !self.gone.contains(store) && !self.accepted.contains(&Voter::Server(*store));
        match self.leases.iter().filter(|(store, _)| acts(store)).map(|(_, until)| *until).max() {
            Some(until) if until > now => Progress::Waiting(until),
            _ => Progress::Committed(self.proposal.clone()),
        }
    }
}

/// Whether so many of the electors, each counted once, are a majority.
fn is_majority(electors: &BTreeSet<Voter>, count: usize) -> bool {
    count > electors.len() / 2
}
