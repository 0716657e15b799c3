//! What nodes say to each other of the register, beside that they are alive: a question, and its reply.

use serde::{Deserialize, Serialize};

use super::acceptor::Answer;
use super::claims::{Identity, Machine};
use super::configuration::{Ballot, Configuration, Version, Voter};
use crate::wire::NodeAddress;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Speaker {
    /// A server.
    Server {
        /// The id of its store.
        store: u64,
        /// How many commits the store has seen: it never goes back, unless the store is an older copy.
        commits: u64,
        /// The number that the server drew when it started; zero from a program that draws none.
        #[serde(default)]
        start: u64,
    },
    /// A manager.
    Manager {
        /// The number that it drew when it started.
        start: u64,
        /// It was told to keep the cluster without votes.
        #[serde(default)]
        compatible: bool,
    },
}

impl Speaker {
    /// The process of a server.
    pub fn identity(self) -> Option<Identity> {
        match self {
            Self::Server { store, start, .. } => Some(Identity { store, start }),
            Self::Manager { .. } => None,
        }
    }

    /// Its vote.
    pub fn voter(self) -> Voter {
        match self {
            Self::Server { store, .. } => Voter::Server(store),
            Self::Manager { start, .. } => Voter::Manager(start),
        }
    }
}

/// What is asked of a voter for what follows the version that the speaker holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Its place among the proposals.
    pub ballot: Ballot,
    /// What is to be accepted; first it is only to be promised that no lower ballot will be.
    pub next: Option<Configuration>,
}

/// What a node says of the register. From a server that needs a lease it asks for a confirmation, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Who asks.
    pub speaker: Speaker,
    /// The latest configuration that it knows to be in force.
    pub version: Version,
    /// That configuration, for a node that may not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
    /// From a proposer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal: Option<Proposal>,
    /// From a server to a server: how far the writes that it coordinates are on all owners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Settled>,
    /// Of a server, to managers: members that have not answered its questions for some time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreached: Vec<NodeAddress>,
    /// Of a server that is a member by this version: others have told it that its store is older than it was.
    #[serde(default, skip_serializing_if = "is_false")]
    pub older: bool,
}

/// How far a coordinator has all its writes on all owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Drawn by the coordinator when it started: it remembers nothing of what it had under way before.
    pub start: u64,
    /// All its writes with earlier clocks are on all owners.
    pub clock: u32,
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Who answers.
    pub speaker: Speaker,
    /// The latest configuration that it knows to be in force.
    pub version: Version,
    /// That configuration, if it is later than what the asker holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
    /// Whether the speaker, a voter, confirms that the asker may act by the version that the question named.
    #[serde(default)]
    pub confirmed: bool,
    /// To a proposal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// The address that the asker announces is that of this machine: it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Machine>,
    /// The asker is a member with a store that is older than it was.
    #[serde(default, skip_serializing_if = "is_false")]
    pub older: bool,
}

/// For fields that are not sent unless there is something to say.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The bytes of a question or reply.
///
/// # Panics
///
/// If `message` cannot be written as MessagePack; both can.
pub fn pack(message: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map().with_human_readable();
    let written = message.serialize(&mut serializer);
    assert!(written.is_ok(), "a struct of numbers and texts can always be written to memory: {written:?}");
    bytes
}

/// Reads what [`pack`] has written; `None` if it is something else.
pub fn unpack<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<T> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable();
    T::deserialize(&mut deserializer).ok()
}

impl Question {
    /// Reads one; `None` if it is none, or breaks a rule.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let question: Self = unpack(bytes)?;
        let next = question.proposal.as_ref().and_then(|proposal| proposal.next.as_ref());
        let sound = question.configuration.iter().chain(next).all(Configuration::is_sound);
        sound.then_some(question)
    }
}

impl Reply {
    /// Reads one; `None` if it is none, or breaks a rule.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let reply: Self = unpack(bytes)?;
        let told = match &reply.answer {
            Some(Answer::Promised(Some((_, configuration))) | Answer::Later(configuration)) => Some(&**configuration),
            _ => None,
        };
        let sound = reply.configuration.iter().chain(told).all(Configuration::is_sound);
        sound.then_some(reply)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::clock::ClockTime;
    use crate::wire::NodeAddress;
    use crate::wire::params::Seed;

    fn configuration() -> Configuration {
        let node = |number| NodeAddress::new(([10, 0, 0, number], 19800).into());
        let seed = Seed { nodes: vec![(node(1), true), (node(2), false), (node(3), true)], clocktime: ClockTime(77) };
        let stores = BTreeMap::from([(node(1), 1), (node(3), 3)]);
        Configuration::default().next(seed.clone(), seed, &stores, &BTreeSet::from([9])).unwrap()
    }

    #[test]
    fn what_is_said_reads_back() {
        let speaker = Speaker::Server { store: 1, commits: 70_000, start: 5 };
        let version = configuration().version();
        let ballot = Ballot { round: 1, proposer: 9 };
        let proposal = Proposal { ballot, next: Some(configuration()) };
        let question = Question {
            speaker,
            version,
            configuration: Some(configuration()),
            proposal: Some(proposal),
            settled: Some(Settled { start: 5, clock: 9 }),
            unreached: vec![NodeAddress::new(([10, 0, 0, 3], 19800).into())],
            older: true,
        };
        assert_eq!(Question::read(&pack(&question)), Some(question));
        let answers = [
            Answer::Promised(None),
            Answer::Promised(Some((ballot, Box::new(configuration())))),
            Answer::Accepted(vec![(1, 250)]),
            Answer::Refused(ballot),
            Answer::Later(Box::new(configuration())),
            Answer::Earlier(version),
        ];
        for answer in answers.map(Some).into_iter().chain([None]) {
            let refused = answer.is_none().then(|| Machine { ip: [10, 0, 0, 1].into(), store: 7 });
            let older = refused.is_some();
            let reply = Reply { speaker, version, configuration: None, confirmed: true, answer, refused, older };
            assert_eq!(Reply::read(&pack(&reply)), Some(reply));
        }
    }

    #[test]
    fn what_breaks_a_rule_is_not_taken() {
        let speaker = Speaker::Manager { start: 1, compatible: false };
        let ask = |configuration: Configuration| {
            let version = configuration.version();
            Question::read(&pack(&Question {
                speaker,
                version,
                configuration: Some(configuration),
                proposal: None,
                settled: None,
                unreached: Vec::new(),
                older: false,
            }))
        };
        let good = configuration();
        assert!(ask(good.clone()).is_some());
        let mut twice = good.clone();
        let first = twice.whs.nodes[0];
        twice.whs.nodes.push(first);
        let mut stranger = good.clone();
        stranger.voters.insert(Voter::Server(8));
        let mut missing = good.clone();
        missing.members.pop_first();
        let mut shared = good;
        for member in shared.members.values_mut() {
            member.store = 1;
        }
        for broken in [twice, stranger, missing, shared] {
            assert_eq!(ask(broken), None);
        }
        for nonsense in [&b""[..], b"\xc0", b"\x81\xa7speaker\x01", &[0x91; 60]] {
            assert_eq!(Question::read(nonsense), None);
            assert_eq!(Reply::read(nonsense), None);
        }
    }
}
