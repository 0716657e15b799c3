//! Whether the disk answers: the log's thread says when it turns to it and when that has ended. Knows no files.

use std::time::Duration;

use parking_lot::Mutex;

use crate::time::Moment;

/// Who waits longer for the disk is told of.
const LONG: Duration = Duration::from_secs(2);

/// The wait of the log's thread for the disk.
#[derive(Debug, Default)]
pub(super) struct Stall(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    since: Option<Moment>,
    told: bool,
}

impl Stall {
    /// The thread turns to the disk.
    pub(super) fn begin(&self, now: Moment) {
        *self.0.lock() = State { since: Some(now), told: false };
    }

    /// The disk has answered. How long it took, if somebody was told that it does not.
    pub(super) fn end(&self, now: Moment) -> Option<Duration> {
        let State { since, told } = std::mem::take(&mut *self.0.lock());
        since.filter(|_| told).map(|since| now.since(since))
    }

    /// How long the disk has not answered, if that is long and nobody was told.
    pub(super) fn look(&self, now: Moment) -> Option<Duration> {
        let state = &mut *self.0.lock();
        let waited = now.since(state.since?);
        let first = waited >= LONG && !std::mem::replace(&mut state.told, waited >= LONG);
        first.then_some(waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000 + 1)
    }

    #[test]
    fn a_long_wait_is_told_of_once_and_its_end_too() {
        let stall = Stall::default();
        assert_eq!(stall.look(at(100)), None, "nobody waits");
        stall.begin(at(100));
        assert_eq!(stall.look(at(101)), None);
        assert_eq!(stall.end(at(101)), None);
        assert_eq!(stall.look(at(200)), None);
        stall.begin(at(200));
        assert_eq!(stall.look(at(203)), Some(Duration::from_secs(3)));
        assert_eq!(stall.look(at(204)), None);
        assert_eq!(stall.end(at(222)), Some(Duration::from_secs(22)));
        stall.begin(at(300));
        assert_eq!(stall.end(at(301)), None);
    }
}
