//! Saying the same thing again only now and then. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Moment;

/// Pause between two log lines that say the same.
const PAUSE: Duration = Duration::from_secs(10);
/// Things that are remembered; beyond that the oldest may be said again early.
const THINGS: usize = 1024;

/// What was said, and when.
#[derive(Debug)]
pub(crate) struct Seldom<T>(BTreeMap<T, Moment>);

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord> Seldom<T> {
    /// Whether to say `thing` at `now`: it is news, or was said long ago.
    pub(crate) fn is_due(&mut self, thing: T, now: Moment) -> bool {
        self.0.retain(|_, said| now.since(*said) < PAUSE);
        if self.0.contains_key(&thing) {
            return false;
        }
        if self.0.len() >= THINGS {
            self.0.pop_first();
        }
        self.0.insert(thing, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_in_ten_seconds_and_news_at_once() {
        let mut seldom = Seldom::default();
        let at = |seconds: u64| Moment::from_nanos(seconds * 1_000_000_000 + 1);
        let said: Vec<_> = (0..30).filter(|second| seldom.is_due("lost", at(*second))).collect();
        assert_eq!(said, [0, 10, 20]);
        assert!(seldom.is_due("found", at(30)) && !seldom.is_due("found", at(31)));
        let mut many = Seldom::default();
        assert!((0..5000).all(|thing| many.is_due(thing, at(50))));
        assert_eq!(many.0.len(), THINGS);
    }
}
