//! `check`: looks for damage in a store, a backup or a database of 2010.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Parser;

use super::args::values::seconds;
use super::args::{Call, parse};
use super::exit::Stop;
use super::tool::Bar;
use super::tool::{json_text, show};
use crate::clock::unix_seconds;
use crate::offline;

/// Reads a store, a backup or a Tokyo Cabinet file as a whole and says what is wrong with it
///
/// Nothing is changed. The file's server must be stopped; of a running one, check a backup. Checked are SQLite's own
/// structure, the redo log's checksums, the shape of every record, that its hash is that of its key, that no key is
/// there twice, that no clocktime lies in the future, and that the store's counts of its records are right.
#[derive(Debug, Parser)]
#[command(after_help = "Exit status: 0 no problem, 1 problems, which are listed, or not readable, 2 a mistake in the \
                        arguments.")]
pub(super) struct Args {
    /// The file
    file: PathBuf,

    /// How far ahead of this machine's time a clocktime may be
    #[arg(long, value_name = "SEC", default_value = "60", value_parser = seconds)]
    margin: Duration,

    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    let margin = u32::try_from(args.margin.as_secs()).unwrap_or(u32::MAX);
    // It leaves nothing to put in order: signals have their usual effect.
    let never = AtomicBool::new(false);
    let checked = offline::check(&args.file, unix_seconds().saturating_add(margin), &Bar::new(&never))
        .map_err(|error| Stop::Failed(error.to_string()))?;
    let text = if args.json {
        json_text(&checked)?
    } else {
        let path = checked.path.display();
        let lines = checked.problems.iter().map(|line| format!("{path}: problem: {line}\n"));
        let lines = lines.chain(checked.notes.iter().map(|line| format!("{path}: {line}\n")));
        let verdict = match checked.problems.len() {
            0 => "no problem".to_owned(),
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        };
        let (kind, records, tombstones) = (checked.kind, checked.records, checked.tombstones);
        let summary = format!("{path}: {kind}, {records} records, {tombstones} of them deletions; {verdict}\n");
        lines.chain([summary]).collect()
    };
    show(text.as_bytes())?;
    Ok(if checked.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
