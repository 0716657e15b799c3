//! The meta commands: mg, ms, md, ma, mn, me. Their flags; the answers are in `answer`.
//!
//! `N` of mg makes an empty item where there is none: its answer has a `W`, and every later one a `Z` until the item is
//! stored. What needs more than a record keeps is refused with a line that says so: `h` and `l` (hit before, last
//! access), `R` of mg, `I` of md and of ms with `C` (stale marks). Flags that memcached ignores on a command are ignored
//! here, too.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::answer;
use super::answer::meta::{Command, Form};
use super::block::{Block, block, block_length, with_block};
use super::line::{self, BAD_LINE, Words, exptime, number, words};
use super::request::{KEY_LIMIT, Next, Parsed, Request, Task};
use crate::clock::ClockTime;
use crate::gateway::change::{Change, Mode};
use crate::gateway::failure::Failure;
use crate::gateway::item::Rules;
use crate::gateway::outcome::Outcome;

/// Flags that any command takes, if only to ignore them.
const KNOWN: &[u8] = b"bcfhklqstuvCDFIJLMNOPRT";
/// Longest opaque token, in bytes.
const OPAQUE_LIMIT: usize = 31;

/// Flags that need what is not kept with an item, each with the line that refuses it.
const NOT_KEPT: [(u8, Failure); 4] = [
    (b'h', Failure::Syntax("CLIENT_ERROR flag not supported: h, whether an item was read before is not kept")),
    (b'l', Failure::Syntax("CLIENT_ERROR flag not supported: l, when an item was last read is not kept")),
    (b'R', Failure::Syntax("CLIENT_ERROR flag not supported: R, who was asked to store an item anew is not kept")),
    (b'I', Failure::Syntax("CLIENT_ERROR flag not supported: I, whether an item is stale is not kept")),
];
const INVALID: Failure = Failure::Syntax("CLIENT_ERROR invalid flag");
const DUPLICATE: Failure = Failure::Syntax("CLIENT_ERROR duplicate flag");
const INVALID_OR_DUPLICATE: Failure = Failure::Syntax("CLIENT_ERROR invalid or duplicate flag");
const BAD_TOKEN: Failure = Failure::Syntax("CLIENT_ERROR bad token in command line format");
const BAD_INITIAL: Failure = Failure::Syntax("CLIENT_ERROR invalid numeric initial value");
const BAD_DELTA: Failure = Failure::Syntax("CLIENT_ERROR invalid numeric delta value");
const BAD_KEY: Failure = Failure::Syntax("CLIENT_ERROR error decoding key");

/// The flags of a command, as given.
#[derive(Debug, Default)]
struct Flags<'a> {
    order: Vec<u8>,
    opaque: &'a [u8],
    compare: Option<ClockTime>,
    /// `F`: the client's flags.
    bits: u32,
    exptime: Option<i64>,
    mode: Option<u8>,
    /// `N`: the exptime of what is created.
    create: Option<i64>,
    initial: u64,
    delta: Option<u64>,
}

impl<'a> Flags<'a> {
    /// The flags, and the key that `word` stands for. Which of several faults is named is as in memcached.
    fn read(word: &'a [u8], words: Words<'a>) -> Result<(Cow<'a, [u8]>, Self), Failure> {
        let mut flags = Self::default();
        let named = words.filter_map(<[u8]>::split_first);
        for (name, _) in named.clone() {
            if !KNOWN.contains(name) {
                return Err(INVALID);
            }
            if flags.has(*name) {
                return Err(DUPLICATE);
            }
            flags.order.push(*name);
        }
        let key = flags.key(word)?;
        for (name, token) in named {
            match name {
                b'O' if token.len() > OPAQUE_LIMIT => {
                    return Err(Failure::Syntax("CLIENT_ERROR opaque token too long"));
                }
                b'O' => flags.opaque = token,
                b'C' => flags.compare = Some(ClockTime(number(token).ok_or(BAD_TOKEN)?)),
                b'F' => flags.bits = number(token).ok_or(BAD_LINE)?,
                b'T' => flags.exptime = Some(exptime(token).ok_or(BAD_TOKEN)?),
                b'N' => flags.create = Some(exptime(token).ok_or(BAD_TOKEN)?),
                b'R' => {
                    number::<i64>(token).ok_or(BAD_TOKEN)?;
                }
                b'J' => flags.initial = number(token).ok_or(BAD_INITIAL)?,
                b'D' => flags.delta = Some(number(token).ok_or(BAD_DELTA)?),
                b'M' => match token {
                    [mode] => flags.mode = Some(*mode),
                    _ => return Err(Failure::Syntax("CLIENT_ERROR incorrect length for M token")),
                },
                _ => {}
            }
        }
        Ok((key, flags))
    }

    fn has(&self, name: u8) -> bool {
        self.order.contains(&name)
    }

