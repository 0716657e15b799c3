//! Answers of the meta commands: two letters, and the flags that were asked for.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::gateway::item::Item;
use crate::gateway::outcome::Outcome;
use crate::gateway::protocol::line::{write_line, write_number};

/// The command that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway::protocol) enum Command {
    Get,
    Set,
    Delete,
    Count,
    Debug,
    Noop,
}

/// How a meta command is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    pub(in crate::gateway::protocol) command: Command,
    /// `q`: the usual result has no answer.
    pub(in crate::gateway::protocol) quiet: bool,
    /// `v`: with the value.
    pub(in crate::gateway::protocol) value: bool,
    /// `b`: the key is in base64.
    pub(in crate::gateway::protocol) base64: bool,
    /// The flags, in their order.
    pub(in crate::gateway::protocol) flags: Box<[u8]>,
    /// The token of `O`.
    pub(in crate::gateway::protocol) opaque: Box<[u8]>,
}

impl Form {
    /// Writes the answer, unless it is the usual one of a quiet command.
    pub(super) fn write(&self, key: &[u8], outcome: &Outcome<'_>, now: u32, out: &mut Vec<u8>) {
        if self.quiet && self.is_usual(outcome) {
            return;
        }
        let code = match outcome {
            Outcome::Found(item) if self.command == Command::Debug => return self.write_debug(key, item, now, out),
            Outcome::Found(item) | Outcome::Number(_, item) => {
                let mark: &[u8] = if item.awaited { b" Z" } else { b"" };
                return self.write_item(key, item, mark, now, out);
            }
            Outcome::Created(item) => return self.write_item(key, item, b" W", now, out),
            Outcome::Failed(failure) => return write_line(out, &failure.line()),
            Outcome::Stored(_) | Outcome::Deleted | Outcome::Touched(_) => "HD",
            Outcome::NotStored => "NS",
            Outcome::Exists => "EX",
            Outcome::Missing => "EN",
            Outcome::NotFound => "NF",
            Outcome::Done | Outcome::Version | Outcome::Stats(_) | Outcome::Reset => "MN",
        };
        out.extend_from_slice(code.as_bytes());
        for name in &self.flags {
            match (name, outcome, self.command) {
                (b'c', Outcome::Stored(clocktime), _) => write_token(out, 'c', clocktime.0),
                (b'c', _, Command::Set) => write_token(out, 'c', 0),
                _ => self.write_flag(*name, key, out),
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Whether this is the outcome that a quiet command is quiet about: a read that misses, a change that succeeds.
    fn is_usual(&self, outcome: &Outcome<'_>) -> bool {
        match outcome {
            Outcome::Missing | Outcome::Stored(_) | Outcome::Deleted | Outcome::Touched(_) | Outcome::Number(..) => {
                self.command != Command::Debug
            }
            _ => false,
        }
    }

    /// `VA <bytes> <flags>* <mark>` and the data, or `HD <flags>* <mark>`.
    fn write_item(&self, key: &[u8], item: &Item<'_>, mark: &[u8], now: u32, out: &mut Vec<u8>) {
        let data = item.data;
        if self.value {
            out.reserve(data.len().saturating_add(key.len()).saturating_add(64));
            out.extend_from_slice(b"VA ");
            write_number(out, data.len() as u64);
        } else {
            out.extend_from_slice(b"HD");
        }
        let read = self.command == Command::Get;
        for name in &self.flags {
            match name {
                b'c' => write_token(out, 'c', item.clocktime.0),
                b't' => match item.ttl(now) {
                    Some(seconds) => write_token(out, 't', seconds.into()),
                    None => out.extend_from_slice(b" t-1"),
                },
                b'f' if read => write_token(out, 'f', item.flags.into()),
                b's' if read => write_token(out, 's', data.len() as u64),
                _ => self.write_flag(*name, key, out),
            }
        }
        out.extend_from_slice(mark);
        out.extend_from_slice(b"\r\n");
        if self.value {
            out.extend_from_slice(data);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// `ME <key> <name>=<value>*`: of memcached's names those that mean something here.
    fn write_debug(&self, key: &[u8], item: &Item<'_>, now: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(b"ME ");
        self.write_key(key, out);
        let exp = item.ttl(now).map_or(-1, i64::from);
        write_line(out, &format!(" exp={exp} cas={} size={}", item.clocktime.0, item.data.len()));
    }

    /// A flag that does not depend on the item.
    fn write_flag(&self, name: u8, key: &[u8], out: &mut Vec<u8>) {
        match name {
            b'k' => {
                out.extend_from_slice(b" k");
                self.write_key(key, out);
                if self.base64 {
                    out.extend_from_slice(b" b");
                }
            }
            b'O' => {
                out.extend_from_slice(b" O");
                out.extend_from_slice(&self.opaque);
            }
            _ => {}
        }
    }

    fn write_key(&self, key: &[u8], out: &mut Vec<u8>) {
        if self.base64 {
            out.extend_from_slice(STANDARD.encode(key).as_bytes());
        } else {
            out.extend_from_slice(key);
        }
    }
}

/// A flag with a number.
fn write_token(out: &mut Vec<u8>, name: char, number: u64) {
    out.push(b' ');
    out.extend_from_slice(name.encode_utf8(&mut [0; 4]).as_bytes());
    write_number(out, number);
}
