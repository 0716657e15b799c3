//! Answers of the binary protocol: packets.

use crate::clock::ClockTime;
use crate::gateway::change::Mode;
use crate::gateway::outcome::{Outcome, VERSION};
use crate::gateway::protocol::opcode::{Command, Silence, opcode};

/// The first byte of a response.
pub(in crate::gateway::protocol) const RESPONSE: u8 = 0x81;
/// Bytes of a response in front of its extras.
const HEADER: usize = 24;

/// How a packet is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    pub(in crate::gateway::protocol) opcode: u8,
    pub(in crate::gateway::protocol) opaque: u32,
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
    /// Writes the answer, unless the opcode is a quiet one and this is an outcome that it is quiet about.
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
