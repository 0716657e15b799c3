//! A file with records, of whichever kind, as a stream in the store's order; and what was found wrong on the way.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Serialize;

use super::error::Error;
use super::progress::{self, Progress};
use super::sorter::{SortSpace, Sorter};
use super::stream::{Item, Stream};
use crate::store::at_rest::{AtRest, Gaps, LogEnd, Rows, StoredCounts};
use crate::tokyo::{self, Scan};
use crate::wire::{RecordKey, RecordValue};

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A store or a backup of one.
    Store,
    /// A database of 2010.
    TokyoCabinet,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Store => "store",
            Self::TokyoCabinet => "Tokyo Cabinet",
        })
    }
}

/// A file that is open.
pub(super) struct Source {
    pub(super) path: PathBuf,
    inner: Inner,
}

enum Inner {
    Store(Box<AtRest>),
    Tokyo(Box<Scan<File>>),
}

/// Counts and problems found while reading a source.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Records found in it, before its log and whatever their shape.
    pub(super) found: u64,
    /// Of a store: those in the table of further keys, tombstones, and the bytes of their keys.
    pub(super) collisions: u64,
    pub(super) tombstones: u64,
    pub(super) tombstone_bytes: u64,
    /// Of a store: those below its floor, which count as absent.
    pub(super) old: u64,
    /// Rows marked as a tombstone that are none, or the other way round, or of another second.
    pub(super) mismarked: u64,
    /// Records whose key or value is none of the protocol's.
    pub(super) malformed: u64,
    /// Damaged parts; a line each.
    pub(super) damage: Vec<String>,
    /// Remarks that are no damage; a line each.
    pub(super) notes: Vec<String>,
    /// The redo log, if there was one.
    pub(super) log: LogEnd,
    gaps: Gaps,
    tokyo: tokyo::Damage,
    /// Records that should have been there.
    claimed: Option<u64>,
}

impl Findings {
    /// Records that should be there and were not found; `None` if that cannot be known.
    pub(super) fn lost(&self) -> Option<u64> {
        let lost = self.claimed.map(|claimed| claimed.saturating_sub(self.found));
        // Damage that costs nothing by a count that may be damaged itself proves nothing.
        if lost == Some(0) && !self.damage.is_empty() { None } else { lost }
    }

    /// Everything that is wrong, when all has been read.
    pub(super) fn all_damage(&self) -> Vec<String> {
        let mut lines = self.damage.clone();
        if self.gaps.stretches > 0 {
            lines.push(format!(
                "{} where the database is damaged",
                plural(self.gaps.stretches, "range of hashes", "ranges of hashes")
            ));
        }
        if self.gaps.rows > 0 {
            lines.push(format!("{} whose columns are damaged", plural(self.gaps.rows, "row", "rows")));
        }
        if self.tokyo.stretches > 0 {
            let stretches = plural(self.tokyo.stretches, "damaged stretch", "damaged stretches");
            lines.push(format!("{stretches}, {} bytes", self.tokyo.bytes));
        }
        if let Some(lost @ 1..) = self.claimed.map(|claimed| claimed.saturating_sub(self.found)) {
            lines.push(format!("{} missing", plural(lost, "record is", "records are")));
        }
        lines
    }
}

