//! The binary protocol: packets of a header, extras, key and value, all big-endian.
//!
//! ```text
//! magic u8 | opcode u8 | key length u16 | extras length u8 | data type u8 | vbucket or status u16
//! body length u32 | opaque u32 | CAS unique u64 | extras | key | value
//! ```

use std::borrow::Cow;

use super::{KEY_LIMIT, Next, Request, Task, section};
use crate::clock::ClockTime;
use crate::gateway::change::{Change, Mode};
use crate::gateway::item::Rules;
use crate::gateway::outcome::{Failure, Outcome, VERSION};

/// The first byte of a request.
pub(super) const REQUEST: u8 = 0x80;
const RESPONSE: u8 = 0x81;
const HEADER: usize = 24;
/// This exptime of an increment means: do not create.
const NOT_CREATED: u32 = u32::MAX;

/// What an opcode asks for, without its variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Get,
    Put(Mode),
    Delete,
    Count { up: bool },
    Quit,
    Flush,
    Noop,
    Version,
    Stat,
    Verbosity,
    Touch,
    GetAndTouch,
}

/// What is left out of the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    None,
    /// Reads: no answer to a miss.
    Missing,
    /// Changes: no answer to success.
    Success,
}

/// An opcode's meaning.
#[derive(Debug, Clone, Copy)]
struct Opcode {
    command: Command,
    silence: Silence,
    /// The key comes back with the answer.
    with_key: bool,
}

fn opcode(byte: u8) -> Option<Opcode> {
    use Silence::{Missing, Success};
    let of = |command, silence, with_key| Some(Opcode { command, silence, with_key });
    let plain = |command| of(command, Silence::None, false);
    let quiet = |command| of(command, Success, false);
    match byte {
        0x00 => plain(Command::Get),
        0x01 => plain(Command::Put(Mode::Set)),
        0x02 => plain(Command::Put(Mode::Add)),
        0x03 => plain(Command::Put(Mode::Replace)),
        0x04 => plain(Command::Delete),
        0x05 => plain(Command::Count { up: true }),
        0x06 => plain(Command::Count { up: false }),
        0x07 => plain(Command::Quit),
        0x08 => plain(Command::Flush),
        0x09 => of(Command::Get, Missing, false),
        0x0a => plain(Command::Noop),
        0x0b => plain(Command::Version),
        0x0c => of(Command::Get, Silence::None, true),
        0x0d => of(Command::Get, Missing, true),
        0x0e => plain(Command::Put(Mode::Append)),
        0x0f => plain(Command::Put(Mode::Prepend)),
        0x10 => plain(Command::Stat),
        0x11 => quiet(Command::Put(Mode::Set)),
        0x12 => quiet(Command::Put(Mode::Add)),
        0x13 => quiet(Command::Put(Mode::Replace)),
        0x14 => quiet(Command::Delete),
        0x15 => quiet(Command::Count { up: true }),
        0x16 => quiet(Command::Count { up: false }),
        0x17 => quiet(Command::Quit),
        0x18 => quiet(Command::Flush),
        0x19 => quiet(Command::Put(Mode::Append)),
        0x1a => quiet(Command::Put(Mode::Prepend)),
        0x1b => plain(Command::Verbosity),
        0x1c => plain(Command::Touch),
        0x1d => plain(Command::GetAndTouch),
        0x1e => of(Command::GetAndTouch, Missing, false),
        0x23 => of(Command::GetAndTouch, Silence::None, true),
        0x24 => of(Command::GetAndTouch, Missing, true),
        _ => None,
    }
}

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

    fn form(&self) -> super::Form {
        super::Form::Packet(Form { opcode: self.opcode, opaque: self.opaque })
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

/// How a packet is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    opcode: u8,
    opaque: u32,
}

/// A response, apart from its opcode and opaque.
#[derive(Default)]
struct Response<'a> {
    status: u16,
    clocktime: u64,
    extras: &'a [u8],
    key: &'a [u8],
    value: &'a [u8],
}

const MISSING: u16 = 0x01;
const EXISTS: u16 = 0x02;
const NOT_STORED: u16 = 0x05;

impl Form {
    /// Writes the answer, unless the opcode is a quiet one and this is what it is quiet about.
    pub(super) fn write(self, key: &[u8], outcome: &Outcome<'_>, out: &mut Vec<u8>) {
        let opcode = opcode(self.opcode);
        let silence = opcode.map_or(Silence::None, |opcode| opcode.silence);
        let with_key = opcode.is_some_and(|opcode| opcode.with_key);
        let error = |status, text: &'static str| Response { status, value: text.as_bytes(), ..Response::default() };
        let done = |clocktime: ClockTime| Response { clocktime: clocktime.0, ..Response::default() };
        let (flags, number, text);
        let response = match outcome {
            Outcome::Found(item) | Outcome::Created(item) | Outcome::Touched(item) => {
                flags = item.flags.to_be_bytes();
                let touched = matches!(outcome, Outcome::Touched(_));
                Response {
                    extras: &flags,
                    key: if with_key { key } else { &[] },
                    value: if touched { &[] } else { item.data },
                    ..done(item.clocktime)
                }
            }
            // The key says which one is missing; there is no text then.
            Outcome::Missing if with_key => Response { status: MISSING, key, ..Response::default() },
            Outcome::Missing | Outcome::NotFound => error(MISSING, "Not found"),
            Outcome::Exists => error(EXISTS, "Data exists for key."),
            // An add or replace says why; an append does not.
            Outcome::NotStored => match opcode.map(|opcode| opcode.command) {
                Some(Command::Put(Mode::Add)) => error(EXISTS, "Data exists for key."),
                Some(Command::Put(Mode::Replace)) => error(MISSING, "Not found"),
                _ => error(NOT_STORED, "Not stored."),
            },
            Outcome::Stored(clocktime) => done(*clocktime),
            Outcome::Number(value, item) => {
                number = value.to_be_bytes();
                Response { value: &number, ..done(item.clocktime) }
            }
            Outcome::Deleted | Outcome::Done | Outcome::Reset => Response::default(),
            Outcome::Version => Response { value: VERSION.as_bytes(), ..Response::default() },
            Outcome::Stats(stats) => {
                for (name, value) in stats {
                    let response = Response { key: name.as_bytes(), value: value.as_bytes(), ..Response::default() };
                    self.write_packet(&response, out);
                }
                Response::default()
            }
            Outcome::Failed(failure) => {
                text = failure.text();
                Response { status: failure.status(), value: text.as_bytes(), ..Response::default() }
            }
        };
        let silent = match silence {
            Silence::None => false,
            Silence::Missing => response.status == MISSING,
            Silence::Success => response.status == 0,
        };
        if !silent {
            self.write_packet(&response, out);
        }
    }

    fn write_packet(self, response: &Response<'_>, out: &mut Vec<u8>) {
        let Response { status, clocktime, extras, key, value } = response;
        let body = extras.len().saturating_add(key.len()).saturating_add(value.len());
        out.reserve(HEADER.saturating_add(body));
        out.extend_from_slice(&[RESPONSE, self.opcode]);
        out.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(&[u8::try_from(extras.len()).unwrap_or(u8::MAX), 0]);
        out.extend_from_slice(&status.to_be_bytes());
        out.extend_from_slice(&u32::try_from(body).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&self.opaque.to_be_bytes());
        out.extend_from_slice(&clocktime.to_be_bytes());
        for part in [extras, key, value] {
            out.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests;
