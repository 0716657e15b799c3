//! The binary log (`-g`): an appended record for each event that an operator may have to repair by hand.
//!
//! Byte-compatible with the original, so that its `kumolog` reads ours and we read its files. Knows no role: whoever
//! has something to record makes a [`Record`].
//!
//! ```text
//! record    length u32 big-endian | [name, version, map]                       MessagePack of that length
//! name      up to four letters as an unsigned integer, "SS" = 0x5353           likewise the keys of the map
//! map       "time" (unix seconds), then what the record has
//! ```

mod reader;
mod record;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::time::Time;
pub use reader::{Decoder, Entries};
pub use record::{Entry, Record, Value};

/// The binary log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the binary log '{}': {cause}", path.display())]
pub struct OpenError {
    path: PathBuf,
    cause: io::Error,
}

/// A handle of the binary log; clones write to the same file.
#[derive(Debug, Clone, Default)]
pub struct Binlog(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    time: Time,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    /// Records lost since the last one that was written.
    lost: u64,
}

impl Binlog {
    /// Opens `path` for appending records of the `time` at which they are written; without a path every record is forgotten.
    pub fn open(path: Option<&Path>, time: &Time) -> Result<Self, OpenError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let state = Mutex::new(State { file: append(path)?, lost: 0 });
        Ok(Self(Some(Arc::new(Inner { path: path.to_owned(), time: time.clone(), state }))))
    }

    /// Appends a record of this moment. A failure is logged once until writing works again; it never fails a request.
    pub fn write(&self, record: &Record<'_>) {
        let Some(inner) = &self.0 else { return };
        let now = inner.time.unix().as_secs();
        let mut bytes = Vec::new();
        record.encode(now, &mut bytes);
        let mut state = inner.state.lock();
        let before = state.file.metadata().map(|file| file.len());
        match state.file.write_all(&bytes) {
            Ok(()) if state.lost > 0 => {
                tracing::warn!(lost = state.lost, "binary log '{}' can be written again", inner.path.display());
                state.lost = 0;
            }
            Ok(()) => {}
            Err(error) => {
                if state.lost == 0 {
                    tracing::error!("cannot write the binary log '{}': {error}", inner.path.display());
                }
                state.lost += 1;
                // Half a record would take part of the next one with it.
                if let Ok(before) = before {
                    let _ = state.file.set_len(before);
                }
            }
        }
    }

    /// Opens the file anew, after logrotate has moved it. If that fails, the old one is kept.
    pub fn reopen(&self) {
        let Some(inner) = &self.0 else { return };
        match append(&inner.path) {
            Ok(file) => inner.state.lock().file = file,
            Err(error) => tracing::error!("{error}; continuing with the old one"),
        }
    }
}

fn append(path: &Path) -> Result<File, OpenError> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|cause| OpenError { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests;
