//! Answers: outcomes to bytes, in the form that a request asks for. Knows no request.

pub(super) mod binary;
pub(super) mod meta;
pub(super) mod text;

use crate::gateway::outcome::Outcome;

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

/// An answer that was known, and written, before those in front of it.
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
    /// Appends an answer that was written before, now that those in front of it are.
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
