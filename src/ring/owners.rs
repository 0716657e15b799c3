//! Who coordinates and who replicates one hash: the walk over its owners, and nothing else.

use crate::wire::NodeAddress;

/// Owners of a key, when there are that many nodes.
pub(crate) const OWNERS: usize = 3;

/// The owners of one hash in ring order, borrowed from a hash space.
#[derive(Debug, Clone, Copy)]
pub struct Owners<'a> {
    nodes: &'a [(NodeAddress, bool)],
    indexes: &'a [u16],
}

impl<'a> Owners<'a> {
    pub(super) fn new(nodes: &'a [(NodeAddress, bool)], indexes: &'a [u16]) -> Self {
        Self { nodes, indexes }
    }

    /// All owners with whether each is active.
    pub fn all(self) -> impl Iterator<Item = (NodeAddress, bool)> + 'a {
        self.indexes.iter().filter_map(move |index| self.nodes.get(usize::from(*index)).copied())
    }

    /// The active owners, the coordinator first, as indexes into the nodes of the seed.
    #[inline]
    pub(crate) fn active_indexes(self) -> impl Iterator<Item = usize> + 'a {
        let indexes = self.indexes.iter().map(|index| usize::from(*index));
        indexes.filter(move |index| self.nodes.get(*index).is_some_and(|(_, active)| *active))
    }

    /// The active owners, the coordinator first.
    #[inline]
    pub fn active(self) -> impl Iterator<Item = NodeAddress> + 'a {
        self.all().filter(|(_, active)| *active).map(|(node, _)| node)
    }

    /// The first active owner: whom Set and Delete go to.
    #[inline]
    pub fn coordinator(self) -> Option<NodeAddress> {
        self.active().next()
    }

    /// Whether `node` is one of the active owners.
    #[inline]
    pub fn is_active_owner(self, node: NodeAddress) -> bool {
        self.active().any(|owner| owner == node)
    }
}
