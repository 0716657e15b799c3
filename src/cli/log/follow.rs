//! Printing a log while it grows, through rotation and truncation.

use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::output::{Printer, Tail, report_damage, unreadable};
use crate::binlog::{Decoder, Entry};
use crate::cli::exit::Stop;
use crate::cli::tool::Interrupt;

/// Interval of polling the file.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Bytes read at a time.
const CHUNK: u64 = 1 << 20;

/// Prints the log at `path` and what is appended to it, until a signal comes or nobody reads any more.
///
/// With `tail`, of what is there at the beginning only that many records. A file that is not there is waited for once it
/// has been there: logrotate takes a moment.
pub(super) fn follow(path: &Path, tail: Option<usize>, line: impl Fn(&Entry) -> String) -> Result<ExitCode, Stop> {
    let interrupt = Interrupt::watch()?;
    let failed = |error: std::io::Error| unreadable(path, &error);
    let mut reading = Reading::open(path).map_err(failed)?;
    let mut printer = Printer::default();
    if let Some(count) = tail {
        let mut last = Tail::new(count);
        while reading.more().map_err(failed)? {
            while let Some(entry) = reading.decoder.next_entry() {
                last.push(line(&entry));
            }
        }
        last.print(&mut printer)?;
    }
    loop {
        let more = reading.more().map_err(failed)?;
        while let Some(entry) = reading.decoder.next_entry() {
            printer.line(&line(&entry))?;
        }
        printer.flush()?;
        if more {
            continue;
        }
        if interrupt.flag().load(std::sync::atomic::Ordering::Relaxed) {
            report_damage(path, &reading.decoder);
            return Ok(interrupt.status());
        }
        match std::fs::metadata(path) {
            Ok(now) if reading.is_over(&now) => {
                // What was appended between the last look and the rotation.
                while reading.more().map_err(failed)? {}
                while let Some(entry) = reading.decoder.next_at_end() {
                    printer.line(&line(&entry))?;
                }
                printer.flush()?;
                report_damage(path, &reading.decoder);
                reading = Reading::open(path).map_err(failed)?;
            }
            _ => std::thread::sleep(POLL_INTERVAL),
        }
    }
}

/// A file and how far it is read.
struct Reading {
    file: File,
    id: (u64, u64),
    read: u64,
    decoder: Decoder,
}

impl Reading {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let id = identity(&file.metadata()?);
        Ok(Self { file, id, read: 0, decoder: Decoder::default() })
    }

    /// Gives the decoder what there is; false if there was nothing.
    fn more(&mut self) -> std::io::Result<bool> {
        let mut chunk = Vec::new();
        self.file.seek(SeekFrom::Start(self.read))?;
        let read = self.file.by_ref().take(CHUNK).read_to_end(&mut chunk)?;
        self.read += read as u64;
        self.decoder.push(&chunk);
        Ok(read > 0)
    }

    /// Whether the name stands for another file now, or this one has been cut.
    fn is_over(&self, now: &Metadata) -> bool {
        identity(now) != self.id || now.len() < self.read
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
