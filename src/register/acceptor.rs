//! One voter: what it has promised and accepted for the configuration that comes after its own.

use serde::{Deserialize, Serialize};

use super::configuration::{Ballot, Configuration, Version};
use super::lease::Confirmations;
use crate::time::Moment;

/// The state that a voter must keep: a server durably, before its answer leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The configuration whose successor is voted on.
    pub version: Version,
    /// It takes part in no proposal before this one.
    pub promised: Ballot,
    /// The last proposal that it has accepted.
    pub accepted: Option<(Ballot, Configuration)>,
}

/// The answer of a voter to a proposer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It takes part, and has accepted this before.
    Promised(Option<(Ballot, Box<Configuration>)>),
    /// It has accepted the proposal. Stores that lose a right by it, and for how many milliseconds leases of theirs may last
    /// that rest on this voter.
    Accepted(Vec<(u64, u64)>),
    /// It has promised this higher ballot.
    Refused(Ballot),
    /// It is further in the line.
    Later(Box<Configuration>),
    /// It has not come that far: it must be shown the configuration that is built on.
    Earlier(Version),
}

/// A voter's state: the latest configuration it knows to be in force, and its vote on the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acceptor {
    configuration: Configuration,
    vote: Vote,
}

impl Acceptor {
    /// Goes on from what was kept. A vote on another configuration's successor counts no more.
    pub fn new(configuration: Configuration, vote: Vote) -> Self {
        let version = configuration.version();
        let vote = if vote.version == version { vote } else { Vote { version, ..Vote::default() } };
        Self { configuration, vote }
    }

    /// The latest configuration it knows to be in force.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The state to keep.
    pub fn vote(&self) -> &Vote {
        &self.vote
    }

    /// Whether it has accepted a successor: then it confirms nothing any more, and must not act by its configuration.
    pub fn is_leaving(&self) -> bool {
        self.vote.accepted.is_some()
    }

    /// Takes a configuration that is in force, if it is later. Says whether it was.
    pub fn adopt(&mut self, configuration: &Configuration) -> bool {
        let later = configuration.version().is_after(self.configuration.version());
        if later {
            *self = Self::new(configuration.clone(), Vote::default());
        }
        later
    }

    /// A proposer asks to take part in the proposal `ballot` for what follows `version`.
    pub fn prepare(&mut self, version: Version, ballot: Ballot) -> Answer {
        if let Some(answer) = self.elsewhere(version) {
            return answer;
        }
        if ballot < self.vote.promised {
            return Answer::Refused(self.vote.promised);
        }
        self.vote.promised = ballot;
        Answer::Promised(self.vote.accepted.clone().map(|(ballot, configuration)| (ballot, Box::new(configuration))))
    }

    /// A proposer asks to accept `next` as what follows `version`, at `now`. `confirmed`: what this voter has confirmed.
    pub fn accept(
        &mut self,
        version: Version,
        ballot: Ballot,
        next: &Configuration,
        confirmed: &Confirmations,
        now: Moment,
    ) -> Answer {
        if let Some(answer) = self.elsewhere(version) {
            return answer;
        }
        // What does not follow is no proposal of ours.
        if ballot < self.vote.promised || !self.configuration.precedes(next) {
            return Answer::Refused(self.vote.promised);
        }
        self.vote.promised = ballot;
        self.vote.accepted = Some((ballot, next.clone()));
        Answer::Accepted(confirmed.lasting(&self.configuration.losers(next), now))
    }

    /// The answer to a proposer that builds on another configuration.
    fn elsewhere(&self, version: Version) -> Option<Answer> {
        let own = self.configuration.version();
        if own == version {
            None
        } else if version.is_after(own) {
            Some(Answer::Earlier(own))
        } else {
            Some(Answer::Later(Box::new(self.configuration.clone())))
        }
    }
}
