//! Keys that have a write which is not known to be on all owners: it is under way, or has failed at one of them.
//!
//! Who writes marks the key before the write can be seen, and ends the mark when all owners have it. Who reads looks at the
//! record first and for marks then, so that no read misses one. Without a mark a read costs the look at one counter, on a
//! server that has never sent a write to others only at a flag. Knows keys by their hashes, and no runtime.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Lists of marks; keys are spread over them by their hashes.
const SLOTS: usize = 4096;
/// Looks at the marks that are remembered while some stay.
const LOOKS: usize = 64;

/// The keys that are marked.
pub(super) struct Marks {
    /// There has been a mark.
    used: AtomicBool,
    /// The length of each list, to be looked at without its lock.
    counts: Box<[AtomicU32]>,
    lists: Box<[Mutex<List>]>,
    /// Counts the looks at all marks; a mark belongs to the one that comes next.
    epoch: AtomicU64,
    looks: Mutex<Looks>,
}

/// What [`Marks::settled`] knows.
#[derive(Default)]
struct Looks {
    /// Of each look the clock that was taken next, oldest first.
    open: VecDeque<(u64, u32)>,
    settled: Option<u32>,
}

#[derive(Default)]
struct List {
    next: u32,
    entries: Vec<Entry>,
}

struct Entry {
    hash: u64,
    number: u32,
    epoch: u64,
    /// Who waits for the end of this mark, and others; some may have gone.
    waits: Vec<Weak<Wait>>,
}

/// A key is marked as long as this is held.
#[must_use = "the mark ends when this is dropped"]
pub(super) struct Mark {
    marks: Arc<Marks>,
    hash: u64,
    number: u32,
}

/// Somebody waits until the marks that a key had at one moment have ended.
#[derive(Debug)]
pub(super) struct Wait {
    open: AtomicUsize,
    ended: Notify,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            used: AtomicBool::new(false),
            counts: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            lists: (0..SLOTS).map(|_| Mutex::default()).collect(),
            epoch: AtomicU64::new(0),
            looks: Mutex::default(),
        }
    }
}

impl Marks {
    fn slot(&self, hash: u64) -> Option<(&AtomicU32, &Mutex<List>)> {
        // The remainder fits.
        let slot = usize::try_from(hash % SLOTS as u64).ok()?;
        Some((self.counts.get(slot)?, self.lists.get(slot)?))
    }

    /// Marks the key with this hash: a write of it is about to be stored here.
    pub(super) fn mark(self: &Arc<Self>, hash: u64) -> Mark {
        let mut number = 0;
        if let Some((count, list)) = self.slot(hash) {
            let mut list = list.lock();
            number = list.next;
            list.next = list.next.wrapping_add(1);
            let epoch = self.epoch.load(Ordering::Acquire);
            list.entries.push(Entry { hash, number, epoch, waits: Vec::new() });
            // Seen by whoever sees the clock that the write takes after this.
            count.fetch_add(1, Ordering::SeqCst);
        }
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Release);
        }
        Mark { marks: self.clone(), hash, number }
    }

    /// What a read must wait for that has just looked at the record with this hash; `None` if it need not.
    #[inline]
    pub(super) fn wait(&self, hash: u64) -> Option<Arc<Wait>> {
        // The lock of the record, which the read has just given back, orders this after the mark.
        if !self.used.load(Ordering::Acquire) {
            return None;
        }
        let (count, list) = self.slot(hash)?;
        if count.load(Ordering::Acquire) == 0 {
            return None;
        }
        list.lock().wait(hash)
    }

    /// Whether a key with this hash is marked.
    pub(super) fn is_marked(&self, hash: u64) -> bool {
        let Some((count, list)) = self.slot(hash) else { return false };
        count.load(Ordering::Acquire) > 0 && list.lock().entries.iter().any(|entry| entry.hash == hash)
    }

    /// The clock before which no write of this server has a mark any more; `None` if that is not known yet. `clock` is the
    /// one that the next write will have at least. To be called now and then.
    pub(super) fn settled(&self, clock: u32) -> Option<u32> {
        fence(Ordering::SeqCst);
        let looks = &mut *self.looks.lock();
        let epoch = self.epoch.load(Ordering::Acquire);
        if looks.open.len() < LOOKS {
            looks.open.push_back((epoch, clock));
            // Whoever marks a key from now on takes its clock after that.
            self.epoch.store(epoch.saturating_add(1), Ordering::Release);
        }
        let oldest = self.oldest();
        while let Some((epoch, clock)) = looks.open.front().copied()
            && oldest.is_none_or(|oldest| epoch < oldest)
        {
            looks.settled = Some(clock);
            looks.open.pop_front();
        }
        looks.settled
    }

    /// The look before which the oldest mark was made.
    fn oldest(&self) -> Option<u64> {
        let lists = self.counts.iter().zip(&self.lists).filter(|(count, _)| count.load(Ordering::Acquire) > 0);
        lists.filter_map(|(_, list)| list.lock().entries.iter().map(|entry| entry.epoch).min()).min()
    }

    fn end(&self, hash: u64, number: u32) {
        let Some((count, list)) = self.slot(hash) else { return };
        let ended = {
            let mut list = list.lock();
            let Some(place) = list.entries.iter().position(|entry| entry.number == number) else { return };
            count.fetch_sub(1, Ordering::Release);
            list.entries.swap_remove(place)
        };
        for wait in ended.waits.iter().filter_map(Weak::upgrade) {
            if wait.open.fetch_sub(1, Ordering::AcqRel) == 1 {
                wait.ended.notify_one();
            }
        }
    }
}

