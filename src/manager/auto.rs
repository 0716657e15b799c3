//! When a replace that nobody has asked for is due. Pure: time comes in.

use std::time::Duration;

use tokio::time::Instant;

/// The delay in front of an automatic replace.
#[derive(Debug)]
pub(super) struct Auto {
    enabled: bool,
    delay: Duration,
    due: Option<Instant>,
}

impl Auto {
    pub(super) fn new(enabled: bool, delay: Duration) -> Self {
        Self { enabled, delay, due: None }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Switches it; a delay that was running is forgotten.
    pub(super) fn enable(&mut self, enabled: bool) {
        self.enabled = enabled;
        self.due = None;
    }

    /// A server has come or gone: the delay starts anew.
    pub(super) fn changed(&mut self, now: Instant) {
        self.due = now.checked_add(self.delay);
    }

    /// Whether to start one now, given whether there is anything to do.
    pub(super) fn poll(&mut self, now: Instant, work: bool) -> bool {
        if !self.enabled || !work {
            self.due = None;
            return false;
        }
        match self.due {
            None => self.changed(now),
            Some(due) if now >= due => {
                self.due = None;
                return true;
            }
            Some(_) => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_runs_from_the_last_change() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut auto = Auto::new(true, Duration::from_secs(4));
        auto.changed(at(0));
        assert!(!auto.poll(at(3), true));
        auto.changed(at(3));
        assert!(!auto.poll(at(4), true));
        assert!(auto.poll(at(7), true));
        assert!(!auto.poll(at(7), true), "once is enough");
        assert!(auto.poll(at(11), true), "and again while there is something to do");
    }

    #[test]
    fn nothing_happens_without_work_or_when_switched_off() {
        let now = Instant::now();
        let mut auto = Auto::new(true, Duration::ZERO);
        auto.changed(now);
        assert!(!auto.poll(now, false));
        auto.enable(false);
        assert!(!auto.poll(now, true));
        assert!(!auto.poll(now, true));
    }
}
