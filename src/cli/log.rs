//! `log`: binary logs as text or JSON.

mod follow;
mod render;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgAction, Parser};

use super::parse::{Call, Stop, parse};
use crate::binlog::{Decoder, Entries, Entry};

/// Exit status when part of a file was damaged.
const LOSSES: u8 = 3;
/// How many records -t and -h show.
const USUAL_LINES: usize = 10;
/// Bytes of text that -t keeps at most, whatever -n says.
const KEPT_BYTES: usize = 256 << 20;
/// Bytes of text printed at a time.
const PRINTED_BYTES: usize = 64 << 10;

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

fn unreadable(path: &Path, error: &std::io::Error) -> Stop {
    Stop::Failed(format!("{}: {error}", path.display()))
}

/// Says on stderr what was passed over, if anything was.
fn report_damage(path: &Path, decoder: &Decoder) -> bool {
    let (bytes, stretches) = (decoder.skipped_bytes(), decoder.damaged_stretches());
    if stretches > 0 {
        super::print(std::io::stderr(), &format!("{}: damaged: {bytes} bytes in {stretches} places\n", path.display()));
    }
    stretches > 0
}

/// The last lines, as far as memory may hold them.
struct Tail {
    count: usize,
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    fn new(count: usize) -> Self {
        Self { count, lines: VecDeque::new(), bytes: 0 }
    }

    fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > self.count || (self.bytes > KEPT_BYTES && self.lines.len() > 1) {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
        }
    }

    fn print(&self, printer: &mut Printer) -> Result<(), Stop> {
        self.lines.iter().try_for_each(|line| printer.line(line))
    }
}

/// Lines on their way to stdout. Whoever stops reading them ends the work.
#[derive(Default)]
struct Printer {
    text: String,
}

impl Printer {
    fn line(&mut self, line: &str) -> Result<(), Stop> {
        self.text.push_str(line);
        if self.text.len() < PRINTED_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        let mut out = std::io::stdout().lock();
        let written = out.write_all(self.text.as_bytes()).and_then(|()| out.flush());
        self.text.clear();
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Stop::Show(String::new())),
            written => written.map_err(|error| Stop::Failed(format!("stdout: {error}"))),
        }
    }
}
