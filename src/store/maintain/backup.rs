//! Copying the store while it is in use.
//!
//! The copy is made on the connection that merges: SQLite starts a backup anew when any other one writes. So the thread
//! that merges makes it, and goes on with its other work between the steps. Knows that thread as a [`Host`] only.

use crate::store::disk::Step;
use crate::store::error::Error;
use crate::store::paths::{directory, side_path};
use crate::store::temporary;
use crate::store::tree::{Tally, Writer};
use crate::time::Time;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// Pages copied at once: a MiB.
const STEP_PAGES: i32 = 256;
/// Pause after some steps, in parts of what they took.
const PAUSE_SHARE: u32 = 2;
/// Between two pauses, copying may take the time of the thread's other work divided by this ...
const STEPS_SHARE: u32 = 4;
/// ... but no longer than this.
const STEPS_LIMIT: Duration = Duration::from_millis(100);

/// The store that is copied, and the work of its thread.
pub(super) trait Host {
    /// The database's path.
    fn path(&self) -> &Path;
    /// The connection that merges.
    fn connection(&self) -> &Connection;
    /// Merges everything written so far.
    fn flush(&self) -> Result<(), Error>;
    /// Whether nobody waits for the thread.
    fn may_pause(&self) -> bool;
    /// Does the rest of the thread's work; false if the store is to be closed.
    fn work_between(&self) -> bool;
    /// The tally to store in the copy.
    fn tally(&self) -> Tally;
    /// The clock to measure by.
    fn time(&self) -> &Time;
    /// Called at each [`Step`].
    fn reached(&self, step: Step) -> Result<(), Error>;
}

/// Copies everything written before the call to `destination`: under another name, synced, then renamed.
pub(super) fn run(host: &impl Host, destination: &Path) -> Result<(), Error> {
    let failed = |reason: String| Error::Backup { path: destination.to_path_buf(), reason: reason.into() };
    // A write-ahead log there would be applied to the copy, and whoever has that store open would go on without a name.
    let in_use =
        ["-wal", "-journal"].map(|suffix| side_path(destination, suffix)).into_iter().find(|path| path.exists());
    if let Some(path) = in_use {
        return Err(failed(format!(
            "{} exists: the store there is in use, or was not closed properly",
            path.display()
        )));
    }
    host.flush()?;
    let store = host.path();
    temporary::remove_unfinished_backups(store, directory(destination));
    let unfinished = temporary::unfinished_backup(store, directory(destination));
    // Its handle says that it is in use.
    let file = temporary::create(&unfinished).map_err(|error| failed(format!("{}: {error}", unfinished.display())))?;
    let result = copy(host, &unfinished).and_then(|()| {
        host.reached(Step::BackupRename).map_err(|error| error.to_string())?;
        let rename = || {
            file.sync_all()?;
            std::fs::rename(&unfinished, destination)?;
            File::open(directory(destination))?.sync_all()
        };
        rename().map_err(|error: std::io::Error| error.to_string())
    });
    if result.is_err() {
        let _ = temporary::remove(&unfinished);
    }
    result.map_err(failed)
}

fn copy(host: &impl Host, temporary: &Path) -> Result<(), String> {
    let text = |error: rusqlite::Error| error.to_string();
    let time = host.time();
    let mut copy = Connection::open(temporary).map_err(text)?;
    // The file is synced as a whole at its end, and is nothing before that.
    copy.execute_batch("PRAGMA synchronous = OFF").map_err(text)?;
    {
        let backup = Backup::new(host.connection(), &mut copy).map_err(text)?;
        let (mut begun, mut share) = (time.now(), Duration::ZERO);
        loop {
            match backup.step(STEP_PAGES).map_err(text)? {
                StepResult::Done => break,
                StepResult::Busy | StepResult::Locked => std::thread::sleep(Duration::from_millis(5)),
                _ => {}
            }
            host.reached(Step::BackupCopied).map_err(|error| error.to_string())?;
            if time.elapsed(begun) < share {
                continue;
            }
            if host.may_pause() {
                std::thread::sleep(time.elapsed(begun) / PAUSE_SHARE);
            }
            // When one merge follows the other, a step after each would never come to an end.
            let paused = time.now();
            if !host.work_between() {
                return Err("the store is being closed".to_owned());
            }
            begun = time.now();
            share = (begun.since(paused) / STEPS_SHARE).min(STEPS_LIMIT);
        }
    }
    copy.query_row("PRAGMA journal_mode = DELETE", (), |_| Ok(())).map_err(text)?;
    Writer::adopt_copy(&copy, &host.tally()).map_err(text)?;
    copy.close().map_err(|(_, error)| error.to_string())
}
