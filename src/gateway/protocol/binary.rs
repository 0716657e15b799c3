//! The binary protocol: packets of a header, extras, key and value, all big-endian.
//!
//! ```text
//! magic u8 | opcode u8 | key length u16 | extras length u8 | data type u8 | vbucket or status u16
//! body length u32 | opaque u32 | CAS unique u64 | extras | key | value
//! ```

use std::borrow::Cow;

use super::answer;
use super::answer::binary::Form;
use super::opcode::{Command, Opcode, opcode};
use super::request::{KEY_LIMIT, Next, Request, Task};
use super::section;
use crate::clock::ClockTime;
use crate::gateway::change::{Change, Mode};
use crate::gateway::failure::Failure;
use crate::gateway::item::Rules;
use crate::gateway::outcome::Outcome;

/// The first byte of a request.
pub(super) const REQUEST: u8 = 0x80;
const HEADER: usize = 24;
/// This exptime of an increment means: do not create.
const NOT_CREATED: u32 = u32::MAX;

/// A request's header.
#[derive(Debug, Clone, Copy)]
struct Header {
    opcode: u8,
    key: usize,
    extras: usize,
    body: usize,
    opaque: u32,
    compare: u64,
}

impl Header {
    fn read(bytes: [u8; HEADER]) -> Self {
        let [_, opcode, k0, k1, extras, _, _, _, b0, b1, b2, b3, o0, o1, o2, o3, compare @ ..] = bytes;
        Self {
            opcode,
            key: u16::from_be_bytes([k0, k1]).into(),
            extras: extras.into(),
            body: usize::try_from(u32::from_be_bytes([b0, b1, b2, b3])).unwrap_or(usize::MAX),
            opaque: u32::from_be_bytes([o0, o1, o2, o3]),
            compare: u64::from_be_bytes(compare),
        }
    }

    /// Bytes of the value; `None` if the lengths contradict each other.
    fn value(&self) -> Option<usize> {
        self.body.checked_sub(self.key)?.checked_sub(self.extras)
    }

    fn form(&self) -> answer::Form {
        answer::Form::Packet(Form { opcode: self.opcode, opaque: self.opaque })
    }
}

impl Command {
    /// Whether a request of this command may have these lengths of key, extras and value.
    fn takes(self, key: usize, extras: usize, value: usize) -> bool {
        let keyed = (1..=KEY_LIMIT).contains(&key);
        match self {
            Self::Get | Self::Delete => keyed && extras == 0 && value == 0,
            Self::Put(Mode::Append | Mode::Prepend) => keyed && extras == 0,
            Self::Put(_) => keyed && extras == 8,
            Self::Count { .. } => keyed && extras == 20 && value == 0,
            Self::Touch | Self::GetAndTouch => keyed && extras == 4 && value == 0,
            Self::Flush => key == 0 && (extras == 0 || extras == 4) && value == 0,
            Self::Verbosity => key == 0 && extras == 4 && value == 0,
            Self::Stat => key <= KEY_LIMIT && extras == 0 && value == 0,
            Self::Quit | Self::Noop | Self::Version => key == 0 && extras == 0 && value == 0,
        }
    }
}

/// The next request at the front of `input`.
pub(super) fn next<'a>(input: &'a [u8], rules: &Rules) -> Next<'a> {
    if input.first().is_some_and(|magic| *magic != REQUEST) {
        // Out of step: nothing behind this can be understood.
        return Next::Request { length: input.len(), request: Request::hang_up() };
    }
    let Some((header, body)) = input.split_first_chunk::<HEADER>() else { return Next::NotYet { needed: HEADER } };
    let header = Header::read(*header);
    let length = HEADER.saturating_add(header.body);
    let refused = |failure| Request::refused(failure, header.form());
    let Some(opcode) = opcode(header.opcode) else {
        return Next::Request { length, request: refused(Failure::UnknownCommand) };
    };
    let Some(value) = header.value().filter(|value| opcode.command.takes(header.key, header.extras, *value)) else {
        return Next::Request { length: HEADER, request: refused(Failure::Arguments).closing() };
    };
    if value > rules.value_limit {
        if opcode.command != Command::Put(Mode::Set) {
            return Next::Request { length, request: refused(Failure::TooLarge) };
        }
        let before_value = header.extras.saturating_add(header.key);
        let Some(key) = body.get(header.extras..before_value) else {
            return Next::NotYet { needed: HEADER.saturating_add(before_value) };
        };
        return Next::Request { length, request: Request::discard(key, Failure::TooLarge, header.form()) };
    }
    match body.get(..header.body) {
        Some(body) => Next::Request { length, request: request(header, opcode, body) },
        None => Next::NotYet { needed: length },
    }
}

/// The request of a whole packet whose lengths are right.
fn request(header: Header, opcode: Opcode, body: &[u8]) -> Request<'_> {
    let (extras, rest) = body.split_at_checked(header.extras).unwrap_or_default();
    let (key, value) = rest.split_at_checked(header.key).unwrap_or_default();
    let compare = (header.compare != 0).then_some(ClockTime(header.compare));
    let long = |from: usize| u64::from_be_bytes(part(extras, from));
    let word = |from: usize| u32::from_be_bytes(part(extras, from));
    let changed = |change| Task::Change { key: Cow::Borrowed(key), change };
    let task = match opcode.command {
        Command::Get => Task::Get { key: Cow::Borrowed(key) },
        Command::Put(mode) => changed(Change::Put {
            // As in memcached, a CAS unique makes a compare-and-swap of all that write a whole value.
            mode: if compare.is_some() && matches!(mode, Mode::Add | Mode::Replace) { Mode::Set } else { mode },
            flags: if extras.is_empty() { 0 } else { word(0) },
            exptime: if extras.is_empty() { 0 } else { word(4).into() },
            data: Cow::Borrowed(value),
            compare,
        }),
        Command::Delete => changed(Change::Delete { compare }),
        Command::Count { up } => changed(Change::Count {
            up,
            delta: long(0),
            create: (word(16) != NOT_CREATED).then_some((long(8), word(16).into())),
            exptime: None,
            compare,
        }),
        Command::Touch => changed(Change::Touch { exptime: word(0).into(), read: false }),
        Command::GetAndTouch => changed(Change::Touch { exptime: word(0).into(), read: true }),
        Command::Flush => Task::Flush { delay: if extras.is_empty() { 0 } else { word(0).into() } },
        Command::Stat => section::of_packet(key).into(),
        Command::Version => Task::Answer(Outcome::Version),
        Command::Quit | Command::Noop | Command::Verbosity => Task::Answer(Outcome::Done),
    };
    Request { task, form: header.form(), close: opcode.command == Command::Quit }
}

/// `N` bytes of the extras, whose length has been checked.
fn part<const N: usize>(extras: &[u8], from: usize) -> [u8; N] {
    extras.get(from..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests;
