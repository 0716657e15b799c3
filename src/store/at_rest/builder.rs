//! Making a store from records that come in order: no cache, no log, each page written once.

use crate::clock::{Clock, ClockTime};
use crate::store::error::{Error, OpenError};
use crate::store::identity::random_id;
use crate::store::newest::{Newest, is_low};
use crate::store::paths::side_path;
use crate::store::tree::{self, MergeRow, Tally, Writer};
use crate::wire::RecordValue;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A store being made. It is none before [`Builder::finish`].
pub struct Builder {
    path: PathBuf,
    writer: Writer,
    clock: Clock,
    newest: Newest,
    low_seconds: u32,
}

impl Builder {
    /// Begins a store in the file at `path`, which is empty or not there.
    pub fn create(path: &Path) -> Result<Self, OpenError> {
        let connection = tree::make(path, random_id())?;
        let tally = Tally { redo_from: 1, clean: true, ..Tally::default() };
        let writer = Writer::new(connection, tally, side_path(path, "-wal"))
            .map_err(|source| OpenError::Sqlite { path: path.to_path_buf(), source })?;
        let clock = Clock::with_time(0, || 0);
        Ok(Self { path: path.to_path_buf(), writer, clock, newest: Newest::default(), low_seconds: 0 })
    }

    /// Adds records (raw key, raw value or tombstone), all behind those before by [`tree_order`](super::tree_order).
    pub fn append<'a>(&mut self, records: impl Iterator<Item = (&'a [u8], RecordValue<'a>)>) -> Result<(), Error> {
        let (clock, newest, low_seconds) = (&self.clock, &mut self.newest, &mut self.low_seconds);
        let rows = records.map(|(key, value)| {
            let time: ClockTime = value.clocktime();
            clock.observe(time);
            newest.include(time);
            if is_low(time) {
                *low_seconds = (*low_seconds).max(time.seconds());
            }
            MergeRow { key, value: value.bytes(), generation: 0 }
        });
        self.writer.append(rows).map_err(Error::failed)
    }

    /// Completes the store, and returns when it is durable. The name is the caller's business.
    pub fn finish(self) -> Result<(), Error> {
        let Self { path, writer, clock, newest, low_seconds } = self;
        let seal = writer.seal(|tally| {
            (tally.clock, tally.newest, tally.low_seconds) = (clock.peek(), newest, low_seconds);
        });
        seal.and_then(|()| writer.close(true)).map_err(Error::failed)?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(Error::failed)
    }
}
