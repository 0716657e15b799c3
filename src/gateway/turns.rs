//! The order of one connection's requests for one key: reads go together, a write goes alone. Pure.
//!
//! Requests for different keys do not wait for each other. Keys are told apart by their hashes; two keys with one
//! hash wait for each other needlessly, which does no harm.

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

/// What is under way, and what waits for it.
#[derive(Debug)]
pub(super) struct Turns<T> {
    keys: HashMap<u64, Turn<T>, BuildHasherDefault<Ready>>,
}

#[derive(Debug)]
struct Turn<T> {
    reads: usize,
    write: bool,
    waiting: VecDeque<(bool, T)>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { keys: HashMap::default() }
    }
}

impl<T> Turns<T> {
    /// A request has come: it is given back if it may start now, else it waits.
    pub(super) fn begin(&mut self, hash: u64, write: bool, request: T) -> Option<T> {
        match self.keys.entry(hash) {
            Entry::Vacant(entry) => {
                entry.insert(Turn { reads: usize::from(!write), write, waiting: VecDeque::new() });
                Some(request)
            }
            Entry::Occupied(mut entry) => {
                let turn = entry.get_mut();
                if turn.write || write || !turn.waiting.is_empty() {
                    turn.waiting.push_back((write, request));
                    return None;
                }
                turn.reads += 1;
                Some(request)
            }
        }
    }

    /// A request that had started is over: those that may start now are appended to `next`.
    pub(super) fn end(&mut self, hash: u64, write: bool, next: &mut Vec<T>) {
        let Entry::Occupied(mut entry) = self.keys.entry(hash) else { return };
        let turn = entry.get_mut();
        if write {
            turn.write = false;
        } else {
            turn.reads = turn.reads.saturating_sub(1);
        }
        while let Some((write, _)) = turn.waiting.front() {
            if turn.write || (*write && turn.reads > 0) {
                return;
            }
            let Some((write, request)) = turn.waiting.pop_front() else { return };
            turn.write = write;
            turn.reads += usize::from(!write);
            next.push(request);
        }
        if !turn.write && turn.reads == 0 {
            entry.remove();
        }
    }

    /// Whether nothing is under way.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// A hasher for what is a hash already.
#[derive(Debug, Default)]
struct Ready(u64);

impl Hasher for Ready {
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
        let mut turns = Turns::default();
        let mut next = Vec::new();
        assert_eq!(turns.begin(7, false, 'a'), Some('a'));
        assert_eq!(turns.begin(7, false, 'b'), Some('b'));
        assert_eq!(turns.begin(7, true, 'C'), None);
        assert_eq!(turns.begin(7, false, 'd'), None);
        assert_eq!(turns.begin(7, false, 'e'), None);
        assert_eq!(turns.begin(7, true, 'F'), None);
        assert_eq!(turns.begin(8, true, 'X'), Some('X'));
        turns.end(7, false, &mut next);
        assert_eq!(next, []);
        turns.end(7, false, &mut next);
        assert_eq!(next, ['C']);
        turns.end(7, true, &mut next);
        assert_eq!(next, ['C', 'd', 'e']);
        turns.end(7, false, &mut next);
        turns.end(7, false, &mut next);
        assert_eq!(next, ['C', 'd', 'e', 'F']);
        turns.end(7, true, &mut next);
        turns.end(8, true, &mut next);
        assert!(turns.is_empty());
        assert_eq!(next.len(), 4);
    }
}
