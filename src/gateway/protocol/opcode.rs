//! The opcodes of the binary protocol.

use crate::gateway::change::Mode;

/// The command of an opcode, without its variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway::protocol) enum Command {
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

/// The answers that are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway::protocol) enum Silence {
    None,
    /// Reads: no answer to a miss.
    Missing,
    /// Changes: no answer to success.
    Success,
}

/// The meaning of an opcode.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway::protocol) struct Opcode {
    pub(in crate::gateway::protocol) command: Command,
    pub(in crate::gateway::protocol) silence: Silence,
    /// The key comes back with the answer.
    pub(in crate::gateway::protocol) with_key: bool,
}

/// The meaning of this opcode, if it has one.
pub(in crate::gateway::protocol) fn opcode(byte: u8) -> Option<Opcode> {
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
