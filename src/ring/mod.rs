//! The hash space: which servers own a key (protocol, section 6).
//!
//! Built from a seed and never changed; a new seed makes a new one. Knows nothing of connections or of this process.

mod hash;
mod owners;

pub(crate) use hash::POINTS_PER_NODE;
pub use hash::{hash, raw_key};
pub(crate) use owners::OWNERS;
pub use owners::Owners;

use crate::clock::ClockTime;
use crate::wire::NodeAddress;
use crate::wire::params::Seed;

/// Nodes on a ring of points, with the owners of every stretch worked out in advance.
#[derive(Debug, Clone, Default)]
pub struct HashSpace {
    seed: Seed,
    /// Values of the points in ascending order.
    points: Vec<u64>,
    /// For each of `2^k` equal stretches of the hash space, the first point in it or after it. There are at least as
    /// many as points, which lie evenly: from there it is hardly ever a second step to the point that is sought.
    starts: Vec<u32>,
    /// For each point: indexes into the seed of the first distinct nodes from there on.
    owners: Vec<[u16; OWNERS]>,
    /// How many entries of each row of `owners` count: three, or all nodes if there are fewer.
    width: usize,
}

impl HashSpace {
    /// Builds the ring of `seed`.
    pub fn new(seed: Seed) -> Self {
        let mut placed: Vec<(u64, u16)> = Vec::with_capacity(seed.nodes.len() * POINTS_PER_NODE);
        for (index, (address, _)) in (0u16..).zip(&seed.nodes) {
            placed.extend(hash::points(address).map(|point| (point, index)));
        }
        // Stable: of two points with one value, the earlier node comes first.
        placed.sort_by_key(|(point, _)| *point);
        let width = seed.nodes.len().min(OWNERS);
        let nodes: Vec<u16> = placed.iter().map(|(_, node)| *node).collect();
        let points: Vec<u64> = placed.into_iter().map(|(point, _)| point).collect();
        let starts = stretch_starts(&points);
        let owners: Vec<_> = (0..nodes.len()).map(|start| distinct_from(&nodes, start, width)).collect();
        // All routing rests on these: searches go upwards, and no owner gets a second copy in place of another node.
        assert!(points.is_sorted(), "the points of a hash space are not in order");
        assert!(owners.iter().all(|row| is_distinct(*row, width)), "a hash has the same owner twice, or too few");
        Self { seed, points, starts, owners, width }
    }

    /// The seed that this was built from.
    pub fn seed(&self) -> &Seed {
        &self.seed
    }

    /// The version of this hash space.
    pub fn clocktime(&self) -> ClockTime {
        self.seed.clocktime
    }

    /// Where owners change: they are the same for all hashes after one of these up to and including the next.
    pub fn points(&self) -> &[u64] {
        &self.points
    }

    /// Whether any node is active; nothing can be served without.
    pub fn is_ready(&self) -> bool {
        self.seed.has_active()
    }

    /// Whether `address` is in it, active or faulty.
    pub fn contains(&self, address: NodeAddress) -> bool {
        self.seed.nodes.iter().any(|(node, _)| *node == address)
    }

    /// Whether `address` is in it and active.
    pub fn is_active(&self, address: NodeAddress) -> bool {
        self.seed.nodes.iter().any(|(node, active)| *active && *node == address)
    }

    /// Whether both have the same nodes in the same states.
    pub(crate) fn same_nodes(&self, other: &Self) -> bool {
        self.seed.nodes == other.seed.nodes
    }

    /// The active nodes, in seed order.
    pub fn active_nodes(&self) -> impl Iterator<Item = NodeAddress> + '_ {
        self.seed.nodes.iter().filter(|(_, active)| *active).map(|(node, _)| *node)
    }

    /// The index of the first point at `hash` or after it; one too many if there is none.
    #[inline]
    fn first_from(&self, hash: u64) -> usize {
        let stretch = hash.checked_shr(stretch_shift(self.starts.len())).unwrap_or(0);
        let start = usize::try_from(stretch).ok().and_then(|stretch| self.starts.get(stretch));
        let start = start.map_or(0, |start| *start as usize);
        let after = self.points.get(start..).unwrap_or_default();
        start + after.iter().take_while(|point| **point < hash).count()
    }

    /// The owners of `hash`: up to three distinct nodes, in ring order, active or not.
    #[inline]
    pub fn owners(&self, hash: u64) -> Owners<'_> {
        let row = self.owners.get(self.first_from(hash)).or_else(|| self.owners.first());
        Owners::new(&self.seed.nodes, row.and_then(|row| row.get(..self.width)).unwrap_or_default())
    }
}

/// How far a hash is shifted for the number of its stretch, of so many.
#[inline]
fn stretch_shift(stretches: usize) -> u32 {
    u64::BITS - stretches.trailing_zeros()
}

/// For each stretch of the hash space, the first point in it or after it.
fn stretch_starts(points: &[u64]) -> Vec<u32> {
    // Two at least: a shift by all bits of a hash is none.
    let stretches = points.len().next_power_of_two().max(2);
    let shift = stretch_shift(stretches);
    let start = |stretch| points.partition_point(|point| point >> shift < stretch);
    // There are 2^16 nodes at most, with 2^7 points each.
    (0..stretches as u64).map(|stretch| u32::try_from(start(stretch)).unwrap_or(u32::MAX)).collect()
}

/// The first `width` distinct nodes from `start` on, around the ring.
fn distinct_from(nodes: &[u16], start: usize, width: usize) -> [u16; OWNERS] {
    let mut row = [u16::MAX; OWNERS];
    let mut found = 0;
    for node in nodes.iter().cycle().skip(start).take(nodes.len()) {
        if found == width {
            break;
        }
        if !row.iter().take(found).any(|known| known == node) {
            if let Some(slot) = row.get_mut(found) {
                *slot = *node;
            }
            found += 1;
        }
    }
    row
}

/// Whether the first `width` entries of a row are nodes, each another.
fn is_distinct(row: [u16; OWNERS], width: usize) -> bool {
    let counted = row.iter().take(width);
    counted.clone().enumerate().all(|(place, node)| *node != u16::MAX && !row.iter().take(place).any(|one| one == node))
}

#[cfg(test)]
mod tests;
