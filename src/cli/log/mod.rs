//! `log`: binary logs as text or JSON.

mod follow;
mod output;
mod render;

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Parser};

use crate::binlog::{Entries, Entry};
use crate::cli::args::{Call, parse};
use crate::cli::exit::{LOSSES, Stop};
use output::{Printer, Tail, report_damage, unreadable};

/// How many records -t and -h show.
const USUAL_LINES: usize = 10;
/// Prints binary logs (-g) as text, a line for each record
///
/// Reads those of servers, managers and gateways, ours and the original's. What is damaged is passed over and counted on
/// stderr.
#[derive(Debug, Parser)]
#[command(
    disable_help_flag = true,
    after_help = "Exit status: 0 all was read, 3 some of it was damaged, 1 not readable, 2 a mistake in the arguments."
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Args {
    /// The log
    file: PathBuf,

    /// Go on printing what is appended, also after the file has been rotated or truncated
    #[arg(short, long)]
    follow: bool,

    /// Only the last records
    #[arg(short, long, conflicts_with = "head")]
    tail: bool,

    /// Only the first records
    #[arg(short = 'h', long, conflicts_with = "follow")]
    head: bool,

    /// How many with -t or -h; by itself as with -t [default: 10]
    #[arg(short = 'n', long, value_name = "N", allow_hyphen_values = true, value_parser = lines)]
    lines: Option<usize>,

    /// Print each record as a JSON object
    #[arg(long)]
    json: bool,

    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    let line = |entry: &Entry| if args.json { render::json(entry) } else { render::text(entry) };
    let count = args.lines.unwrap_or(USUAL_LINES);
    let tail = args.tail || (args.lines.is_some() && !args.head);
    if args.follow {
        return follow::follow(&args.file, tail.then_some(count), line);
    }
    let failed = |error: std::io::Error| unreadable(&args.file, &error);
    let mut printer = Printer::default();
    let mut entries = Entries::new(File::open(&args.file).map_err(failed)?);
    if args.head {
        // Whoever asks for the beginning has not asked what the rest is like.
        for entry in entries.by_ref().take(count) {
            printer.line(&line(&entry.map_err(failed)?))?;
        }
    } else if tail {
        let mut last = Tail::new(count);
        for entry in entries.by_ref() {
            last.push(line(&entry.map_err(failed)?));
        }
        last.print(&mut printer)?;
    } else {
        for entry in entries.by_ref() {
            printer.line(&line(&entry.map_err(failed)?))?;
        }
    }
    printer.flush()?;
    Ok(if report_damage(&args.file, entries.decoder()) { ExitCode::from(LOSSES) } else { ExitCode::SUCCESS })
}

/// A number of lines; the original takes it with or without a dash.
fn lines(text: &str) -> Result<usize, String> {
    let count: Result<usize, _> = text.strip_prefix('-').unwrap_or(text).parse();
    count.map_err(|_| "not a number of records".to_owned())
}
