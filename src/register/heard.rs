//! Who was heard at which address: the store of a server, how far it was, and whether it is still the one that it was.

use std::collections::{BTreeMap, VecDeque};

use super::configuration::{Configuration, Version};
use super::message::{Question, Speaker};
use crate::wire::NodeAddress;
use crate::wire::params::NODE_LIMIT;

/// Starts of one server before its last that are remembered: messages of theirs may still come.
const STARTS: usize = 4;

/// The nodes that speak of the register, as they were heard last.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    nodes: BTreeMap<NodeAddress, Node>,
    /// Of servers, also of those that are not among `nodes` any more: how far a store was must outlast its server's absence.
    stores: BTreeMap<NodeAddress, Store>,
}

#[derive(Debug, Clone)]
struct Node {
    speaker: Speaker,
    version: Version,
}

/// The store of a server, through the starts of its process.
#[derive(Debug, Clone, Default)]
struct Store {
    id: u64,
    /// The last start, behind those before it.
    starts: VecDeque<u64>,
    /// The most commits that were told.
    commits: u64,
    /// A process had fewer commits than one before it, since the server was admitted.
    older: bool,
    /// The server says that others remember it so.
    doubted: bool,
    /// The start for which that counts no more.
    excused: Option<u64>,
}

/// Why a server is not the member that it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Changed {
    /// Its disk was lost or exchanged, or another machine has its address.
    #[error("it has another store than before")]
    Store,
    /// Its files were replaced by older ones, or its machine has lost its power before they were on the disk.
    #[error("its store is older than it was")]
    Older,
}

impl Store {
    /// A process that began as `start` has so many commits.
    fn hear(&mut self, id: u64, start: u64, commits: u64) {
        if self.id != id {
            *self = Self { id, ..Self::default() };
        }
        if self.starts.back() == Some(&start) {
            // They may come in any order.
            self.commits = self.commits.max(commits);
        } else if !self.starts.contains(&start) {
            self.older |= commits < self.commits;
            self.commits = commits;
            self.starts.push_back(start);
            if self.starts.len() > STARTS {
                self.starts.pop_front();
            }
        }
    }
}

impl Heard {
    /// `node` has spoken, while the configuration `held` was in force.
    pub fn note(&mut self, node: NodeAddress, speaker: Speaker, version: Version, held: &Configuration) {
        let is_full = |len| len >= 2 * NODE_LIMIT;
        if is_full(self.nodes.len()) && !self.nodes.contains_key(&node) {
            return;
        }
        self.nodes.insert(node, Node { speaker, version });
        let Speaker::Server { store, commits, start } = speaker else { return };
        if is_full(self.stores.len()) && !self.stores.contains_key(&node) {
            self.stores.retain(|known, _| held.members.contains_key(known));
        }
        let known = self.stores.entry(node).or_default();
        known.hear(store, start, commits);
        // With its next admission it gets what it lacks.
        known.older &= held.members.contains_key(&node);
    }

    /// `node` has asked, while the configuration `held` was in force.
    pub fn note_question(&mut self, node: NodeAddress, question: &Question, held: &Configuration) {
        self.note(node, question.speaker, question.version, held);
        if let Some(store) = self.stores.get_mut(&node) {
            let is_member = question.version == held.version() && held.members.contains_key(&node);
            store.doubted = question.older && is_member && store.excused != store.starts.back().copied();
        }
    }

    /// Whether the store of the server at `node`, which holds `version`, is remembered here to have been further.
    pub fn remembers_more(&self, node: NodeAddress, version: Version, held: &Configuration) -> bool {
        let is_member = version == held.version() && held.members.contains_key(&node);
        is_member && self.stores.get(&node).is_some_and(|store| store.older)
    }

    /// Whether this is all that there is: every member of `held` is `present`, and has come back with an older store. What
    /// they have is taken for what they had, then; that they were told otherwise they may not have forgotten yet.
    pub fn settle_for_older(&mut self, held: &Configuration, present: impl Fn(NodeAddress) -> bool) -> bool {
        let mut members = held.members.keys();
        let all = members.all(|node| present(*node) && self.changed(*node, held) == Some(Changed::Older));
        for store in self.stores.values_mut().filter(|_| all) {
            (store.older, store.doubted, store.excused) = (false, false, store.starts.back().copied());
        }
        all
    }

    /// Whoever was at `node` may be another now; it speaks for itself before anything is believed of it.
    pub fn forget(&mut self, node: NodeAddress) {
        self.nodes.remove(&node);
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeAddress, Speaker)> {
        self.nodes.iter().map(|(node, heard)| (*node, heard.speaker))
    }

