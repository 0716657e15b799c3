//! Lines of a log on their way to stdout, and what is said of the parts that could not be read.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::binlog::Decoder;
use crate::cli::exit::{Stop, print};

/// Bytes of text that -t keeps at most, whatever -n says.
const KEPT_BYTES: usize = 256 << 20;
/// Bytes of text printed at a time.
const PRINTED_BYTES: usize = 64 << 10;

pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Stop {
    Stop::Failed(format!("{}: {error}", path.display()))
}

/// Says on stderr what was passed over, if anything was.
pub(super) fn report_damage(path: &Path, decoder: &Decoder) -> bool {
    let (bytes, stretches) = (decoder.skipped_bytes(), decoder.damaged_stretches());
    if stretches > 0 {
        print(std::io::stderr(), &format!("{}: damaged: {bytes} bytes in {stretches} places\n", path.display()));
    }
    stretches > 0
}

/// The last lines, as far as memory may hold them.
pub(super) struct Tail {
    count: usize,
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    pub(super) fn new(count: usize) -> Self {
        Self { count, lines: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > self.count || (self.bytes > KEPT_BYTES && self.lines.len() > 1) {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
        }
    }

    pub(super) fn print(&self, printer: &mut Printer) -> Result<(), Stop> {
        self.lines.iter().try_for_each(|line| printer.line(line))
    }
}

/// Lines on their way to stdout. Whoever stops reading them ends the work.
#[derive(Default)]
pub(super) struct Printer {
    text: String,
}

impl Printer {
    pub(super) fn line(&mut self, line: &str) -> Result<(), Stop> {
        self.text.push_str(line);
        if self.text.len() < PRINTED_BYTES { Ok(()) } else { self.flush() }
    }

    pub(super) fn flush(&mut self) -> Result<(), Stop> {
        let mut out = std::io::stdout().lock();
        let written = out.write_all(self.text.as_bytes()).and_then(|()| out.flush());
        self.text.clear();
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Stop::Show(String::new())),
            written => written.map_err(|error| Stop::Failed(format!("stdout: {error}"))),
        }
    }
}
