//! Who sends what to whom in a replace, and what is dropped afterwards (protocol, section 8).
//!
//! Pure decisions over two hash spaces: knows no store, no runtime, no connection. A plan is worked out once for every
//! stretch of the hash space in which neither hash space changes owners, so that a record costs one binary search.
//!
//! With S the active owners of a hash in the old hash space, D those in the new one, and "stayers" the S that the new
//! hash space has not made inactive:
//!
//! | situation | who sends | to |
//! | --- | --- | --- |
//! | there are stayers | the first of them | D without S |
//! | there are stayers, full | each of them | D without itself |
//! | there are none: nobody speaks for this hash | everyone who has a record | D without itself |
//!
//! A server that is not among the stayers while there are some never sends: what it holds may be what others have
//! deleted and forgotten long ago.

use std::collections::{HashMap, HashSet};

use crate::ring::{HashSpace, OWNERS};
use crate::wire::NodeAddress;

/// The duties of one server: to whom it sends each of its records, and whether it keeps it.
#[derive(Debug)]
pub struct Plan {
    /// Last hash of each stretch, ascending; the last is `u64::MAX`.
    ends: Vec<u64>,
    duties: Vec<Duty>,
    targets: Vec<NodeAddress>,
}

/// The duty of one server for its records of one stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Duty {
    /// Indexes into [`Plan::targets`], the first `target_count` of them.
    targets: [u16; OWNERS],
    target_count: u8,
    fate: Fate,
}

/// Whether a server keeps its records of one stretch when the copying has ended well everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    /// Others have just sent every live record of this stretch: what did not come is what they have deleted.
    KeepFresh,
    Drop,
}

impl Plan {
    /// The duties of `me` on the way from `old` to `new`.
    pub fn new(old: &HashSpace, new: &HashSpace, me: NodeAddress, full: bool) -> Self {
        let mut ends: Vec<u64> = old.points().iter().chain(new.points()).copied().chain([u64::MAX]).collect();
        ends.sort_unstable();
        ends.dedup();
        let rule = Rule::new(old, new, me, full);
        let mut index = TargetIndex::default();
        let duties: Vec<_> = ends.iter().map(|end| index.duty(&rule.judge(*end))).collect();
        // A stretch without a duty would lose no record but move none either, and nobody would see it.
        assert!(ends.is_sorted_by(|one, next| one < next) && ends.last() == Some(&u64::MAX), "a plan with a gap");
        assert!(!index.nodes.contains(&me), "a plan that sends records to their sender");
        Self { ends, duties, targets: index.nodes }
    }

    /// Every node that may be sent something; [`Self::targets`] gives positions in this list.
    pub(crate) fn all_targets(&self) -> &[NodeAddress] {
        &self.targets
    }

    /// To whom a record with this hash is sent, as positions in [`Self::all_targets`].
    pub(crate) fn targets(&self, hash: u64) -> impl Iterator<Item = usize> + '_ {
        let duty = self.duty(hash);
        duty.into_iter()
            .flat_map(|duty| duty.targets.iter().take(usize::from(duty.target_count)).copied().map(usize::from))
    }

    /// Whether a record with this hash is sent to anybody.
    pub fn sends(&self, hash: u64) -> bool {
        self.duty(hash).is_some_and(|duty| duty.target_count > 0)
    }

    /// Whether the record stays after the replace. `fresh`: received in it or written since it began.
    ///
    /// A tombstone of a hash that this server owns stays in any case: it says what the absence of a record says, and
    /// the sweeper removes it in its time.
    pub fn keeps(&self, hash: u64, tombstone: bool, fresh: bool) -> bool {
        match self.duty(hash).map(|duty| duty.fate) {
            Some(Fate::Drop) => false,
            Some(Fate::KeepFresh) => fresh || tombstone,
            Some(Fate::Keep) | None => true,
        }
    }

    /// Whether some records with this hash may have to go.
    pub(crate) fn may_drop(&self, hash: u64) -> bool {
        self.duty(hash).is_some_and(|duty| duty.fate != Fate::Keep)
    }

    /// Whether every record stays, whatever its hash: there is nothing to look for.
    pub(crate) fn keeps_all(&self) -> bool {
        self.duties.iter().all(|duty| duty.fate == Fate::Keep)
    }

    fn duty(&self, hash: u64) -> Option<&Duty> {
        self.duties.get(self.ends.partition_point(|end| *end < hash))
    }
}

/// A duty with the targets by name.
struct Verdict {
    targets: Vec<NodeAddress>,
    fate: Fate,
}

/// Numbers the targets as they turn up.
#[derive(Default)]
struct TargetIndex {
    nodes: Vec<NodeAddress>,
    places: HashMap<NodeAddress, u16>,
}

impl TargetIndex {
    fn duty(&mut self, verdict: &Verdict) -> Duty {
        let mut duty = Duty { targets: [0; OWNERS], target_count: 0, fate: verdict.fate };
        for (slot, target) in duty.targets.iter_mut().zip(&verdict.targets) {
            *slot = *self.places.entry(*target).or_insert_with(|| {
                self.nodes.push(*target);
                let place = self.nodes.len() - 1;
                // A hash space has at most `NODE_LIMIT` nodes, far below the range.
                assert!(place < usize::from(u16::MAX), "more targets than a hash space has nodes");
                u16::try_from(place).unwrap_or(u16::MAX)
            });
            duty.target_count += 1;
        }
        duty
    }
}

/// The rule itself.
struct Rule<'a> {
    old: &'a HashSpace,
    new: &'a HashSpace,
    me: NodeAddress,
    full: bool,
    /// The active nodes of the new hash space.
    remaining: HashSet<NodeAddress>,
    /// Whether this server takes part in the sending at all.
    may_send: bool,
}

impl<'a> Rule<'a> {
    fn new(old: &'a HashSpace, new: &'a HashSpace, me: NodeAddress, full: bool) -> Self {
        let may_send = old.is_ready() && new.is_ready() && (!old.is_active(me) || new.is_active(me));
        Self { old, new, me, full, remaining: new.active_nodes().collect(), may_send }
    }

    fn judge(&self, hash: u64) -> Verdict {
        let me = self.me;
        let sources: Vec<_> = self.old.owners(hash).active().collect();
        let owners: Vec<_> = self.new.owners(hash).active().collect();
        let first_stayer = sources.iter().copied().find(|node| self.remaining.contains(node));

        let is_target = |node: &NodeAddress| match first_stayer {
            None => *node != me,
            Some(_) if self.full => sources.contains(&me) && *node != me,
            Some(first) => first == me && !sources.contains(node),
        };
        let targets = owners.iter().copied().filter(|node| self.may_send && is_target(node)).collect();

        let fate = if owners.contains(&me) {
            // Not being a source, this server has been sent all that the first stayer has.
            if first_stayer.is_some() && !sources.contains(&me) { Fate::KeepFresh } else { Fate::Keep }
        } else if owners.is_empty() || (first_stayer.is_none() && !self.may_send) {
            // Nobody has it instead.
            Fate::Keep
        } else {
            Fate::Drop
        };
        Verdict { targets, fate }
    }
}

#[cfg(test)]
mod tests;