    /// Who was heard at `node`.
    pub fn speaker(&self, node: NodeAddress) -> Option<Speaker> {
        self.nodes.get(&node).map(|heard| heard.speaker)
    }

    /// The version that `node` has said it has.
    pub fn version(&self, node: NodeAddress) -> Option<Version> {
        self.nodes.get(&node).map(|heard| heard.version)
    }

    /// Whether `node` is known not to have the configuration `version`.
    pub fn lacks(&self, node: NodeAddress, version: Version) -> bool {
        self.nodes.get(&node).is_some_and(|heard| version.is_after(heard.version))
    }

    /// Whether the server at `node` is a member of `configuration` but not the one that it was, as far as was heard here.
    pub fn changed(&self, node: NodeAddress, configuration: &Configuration) -> Option<Changed> {
        let member = configuration.members.get(&node)?;
        let Speaker::Server { store, .. } = self.speaker(node)? else { return None };
        if store != member.store {
            return Some(Changed::Store);
        }
        let store = self.stores.get(&node)?;
        (store.older || store.doubted).then_some(Changed::Older)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock::ClockTime;
    use crate::wire::params::Seed;

    #[test]
    fn another_store_is_noticed_and_messages_may_come_in_any_order() {
        let node = NodeAddress::new(([10, 0, 0, 1], 19800).into());
        let seed = Seed { nodes: vec![(node, true)], clocktime: ClockTime(1) };
        let stores = BTreeMap::from([(node, 7)]);
        let configuration = Configuration::default().next(seed.clone(), seed, &stores, &BTreeSet::new()).unwrap();
        let mut heard = Heard::default();
        assert_eq!(heard.changed(node, &configuration), None, "it was not heard yet");
        let mut hear = |store, commits, start| {
            heard.note(node, Speaker::Server { store, commits, start }, Version::default(), &configuration);
            heard.changed(node, &configuration)
        };
        assert_eq!(hear(7, 100, 1), None);
        assert_eq!(hear(8, 500, 2), Some(Changed::Store));
        assert_eq!(hear(7, 99, 1), None, "sent before, on another connection");
        assert!(heard.lacks(node, configuration.version()));
    }

    #[test]
    fn a_process_that_has_less_than_the_one_before_it_has_an_older_store() {
        let node = NodeAddress::new(([10, 0, 0, 1], 19800).into());
        let seed = Seed { nodes: vec![(node, true)], clocktime: ClockTime(1) };
        let stores = BTreeMap::from([(node, 7)]);
        let first = Configuration::default().next(seed.clone(), seed.clone(), &stores, &BTreeSet::new()).unwrap();
        let gone = Seed { nodes: vec![(node, false)], ..seed.clone() };
        let without = first.next(gone.clone(), gone, &BTreeMap::new(), &BTreeSet::new()).unwrap();
        let third = without.next(seed.clone(), seed, &stores, &BTreeSet::new()).unwrap();
        let mut heard = Heard::default();
        let mut hear = |held: &Configuration, commits, start| {
            heard.note(node, Speaker::Server { store: 7, commits, start }, Version::default(), held);
            heard.changed(node, held)
        };
        assert_eq!(hear(&first, 100, 1), None);
        assert_eq!(hear(&first, 90, 1), None, "late");
        assert_eq!(hear(&first, 100, 2), None);
        assert_eq!(hear(&first, 120, 2), None);
        assert_eq!(hear(&first, 110, 1), None, "late, of the process before");
        assert_eq!(hear(&first, 119, 3), Some(Changed::Older));
        assert_eq!(hear(&first, 130, 3), Some(Changed::Older));
        heard.forget(node);
        assert_eq!(heard.changed(node, &first), None, "it was lost: nobody knows who is there now");
        let mut hear = |held: &Configuration, commits, start| {
            heard.note(node, Speaker::Server { store: 7, commits, start }, Version::default(), held);
            heard.changed(node, held)
        };
        assert_eq!(hear(&first, 130, 3), Some(Changed::Older));
        // Given up, and admitted again by the third configuration.
        assert_eq!(hear(&without, 130, 3), None);
        assert_eq!(hear(&third, 131, 3), None);
        heard.forget(node);
        let speaker = Speaker::Server { store: 7, commits: 130, start: 4 };
        heard.note(node, speaker, Version::default(), &third);
        assert_eq!(heard.changed(node, &third), Some(Changed::Older), "it went back while it was lost");
    }
}