/// A number with its noun.
pub(super) fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let mut head = Vec::new();
        // What cannot be opened is named by the store.
        let _ = File::open(path).and_then(|file| file.take(tokyo::MAGIC.len() as u64).read_to_end(&mut head));
        let inner = if head == tokyo::MAGIC {
            let failed = |source| Error::Tokyo { path: path.to_path_buf(), source };
            let file = File::open(path).map_err(|error| failed(error.into()))?;
            Inner::Tokyo(Box::new(Scan::new(file).map_err(failed)?))
        } else {
            Inner::Store(Box::new(AtRest::open(path)?))
        };
        Ok(Self { path: path.to_path_buf(), inner })
    }

    pub(super) fn kind(&self) -> Kind {
        match self.inner {
            Inner::Store(_) => Kind::Store,
            Inner::Tokyo(_) => Kind::TokyoCabinet,
        }
    }

    /// Whether what a source says of a key later takes back what it has said before: a log does.
    pub(super) fn overrides(&self) -> bool {
        self.kind() == Kind::Store
    }

    /// Of a store: what it says that it holds, and the file itself.
    pub(super) fn store(&self) -> Option<(&AtRest, Option<StoredCounts>)> {
        match &self.inner {
            Inner::Store(store) => Some((store, store.claim())),
            Inner::Tokyo(_) => None,
        }
    }

    /// How many records it should have.
    pub(super) fn claimed(&self) -> Option<u64> {
        match &self.inner {
            Inner::Store(store) => store.claim().map(|claim| claim.records),
            Inner::Tokyo(scan) => Some(scan.header().records),
        }
    }

    /// Its records in order, as source number `index`. What is not in order is sorted first, within `space`.
    pub(super) fn streams(
        &mut self,
        index: usize,
        space: &SortSpace,
        progress: &dyn Progress,
        findings: &Rc<RefCell<Findings>>,
    ) -> Result<Vec<Box<dyn Stream + '_>>, Error> {
        findings.borrow_mut().claimed = self.claimed();
        let path = &self.path;
        let mut feed = Feed { sorter: Sorter::new(space.clone(), index), findings, progress, count: 0 };
        match &mut self.inner {
            Inner::Tokyo(scan) => {
                progress.begin(&format!("reading {}", path.display()), Some(scan.header().records));
                findings.borrow_mut().damage.extend(scan.header().problems.iter().filter_map(
                    |problem| match problem {
                        tokyo::Problem::NotClosed => None,
                        problem => Some(problem.to_string()),
                    },
                ));
                if scan.header().problems.contains(&tokyo::Problem::NotClosed) {
                    findings.borrow_mut().notes.push(tokyo::Problem::NotClosed.to_string());
                }
                let failed = |source| Error::Io { path: path.clone(), source };
                while let Some((key, value)) = scan.next_record().map_err(failed)? {
                    findings.borrow_mut().found += 1;
                    feed.push(key, 0, Some(value))?;
                }
                findings.borrow_mut().tokyo = scan.damage();
                Ok(vec![Box::new(feed.sorter.finish()?)])
            }
            Inner::Store(store) => {
                let mut streams: Vec<Box<dyn Stream + '_>> = Vec::new();
                if store.has_log() {
                    progress.begin(&format!("reading the redo log of {}", path.display()), None);
                    let mut stopped = None;
                    let end = store.log(|entry| {
                        feed.push(entry.key, entry.sequence, entry.value).map_err(|error| {
                            let text = error.to_string();
                            stopped = Some(error);
                            std::io::Error::other(text)
                        })
                    });
                    if let Some(error) = stopped {
                        return Err(error);
                    }
                    let mut findings = findings.borrow_mut();
                    match end {
                        Ok(end) => {
                            findings.log = end;
                            if end.unfinished_bytes > 0 {
                                let bytes = end.unfinished_bytes;
                                findings.notes.push(format!("{bytes} bytes of the redo log were never acknowledged"));
                            }
                        }
                        Err(error) => findings.damage.push(format!("redo log: {error}")),
                    }
                    streams.push(Box::new(feed.sorter.finish()?));
                }
                for (table, rows) in store.tables().into_iter().enumerate() {
                    let findings = findings.clone();
                    streams.push(Box::new(Table { rows, path: path.clone(), index, collisions: table > 0, findings }));
                }
                Ok(streams)
            }
        }
    }
}

/// Sorts records while they are read.
struct Feed<'a> {
    sorter: Sorter,
    findings: &'a Rc<RefCell<Findings>>,
    progress: &'a dyn Progress,
    count: u64,
}

impl Feed<'_> {
    fn push(&mut self, key: &[u8], order: u64, value: Option<&[u8]>) -> Result<(), Error> {
        self.count += 1;
        progress::count(self.count, self.progress)?;
        if !well_formed(key, value) {
            self.findings.borrow_mut().malformed += 1;
            return Ok(());
        }
        // Without a log's numbers, the file's order is as good as any.
        let order = if order == 0 { self.count } else { order };
        self.sorter.push(key, order, value).map_err(|source| Error::Io { path: "temporary file".into(), source })
    }
}

fn well_formed(key: &[u8], value: Option<&[u8]>) -> bool {
    RecordKey::new(key).is_ok() && value.is_none_or(|value| RecordValue::new(value).is_ok())
}

/// A table of a store.
struct Table<'c> {
    rows: Rows<'c>,
    path: PathBuf,
    index: usize,
    collisions: bool,
    findings: Rc<RefCell<Findings>>,
}

impl Stream for Table<'_> {
    fn next_item(&mut self) -> Result<Option<Item>, Error> {
        let failed = |source| Error::Store { path: self.path.clone(), source };
        while let Some(row) = self.rows.next_row().map_err(failed)? {
            let mut findings = self.findings.borrow_mut();
            findings.found += 1;
            findings.collisions += u64::from(self.collisions);
            findings.old += u64::from(row.old);
            let Some(value) = RecordValue::new(&row.value).ok().filter(|_| well_formed(&row.key, None)) else {
                findings.malformed += 1;
                continue;
            };
            let deleted = value.is_tombstone().then(|| i64::from(value.clocktime().seconds()));
            findings.mismarked += u64::from(row.deleted != deleted);
            if value.is_tombstone() {
                findings.tombstones += 1;
                findings.tombstone_bytes += row.key.len() as u64;
            }
            if row.old {
                continue;
            }
            return Ok(Some(Item { key: row.key, source: self.index, order: 0, value: Some(row.value) }));
        }
        let mut findings = self.findings.borrow_mut();
        findings.gaps = findings.gaps + self.rows.take_gaps();
        Ok(None)
    }
}
