//! Copying the store while it is in use.
//!
//! The copy is made on the connection that merges: SQLite starts a backup anew when any other one writes.

use super::disk::Step;
use super::error::Error;
use super::maintain::Maintenance;
use super::temporary;
use super::tree::{Writer, directory, side_path};
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// Pages copied at once: a MiB.
const STEP_PAGES: i32 = 256;
/// Pause after some steps, in parts of what they took.
const PAUSE_SHARE: u32 = 2;
/// What the rest of the work took, in so many parts, is what the steps after it may take ...
const STEPS_SHARE: u32 = 4;
/// ... but no longer than this.
const STEPS_LIMIT: Duration = Duration::from_millis(100);

/// Copies everything written before the call to `destination`: under another name, synced, then renamed.
pub(super) fn run(maintenance: &Maintenance<'_>, destination: &Path) -> Result<(), Error> {
    let failed = |reason: String| Error::Backup { path: destination.to_path_buf(), reason: reason.into() };
    // A write-ahead log there would be applied to the copy, and whoever has that store open would go on without a name.
    let in_use =
        ["-wal", "-journal"].map(|suffix| side_path(destination, suffix)).into_iter().find(|path| path.exists());
    if let Some(path) = in_use {
        return Err(failed(format!("{} is there: a store in use, or not closed properly", path.display())));
    }
    maintenance.flush()?;
    let store = maintenance.core.opened.path();
    temporary::remove_unfinished_backups(store, directory(destination));
    let unfinished = temporary::unfinished_backup(store, directory(destination));
    // Its handle says that it is in use.
    let file = create(&unfinished).map_err(failed)?;
    let result = copy(maintenance, &unfinished).and_then(|()| {
        maintenance.reached(Step::BackupRename).map_err(|error| error.to_string())?;
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

/// Makes the file of a backup that has begun.
fn create(path: &Path) -> Result<File, String> {
    let text = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::options().write(true).create_new(true).open(path).map_err(text)?;
    if temporary::hold(&file, path).map_err(text)? { Ok(file) } else { Err(format!("{} is in use", path.display())) }
}

fn copy(maintenance: &Maintenance<'_>, temporary: &Path) -> Result<(), String> {
    let text = |error: rusqlite::Error| error.to_string();
    let mut copy = Connection::open(temporary).map_err(text)?;
    // The file is synced as a whole at its end, and is nothing before that.
    copy.execute_batch("PRAGMA synchronous = OFF").map_err(text)?;
    {
        let backup = Backup::new(maintenance.tree.connection(), &mut copy).map_err(text)?;
        let (mut begun, mut share) = (Instant::now(), Duration::ZERO);
        loop {
            match backup.step(STEP_PAGES).map_err(text)? {
                StepResult::Done => break,
                StepResult::Busy | StepResult::Locked => std::thread::sleep(Duration::from_millis(5)),
                _ => {}
            }
            maintenance.reached(Step::BackupCopied).map_err(|error| error.to_string())?;
            if begun.elapsed() < share {
                continue;
            }
            if !maintenance.core.in_a_hurry() {
                std::thread::sleep(begun.elapsed() / PAUSE_SHARE);
            }
            // When one merge follows the other, a step after each would never come to an end.
            let paused = Instant::now();
            if !maintenance.pause() {
                return Err("the store is being closed".to_owned());
            }
            begun = Instant::now();
            share = (begun.duration_since(paused) / STEPS_SHARE).min(STEPS_LIMIT);
        }
    }
    copy.query_row("PRAGMA journal_mode = DELETE", (), |_| Ok(())).map_err(text)?;
    // A merge may have failed since the last seal, and some of its rows be in the copy.
    let mut tally = maintenance.tree.tally();
    maintenance.describe(&mut tally);
    Writer::adopt_copy(&copy, &tally).map_err(text)?;
    copy.close().map_err(|(_, error)| error.to_string())
}
