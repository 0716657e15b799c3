//! A run in parts of equal length: threads hand over what they have seen, and each part is summed up.
//!
//! Only the parts that threads may still add to keep their latencies one by one; knows neither sockets nor requests.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::tally::Tally;

/// Parts that may still be added to: threads look at the time often, and are hardly ever further apart.
const OPEN: usize = 3;
/// Most parts of a run; the last takes the rest.
const LIMIT: usize = 100_000;

/// The counts of one thread in one part.
#[derive(Debug)]
pub(super) struct Part {
    /// Which part, from 0.
    pub(super) index: usize,
    /// The counts.
    pub(super) tally: Tally,
}

/// A thread's place in the parts, and where it hands them over.
#[derive(Debug)]
pub(super) struct Cuts {
    began: Instant,
    length: Option<Duration>,
    index: usize,
    next: Option<Instant>,
    parts: SyncSender<Part>,
}

impl Cuts {
    /// Cuts every `length` from `began` on, if there is a length.
    pub(super) fn new(began: Instant, length: Option<Duration>, parts: SyncSender<Part>) -> Self {
        let next = length.and_then(|length| began.checked_add(length));
        Self { began, length, index: 0, next, parts }
    }

    /// The part that lasts.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Whether a part has ended.
    #[inline]
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Hands over what was seen in the part that has ended, and begins the one that `now` is in.
    pub(super) fn hand_over(&mut self, tally: Tally, now: Instant) {
        // Nobody listens any more only after a panic.
        let _ = self.parts.send(Part { index: self.index, tally });
        let Some(length) = self.length else { return };
        let passed = now.duration_since(self.began).as_nanos() / length.as_nanos().max(1);
        self.index = usize::try_from(passed).map_or(LIMIT, |passed| passed.max(self.index + 1)).min(LIMIT - 1);
        let to_next = u32::try_from(self.index + 1).ok().and_then(|count| length.checked_mul(count));
        let is_last = self.index + 1 == LIMIT;
        self.next = to_next.filter(|_| !is_last).and_then(|time| self.began.checked_add(time));
    }
}

/// One part, summed up.
#[derive(Debug, Clone)]
pub(super) struct Interval {
    /// Since measuring began.
    pub(super) from: Duration,
    /// How long it was.
    pub(super) length: Duration,
    /// Latencies in nanoseconds of all requests answered in it.
    pub(super) latency: Histogram<u64>,
}

/// Sums up parts as they come in; `S` is what remains of one.
#[derive(Debug)]
pub(super) struct Intervals<S> {
    length: Duration,
    open: VecDeque<Histogram<u64>>,
    summed: Vec<S>,
    sum_up: fn(&Interval) -> S,
}

impl<S> Intervals<S> {
    /// Parts of this length, none yet.
    pub(super) fn new(length: Duration, sum_up: fn(&Interval) -> S) -> Self {
        Self { length, open: VecDeque::new(), summed: Vec::new(), sum_up }
    }

    /// Adds what a thread has seen; what comes for a part already summed up counts in the oldest that is not.
    pub(super) fn add(&mut self, part: &Part) {
        let latency = part.tally.latency();
        let mut empty = latency.clone();
        empty.reset();
        while self.summed.len() + self.open.len() <= part.index {
            self.open.push_back(empty.clone());
            if self.open.len() > OPEN {
                self.close(None);
            }
        }
        let at = part.index.saturating_sub(self.summed.len());
        if let Some(open) = self.open.get_mut(at) {
            // Cannot fail: both have the same bounds.
            let _ = open.add(&latency);
        }
    }

    /// All parts, the last of which ended so long after the first began.
    pub(super) fn finish(mut self, elapsed: Duration) -> Vec<S> {
        while !self.open.is_empty() {
            self.close((self.open.len() == 1).then_some(elapsed));
        }
        self.summed
    }

    fn close(&mut self, end: Option<Duration>) {
        let Some(latency) = self.open.pop_front() else { return };
        let from = u32::try_from(self.summed.len()).ok().and_then(|index| self.length.checked_mul(index));
        let from = from.unwrap_or(Duration::MAX);
        let length = end.map_or(self.length, |end| end.saturating_sub(from));
        self.summed.push((self.sum_up)(&Interval { from, length, latency }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::super::choice::Operation;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn part(index: usize, requests: u64) -> Part {
        let mut tally = Tally::new().unwrap();
        for _ in 0..requests {
            tally.answered(Operation::Set, Duration::from_micros(10), false);
            tally.answered(Operation::Get, Duration::from_micros(20), false);
        }
        Part { index, tally }
    }

    fn intervals() -> Intervals<(Duration, Duration, u64)> {
        Intervals::new(SECOND, |interval| (interval.from, interval.length, interval.latency.len()))
    }

    #[test]
    fn parts_of_all_threads_add_up() {
        let mut intervals = intervals();
        for (index, requests) in [(0, 1), (0, 2), (1, 3), (2, 5), (1, 4)] {
            intervals.add(&part(index, requests));
        }
        let half = SECOND / 2;
        assert_eq!(
            intervals.finish(2 * SECOND + half),
            [(Duration::ZERO, SECOND, 6), (SECOND, SECOND, 14), (2 * SECOND, half, 10)]
        );
    }

    #[test]
    fn a_gap_is_a_part_without_requests_and_what_is_late_still_counts() {
        let mut intervals = intervals();
        intervals.add(&part(0, 1));
        intervals.add(&part(5, 1));
        assert_eq!((intervals.open.len(), intervals.summed.len()), (OPEN, 3));
        intervals.add(&part(0, 7));
        let counts: Vec<_> = intervals.finish(6 * SECOND).into_iter().map(|(_, _, count)| count).collect();
        assert_eq!(counts, [2, 0, 0, 14, 0, 2]);
    }

    #[test]
    fn a_thread_hands_over_once_a_part_and_skips_what_it_slept_through() {
        let (parts, handed) = sync_channel(10);
        let began = Instant::now();
        let mut cuts = Cuts::new(began, Some(SECOND), parts);
        let at = |tenths| began + SECOND * tenths / 10;
        assert!(!cuts.is_due(at(9)));
        for (now, next) in [(10, 1), (21, 2), (59, 5)] {
            assert!(cuts.is_due(at(now)), "{now}");
            cuts.hand_over(Tally::new().unwrap(), at(now));
            assert_eq!(cuts.index(), next);
            assert!(!cuts.is_due(at(now)));
        }
        drop(cuts);
        assert_eq!(handed.iter().map(|part| part.index).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn parts_are_not_cut_without_end() {
        let (parts, _handed) = sync_channel(10);
        let began = Instant::now();
        let mut cuts = Cuts::new(began, Some(SECOND), parts);
        let late = began + Duration::from_hours(1000);
        cuts.hand_over(Tally::new().unwrap(), late);
        assert_eq!(cuts.index(), LIMIT - 1);
        assert!(!cuts.is_due(late));
        let (parts, _handed) = sync_channel(10);
        assert!(!Cuts::new(began, None, parts).is_due(late));
    }
}
