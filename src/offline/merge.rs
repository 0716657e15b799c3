//! Several files into one new store: of each key the latest record.

use std::cell::RefCell;
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Serialize;

use super::error::Error;
use super::output::{Format, Output, folder, refuse_existing};
use super::progress::{self, Progress};
use super::resolve::Resolver;
use super::sorter::SortSpace;
use super::source::{Findings, Kind, Source};
use super::stream::{Merge, Stream};

/// Memory for sorting, in bytes, all sources together.
const MEMORY: usize = 256 << 20;
/// The least of it for one source.
const LEAST_MEMORY: usize = 4 << 20;

/// Most sources of one merge: each has its memory for sorting and its page cache.
const MOST_SOURCES: usize = 64;

/// Which sources will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Any; what is damaged is read as far as it goes.
    Salvage,
    /// A store or backup without a flaw.
    WholeStore,
    /// A store or backup, read as far as it goes.
    AnyStore,
}

/// The result of a merge.
#[derive(Debug, Serialize)]
pub struct Merged {
    /// The new store.
    pub destination: PathBuf,
    /// Records in it, counted when reading it back.
    pub records: u64,
    /// Of those, tombstones.
    pub tombstones: u64,
    /// Whether nothing was lost.
    pub complete: bool,
    /// A report on each source, in the order given.
    pub sources: Vec<SourceReport>,
}

/// A report on one source.
#[derive(Debug, Serialize)]
pub struct SourceReport {
    /// The file.
    pub path: PathBuf,
    /// Its kind.
    pub kind: Kind,
    /// Records read, its redo log counted in.
    pub read: u64,
    /// Records that are in the result.
    pub taken: u64,
    /// Records that are not, because another source has a later one, or an earlier source the same.
    pub older: u64,
    /// Records left out because key or value is none of kumofs'.
    pub malformed: u64,
    /// Records that should be there and could not be read; null if that cannot be known.
    pub lost: Option<u64>,
    /// Damaged parts, a line each.
    pub damage: Vec<String>,
    /// Other remarks, a line each.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    read: u64,
    taken: u64,
}

/// Merges `sources` into a new file at `destination`.
pub fn merge(
    destination: &Path,
    format: Format,
    sources: &[PathBuf],
    policy: Policy,
    progress: &dyn Progress,
) -> Result<Merged, Error> {
    // A mistake should show at once, not after an hour of reading.
    refuse_existing(destination)?;
    refuse_surplus(sources)?;
    let mut sources = sources.iter().map(|path| Source::open(path)).collect::<Result<Vec<_>, _>>()?;
    if policy != Policy::Salvage
        && let Some(source) = sources.iter().find(|source| source.kind() == Kind::TokyoCabinet)
    {
        return Err(Error::NotOurs(source.path.clone()));
    }
    let about: Vec<_> = sources.iter().map(|source| (source.path.clone(), source.kind(), source.overrides())).collect();
    let findings: Vec<_> = sources.iter().map(|_| Rc::new(RefCell::new(Findings::default()))).collect();
    let total: Option<u64> = sources.iter().map(Source::claimed).sum();
    let memory = (MEMORY / (sources.len() + 1)).max(LEAST_MEMORY);
    let space = SortSpace { folder: folder(destination).to_path_buf(), memory };
    // Counts may be damaged; a record has sixteen bytes at least.
    let bytes: u64 = about.iter().filter_map(|(path, ..)| Some(std::fs::metadata(path).ok()?.len())).sum();
    let mut output = Output::create(destination, format, total.unwrap_or(0).min(bytes / 16), space.clone())?;
    let mut streams = Vec::new();
    for (index, (source, findings)) in sources.iter_mut().zip(&findings).enumerate() {
        streams.extend(source.streams(index, &space, progress, findings)?);
    }
    progress.begin("merging", total);
    let tallies = write(Merge::new(streams)?, &about, &mut output, progress)?;
    let reports: Vec<_> = about
        .into_iter()
        .zip(tallies)
        .zip(findings)
        .map(|(((path, kind, _), tally), findings)| report(path, kind, tally, &findings.borrow()))
        .collect();
    let flawed = reports.iter().find(|source| !source.damage.is_empty() || source.malformed > 0);
    if let Some(SourceReport { path, damage, malformed, .. }) = flawed.filter(|_| policy == Policy::WholeStore) {
        let malformed = (*malformed > 0).then(|| format!("{malformed} malformed"));
        let damage = damage.iter().cloned().chain(malformed).collect::<Vec<_>>().join("; ");
        return Err(Error::Damaged { path: path.clone(), damage });
    }
    let sum = output.finish(progress)?;
    Ok(Merged {
        destination: destination.to_path_buf(),
        records: sum.records,
        tombstones: sum.tombstones,
        complete: reports.iter().all(|source| source.damage.is_empty()),
        sources: reports,
    })
}

/// Too many sources, or one twice, by whichever of its names: that is a slip, and SQLite would wait for its own lock.
fn refuse_surplus(sources: &[PathBuf]) -> Result<(), Error> {
    if sources.len() > MOST_SOURCES {
        return Err(Error::TooMany { given: sources.len(), limit: MOST_SOURCES });
    }
    let mut seen = HashSet::new();
    for path in sources {
        // What is not there is named when it is opened.
        if let Ok(file) = std::fs::metadata(path)
            && !seen.insert((file.dev(), file.ino()))
        {
            return Err(Error::Twice(path.clone()));
        }
    }
    Ok(())
}

/// Decides each key and writes what is kept; what each source had of it.
fn write(
    mut stream: Merge<'_>,
    about: &[(PathBuf, Kind, bool)],
    output: &mut Output,
    progress: &dyn Progress,
) -> Result<Vec<Tally>, Error> {
    let mut tallies = vec![Tally::default(); about.len()];
    let mut resolve = Resolver::default();
    let mut current: Option<Box<[u8]>> = None;
    let mut items = 0_u64;
    loop {
        let item = stream.next_item()?;
        if current.is_some() && item.as_ref().map(|item| &item.key) != current.as_ref() {
            let kept = std::mem::take(&mut resolve).end(|source| enter(&mut tallies, source));
            if let (Some(key), Some((source, value))) = (current.take(), kept) {
                tallies.get_mut(source).into_iter().for_each(|tally| tally.taken += 1);
                output.push(key, value)?;
            }
        }
        let Some(item) = item else { return Ok(tallies) };
        let overrides = about.get(item.source).is_some_and(|(_, _, overrides)| *overrides);
        resolve.offer(item.source, item.value, overrides, |source| enter(&mut tallies, source));
        current = Some(item.key);
        items += 1;
        progress::count(items, progress)?;
    }
}

fn enter(tallies: &mut [Tally], source: usize) {
    tallies.get_mut(source).into_iter().for_each(|tally| tally.read += 1);
}

fn report(path: PathBuf, kind: Kind, tally: Tally, findings: &Findings) -> SourceReport {
    SourceReport {
        path,
        kind,
        read: tally.read,
        taken: tally.taken,
        older: tally.read - tally.taken,
        malformed: findings.malformed,
        lost: findings.lost(),
        damage: findings.all_damage(),
        notes: findings.notes.clone(),
    }
}
