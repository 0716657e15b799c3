//! The text protocol: command lines and data blocks. Meta commands are in `meta`.

mod upkeep;

use std::borrow::Cow;

use super::answer::Form;
use super::answer::text::Value;
use super::block::{Block, block, block_length};
use super::line::{self, BAD_LINE, Words, exptime, number, words};
use super::request::{KEY_LIMIT, Next, Parsed, Request, Task};
use super::{foreign, meta, section};
use crate::clock::ClockTime;
use crate::gateway::change::{Change, Mode};
use crate::gateway::failure::Failure;
use crate::gateway::item::Rules;
use crate::gateway::outcome::Outcome;

/// Longest command line that is no retrieval, in bytes.
const LINE_LIMIT: usize = 2048;
/// Longest line of a retrieval: some four thousand keys of full length.
const RETRIEVAL_LIMIT: usize = 1 << 20;

/// State of the parser between two requests of a connection.
#[derive(Debug, Default)]
pub(super) struct State {
    /// So far the input holds no end of line.
    scanned: usize,
    /// A multi-get whose keys are being yielded.
    retrieval: Option<Retrieval>,
}

/// A multi-get with keys left.
#[derive(Debug, Clone, Copy)]
struct Retrieval {
    /// Bytes of its line that are left, with the end.
    left: usize,
    /// `gets`, `gats`.
    unique: bool,
    /// `gat`, `gats`: the new exptime.
    exptime: Option<i64>,
}

const BAD_EXPTIME: Failure = Failure::Syntax("CLIENT_ERROR invalid exptime argument");

/// A line that is refused.
fn refused<'a>(failure: Failure) -> Request<'a> {
    Request::refused(failure, Form::Line { quiet: false })
}

/// A line that is refused, without an answer if it ends in `noreply` and its words are of the right number.
fn refused_quietly<'a>(failure: Failure, words: Words<'_>) -> Request<'a> {
    let quiet = failure != Failure::UnknownCommand && words.last() == Some(b"noreply");
    Request::refused(failure, Form::Line { quiet })
}

impl State {
    /// The next request at the front of `input`.
    pub(super) fn next<'a>(&mut self, input: &'a [u8], rules: &Rules) -> Next<'a> {
        if let Some(retrieval) = self.retrieval.take() {
            return self.key(retrieval, input, 0);
        }
        let limit = if is_retrieval(input) { RETRIEVAL_LIMIT } else { LINE_LIMIT };
        let searched = input.get(self.scanned..).unwrap_or_default();
        let within = searched.get(..limit.saturating_sub(self.scanned)).unwrap_or(searched);
        let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
            if input.len() >= limit {
                let request = refused(Failure::Syntax("CLIENT_ERROR line too long")).closing();
                return Next::Request { length: input.len(), request };
            }
            self.scanned = input.len();
            return Next::NotYet { needed: input.len().saturating_add(1) };
        };
        let length = self.scanned.saturating_add(end).saturating_add(1);
        self.scanned = 0;
        let (line, behind) = input.split_at_checked(length).unwrap_or_default();
        self.command(line, behind, input, rules)
    }

    /// The request of a whole line, `line` with its end, and `behind` it what may be its data.
    fn command<'a>(&mut self, line: &'a [u8], behind: &'a [u8], input: &'a [u8], rules: &Rules) -> Next<'a> {
        let mut rest = words(line::trimmed(line));
        let command = rest.next().unwrap_or_default();
        let request = match command {
            b"get" | b"bget" => return self.retrieval(line, input, false, false),
            b"gets" => return self.retrieval(line, input, true, false),
            b"gat" => return self.retrieval(line, input, false, true),
            b"gats" => return self.retrieval(line, input, true, true),
            b"set" => return storage(Mode::Set, false, line, behind, rules),
            b"add" => return storage(Mode::Add, false, line, behind, rules),
            b"replace" => return storage(Mode::Replace, false, line, behind, rules),
            b"append" => return storage(Mode::Append, false, line, behind, rules),
            b"prepend" => return storage(Mode::Prepend, false, line, behind, rules),
            b"cas" => return storage(Mode::Set, true, line, behind, rules),
            b"ms" => return meta::set(line, behind, rules),
            b"mg" => meta::get(rest).unwrap_or_else(refused),
            b"md" => meta::delete(rest).unwrap_or_else(refused),
            b"ma" => meta::count(rest).unwrap_or_else(refused),
            b"me" => meta::debug(rest).unwrap_or_else(refused),
            b"mn" => meta::noop(),
            _ => one_line(command, rest.clone()).unwrap_or_else(|failure| {
                let is_foreign = foreign::is_request(command, rest.clone());
                if is_foreign { Request::hang_up() } else { refused_quietly(failure, rest) }
            }),
        };
        Next::Request { length: line.len(), request }
    }

    /// The first key of a retrieval whose line is whole. A key that is too long spoils all of it.
    fn retrieval<'a>(&mut self, line: &'a [u8], input: &'a [u8], unique: bool, touch: bool) -> Next<'a> {
        let whole = line::trimmed(line);
        let mut rest = words(whole);
        rest.next();
        let given = if touch { rest.next() } else { None };
        let from = whole.len().saturating_sub(rest.left());
        let seconds = given.map(exptime);
        let failure = if seconds == Some(None) {
            BAD_EXPTIME
        } else if rest.clone().next().is_none() {
            Failure::UnknownCommand
        } else if rest.any(|key| key.len() > KEY_LIMIT) {
            BAD_LINE
        } else {
            let left = line.len().saturating_sub(from);
            return self.key(Retrieval { left, unique, exptime: seconds.flatten() }, input, from);
        };
        Next::Request { length: line.len(), request: refused(failure) }
    }

    /// The next key of a retrieval, whose line begins `from` bytes into the input.
    fn key<'a>(&mut self, retrieval: Retrieval, input: &'a [u8], from: usize) -> Next<'a> {
        let Retrieval { left, unique, exptime } = retrieval;
        let rest = input.get(from..).and_then(|rest| rest.get(..left)).unwrap_or_default();
        let line = line::trimmed(rest);
        let mut rest = words(line);
        let key = rest.next().unwrap_or_default();
        let last = rest.clone().next().is_none();
        let used = if last { left } else { line.len().saturating_sub(rest.left()) };
        if !last {
            self.retrieval = Some(Retrieval { left: left.saturating_sub(used), ..retrieval });
        }
        let key = Cow::Borrowed(key);
        let task = match exptime {
            None => Task::Get { key },
            Some(exptime) => Task::Change { key, change: Change::Touch { exptime, read: true } },
        };
        let request = Request::new(task, Form::Value(Value::new(unique, last)));
        Next::Request { length: from.saturating_add(used), request }
    }
}