    /// The key that `word` stands for.
    fn key(&self, word: &'a [u8]) -> Result<Cow<'a, [u8]>, Failure> {
        if self.has(b'b') {
            STANDARD.decode(word).map(Cow::Owned).map_err(|_| BAD_KEY)
        } else {
            Ok(Cow::Borrowed(word))
        }
    }

    /// Refuses the first of `these` that is given.
    fn refuse(&self, these: &[u8]) -> Result<(), Failure> {
        let refused = NOT_KEPT.iter().find(|(name, _)| these.contains(name) && self.has(*name));
        refused.map_or(Ok(()), |(_, failure)| Err(*failure))
    }

    fn form(&self, command: Command) -> answer::Form {
        answer::Form::Meta(Box::new(Form {
            command,
            quiet: self.has(b'q'),
            value: self.has(b'v'),
            base64: self.has(b'b'),
            flags: self.order.as_slice().into(),
            opaque: self.opaque.into(),
        }))
    }
}

/// The key's word and the words behind it.
fn split(mut rest: Words<'_>) -> Result<(&[u8], Words<'_>), Failure> {
    match rest.next() {
        None => Err(Failure::UnknownCommand),
        Some(word) if word.len() > KEY_LIMIT => Err(BAD_LINE),
        Some(word) => Ok((word, rest)),
    }
}

/// The key and the flags of a command that calls all faults of its flags the same.
fn split_strictly(rest: Words<'_>) -> Result<(Cow<'_, [u8]>, Flags<'_>), Failure> {
    let (word, rest) = split(rest)?;
    Flags::read(word, rest).map_err(|_| INVALID_OR_DUPLICATE)
}

/// `mg <key> <flags>*`
pub(super) fn get(rest: Words<'_>) -> Parsed<'_> {
    let (word, rest) = split(rest)?;
    let (key, flags) = Flags::read(word, rest)?;
    flags.refuse(b"hlR")?;
    let task = match (flags.create, flags.exptime) {
        (None, None) => Task::Get { key },
        (None, Some(exptime)) => Task::Change { key, change: Change::Touch { exptime, read: true } },
        (Some(create), exptime) => Task::Change { key, change: Change::Vivify { create, exptime } },
    };
    Ok(Request::new(task, flags.form(Command::Get)))
}

/// `ms <key> <bytes> <flags>*` and its data block, which is dropped with a line that is refused.
pub(super) fn set<'a>(line: &'a [u8], behind: &'a [u8], rules: &Rules) -> Next<'a> {
    let refused = |failure, length| {
        let request = Request::refused(failure, answer::Form::Line { quiet: false });
        Next::Request { length, request }
    };
    let mut rest = words(line::trimmed(line));
    rest.next();
    let (word, mut rest) = match split(rest) {
        Ok(split) => split,
        Err(failure) => return refused(failure, line.len()),
    };
    let Some(length) = rest.next().and_then(block_length) else { return refused(BAD_LINE, line.len()) };
    let (key, mode, flags) = match target(word, rest) {
        Ok(target) => target,
        Err(failure) => return refused(failure, with_block(line.len(), length)),
    };
    match block(line.len(), behind, length, rules) {
        Block::NotYet(needed) => Next::NotYet { needed },
        // In every mode, as memcached does.
        Block::Refused(failure @ Failure::TooLarge, length) => {
            let request = Request::discard(key, failure, answer::Form::Line { quiet: false });
            Next::Request { length, request }
        }
        Block::Refused(failure, length) => refused(failure, length),
        Block::Data(data, length) => {
            let (bits, exptime, compare) = (flags.bits, flags.exptime.unwrap_or(0), flags.compare);
            let change = Change::Put { mode, flags: bits, exptime, data: Cow::Borrowed(data), compare };
            let request = Request::new(Task::Change { key, change }, flags.form(Command::Set));
            Next::Request { length, request }
        }
    }
}

/// The target of an `ms`, and how it is written.
fn target<'a>(word: &'a [u8], rest: Words<'a>) -> Result<(Cow<'a, [u8]>, Mode, Flags<'a>), Failure> {
    let (key, flags) = Flags::read(word, rest)?;
    let mode = match flags.mode {
        None | Some(b'S') => Mode::Set,
        Some(b'E') => Mode::Add,
        Some(b'A') => Mode::Append,
        Some(b'P') => Mode::Prepend,
        Some(b'R') => Mode::Replace,
        Some(_) => return Err(Failure::Syntax("CLIENT_ERROR invalid mode for ms M token")),
    };
    if flags.compare.is_some() {
        flags.refuse(b"I")?;
    }
    Ok((key, mode, flags))
}

/// `md <key> <flags>*`
pub(super) fn delete(rest: Words<'_>) -> Parsed<'_> {
    let (key, flags) = split_strictly(rest)?;
    flags.refuse(b"I")?;
    let change = Change::Delete { compare: flags.compare };
    Ok(Request::new(Task::Change { key, change }, flags.form(Command::Delete)))
}

/// `ma <key> <flags>*`
pub(super) fn count(rest: Words<'_>) -> Parsed<'_> {
    let (key, flags) = split_strictly(rest)?;
    let up = match flags.mode {
        None | Some(b'I' | b'+') => true,
        Some(b'D' | b'-') => false,
        Some(_) => return Err(Failure::Syntax("CLIENT_ERROR invalid mode for ma M token")),
    };
    let change = Change::Count {
        up,
        delta: flags.delta.unwrap_or(1),
        create: flags.create.map(|exptime| (flags.initial, exptime)),
        exptime: flags.exptime,
        compare: flags.compare,
    };
    Ok(Request::new(Task::Change { key, change }, flags.form(Command::Count)))
}

/// `me <key> [b]`
pub(super) fn debug(rest: Words<'_>) -> Parsed<'_> {
    let (word, rest) = split(rest).map_err(|_| BAD_LINE)?;
    let order = if rest.last() == Some(b"b") { vec![b'b'] } else { Vec::new() };
    let flags = Flags { order, ..Flags::default() };
    Ok(Request::new(Task::Get { key: flags.key(word)? }, flags.form(Command::Debug)))
}

/// `mn`
pub(super) fn noop() -> Request<'static> {
    Request::new(Task::Answer(Outcome::Done), Flags::default().form(Command::Noop))
}

#[cfg(test)]
mod tests;
