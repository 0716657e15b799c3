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
        // Before it is taken into reserve, the thread may have served others, too.
        let (mut seen, mut serving) = (0, true);
        while !ended.load(Ordering::Relaxed) {
            let stuck = look(&calls, &mut seen);
            serving = stuck == Some(true) || serving && !hand_over();
            if serving {
                // This thread serves others meanwhile.
                tokio::time::sleep(PAUSE).await;
            } else {
                thread::sleep(if stuck.is_none() { IDLE_PAUSE } else { PAUSE });
            }
        }
    });
    reserve
}

/// Leaves what this thread has served to the others; says whether that could be done.
fn hand_over() -> bool {
    // Tasks that have yielded wait for their thread to look for them, which this one will not. The runtime wakes them before
    // a thread may block, and they wait where others find them. Should another thread be faster and go on in the place of this
    // one, then one more serves until this task is there again: nothing is lost by that.
    tokio::task::block_in_place(|| ());
    // Another thread has to look there, and at the sockets: this one may have been the one that did while it served, and
    // the others wait to be woken by it. Only what comes from outside of the runtime wakes one for sure.
    let runtime = tokio::runtime::Handle::current();
    thread::Builder::new().spawn(move || drop(runtime.spawn(async {}))).is_ok()
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
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;

    /// A socket is answered within this time, whatever the threads are doing.
    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn sockets_are_served_after_the_reserve_has_stood_in() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let _entered = runtime.enter();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        runtime.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        });
        let calls = Arc::new(AtomicU64::new(0));
        let _reserve = stand_by(calls.clone());
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        for round in 0..20 {
            // A call hangs long enough for the reserve to stand in, and ends.
            calls.fetch_add(1, Ordering::Relaxed);
            let hung = Instant::now();
            while hung.elapsed() < 8 * PAUSE {
                client.write_all(&[round]).unwrap();
                client.read_exact(&mut [0]).unwrap();
            }
            calls.fetch_add(1, Ordering::Relaxed);
            thread::sleep(4 * PAUSE);
            client.write_all(&[round]).unwrap();
            let mut answer = [0];
            client.read_exact(&mut answer).unwrap_or_else(|error| panic!("nobody answers in round {round}: {error}"));
            assert_eq!(answer, [round]);
        }
    }

    #[test]
    fn tasks_that_have_yielded_go_on_after_the_reserve_has_stood_in() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let _entered = runtime.enter();
        let steps: [Arc<AtomicU64>; 4] = Default::default();
        for steps in steps.clone() {
            runtime.spawn(async move {
                loop {
                    steps.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            });
        }
        let calls = Arc::new(AtomicU64::new(0));
        let _reserve = stand_by(calls.clone());
        for round in 0..20 {
            calls.fetch_add(1, Ordering::Relaxed);
            thread::sleep(8 * PAUSE);
            calls.fetch_add(1, Ordering::Relaxed);
            thread::sleep(4 * PAUSE);
            for steps in &steps {
                let (before, since) = (steps.load(Ordering::Relaxed), Instant::now());
                while steps.load(Ordering::Relaxed) == before {
                    assert!(since.elapsed() < PATIENCE, "in round {round} a task does not go on");
                    thread::sleep(PAUSE);
                }
            }
        }
    }

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
