//! The copies that this server has received of writes that others coordinate, as long as they are not known to be on all
//! owners.
//!
//! A coordinator says now and then up to which clock all its writes are on all owners. What came later may be here and
//! nowhere else: whoever reads it here must not be told before the others have it, and when its coordinator is lost,
//! those who have it send it on. Knows keys, clocks and senders; sends nothing.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

use crate::clock::is_behind;
use crate::register::Settled;
use crate::wire::NodeAddress;
use crate::wire::params::NODE_LIMIT;

/// Bytes of keys that are remembered of one coordinator.
const BYTES: usize = 4 << 20;
/// Bytes of a segment: what is forgotten at once.
const SEGMENT: usize = 16 << 10;

/// The copies, by their senders.
#[derive(Debug, Default)]
pub(super) struct Copies {
    senders: Mutex<BTreeMap<NodeAddress, Received>>,
}

#[derive(Debug, Default)]
struct Received {
    settled: Option<Settled>,
    segments: VecDeque<Segment>,
    bytes: usize,
}

/// Some keys, each behind its length, in the order in which they came.
#[derive(Debug, Default)]
struct Segment {
    /// The highest clock of a copy.
    highest: u32,
    keys: Vec<u8>,
}

impl Copies {
    /// `sender` has sent these copies: raw keys, and the clocks of their writes.
    pub(super) fn note<'k>(&self, sender: NodeAddress, copies: impl IntoIterator<Item = (&'k [u8], u32)>) {
        let mut senders = self.senders.lock();
        if senders.len() >= NODE_LIMIT && !senders.contains_key(&sender) {
            return;
        }
        let received = senders.entry(sender).or_default();
        for (key, clock) in copies {
            received.note(key, clock);
        }
    }

    /// `sender` says how far its writes are on all owners. If it has been started again since, it has forgotten those that
    /// were under way: gives their keys.
    pub(super) fn told(&self, sender: NodeAddress, settled: Settled) -> Vec<Box<[u8]>> {
        let mut senders = self.senders.lock();
        let Some(received) = senders.get_mut(&sender) else {
            if senders.len() < NODE_LIMIT {
                senders.insert(sender, Received { settled: Some(settled), ..Received::default() });
            }
            return Vec::new();
        };
        let before = received.settled.replace(settled);
        if before.is_some_and(|before| before.start != settled.start) {
            let keys = received.keys();
            *received = Received { settled: Some(settled), ..Received::default() };
            return keys;
        }
        while received.segments.front().is_some_and(|segment| is_behind(segment.highest, settled.clock)) {
            let forgotten = received.segments.pop_front().map_or(0, |segment| segment.keys.len());
            received.bytes = received.bytes.saturating_sub(forgotten);
        }
        Vec::new()
    }

    /// Forgets the senders that are not `active` any more, and gives the keys of what was under way from them.
    pub(super) fn lose(&self, active: impl Fn(NodeAddress) -> bool) -> Vec<Box<[u8]>> {
        let lost = self.senders.lock().extract_if(.., |sender, _| !active(*sender)).collect::<Vec<_>>();
        lost.iter().flat_map(|(_, received)| received.keys()).collect()
    }

    /// Whether a record with this clock, whose coordinator is this one, is known to be on all owners.
    pub(super) fn are_settled(&self, coordinator: NodeAddress, clock: u32) -> bool {
        let senders = self.senders.lock();
        let is_before = |received: &Received| received.settled.is_some_and(|settled| is_behind(clock, settled.clock));
        // Another server may have coordinated the key until just now.
        senders.get(&coordinator).is_some_and(is_before)
            && senders.values().all(|received| received.segments.is_empty() || is_before(received))
    }
}

