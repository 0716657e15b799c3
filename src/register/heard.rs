//! Who was heard at which address: the store of a server, how far it was, and whether it is still the one that it was.

use std::collections::BTreeMap;

use super::configuration::{Configuration, Version};
use super::message::Speaker;
use crate::wire::NodeAddress;
use crate::wire::params::NODE_LIMIT;

/// The nodes that speak of the register, as they were heard last.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    nodes: BTreeMap<NodeAddress, (Speaker, Version)>,
}

/// Why a server is not the member that it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Changed {
    /// Its disk was lost or exchanged, or another machine has its address.
    #[error("it has another store than before")]
    Store,
}

impl Heard {
    /// `node` has spoken.
    pub fn note(&mut self, node: NodeAddress, speaker: Speaker, version: Version) {
        if self.nodes.len() < 2 * NODE_LIMIT || self.nodes.contains_key(&node) {
            self.nodes.insert(node, (speaker, version));
        }
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeAddress, Speaker)> {
        self.nodes.iter().map(|(node, (speaker, _))| (*node, *speaker))
    }

    /// Who was heard at `node`.
    pub fn speaker(&self, node: NodeAddress) -> Option<Speaker> {
        self.nodes.get(&node).map(|(speaker, _)| *speaker)
    }

    /// The version that `node` has said it has.
    pub fn version(&self, node: NodeAddress) -> Option<Version> {
        self.nodes.get(&node).map(|(_, version)| *version)
    }

    /// Whether `node` is known not to have the configuration `version`.
    pub fn lacks(&self, node: NodeAddress, version: Version) -> bool {
        self.nodes.get(&node).is_some_and(|(_, held)| version.is_after(*held))
    }

    /// Whether the server at `node` is a member of `configuration` but not the one that it was, as far as was heard here.
    pub fn changed(&self, node: NodeAddress, configuration: &Configuration) -> Option<Changed> {
        let member = configuration.members.get(&node)?;
        let Speaker::Server { store, .. } = self.speaker(node)? else { return None };
        (store != member.store).then_some(Changed::Store)
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
        let mut hear = |store, commits| {
            heard.note(node, Speaker::Server { store, commits, start: 1 }, Version::default());
            heard.changed(node, &configuration)
        };
        assert_eq!(hear(7, 100), None);
        assert_eq!(hear(8, 500), Some(Changed::Store));
        assert_eq!(hear(7, 99), None, "sent before, on another connection");
        assert!(heard.lacks(node, configuration.version()));
    }
}
