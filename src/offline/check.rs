//! Checking a file: reads everything, changes nothing.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Serialize;

use super::error::Error;
use super::progress::{self, Progress};
use super::sorter::SortSpace;
use super::source::{Findings, Kind, Source, plural};
use super::stream::{Merge, Stream};
use crate::ring;
use crate::store::at_rest::{AtRest, StoredCounts};
use crate::wire::{RecordKey, RecordValue};

/// Memory for sorting, in bytes.
const MEMORY: usize = 128 << 20;

/// The result of a check.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// The file.
    pub path: PathBuf,
    /// Its kind.
    pub kind: Kind,
    /// Records that can be read, the redo log counted in, tombstones too.
    pub records: u64,
    /// Of those, tombstones.
    pub tombstones: u64,
    /// Problems, a line each; empty if the file is whole.
    pub problems: Vec<String>,
    /// Remarks that are no problem, a line each.
    pub notes: Vec<String>,
}

/// Counts of records, and of those with a problem.
#[derive(Debug, Default)]
struct Records {
    all: u64,
    tombstones: u64,
    misplaced: u64,
    future: u64,
    duplicates: u64,
}

/// Checks the file at `path`. A record of after the unix second `latest` is one from the future.
pub fn check(path: &Path, latest: u32, progress: &dyn Progress) -> Result<Checked, Error> {
    let mut source = Source::open(path)?;
    let kind = source.kind();
    let mut problems = Vec::new();
    if let Some((store, _)) = source.store() {
        progress.begin("checking the database", None);
        problems.extend(integrity(store, path)?);
    }
    let findings = Rc::new(RefCell::new(Findings::default()));
    let space = SortSpace { folder: std::env::temp_dir(), memory: MEMORY };
    let (claimed, overrides) = (source.claimed(), source.overrides());
    let records = {
        let mut stream = Merge::new(source.streams(0, &space, progress, &findings)?)?;
        progress.begin("checking records", claimed);
        each_record(&mut stream, overrides, latest, progress)?
    };
    let findings = findings.borrow();
    problems.extend(findings.all_damage());
    if let Some((_, Some(claim))) = source.store() {
        problems.extend(against_claim(&findings, claim));
    }
    problems.extend(records.problems(latest));
    for (count, what) in [
        (findings.malformed, "whose key or value is too short"),
        (findings.mismarked, "wrongly marked as deleted, or not marked"),
    ] {
        if count > 0 {
            problems.push(format!("{} {what}", plural(count, "record", "records")));
        }
    }
    let mut notes = findings.notes.clone();
    if findings.log.entries > 0 {
        let entries = plural(findings.log.entries, "write", "writes");
        notes.push(format!("{entries} in the redo log: the store was not closed, and recovers when it is opened"));
    }
    if findings.old > 0 {
        let old = plural(findings.old, "record", "records");
        notes.push(format!("{old} below the floor: they count as absent"));
    }
    let Records { all, tombstones, .. } = records;
    Ok(Checked { path: path.to_path_buf(), kind, records: all, tombstones, problems, notes })
}

fn integrity(store: &AtRest, path: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Store { path: path.to_path_buf(), source };
    let mut found: Vec<_> = store.integrity().map_err(failed)?.iter().map(|line| format!("SQLite: {line}")).collect();
    // In a damaged file the question itself may fail, which says nothing new.
    match store.duplicate_keys() {
        Ok(0) => {}
        Ok(count) => found.push(format!("{} in both tables", plural(count, "key is", "keys are"))),
        Err(_) if !found.is_empty() => {}
        Err(error) => return Err(failed(error)),
    }
    Ok(found)
}

fn each_record(
    stream: &mut Merge<'_>,
    overrides: bool,
    latest: u32,
    progress: &dyn Progress,
) -> Result<Records, Error> {
    let mut records = Records::default();
    let mut item = stream.next_item()?;
    let mut items = 0_u64;
    while let Some(current) = item {
        items += 1;
        progress::count(items, progress)?;
        item = stream.next_item()?;
        if item.as_ref().is_some_and(|next| next.key == current.key) {
            records.duplicates += u64::from(!overrides);
            continue;
        }
        if let Some(value) = &current.value {
            records.see(&current.key, value, latest);
        }
    }
    Ok(records)
}

impl Records {
    fn see(&mut self, key: &[u8], value: &[u8], latest: u32) {
        let (Ok(key), Ok(value)) = (RecordKey::new(key), RecordValue::new(value)) else { return };
        self.all += 1;
        self.tombstones += u64::from(value.is_tombstone());
        self.misplaced += u64::from(ring::hash(key.key()) != key.hash());
        self.future += u64::from(value.clocktime().seconds() > latest);
    }

    fn problems(&self, latest: u32) -> Vec<String> {
        let ahead = format!("with a clocktime after unix second {latest}, in the future");
        [
            (self.duplicates, "whose key occurs more than once"),
            (self.misplaced, "whose hash is not that of their key"),
            (self.future, &*ahead),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", plural(count, "record", "records")))
        .collect()
    }
}

/// The store keeps count of its records: do they agree?
fn against_claim(findings: &Findings, claim: StoredCounts) -> Vec<String> {
    [
        ("records", claim.records, findings.found),
        ("further keys of a hash", claim.collisions, findings.collisions),
        ("tombstones", claim.tombstones, findings.tombstones),
        ("bytes of tombstones", claim.tombstone_bytes, findings.tombstone_bytes),
        ("old records", claim.old, findings.old),
    ]
    .into_iter()
    // Too few records are missing ones, and said already.
    .filter(|(what, claimed, found)| claimed != found && !(*what == "records" && found < claimed))
    .map(|(what, claimed, found)| format!("the store counts {claimed} {what}, there are {found}"))
    .collect()
}
