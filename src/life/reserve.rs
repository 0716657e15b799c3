//! A network thread in reserve, for when the kernel holds back another one.
//!
//! A network thread writes what it has decided to the redo log itself: handing that over to another thread costs a third of
//! the throughput and more. If the disk then stalls, the thread is stuck in the kernel, and on a small machine it is the
//! only one. So the runtime has one thread more, which this module keeps from doing anything: the runtime takes it for busy
//! and neither wakes it nor counts on it. While another thread is stuck, this one serves in its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// How often it is seen whether a thread is stuck. One is stuck if it has been in the same call twice.
const PAUSE: Duration = Duration::from_millis(10);
/// The same while there are no such calls.
const IDLE_PAUSE: Duration = Duration::from_millis(100);

/// Ends the watch when it is dropped.
pub(super) struct Reserve(Arc<AtomicBool>);

impl Drop for Reserve {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Takes one of the runtime's threads into reserve, and lets it go as long as a call that `calls` counts does not return: it
/// counts up when one begins and when it ends. Call it within the runtime.
pub(super) fn stand_by(calls: Arc<AtomicU64>) -> Reserve {
    let ended = Arc::new(AtomicBool::new(false));
    let reserve = Reserve(ended.clone());
    tokio::spawn(async move {
        let mut seen = 0;
        while !ended.load(Ordering::Relaxed) {
            let stuck = look(&calls, &mut seen);
            if stuck == Some(true) {
                // This thread serves others meanwhile.
                tokio::time::sleep(PAUSE).await;
            } else {
                thread::sleep(if stuck.is_none() { IDLE_PAUSE } else { PAUSE });
            }
        }
    });
    reserve
}

/// Whether a call is under way that was so already when it was looked last; `None` if there was none since.
fn look(calls: &AtomicU64, seen: &mut u64) -> Option<bool> {
    let now = calls.load(Ordering::Relaxed);
    let before = std::mem::replace(seen, now);
    match (now == before, now % 2 == 1) {
        (true, false) => None,
        (same, under_way) => Some(same && under_way),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_call_that_was_under_way_before_is_stuck() {
        let (calls, mut seen) = (AtomicU64::new(0), 0);
        assert_eq!(look(&calls, &mut seen), None);
        calls.store(3, Ordering::Relaxed);
        assert_eq!(look(&calls, &mut seen), Some(false));
        assert_eq!(look(&calls, &mut seen), Some(true));
        calls.store(5, Ordering::Relaxed);
        assert_eq!(look(&calls, &mut seen), Some(false));
        calls.store(6, Ordering::Relaxed);
        assert_eq!(look(&calls, &mut seen), Some(false));
        assert_eq!(look(&calls, &mut seen), None);
    }
}