/// Whether this can only become a retrieval.
fn is_retrieval(input: &[u8]) -> bool {
    [&b"get "[..], b"gets ", b"gat ", b"gats "].iter().any(|command| input.starts_with(command))
}

/// The line of a storage command.
struct Storage<'a> {
    key: &'a [u8],
    flags: u32,
    exptime: i64,
    length: usize,
    compare: Option<ClockTime>,
    quiet: bool,
}

impl<'a> Storage<'a> {
    /// `<command> <key> <flags> <exptime> <bytes> [<cas unique>] [noreply]`
    fn read(line: &'a [u8], unique: bool) -> Result<Self, Failure> {
        let mut rest = words(line::trimmed(line)).skip(1);
        let mut word = || rest.next().ok_or(Failure::UnknownCommand);
        let (key, flags, exptime, length) = (word()?, word()?, word()?, word()?);
        let compare = if unique { Some(word()?) } else { None };
        let last = rest.next();
        if rest.next().is_some() {
            return Err(Failure::UnknownCommand);
        }
        Ok(Self {
            key: checked(key)?,
            flags: number(flags).ok_or(BAD_LINE)?,
            exptime: line::exptime(exptime).ok_or(BAD_LINE)?,
            length: block_length(length).ok_or(BAD_LINE)?,
            compare: compare.map(|unique| number(unique).ok_or(BAD_LINE)).transpose()?.map(ClockTime),
            quiet: last == Some(b"noreply"),
        })
    }
}

/// A storage command with its data block.
fn storage<'a>(mode: Mode, unique: bool, line: &'a [u8], behind: &'a [u8], rules: &Rules) -> Next<'a> {
    let Storage { key, flags, exptime, length, compare, quiet } = match Storage::read(line, unique) {
        Ok(storage) => storage,
        Err(failure) => {
            let request = refused_quietly(failure, words(line::trimmed(line)));
            return Next::Request { length: line.len(), request };
        }
    };
    let form = Form::Line { quiet };
    match block(line.len(), behind, length, rules) {
        Block::Data(data, length) => {
            let change = Change::Put { mode, flags, exptime, data: Cow::Borrowed(data), compare };
            Next::Request { length, request: Request::new(Task::Change { key: Cow::Borrowed(key), change }, form) }
        }
        Block::Refused(failure @ Failure::TooLarge, length) if mode == Mode::Set && !unique => {
            Next::Request { length, request: Request::discard(key, failure, form) }
        }
        Block::Refused(failure, length) => Next::Request { length, request: Request::refused(failure, form) },
        Block::NotYet(needed) => Next::NotYet { needed },
    }
}

