//! Progress of long work, and how it is stopped early.

use super::error::Error;

/// Records between two reports.
const STEP: u64 = 1024;

/// Receives the progress of the work, and may end it.
pub trait Progress {
    /// A part of the work begins; `total` steps of it if that is known.
    fn begin(&self, what: &str, total: Option<u64>);
    /// So many steps more are done.
    fn advance(&self, steps: u64);
    /// Whether the work is to end, leaving nothing behind.
    fn is_stopped(&self) -> bool;
}

/// Counts the record with this number, from 1 on; now and then reports it, and ends the work here if it is to end.
pub(super) fn count(record: u64, progress: &dyn Progress) -> Result<(), Error> {
    if record.is_multiple_of(STEP) {
        progress.advance(STEP);
        if progress.is_stopped() {
            return Err(Error::Stopped);
        }
    }
    Ok(())
}

/// Progress that is not shown, and never stops the work.
pub(super) struct NoProgress;

impl Progress for NoProgress {
    fn begin(&self, _what: &str, _total: Option<u64>) {}

    fn advance(&self, _steps: u64) {}

    fn is_stopped(&self) -> bool {
        false
    }
}
