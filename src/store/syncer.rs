//! The log's thread: group commit, the sync of each second, and retries of what has failed.

use super::core::Core;
use super::error::Error;
use super::failures::Operation;
use super::options::SyncMode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Pause between retries of a failed append.
pub(super) const RETRY: Duration = Duration::from_millis(100);
/// Time within which [`SyncMode::Everysec`] promises durability.
const EVERY: Duration = Duration::from_secs(1);

/// Runs until the store is closed and nobody waits any more.
pub(super) fn run(core: &Core) {
    loop {
        let stop = || core.stop_log.load(Ordering::Acquire);
        core.log_signal.wait(RETRY, || stop() || !core.log_waiters.lock().is_empty());
        if !round(core) {
            return;
        }
    }
}

/// Writes, syncs and answers what waits; says whether more may come.
pub(super) fn round(core: &Core) -> bool {
    core.stall.begin(core.now());
    let more = work(core);
    if let Some(took) = core.stall.end(core.now()) {
        tracing::warn!("the disk has answered after {:.1} s", took.as_secs_f64());
    }
    more
}

fn work(core: &Core) -> bool {
    if core.crashed.load(Ordering::Acquire) {
        return false;
    }
    let stopping = core.stop_log.load(Ordering::Acquire);
    let waiters = {
        let mut waiters = core.log_waiters.lock();
        core.has_log_waiters.store(false, Ordering::Release);
        std::mem::take(&mut *waiters)
    };
    if !waiters.is_empty() {
        let need = waiters.iter().map(|waiter| waiter.need).max().unwrap_or(0);
        let mut result = core.redo.write_out(need);
        if core.options.sync == SyncMode::Always {
            result = result.and_then(|()| core.redo.sync());
            if core.redo.is_suspect() {
                core.wake();
            }
            *core.last_sync.lock() = core.now();
        } else {
            result = result.and_then(|()| core.failures.error().map_or(Ok(()), Err));
        }
        for waiter in waiters {
            (waiter.done)(result.clone());
        }
    }
    if core.failures.includes(Operation::Append) {
        // The outcome is noted where it fails or works.
        let _ = core.redo.write_all();
        if !core.failures.any() {
            core.space_signal.raise();
        }
    }
    if stopping {
        let waiters = core.log_waiters.lock();
        if waiters.is_empty() {
            core.log_ended.store(true, Ordering::Relaxed);
            return false;
        }
    }
    let last_sync = *core.last_sync.lock();
    if core.elapsed(last_sync) >= EVERY {
        *core.last_sync.lock() = core.now();
        tick(core);
    }
    true
}

/// The work of each second.
fn tick(core: &Core) {
    if core.redo.buffered() > 0 && !core.failures.any() {
        let _ = core.redo.write_all();
        core.answer_written();
    }
    let lags = core.redo.synced() < core.redo.written();
    if core.options.sync != SyncMode::Os && lags && !core.redo.is_suspect() {
        let result: Result<(), Error> = core.redo.sync();
        if result.is_err() {
            core.wake();
        }
    }
}
