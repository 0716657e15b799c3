//! Answers of the text protocol: values, and lines.

use crate::gateway::outcome::{Outcome, VERSION};
use crate::gateway::protocol::line::{self, write_number};

/// How a key of a retrieval is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// With the CAS unique.
    unique: bool,
    /// The last one: `END` follows.
    last: bool,
}

impl Value {
    pub(in crate::gateway::protocol) fn new(unique: bool, last: bool) -> Self {
        Self { unique, last }
    }

    /// Whether it is the last of its retrieval.
    pub(in crate::gateway::protocol) fn is_last(self) -> bool {
        self.last
    }

    /// `VALUE <key> <flags> <bytes> [<cas unique>]` and the data, or nothing.
    ///
    /// After a failure, which `broken` remembers, the rest of the retrieval has no answer: a client reads up to the
    /// line of the error.
    pub(in crate::gateway::protocol) fn write(
        self,
        broken: &mut bool,
        key: &[u8],
        outcome: &Outcome<'_>,
        out: &mut Vec<u8>,
    ) {
        if !*broken {
            match outcome {
                Outcome::Found(item) => {
                    out.reserve(key.len().saturating_add(item.data.len()).saturating_add(64));
                    out.extend_from_slice(b"VALUE ");
                    out.extend_from_slice(key);
                    out.push(b' ');
                    write_number(out, item.flags.into());
                    out.push(b' ');
                    write_number(out, item.data.len() as u64);
                    if self.unique {
                        out.push(b' ');
                        write_number(out, item.clocktime.0);
                    }
                    out.extend_from_slice(b"\r\n");
                    out.extend_from_slice(item.data);
                    out.extend_from_slice(b"\r\n");
                }
                Outcome::Failed(failure) => {
                    line::write_line(out, &failure.line());
                    *broken = true;
                }
                _ => {}
            }
        }
        if self.last && !std::mem::take(broken) {
            out.extend_from_slice(b"END\r\n");
        }
    }
}

/// The line of an outcome.
pub(in crate::gateway::protocol) fn write_line(outcome: &Outcome<'_>, out: &mut Vec<u8>) {
    let text = match outcome {
        Outcome::Stored(_) => "STORED",
        Outcome::NotStored => "NOT_STORED",
        Outcome::Exists => "EXISTS",
        Outcome::NotFound | Outcome::Missing => "NOT_FOUND",
        Outcome::Touched(_) | Outcome::Found(_) | Outcome::Created(_) => "TOUCHED",
        Outcome::Deleted => "DELETED",
        Outcome::Done => "OK",
        Outcome::Reset => "RESET",
        Outcome::Version => {
            out.extend_from_slice(b"VERSION ");
            VERSION
        }
        Outcome::Failed(failure) => return line::write_line(out, &failure.line()),
        Outcome::Number(number, _) => {
            write_number(out, *number);
            ""
        }
        Outcome::Stats(stats) => {
            for (name, value) in stats {
                for part in ["STAT ", name, " ", value, "\r\n"] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
            "END"
        }
    };
    line::write_line(out, text);
}