/// A command without a data block.
fn one_line<'a>(command: &[u8], rest: Words<'a>) -> Parsed<'a> {
    let loud = Form::Line { quiet: false };
    match command {
        b"delete" => delete(rest),
        b"incr" => count(rest, true),
        b"decr" => count(rest, false),
        b"touch" => touch(rest),
        b"flush_all" => flush(rest),
        b"verbosity" => verbosity(rest),
        b"version" => Ok(Request::new(Task::Answer(Outcome::Version), loud)),
        b"stats" => Ok(Request::new(section::of_line(rest)?.into(), loud)),
        b"quit" => Ok(Request::new(Task::Answer(Outcome::Done), Form::Silent).closing()),
        b"cache_memlimit" | b"slabs" | b"lru" | b"lru_crawler" => upkeep(command, rest),
        _ => Err(Failure::UnknownCommand),
    }
}

/// A command that manages memory: its answer says that there is none.
fn upkeep<'a>(command: &[u8], rest: Words<'a>) -> Parsed<'a> {
    let form = Form::Line { quiet: rest.clone().last() == Some(b"noreply") };
    let arguments: Vec<_> = rest.filter(|word| *word != b"noreply").take(upkeep::MOST_ARGUMENTS).collect();
    match upkeep::accept(command, &arguments) {
        Ok(()) => Ok(Request::new(Task::Answer(Outcome::Done), form)),
        Err(Failure::UnknownCommand) => Err(Failure::UnknownCommand),
        Err(failure) => Ok(Request::refused(failure, form)),
    }
}

/// A key within its limit.
fn checked(word: &[u8]) -> Result<&[u8], Failure> {
    if word.len() > KEY_LIMIT { Err(BAD_LINE) } else { Ok(word) }
}

/// A change that is answered with a line.
fn changed<'a>(key: &'a [u8], change: Change<'a>, quiet: bool) -> Request<'a> {
    Request::new(Task::Change { key: Cow::Borrowed(key), change }, Form::Line { quiet })
}

/// A key, another word, and perhaps a third, `noreply`. The third member says whether it is.
fn two(mut rest: Words<'_>) -> Result<(&[u8], &[u8], bool), Failure> {
    let (key, word, last) = (rest.next(), rest.next(), rest.next());
    match (key, word, rest.next()) {
        (Some(key), Some(word), None) => Ok((checked(key)?, word, last == Some(b"noreply"))),
        _ => Err(Failure::UnknownCommand),
    }
}

/// `delete <key> [0] [noreply]`: the 0 is of old clients, which could give a time.
fn delete(mut rest: Words<'_>) -> Parsed<'_> {
    let (key, behind) = (rest.next(), [rest.next(), rest.next()]);
    let (Some(key), None) = (key, rest.next()) else { return Err(Failure::UnknownCommand) };
    let quiet = match behind {
        [None | Some(b"0"), None] => false,
        [Some(b"noreply"), None] | [Some(b"0"), Some(b"noreply")] => true,
        _ => return Err(Failure::Syntax("CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]")),
    };
    Ok(changed(checked(key)?, Change::Delete { compare: None }, quiet))
}

/// `incr <key> <value> [noreply]`
fn count(rest: Words<'_>, up: bool) -> Parsed<'_> {
    let (key, delta, quiet) = two(rest)?;
    let delta = number(delta).ok_or(Failure::Syntax("CLIENT_ERROR invalid numeric delta argument"))?;
    Ok(changed(key, Change::Count { up, delta, create: None, exptime: None, compare: None }, quiet))
}

/// `touch <key> <exptime> [noreply]`
fn touch(rest: Words<'_>) -> Parsed<'_> {
    let (key, seconds, quiet) = two(rest)?;
    let exptime = exptime(seconds).ok_or(BAD_EXPTIME)?;
    Ok(changed(key, Change::Touch { exptime, read: false }, quiet))
}

/// `flush_all [delay] [noreply]`
fn flush(mut rest: Words<'_>) -> Parsed<'_> {
    let (first, second) = (rest.next(), rest.next());
    if rest.next().is_some() {
        return Err(Failure::UnknownCommand);
    }
    let delay = match first {
        None | Some(b"noreply") => 0,
        Some(delay) => exptime(delay).ok_or(BAD_EXPTIME)?,
    };
    let quiet = second.or(first) == Some(b"noreply");
    Ok(Request::new(Task::Flush { delay }, Form::Line { quiet }))
}

/// `verbosity <level> [noreply]`: taken and without effect, the log's level is set by flags.
fn verbosity(mut rest: Words<'_>) -> Parsed<'_> {
    let level = rest.next().ok_or(Failure::UnknownCommand)?;
    if number::<u32>(level).is_none() && level != b"noreply" {
        return Err(BAD_LINE);
    }
    let quiet = rest.last().unwrap_or(level) == b"noreply";
    Ok(Request::new(Task::Answer(Outcome::Done), Form::Line { quiet }))
}

#[cfg(test)]
mod tests;
