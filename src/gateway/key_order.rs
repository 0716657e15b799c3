//! The order of one connection's requests for one key: reads go together, a write goes alone. Pure.
//!
//! Requests for different keys do not wait for each other. Keys are compared by their hashes; two keys with one
//! hash wait for each other needlessly, which does no harm.

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

/// The requests of one connection that are under way, by key, and those that wait for them.
#[derive(Debug)]
pub(super) struct KeyOrder<T> {
    keys: HashMap<u64, Queue<T>, BuildHasherDefault<Identity>>,
}

/// The requests for one key.
#[derive(Debug)]
struct Queue<T> {
    reads: usize,
    write: bool,
    waiting: VecDeque<(bool, T)>,
}

impl<T> Default for KeyOrder<T> {
    fn default() -> Self {
        Self { keys: HashMap::default() }
    }
}

impl<T> KeyOrder<T> {
    /// A request has come: it is given back if it may start now, else it waits.
    pub(super) fn begin(&mut self, hash: u64, write: bool, request: T) -> Option<T> {
        match self.keys.entry(hash) {
            Entry::Vacant(entry) => {
                entry.insert(Queue { reads: usize::from(!write), write, waiting: VecDeque::new() });
                Some(request)
            }
            Entry::Occupied(mut entry) => {
                let queue = entry.get_mut();
                if queue.write || write || !queue.waiting.is_empty() {
                    queue.waiting.push_back((write, request));
                    return None;
                }
                queue.reads += 1;
                Some(request)
            }
        }
    }

    /// A request that had started is over: those that may start now are appended to `next`.
    pub(super) fn end(&mut self, hash: u64, write: bool, next: &mut Vec<T>) {
        let Entry::Occupied(mut entry) = self.keys.entry(hash) else { return };
        let queue = entry.get_mut();
        if write {
            queue.write = false;
        } else {
            queue.reads = queue.reads.saturating_sub(1);
        }
        while let Some((write, _)) = queue.waiting.front() {
            if queue.write || (*write && queue.reads > 0) {
                return;
            }
            let Some((write, request)) = queue.waiting.pop_front() else { return };
            queue.write = write;
            queue.reads += usize::from(!write);
            next.push(request);
        }
        if !queue.write && queue.reads == 0 {
            entry.remove();
        }
    }

    /// Whether nothing is under way.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// A hasher for keys that are hashes already.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_go_together_and_writes_alone() {
        let mut order = KeyOrder::default();
        let mut next = Vec::new();
        assert_eq!(order.begin(7, false, 'a'), Some('a'));
        assert_eq!(order.begin(7, false, 'b'), Some('b'));
        assert_eq!(order.begin(7, true, 'C'), None);
        assert_eq!(order.begin(7, false, 'd'), None);
        assert_eq!(order.begin(7, false, 'e'), None);
        assert_eq!(order.begin(7, true, 'F'), None);
        assert_eq!(order.begin(8, true, 'X'), Some('X'));
        order.end(7, false, &mut next);
        assert_eq!(next, []);
        order.end(7, false, &mut next);
        assert_eq!(next, ['C']);
        order.end(7, true, &mut next);
        assert_eq!(next, ['C', 'd', 'e']);
        order.end(7, false, &mut next);
        order.end(7, false, &mut next);
        assert_eq!(next, ['C', 'd', 'e', 'F']);
        order.end(7, true, &mut next);
        order.end(8, true, &mut next);
        assert!(order.is_empty());
        assert_eq!(next.len(), 4);
    }
}
