//! The memcached protocols: bytes to requests, outcomes to bytes. Knows neither sockets nor the cluster.
//!
//! A [`Codec`] serves one connection. It is given what has been read and yields one request at a time; a multi-get is
//! one request for each of its keys and one for its end. Every request has exactly one [`Form`], and the answers are
//! written in the order of the requests: that is all the engine has to know about a protocol.

mod binary;
mod foreign;
mod line;
mod meta;
mod section;
mod text;

use std::borrow::Cow;

use super::change::Change;
use super::item::Rules;
use super::outcome::{Failure, Outcome};
pub use section::Section;

/// Longest key, in bytes.
const KEY_LIMIT: usize = 250;

/// What lies at the front of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// No whole request yet: the input must grow to at least `needed` bytes, which is always more than it has.
    NotYet {
        /// Bytes in all, from the front of the input.
        needed: usize,
    },
    /// A request.
    Request {
        /// Bytes to drop from the front of the input. May be more than there are, if a value is refused for its
        /// length: what is missing is to be dropped as it arrives.
        length: usize,
        /// What is wanted.
        request: Request<'a>,
    },
}

/// A request of a client.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// What to do.
    pub task: Task<'a>,
    /// How to answer.
    pub form: Form,
    /// Whether the connection ends once this is answered. Nothing behind it is a request.
    pub close: bool,
}

/// What a request wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Task<'a> {
    /// Read an item: [`Outcome::Found`] or [`Outcome::Missing`].
    Get {
        /// The application's key, up to 250 bytes.
        key: Cow<'a, [u8]>,
    },
    /// Change an item.
    Change {
        /// The application's key, up to 250 bytes.
        key: Cow<'a, [u8]>,
        /// How.
        change: Change<'a>,
    },
    /// Counters or settings: [`Outcome::Stats`], [`Outcome::Reset`] for [`Section::Reset`].
    Stats {
        /// Which of them.
        section: Section,
    },
    /// Forget everything, [`Outcome::Done`].
    Flush {
        /// In this many seconds.
        delay: i64,
    },
    /// The answer is known.
    Answer(Outcome<'static>),
}

/// How an outcome is written. Small, owns what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// A key of a retrieval in the text protocol.
    Value(text::Value),
    /// One line of the text protocol.
    Line {
        /// `noreply`: no answer, not even of a failure.
        quiet: bool,
    },
    /// A meta command.
    Meta(Box<meta::Form>),
    /// A packet.
    Packet(binary::Form),
    /// Nothing at all.
    Silent,
}

/// Writes the answers of one connection, in the order of its requests.
#[derive(Debug, Default)]
pub struct Writer {
    /// A key of this multi-get has failed. Its answer ended with the error: clients read no further.
    broken: bool,
}

impl Writer {
    /// Writes the answer, if this outcome has one in this form. `key` is the request's key as the application gave
    /// it, empty if there is none; `now` is in unix seconds.
    pub fn write(&mut self, form: &Form, key: &[u8], outcome: &Outcome<'_>, now: u32, out: &mut Vec<u8>) {
        match form {
            Form::Value(value) => value.write(&mut self.broken, key, outcome, out),
            Form::Line { quiet: false } => text::write_line(outcome, out),
            Form::Meta(form) => form.write(key, outcome, now, out),
            Form::Packet(form) => form.write(key, outcome, out),
            Form::Line { quiet: true } | Form::Silent => {}
        }
    }
}

/// An answer that was known, and written, before its turn had come.
#[derive(Debug)]
pub struct Early {
    bytes: Vec<u8>,
    /// The form, if what came before may keep it from being sent.
    value: Option<text::Value>,
    broken: bool,
}

impl Early {
    /// Writes the answer of a request; see [`Writer::write`].
    pub fn new(form: &Form, key: &[u8], outcome: &Outcome<'_>, now: u32) -> Self {
        let (mut writer, mut bytes) = (Writer::default(), Vec::new());
        writer.write(form, key, outcome, now, &mut bytes);
        let value = if let Form::Value(value) = form { Some(*value) } else { None };
        Self { bytes, value, broken: writer.broken }
    }

    /// Bytes of the answer.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no answer.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Writer {
    /// Appends an answer that was written before, now that its turn has come.
    pub fn append(&mut self, early: Early, out: &mut Vec<u8>) {
        match early.value {
            Some(value) if self.broken => self.broken = !value.is_last(),
            _ => {
                if out.is_empty() {
                    *out = early.bytes;
                } else {
                    out.extend_from_slice(&early.bytes);
                }
                self.broken = early.broken;
            }
        }
    }
}

/// Takes apart what one connection sends.
#[derive(Debug, Default)]
pub struct Codec {
    /// Decided by the first byte.
    binary: Option<bool>,
    text: text::State,
}

impl Codec {
    /// A codec for a new connection: its first byte decides between binary and text.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next request at the front of `input`.
    ///
    /// `input` must begin where the last request ended, and have grown if this has said [`Next::NotYet`].
    pub fn next<'a>(&mut self, input: &'a [u8], rules: &Rules) -> Next<'a> {
        let Some(first) = input.first() else { return Next::NotYet { needed: 1 } };
        match self.binary {
            None if *first != binary::REQUEST && foreign::is_binary(*first) => {
                Next::Request { length: input.len(), request: Request::hang_up() }
            }
            known if known.unwrap_or(*first == binary::REQUEST) => {
                self.binary = Some(true);
                binary::next(input, rules)
            }
            _ => {
                self.binary = Some(false);
                self.text.next(input, rules)
            }
        }
    }
}

impl From<section::Asked> for Task<'_> {
    fn from(asked: section::Asked) -> Self {
        match asked {
            section::Asked::Section(section) => Self::Stats { section },
            section::Asked::Answer(outcome) => Self::Answer(outcome),
        }
    }
}

impl<'a> Request<'a> {
    /// A request that does not end the connection.
    fn new(task: Task<'a>, form: Form) -> Self {
        Self { task, form, close: false }
    }

    /// A request that is refused.
    fn refused(failure: Failure, form: Form) -> Self {
        Self::new(Task::Answer(Outcome::Failed(failure)), form)
    }

    /// A write that is refused, and takes what was there with it.
    fn discard(key: impl Into<Cow<'a, [u8]>>, refused: Failure, form: Form) -> Self {
        Self::new(Task::Change { key: key.into(), change: Change::Discard { refused } }, form)
    }

    /// A request that is not understood and ends the connection, without a word.
    fn hang_up() -> Self {
        Self::new(Task::Answer(Outcome::Done), Form::Silent).closing()
    }

    /// The same, with the connection's end.
    fn closing(self) -> Self {
        Self { close: true, ..self }
    }
}

#[cfg(test)]
mod tests;