impl Received {
    fn note(&mut self, key: &[u8], clock: u32) {
        let Ok(length) = u32::try_from(key.len()) else { return };
        if self.segments.back().is_none_or(|segment| segment.keys.len() >= SEGMENT) {
            self.segments.push_back(Segment { highest: clock, keys: Vec::new() });
        }
        let Some(segment) = self.segments.back_mut() else { return };
        if is_behind(segment.highest, clock) {
            segment.highest = clock;
        }
        let before = segment.keys.len();
        segment.keys.extend_from_slice(&length.to_be_bytes());
        segment.keys.extend_from_slice(key);
        self.bytes += segment.keys.len() - before;
        // Those that are forgotten are still unsettled by their clocks; only the loss of their coordinator would not settle
        // them before the next full replace.
        while self.bytes > BYTES && self.segments.len() > 1 {
            let forgotten = self.segments.pop_front().map_or(0, |segment| segment.keys.len());
            self.bytes = self.bytes.saturating_sub(forgotten);
        }
    }

    fn keys(&self) -> Vec<Box<[u8]>> {
        let mut keys = Vec::new();
        for segment in &self.segments {
            let mut rest = &segment.keys[..];
            while let Some((length, behind)) = rest.split_first_chunk::<4>() {
                let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                let Some((key, behind)) = behind.split_at_checked(length) else { break };
                keys.push(key.into());
                rest = behind;
            }
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeAddress {
        NodeAddress::new(([10, 0, 0, number], 19800).into())
    }

    fn names(keys: &[Box<[u8]>]) -> Vec<&[u8]> {
        keys.iter().map(|key| &**key).collect()
    }

    #[test]
    fn what_a_coordinator_has_not_said_to_be_everywhere_is_not_settled() {
        let copies = Copies::default();
        assert!(!copies.are_settled(node(1), 5), "it has said nothing");
        assert!(copies.told(node(1), Settled { start: 7, clock: 10 }).is_empty());
        assert!(copies.are_settled(node(1), 9) && !copies.are_settled(node(1), 10));
        assert!(!copies.are_settled(node(2), 9));
        copies.note(node(1), [(&b"a"[..], 11)]);
        assert!(copies.are_settled(node(1), 9) && !copies.are_settled(node(1), 11));
        copies.told(node(1), Settled { start: 7, clock: 12 });
        assert!(copies.are_settled(node(1), 11));
    }

    #[test]
    fn a_copy_of_one_that_coordinated_the_key_before_counts() {
        let copies = Copies::default();
        copies.told(node(1), Settled { start: 7, clock: 10 });
        copies.told(node(2), Settled { start: 8, clock: 100 });
        copies.note(node(1), [(&b"a"[..], 11)]);
        assert!(!copies.are_settled(node(2), 11), "2 has taken the key over from 1");
    }

    #[test]
    fn what_was_under_way_is_given_when_its_coordinator_is_lost_or_started_again() {
        let copies = Copies::default();
        for sender in [1, 2] {
            copies.told(node(sender), Settled { start: 7, clock: 10 });
            copies.note(node(sender), [(&b"a"[..], 10), (b"bb", 11)]);
        }
        assert!(copies.lose(|_| true).is_empty());
        assert_eq!(names(&copies.lose(|sender| sender == node(1))), [&b"a"[..], b"bb"]);
        assert!(copies.told(node(1), Settled { start: 7, clock: 11 }).is_empty());
        assert_eq!(names(&copies.told(node(1), Settled { start: 9, clock: 3 })), [&b"a"[..], b"bb"]);
        assert!(copies.told(node(1), Settled { start: 9, clock: 4 }).is_empty());
    }

    #[test]
    fn no_more_is_remembered_than_the_bound() {
        let copies = Copies::default();
        let key = [7; 1000];
        for clock in 0..20_000 {
            copies.note(node(1), [(&key[..], clock)]);
        }
        let bytes = copies.senders.lock()[&node(1)].bytes;
        assert!(bytes <= BYTES && bytes > BYTES / 2, "{bytes}");
        assert!(copies.lose(|_| false).len() > 4000);
    }
}
