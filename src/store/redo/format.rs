//! The bytes of the redo log: headers, frames and entries, written and read back.
//!
//! It knows no files: others say where the bytes lie. All integers are little-endian.
//!
//! ```text
//! header    "kumoredo" | version u32 | crc u32 | store id u64 | number u64 | first sequence u64
//! frame     length u32 | crc u32 | first sequence u64 | count u32 | flags u32 | entries, length bytes
//! entry     kind u8 | generation u32 | key length u32 | value length u32 | raw key | raw value
//! ```
//!
//! One `write` makes one frame. Its checksum also covers the file's number, so a frame left over in a reused block is
//! not taken for one of this file. Entries carry no numbers: they count up from the frame's first.

/// First bytes of a redo log file.
const MAGIC: [u8; 8] = *b"kumoredo";
/// Format of the files.
const VERSION: u32 = 1;
/// Bytes before the first frame.
pub(in crate::store) const FILE_HEADER: usize = 40;
/// Bytes before a frame's entries.
pub(in crate::store) const FRAME_HEADER: usize = 24;
/// Bytes of a frame's length and checksum, which the checksum does not cover as such.
pub(super) const FRAME_SUMS: usize = 8;
/// Bytes before an entry's key.
const ENTRY_HEADER: usize = 13;
/// Flag of a frame: all files before this one are durable.
pub(super) const FLAG_EARLIER_DURABLE: u32 = 1;
/// Largest frame accepted when reading; writing stays far below.
pub(super) const FRAME_LIMIT: u64 = 1 << 30;

/// The change that an entry makes to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Kind {
    /// The record is this raw value now.
    Put,
    /// There is no record now.
    Remove,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::Remove => 2,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Put),
            2 => Some(Self::Remove),
            _ => None,
        }
    }
}

/// An entry to be written. The value comes in two parts, so that a clocktime need not be put in front of a copy.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Entry<'a> {
    pub(in crate::store) kind: Kind,
    pub(in crate::store) generation: u32,
    pub(in crate::store) key: &'a [u8],
    pub(in crate::store) head: &'a [u8],
    pub(in crate::store) body: &'a [u8],
}

impl Entry<'_> {
    /// Bytes it takes in the log.
    #[inline]
    pub(in crate::store) fn len(&self) -> usize {
        ENTRY_HEADER + self.key.len() + self.head.len() + self.body.len()
    }

    /// Appends it; `false` if a length does not fit its field.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> bool {
        let (Ok(key_len), Ok(value_len)) =
            (u32::try_from(self.key.len()), u32::try_from(self.head.len() + self.body.len()))
        else {
            return false;
        };
        let mut header = [0; ENTRY_HEADER];
        let (kind, rest) = header.split_at_mut(1);
        kind.copy_from_slice(&[self.kind.code()]);
        let (generation, rest) = rest.split_at_mut(4);
        generation.copy_from_slice(&self.generation.to_le_bytes());
        let (key, value) = rest.split_at_mut(4);
        key.copy_from_slice(&key_len.to_le_bytes());
        value.copy_from_slice(&value_len.to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.head);
        out.extend_from_slice(self.body);
        true
    }
}

/// An entry read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct ReadEntry<'a> {
    pub(in crate::store) kind: Kind,
    pub(in crate::store) generation: u32,
    pub(in crate::store) sequence: u64,
    pub(in crate::store) key: &'a [u8],
    pub(in crate::store) value: &'a [u8],
}

/// Takes a little-endian number off the front.
fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*number))
}

/// As [`take_u32`].
fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

/// Header of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) store_id: u64,
    pub(super) number: u64,
    pub(super) first: u64,
}

impl FileHeader {
    pub(super) fn encode(self) -> [u8; FILE_HEADER] {
        let mut tail = Vec::with_capacity(FILE_HEADER);
        for field in [self.store_id, self.number, self.first] {
            tail.extend_from_slice(&field.to_le_bytes());
        }
        let mut header = [0; FILE_HEADER];
        let bytes = MAGIC
            .into_iter()
            .chain(VERSION.to_le_bytes())
            .chain(crc32fast::hash(&tail).to_le_bytes())
            .chain(tail.iter().copied());
        for (place, byte) in header.iter_mut().zip(bytes) {
            *place = byte;
        }
        header
    }

    /// `None` if these are not the bytes of a whole header.
    pub(super) fn decode(bytes: &[u8; FILE_HEADER]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&MAGIC)?;
        let version = take_u32(&mut rest)?;
        let crc = take_u32(&mut rest)?;
        if version != VERSION || crc32fast::hash(rest) != crc {
            return None;
        }
        Some(Self { store_id: take_u64(&mut rest)?, number: take_u64(&mut rest)?, first: take_u64(&mut rest)? })
    }
}

/// Header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) length: u32,
    pub(super) crc: u32,
    pub(super) first: u64,
    pub(super) count: u32,
    pub(super) flags: u32,
}

impl FrameHeader {
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        Some(Self {
            length: take_u32(&mut bytes)?,
            crc: take_u32(&mut bytes)?,
            first: take_u64(&mut bytes)?,
            count: take_u32(&mut bytes)?,
            flags: take_u32(&mut bytes)?,
        })
    }
}

/// Checksum of a frame in file `number`: everything of it but length and checksum, and the length too.
pub(super) fn frame_crc(number: u64, length: u32, rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(rest);
    hasher.finalize()
}

/// Fills in the header of a frame whose first [`FRAME_HEADER`] bytes were left free. `false` if it is too long.
pub(super) fn seal_frame(frame: &mut [u8], number: u64, first: u64, count: u32, flags: u32) -> bool {
    let Some(length) = frame.len().checked_sub(FRAME_HEADER).and_then(|length| u32::try_from(length).ok()) else {
        return false;
    };
    let Some((sums, rest)) = frame.split_first_chunk_mut::<FRAME_SUMS>() else { return false };
    let fields = first.to_le_bytes().into_iter().chain(count.to_le_bytes()).chain(flags.to_le_bytes());
    for (place, byte) in rest.iter_mut().zip(fields) {
        *place = byte;
    }
    let crc = frame_crc(number, length, rest);
    for (place, byte) in sums.iter_mut().zip(length.to_le_bytes().into_iter().chain(crc.to_le_bytes())) {
        *place = byte;
    }
    true
}

/// Walks the entries of a checked frame; `false` if they do not add up.
pub(super) fn each_entry(payload: &[u8], first: u64, count: u32, mut see: impl FnMut(ReadEntry<'_>)) -> bool {
    let mut rest = payload;
    for index in 0..u64::from(count) {
        let Some(entry) = take_entry(&mut rest, first.wrapping_add(index)) else { return false };
        see(entry);
    }
    rest.is_empty()
}

fn take_entry<'a>(bytes: &mut &'a [u8], sequence: u64) -> Option<ReadEntry<'a>> {
    let (&code, rest) = bytes.split_first()?;
    let mut rest = rest;
    let kind = Kind::from_code(code)?;
    let generation = take_u32(&mut rest)?;
    let key_len = usize::try_from(take_u32(&mut rest)?).ok()?;
    let value_len = usize::try_from(take_u32(&mut rest)?).ok()?;
    let (key, rest) = rest.split_at_checked(key_len)?;
    let (value, rest) = rest.split_at_checked(value_len)?;
    *bytes = rest;
    Some(ReadEntry { kind, generation, sequence, key, value })
}
