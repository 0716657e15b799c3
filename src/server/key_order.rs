//! The order of writes to one key while one of them is with the store's write threads.
//!
//! A write that memory can decide would overtake an earlier one that waits for the disk, and be undone by it: a client
//! that sends a deletion and then a set, without waiting in between, would find the key deleted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::submission::Submission;

/// Writes that go to the store's threads together, and the hashes that they keep busy.
#[derive(Default)]
pub(super) struct Job {
    pub(super) submissions: Vec<Submission>,
    pub(super) hashes: Vec<u64>,
}

/// Hashes to which a write is under way, each with those that wait for it. As many wait as requests may be in flight.
#[derive(Default)]
pub(super) struct KeyOrder {
    busy: Mutex<HashMap<u64, Vec<Submission>>>,
    /// Length of `busy`: nearly always zero, and then nobody has to look.
    count: AtomicUsize,
}

impl KeyOrder {
    /// Whether a write to `hash` must wait for another.
    #[inline]
    pub(super) fn is_busy(&self, hash: u64) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.busy.lock().contains_key(&hash)
    }

    /// Keeps those that must wait for others, and gives those that may go on.
    pub(super) fn begin(&self, submissions: Vec<Submission>) -> Job {
        let mut job = Job::default();
        let mut own = std::collections::HashSet::new();
        let mut busy = self.busy.lock();
        for submission in submissions {
            let hash = submission.hash();
            match busy.entry(hash) {
                Entry::Occupied(mut waiting) if !own.contains(&hash) => waiting.get_mut().push(submission),
                entry => {
                    if own.insert(hash) {
                        entry.or_default();
                        job.hashes.push(hash);
                    }
                    job.submissions.push(submission);
                }
            }
        }
        self.count.store(busy.len(), Ordering::Release);
        job
    }

    /// The writes to `hashes` are decided: gives those that have waited for them.
    pub(super) fn end(&self, hashes: Vec<u64>) -> Job {
        let mut job = Job::default();
        let mut busy = self.busy.lock();
        for hash in hashes {
            let Entry::Occupied(mut waiting) = busy.entry(hash) else {
                debug_assert!(false, "a write has ended that was not under way");
                continue;
            };
            if waiting.get().is_empty() {
                waiting.remove();
            } else {
                job.submissions.append(waiting.get_mut());
                job.hashes.push(hash);
            }
        }
        if busy.is_empty() {
            // A burst may have made it large.
            busy.shrink_to_fit();
        }
        self.count.store(busy.len(), Ordering::Release);
        job
    }
}
