//! Requests as the parsers make them, whatever their protocol. Knows neither bytes on the wire nor the cluster.

use std::borrow::Cow;

use super::answer::Form;
use super::section::{Asked, Section};
use crate::gateway::change::Change;
use crate::gateway::failure::Failure;
use crate::gateway::outcome::Outcome;

/// Longest key, in bytes.
pub(super) const KEY_LIMIT: usize = 250;

/// The front of the input.
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
        /// The task.
        request: Request<'a>,
    },
}

/// A request of a client.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The task.
    pub task: Task<'a>,
    /// How to answer.
    pub form: Form,
    /// Whether the connection ends once this is answered. Nothing behind it is a request.
    pub close: bool,
}

/// The task of a request.
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

impl From<Asked> for Task<'_> {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Section(section) => Self::Stats { section },
            Asked::Answer(outcome) => Self::Answer(outcome),
        }
    }
}

impl<'a> Request<'a> {
    /// A request that does not end the connection.
    pub(super) fn new(task: Task<'a>, form: Form) -> Self {
        Self { task, form, close: false }
    }

    /// A request that is refused.
    pub(super) fn refused(failure: Failure, form: Form) -> Self {
        Self::new(Task::Answer(Outcome::Failed(failure)), form)
    }

    /// A write that is refused, and takes what was there with it.
    pub(super) fn discard(key: impl Into<Cow<'a, [u8]>>, refused: Failure, form: Form) -> Self {
        Self::new(Task::Change { key: key.into(), change: Change::Discard { refused } }, form)
    }

    /// A request that is not understood and ends the connection, without a word.
    pub(super) fn hang_up() -> Self {
        Self::new(Task::Answer(Outcome::Done), Form::Silent).closing()
    }

    /// The same, with the connection's end.
    pub(super) fn closing(self) -> Self {
        Self { close: true, ..self }
    }
}

/// The request of a command line, or why it is refused.
pub(super) type Parsed<'a> = Result<Request<'a>, Failure>;
