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
    /// An operator vouches for those who do not decide.
    forced: bool,
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
            forced: next.forced,
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
        self.is_enough(self.promises.len())
    }

    /// Whether so many electors can decide: a majority, and of a forced configuration all, so that none is left who acts by the
    /// one before.
    fn is_enough(&self, count: usize) -> bool {
        if self.forced { count == self.electors.len() } else { count > self.electors.len() / 2 }
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
                    let open = self.promises.values().flatten().filter(|(_, before)| !self.is_void(before));
                    let highest = open.max_by_key(|(ballot, _)| *ballot).map(|(_, before)| before.clone());
                    match highest {
                        // It may be in force by the votes of those who are lost: what is forced must build on it.
                        Some(before) if self.forced && before != self.proposal => {
                            self.ended = Some(Progress::Overtaken(before));
                        }
                        Some(before) => self.proposal = before,
                        None => {}
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

    /// Whether a forced configuration that somebody has accepted cannot be in force, nor come to be: one of its voters has
    /// promised this proposal and not accepted that one.
    fn is_void(&self, before: &Configuration) -> bool {
        let without = |voter: &Voter| {
            let promise = self.promises.get(voter);
            promise.is_some_and(|accepted| accepted.as_ref().is_none_or(|(_, other)| other != before))
        };
        before.forced && before.voters.iter().any(without)
    }

    /// The step to take at `now`.
    pub fn progress(&self, now: Moment) -> Progress {
        if let Some(ended) = &self.ended {
            return ended.clone();
        }
        if !self.is_enough(self.accepted.len()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockTime;
    use crate::wire::NodeAddress;
    use crate::wire::params::Seed;

    const NOW: Moment = Moment::from_nanos(1_000_000_000);

    fn node(number: u8) -> NodeAddress {
        NodeAddress::new(([10, 0, 0, number], 19800).into())
    }

    fn seed(active: &[u8], clocktime: u64) -> Seed {
        Seed { nodes: active.iter().map(|number| (node(*number), true)).collect(), clocktime: ClockTime(clocktime) }
    }

    fn stores() -> BTreeMap<NodeAddress, u64> {
        (1..=5).map(|number| (node(number), u64::from(number))).collect()
    }

    /// Five servers, of which the first two are left.
    fn base() -> Configuration {
        let whs = seed(&[1, 2, 3, 4, 5], 1);
        Configuration::default().next(whs.clone(), whs, &stores(), &BTreeSet::new()).unwrap()
    }

    fn forced(base: &Configuration, clocktime: u64, active: &[u8]) -> Configuration {
        let whs = seed(active, clocktime);
        base.forced(whs.clone(), whs, &stores(), &BTreeSet::from([9])).unwrap()
    }

    fn ballot(round: u64) -> Ballot {
        Ballot { round, proposer: 9 }
    }

    fn promise(proposer: &mut Proposer, voter: Voter, before: Option<(Ballot, &Configuration)>) {
        let answer = Answer::Promised(before.map(|(ballot, before)| (ballot, Box::new(before.clone()))));
        let asked = (proposer.base().version(), proposer.ballot());
        proposer.hear(asked, voter, answer, NOW);
    }

    #[test]
    fn a_forced_configuration_is_decided_by_all_who_are_left_and_by_nobody_else() {
        let base = base();
        let next = forced(&base, 7, &[1, 2]);
        assert_eq!(next.voters, BTreeSet::from([Voter::Server(1), Voter::Server(2), Voter::Manager(9)]));
        assert!(next.counter > base.counter + 1000 && next.version().is_after(base.version()) && base.precedes(&next));
        let mut proposer = Proposer::new(base.clone(), ballot(0), next.clone());
        for voter in [Voter::Server(1), Voter::Server(3), Voter::Server(4), Voter::Manager(9)] {
            promise(&mut proposer, voter, None);
        }
        assert!(!proposer.is_accepting(), "the second server is left and has not answered");
        promise(&mut proposer, Voter::Server(2), None);
        for voter in &next.voters {
            assert_eq!(proposer.progress(NOW), Progress::Asking);
            proposer.hear((base.version(), ballot(0)), *voter, Answer::Accepted(Vec::new()), NOW);
        }
        assert_eq!(proposer.progress(NOW), Progress::Committed(next));
    }

    #[test]
    fn a_forced_configuration_builds_on_whatever_may_be_in_force_already() {
        let base = base();
        let whs = seed(&[1, 2, 3, 4], 3);
        let before = base.next(whs.clone(), whs, &stores(), &BTreeSet::new()).unwrap();
        let mut proposer = Proposer::new(base.clone(), ballot(1), forced(&base, 7, &[1]));
        promise(&mut proposer, Voter::Server(1), Some((ballot(0), &before)));
        assert_eq!(proposer.progress(NOW), Progress::Overtaken(before));
    }

    /// Those who were given up by force come back before all who are left have agreed to it.
    #[test]
    fn an_ordinary_proposal_takes_a_forced_one_over_only_if_that_may_be_in_force() {
        let base = base();
        let before = forced(&base, 7, &[1, 2]);
        let whs = seed(&[1, 2, 3, 4, 5], 9);
        let next = base.next(whs.clone(), whs, &stores(), &BTreeSet::new()).unwrap();
        let asked = |second: Option<(Ballot, &Configuration)>| {
            let mut proposer = Proposer::new(base.clone(), ballot(1), next.clone());
            promise(&mut proposer, Voter::Server(1), Some((ballot(0), &before)));
            promise(&mut proposer, Voter::Server(2), second);
            promise(&mut proposer, Voter::Server(3), None);
            proposer.asks().flatten().cloned().unwrap()
        };
        assert_eq!(asked(None), next, "its second voter has not accepted, and will not any more");
        assert_eq!(asked(Some((ballot(0), &before))), before);
    }

    #[test]
    fn of_two_that_were_forced_apart_the_later_one_is_followed_by_both() {
        let base = base();
        let (one, other) = (forced(&base, 7, &[1, 2]), forced(&base, 8, &[3, 4, 5]));
        assert_eq!(one.counter, other.counter);
        assert!(other.version().is_after(one.version()) && !one.version().is_after(other.version()));
        assert!(other.is_forced_since(&one) && other.is_forced_since(&base) && one.is_forced_since(&base));
        // The line goes on one by one, and the further one counts.
        let whs = seed(&[1, 2], 6);
        let further = one.next(whs.clone(), whs, &stores(), &BTreeSet::from([9])).unwrap();
        assert!(!further.forced && further.version().is_after(other.version()));
        let again = forced(&further, 10, &[1]);
        assert!(again.counter > further.counter);
    }
}
