//! When it is to be said in the log that this server refuses requests because no majority confirms it, and when it is over.
//! Pure: decides nothing, and knows nothing of voters.

use std::time::Duration;

use parking_lot::Mutex;

use crate::time::Moment;

/// Since when no majority confirms this server, and whether that is in the log.
#[derive(Debug, Default)]
pub(super) struct Majority(Mutex<Option<(Moment, bool)>>);

/// Something to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Requests are refused.
    Refuses,
    /// They no longer are.
    Over,
}

impl Majority {
    /// A look at `now`. That requests are refused is said only after the time of a `lease`: each new configuration has to be
    /// confirmed first.
    pub(super) fn look(&self, refuses: bool, now: Moment, lease: Duration) -> Option<News> {
        let mut state = self.0.lock();
        match *state {
            None if refuses => *state = Some((now, false)),
            Some((since, false)) if refuses && now >= since + lease => {
                *state = Some((since, true));
                return Some(News::Refuses);
            }
            Some((_, said)) if !refuses => {
                *state = None;
                return said.then_some(News::Over);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_said_once_after_a_lease_and_its_end_only_if_it_was() {
        let (majority, lease) = (Majority::default(), Duration::from_millis(100));
        let look = |refuses, at_ms: u64| majority.look(refuses, Moment::from_nanos(at_ms * 1_000_000), lease);
        assert_eq!([look(false, 0), look(true, 10), look(true, 109), look(false, 110)], [None; 4]);
        assert_eq!([look(true, 200), look(true, 300), look(true, 900)], [None, Some(News::Refuses), None]);
        assert_eq!([look(false, 1000), look(false, 1100)], [Some(News::Over), None]);
    }
}
