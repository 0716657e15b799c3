//! Reading a store as an application does: by key, or all of it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::error::Error;
use super::progress::NoProgress;
use super::read_error::ReadError;
use super::sorter::SortSpace;
use super::source::{Findings, Source};
use super::stream::{Item, Merge, Stream};
use crate::clock::ClockTime;
use crate::ring;
use crate::wire::{RecordKey, RecordValue};

/// Memory for sorting what a redo log holds, in bytes; more goes to temporary files.
const MEMORY: usize = 64 << 20;

/// A stored record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key, with the prefix that a gateway may put in front.
    pub key: Vec<u8>,
    /// When the value was written, as the server that coordinated the write counts.
    pub clocktime: ClockTime,
    /// The layout of `data`; see [`client::Value::meta`](crate::client::Value::meta).
    pub meta: u16,
    /// The value's bytes.
    pub data: Vec<u8>,
}

/// A store, or a backup of one, that is open for reading. No server can open it as long as this exists.
pub struct Reader {
    source: Source,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({})", self.source.path.display())
    }
}

impl Reader {
    /// Opens the store at `path`. Fails with [`ReadError::InUse`] while a server, or anybody who writes, has it open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let source = Source::open(path.as_ref())?;
        match source.store() {
            Some(_) => Ok(Self { source }),
            None => Err(Error::NotOurs(path.as_ref().to_path_buf()).into()),
        }
    }

    /// Reads one key; `None` if it is not there.
    ///
    /// After a server was killed this reads its redo log from end to end, up to 512 MiB unless `--redo-limit` says
    /// otherwise. Whoever wants many keys reads all [records](Reader::records) once.
    pub fn get(&self, key: &[u8]) -> Result<Option<Record>, ReadError> {
        let raw = ring::raw_key(key);
        let Some((store, _)) = self.source.store() else { return Ok(None) };
        let failed = |source| Error::Store { path: self.source.path.clone(), source };
        let mut value = store.find(&raw).map_err(failed)?;
        if store.has_log() {
            let read = store.log(|entry| {
                if entry.key == &raw[..] {
                    value = entry.value.map(<[u8]>::to_vec);
                }
                Ok(())
            });
            read.map_err(Error::Open)?;
        }
        match value {
            Some(value) => record(&raw, &value).map_err(|damage| self.damaged(damage)),
            None => Ok(None),
        }
    }

    /// Reads all records, in the order of their hashes as signed numbers. Deleted keys are left out.
    ///
    /// Memory is bounded, whatever the size of the store.
    pub fn records(&mut self) -> Result<Records<'_>, ReadError> {
        let path = self.source.path.clone();
        let findings = Rc::new(RefCell::new(Findings::default()));
        let space = SortSpace { folder: std::env::temp_dir(), memory: MEMORY };
        let merge = Merge::new(self.source.streams(0, &space, &NoProgress, &findings)?)?;
        Ok(Records { path, state: State::Reading(Box::new(Reading { merge, next: None, findings })) })
    }

    fn damaged(&self, damage: String) -> ReadError {
        Error::Damaged { path: self.source.path.clone(), damage }.into()
    }
}

/// The records of a store, one after another.
///
/// The readable records of a damaged store come first; then one error says what is missing, and ends it. A program that has not
/// seen an error has seen everything.
pub struct Records<'r> {
    path: PathBuf,
    state: State<'r>,
}

enum State<'r> {
    Reading(Box<Reading<'r>>),
    Ended,
}

struct Reading<'r> {
    merge: Merge<'r>,
    /// The item that showed that the one before it was the last of its key.
    next: Option<Item>,
    findings: Rc<RefCell<Findings>>,
}

impl std::fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Records({})", self.path.display())
    }
}

impl Reading<'_> {
    /// The next live record.
    fn next_record(&mut self) -> Result<Option<Record>, Error> {
        while let Some(item) = self.next_item()? {
            let found = item.value.as_deref().map_or(Ok(None), |value| record(&item.key, value));
            match found {
                Ok(Some(record)) => return Ok(Some(record)),
                Ok(None) => {}
                Err(damage) => self.findings.borrow_mut().damage.push(damage),
            }
        }
        Ok(None)
    }

    /// The last item of the next key: what a redo log has comes after what the tables have.
    fn next_item(&mut self) -> Result<Option<Item>, Error> {
        let Some(mut item) = (match self.next.take() {
            Some(item) => Some(item),
            None => self.merge.next_item()?,
        }) else {
            return Ok(None);
        };
        while let Some(next) = self.merge.next_item()? {
            if next.key != item.key {
                self.next = Some(next);
                break;
            }
            item = next;
        }
        Ok(Some(item))
    }

    /// A line about everything that could not be read.
    fn damage(&self) -> Option<String> {
        let findings = self.findings.borrow();
        let mut damage = findings.all_damage();
        if findings.malformed > 0 {
            damage.push(format!("{} records that are none", findings.malformed));
        }
        (!damage.is_empty()).then(|| damage.join("; "))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let State::Reading(reading) = &mut self.state else { return None };
        let failed = match reading.next_record() {
            Ok(Some(record)) => return Some(Ok(record)),
            Ok(None) => reading.damage().map(|damage| Error::Damaged { path: self.path.clone(), damage }),
            Err(error) => Some(error),
        };
        self.state = State::Ended;
        failed.map(|error| Err(error.into()))
    }
}

/// The live record of a raw key and value; `None` for a tombstone. The error says what is wrong with it.
fn record(key: &[u8], value: &[u8]) -> Result<Option<Record>, String> {
    let malformed = |_| "a record whose key or value is too short".to_owned();
    let (key, value) = (RecordKey::new(key).map_err(malformed)?, RecordValue::new(value).map_err(malformed)?);
    Ok((!value.is_tombstone()).then(|| Record {
        key: key.key().to_vec(),
        clocktime: value.clocktime(),
        meta: value.meta(),
        data: value.data().to_vec(),
    }))
}
