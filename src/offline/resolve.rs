//! Which of several records of one key is kept. Pure: no files.

use crate::clock::ClockTime;
use crate::wire::RecordValue;

/// The records of one key, offered source by source.
///
/// As at a server that is sent one after another: what comes later is kept if what is held is before it, and with equal
/// clocktimes the first stays. "Before" can go in a circle, when clocks were far apart; then the order of the sources
/// decides, and nothing is better about any other outcome.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    kept: Option<(usize, Vec<u8>)>,
    /// A record whose source may still say otherwise.
    open: Option<(usize, Option<Vec<u8>>)>,
}

impl Resolver {
    /// Offers what a source says. If `overrides`, it takes back what the same source has said before.
    pub(super) fn offer(&mut self, source: usize, value: Option<Vec<u8>>, overrides: bool, enters: impl FnMut(usize)) {
        if !(overrides && self.open.as_ref().is_some_and(|(open, _)| *open == source)) {
            self.settle(enters);
        }
        self.open = Some((source, value));
    }

    /// The record that is kept, and its source.
    pub(super) fn end(mut self, enters: impl FnMut(usize)) -> Option<(usize, Vec<u8>)> {
        self.settle(enters);
        self.kept
    }

    fn settle(&mut self, mut enters: impl FnMut(usize)) {
        let Some((source, Some(value))) = self.open.take() else { return };
        enters(source);
        let newer = |(_, kept): &(usize, Vec<u8>)| clocktime(kept).is_before(clocktime(&value));
        if self.kept.as_ref().is_none_or(newer) {
            self.kept = Some((source, value));
        }
    }
}

fn clocktime(value: &[u8]) -> ClockTime {
    RecordValue::new(value).map_or(ClockTime(0), |value| value.clocktime())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::record::raw_value;

    type Offer = (usize, Option<(u32, u32)>, bool);

    fn kept(offers: &[Offer]) -> (Option<usize>, Vec<usize>) {
        let mut entered = Vec::new();
        let mut resolve = Resolver::default();
        for (source, time, overrides) in offers {
            let value = time.map(|(seconds, clock)| raw_value(ClockTime::new(seconds, clock), 0, b"x"));
            resolve.offer(*source, value, *overrides, |source| entered.push(source));
        }
        let kept = resolve.end(|source| entered.push(source));
        (kept.map(|(source, _)| source), entered)
    }

    #[test]
    fn the_latest_is_kept_and_the_first_of_equals() {
        let all = vec![0, 1, 2];
        assert_eq!(
            kept(&[(0, Some((9, 1)), true), (1, Some((90, 1)), true), (2, Some((50, 1)), true)]),
            (Some(1), all)
        );
        assert_eq!(kept(&[(0, Some((9, 1)), true), (1, Some((9, 1)), true)]).0, Some(0));
    }

    #[test]
    fn what_a_log_says_counts_instead_of_what_the_tree_has() {
        assert_eq!(kept(&[(0, Some((9, 1)), true), (0, None, true)]), (None, vec![]));
        // A removal takes back only what its own source has.
        let others = [(0, Some((9, 1)), true), (1, Some((50, 1)), true), (1, None, true)];
        assert_eq!(kept(&others), (Some(0), vec![0]));
        // In a file without a log both records of a key take part.
        assert_eq!(kept(&[(0, Some((50, 1)), false), (0, Some((9, 1)), false)]), (Some(0), vec![0, 0]));
    }

    /// Three clocktimes of which each is before the next, and the last before the first.
    #[test]
    fn in_a_circle_the_order_of_the_sources_decides() {
        let times = [(100, 30), (104, 20), (108, 10)];
        let time = |index: usize| ClockTime::new(times[index].0, times[index].1);
        assert!(time(1).is_before(time(0)) && time(2).is_before(time(1)) && time(0).is_before(time(2)));
        let run = |order: [usize; 3]| kept(&order.map(|index| (index, Some(times[index]), true))).0;
        assert_eq!(run([0, 1, 2]), Some(2));
        assert_eq!(run([1, 2, 0]), Some(0));
        assert_eq!(run([2, 0, 1]), Some(1));
        assert_eq!(run([2, 1, 0]), Some(0));
    }
}
