//! `mergedb` and `restore`: stores, backups and databases of 2010 into one new store.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use super::args::{Call, parse};
use super::exit::{LOSSES, Stop};
use super::tool::Bar;
use super::tool::Interrupt;
use super::tool::{json_text, show};
use crate::life;
use crate::offline::{Error, Format, Merged, Policy, SourceReport, merge};

/// The end of `--help`.
const STATUSES: &str = "Exit status: 0 complete, 3 made from damaged files with losses, which are listed, 1 failed and \
                        nothing made, 2 a mistake in the arguments, 130 or 143 ended by a signal and nothing made.";

/// Merges stores, backups and Tokyo Cabinet files of 2010 into a new store, the latest record of each key
///
/// Servers of the files must be stopped; what a crash has left in a redo log is counted in. Deletions take part like any
/// write. The result is read back before it gets its name, and opens with kumo-server -s. A damaged file is read as far
/// as it goes.
#[derive(Debug, Parser)]
#[command(after_help = STATUSES)]
pub(super) struct MergeArgs {
    /// The new store; must not exist
    #[arg(value_name = "DST")]
    destination: PathBuf,

    /// Files to merge; of equal records the first one's is taken
    #[arg(value_name = "SRC", required = true)]
    sources: Vec<PathBuf>,

    /// Format of DST
    #[arg(long, value_name = "WHAT", default_value = "store")]
    format: As,

    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum As {
    /// A store of this program
    Store,
    /// A Tokyo Cabinet file for servers of 2010, as upstream's library writes it (little-endian)
    TokyoCabinet,
    /// The same as Debian's library writes it
    TokyoCabinetBigEndian,
}

/// Makes a store from a backup
///
/// The backup is read as a whole and not changed; the store is read back before it gets its name.
#[derive(Debug, Parser)]
#[command(after_help = STATUSES)]
pub(super) struct RestoreArgs {
    /// A backup, or a store that nobody has open
    backup: PathBuf,

    /// The new store; must not exist
    store: PathBuf,

    /// Take what can be read of a damaged backup
    #[arg(long)]
    force: bool,

    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: MergeArgs = parse(call, |command| command)?;
    let format = match args.format {
        As::Store => Format::Store,
        As::TokyoCabinet => Format::TokyoCabinet { big_endian: false },
        As::TokyoCabinetBigEndian => Format::TokyoCabinet { big_endian: true },
    };
    make(&args.destination, format, &args.sources, Policy::Salvage, args.json)
}

pub(super) fn restore(call: &Call) -> Result<ExitCode, Stop> {
    let args: RestoreArgs = parse(call, |command| command)?;
    let policy = if args.force { Policy::AnyStore } else { Policy::WholeStore };
    make(&args.store, Format::Store, &[args.backup], policy, args.json)
}

fn make(destination: &Path, format: Format, sources: &[PathBuf], policy: Policy, json: bool) -> Result<ExitCode, Stop> {
    life::raise_limit();
    let interrupt = Interrupt::watch()?;
    let merged = merge(destination, format, sources, policy, &Bar::new(interrupt.flag()));
    let merged = match merged {
        Err(Error::Stopped) => return Ok(interrupt.status()),
        Err(error @ Error::Damaged { .. }) => {
            return Err(Stop::Failed(format!("{error}; --force takes what can be read")));
        }
        merged => merged.map_err(|error| Stop::Failed(error.to_string()))?,
    };
    let text = if json { json_text(&merged)? } else { summary(&merged) };
    show(text.as_bytes())?;
    Ok(if merged.complete { ExitCode::SUCCESS } else { ExitCode::from(LOSSES) })
}

fn summary(merged: &Merged) -> String {
    let mut text = String::new();
    for source in &merged.sources {
        let SourceReport { path, kind, read, taken, older, malformed, lost, damage, notes } = source;
        let path = path.display();
        let _ = write!(text, "{path}: {kind}, {read} records read, {taken} taken, {older} not newer");
        if *malformed > 0 {
            let _ = write!(text, ", {malformed} malformed");
        }
        match lost {
            Some(0) => {}
            Some(lost) => drop(write!(text, ", {lost} lost")),
            None => text.push_str(", some lost"),
        }
        text.push('\n');
        for line in damage {
            let _ = writeln!(text, "{path}: damaged: {line}");
        }
        for line in notes {
            let _ = writeln!(text, "{path}: {line}");
        }
    }
    let Merged { destination, records, tombstones, .. } = merged;
    let _ = writeln!(text, "{}: {records} records, {tombstones} of them deletions; verified", destination.display());
    text
}