impl List {
    #[cold]
    fn wait(&mut self, hash: u64) -> Option<Arc<Wait>> {
        let marks = self.entries.iter().filter(|entry| entry.hash == hash).count();
        if marks == 0 {
            return None;
        }
        let wait = Arc::new(Wait { open: AtomicUsize::new(marks), ended: Notify::new() });
        for entry in self.entries.iter_mut().filter(|entry| entry.hash == hash) {
            if entry.waits.len() == entry.waits.capacity() {
                // Before it grows: those that have waited in vain are not kept.
                entry.waits.retain(|wait| wait.strong_count() > 0);
            }
            entry.waits.push(Arc::downgrade(&wait));
        }
        Some(wait)
    }
}

impl Wait {
    /// Returns when the marks have ended.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }
}

impl Mark {
    /// One mark of the same key in the place of two: it ends for those who wait for either.
    pub(super) fn with(self, other: &Self) -> Self {
        if let Some((_, list)) = self.marks.slot(self.hash) {
            let mut list = list.lock();
            let mut waits = Vec::new();
            for entry in list.entries.iter_mut().filter(|entry| entry.number == other.number) {
                waits = std::mem::take(&mut entry.waits);
            }
            for entry in list.entries.iter_mut().filter(|entry| entry.number == self.number) {
                entry.waits.append(&mut waits);
            }
        }
        self
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.marks.end(self.hash, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn has_ended(wait: &Wait) -> bool {
        let ended = pin!(wait.ended());
        ended.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn only_a_marked_key_is_waited_for() {
        let marks = Arc::new(Marks::default());
        assert!(marks.wait(1).is_none());
        let mark = marks.mark(1);
        assert!(marks.wait(2).is_none());
        // In the same list.
        assert!(marks.wait(1 + SLOTS as u64).is_none());
        let wait = marks.wait(1).unwrap();
        assert!(!has_ended(&wait));
        drop(mark);
        assert!(has_ended(&wait));
        assert!(marks.wait(1).is_none());
    }

    #[test]
    fn a_read_waits_for_the_marks_of_its_moment_and_for_none_that_come_later() {
        let marks = Arc::new(Marks::default());
        let (first, second) = (marks.mark(7), marks.mark(7));
        let wait = marks.wait(7).unwrap();
        let third = marks.mark(7);
        drop(second);
        assert!(!has_ended(&wait));
        drop(first);
        assert!(has_ended(&wait));
        drop(third);
        assert!(marks.wait(7).is_none());
    }

    #[test]
    fn two_marks_made_one_end_together() {
        let marks = Arc::new(Marks::default());
        let (first, second) = (marks.mark(7), marks.mark(7));
        let both = marks.wait(7).unwrap();
        let one = first.with(&second);
        drop(second);
        let after = marks.wait(7).unwrap();
        assert!(!has_ended(&both) && !has_ended(&after));
        drop(one);
        assert!(has_ended(&both) && has_ended(&after));
    }

    #[test]
    fn writes_are_settled_up_to_the_oldest_mark() {
        let marks = Arc::new(Marks::default());
        assert_eq!(marks.settled(10), Some(10));
        let first = marks.mark(1);
        assert_eq!(marks.settled(20), Some(10), "the mark may be of a write with any clock from 10 on");
        let second = marks.mark(2);
        assert_eq!(marks.settled(30), Some(10));
        drop(first);
        assert_eq!(marks.settled(40), Some(20));
        for clock in 0..1000 {
            assert_eq!(marks.settled(50 + clock), Some(20));
        }
        assert!(marks.looks.lock().open.len() <= LOOKS);
        drop(second);
        assert!(marks.settled(2000).is_some_and(|clock| clock >= 50));
        assert_eq!(marks.settled(2001), Some(2001));
    }

    #[test]
    fn who_has_given_up_waiting_is_not_kept() {
        let marks = Arc::new(Marks::default());
        let mark = marks.mark(7);
        let wait = marks.wait(7).unwrap();
        for _ in 0..10_000 {
            drop(marks.wait(7));
        }
        assert!(marks.slot(7).unwrap().1.lock().entries[0].waits.len() < 10);
        drop(mark);
        assert!(has_ended(&wait));
    }

    #[test]
    fn nothing_is_left_of_many() {
        let marks = Arc::new(Marks::default());
        let held: Vec<_> = (0..10_000).map(|hash| marks.mark(hash % 5_000)).collect();
        assert_eq!(marks.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u32>(), 10_000);
        drop(held);
        assert!((0..5_000).all(|hash| marks.wait(hash).is_none()));
        assert!(marks.lists.iter().all(|list| list.lock().entries.is_empty()));
    }
}
