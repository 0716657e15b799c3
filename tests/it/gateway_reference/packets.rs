//! Random packets of the binary protocol.

use fastrand::Rng;

use super::Step;
use super::text::{number, value};

const KEYS: [&[u8]; 4] = [b"a", b"b", b"cc", b"d"];
const NUMBERS: [&[u8]; 3] = [b"n", b"m", b"o"];

pub(super) fn packet(opcode: u8, key: &[u8], extras: &[u8], value: &[u8], compare: u64) -> Vec<u8> {
    let len = |part: &[u8]| u32::try_from(part.len()).expect("a length");
    let body = len(key) + len(extras) + len(value);
    let mut out = vec![0x80, opcode, 0, key.len().to_le_bytes()[0], extras.len().to_le_bytes()[0], 0, 0, 0];
    out.extend_from_slice(&body.to_be_bytes());
    out.extend_from_slice(&77_u32.to_be_bytes());
    out.extend_from_slice(&compare.to_be_bytes());
    [&out[..], extras, key, value].concat()
}

/// What is sent behind each step.
pub(super) fn noop() -> Vec<u8> {
    packet(0x0a, b"", b"", b"", 0)
}

/// What ends each answer.
pub(super) fn noop_answer() -> Vec<u8> {
    let mut answer = noop();
    answer[0] = 0x81;
    answer
}

/// The next step. A `sound` one does not end the connection.
pub(super) fn step(random: &mut Rng, sound: bool) -> Step {
    // Only numbers are counted, with nothing put behind the spaces that memcached leaves there, and never empty.
    let (is_number, kind) = (random.bool(), random.u8(..if sound { 11 } else { 12 }));
    let is_number = is_number && kind != 11;
    let key = if is_number { NUMBERS[random.usize(..3)] } else { KEYS[random.usize(..4)] };
    let stored = if is_number { number(random).into_bytes() } else { value(random) };
    let exptime = [0_u32, 0, 900][random.usize(..3)].to_be_bytes();
    let put = [&u32::from(random.u16(..)).to_be_bytes(), &exptime[..]].concat();
    let (delta, initial) = (random.u64(..300).to_be_bytes(), random.u64(..300).to_be_bytes());
    let create = [0, 900, u32::MAX][random.usize(..3)].to_be_bytes();
    let count = [&delta[..], &initial, &create].concat();
    let (opcode, extras, stored) = match kind {
        0..3 => ([0x00, 0x09, 0x0c, 0x0d][random.usize(..4)], vec![], vec![]),
        3..6 => ([0x01, 0x02, 0x03, 0x11, 0x12, 0x13][random.usize(..6)], put, stored),
        6..9 if is_number => ([0x05, 0x06, 0x15, 0x16][random.usize(..4)], count, vec![]),
        6..9 => ([0x0e, 0x0f, 0x19, 0x1a][random.usize(..4)], vec![], stored),
        9 => ([0x04, 0x14][random.usize(..2)], vec![], vec![]),
        10 => ([0x1c, 0x1d, 0x1e, 0x23, 0x24][random.usize(..5)], exptime.to_vec(), vec![]),
        // Of no meaning, or with parts that do not fit.
        _ => (random.u8(..0x30), vec![0; [0, 4, 8][random.usize(..3)]], vec![]),
    };
    let opcode = if UNLIKE.contains(&opcode) { 0x7f } else { opcode };
    // Memcached does not skip the body of a packet that it does not know.
    let known = opcode <= 0x24 && opcode != 0x1f && opcode != 0x20;
    let (key, extras) = if known { (key, extras) } else { (&b""[..], vec![]) };
    let compared = random.u8(..4) == 0 && !(0x1c..=0x24).contains(&opcode);
    let make = move |unique| packet(opcode, key, &extras, &stored, if compared { unique } else { 0 });
    let forgets = (0x1c..=0x24).contains(&opcode);
    Step { key: key.to_vec(), make: Box::new(make), wrong: random.bool(), forgets, binary: true }
}

/// Opcodes that are answered otherwise, see `docs/differences.md`: flush, version, stat, verbosity. The two quits, which
/// leave nothing to compare. And those of SASL with data, whose keys have rules of their own.
const UNLIKE: [u8; 10] = [0x07, 0x08, 0x0b, 0x10, 0x17, 0x18, 0x1b, 0x21, 0x22, 0x0a];
