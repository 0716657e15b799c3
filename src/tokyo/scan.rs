//! Walking through a file block by block, over whatever is damaged.
//!
//! A block is believed if its lengths keep within the file and lead to another block or to the file's end, and a
//! record also if its hash byte is that of its key: so a wild length is noticed where it stands, and costs that record
//! and not all that it reaches over. What a record leads to may also be a block but for its first byte, so that a byte
//! lost there does not cost the record in front of it. After damage only a record starts the walk anew, since a free block can prove less.

use std::io;
use std::ops::Range;

use super::error::Error;
use super::format::{FREE, HEADER_LEN, Layout, RECORD};
use super::header::{Header, Problem};
use super::window::{Bytes, Window};

/// Bytes of a free block's head.
const FREE_HEAD: usize = 5;
/// Most bytes of a record's head, with eight-byte children and five digits for each length.
const RECORD_HEAD: usize = 2 + 16 + 2 + 5 + 5;
/// Longest key; gateways send up to 64 KiB and a hash.
const KEY_LIMIT: u64 = 128 << 10;
/// A key up to this size is always looked at.
const SHORT_KEY: u64 = 1 << 10;
/// Bytes read and hashed for each byte of the file, at most, ...
const WORK_FACTOR: u64 = 8;
/// ... and these on top; a whole file takes about three.
const WORK_ALLOWED: u64 = 16 << 20;
/// Longest value: the largest message that a server can be configured to accept.
const VALUE_LIMIT: u64 = 1 << 30;

/// The parts of a file that were not recognised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Bytes stepped over.
    pub bytes: u64,
    /// Stretches that they form.
    pub stretches: u64,
}

/// The records of a file, one after another. Takes the memory of the largest record and a MiB.
pub(crate) struct Scan<B> {
    window: Window<B>,
    header: Header,
    at: u64,
    records: u64,
    damage: Damage,
    in_stretch: bool,
    /// Bytes of keys hashed.
    hashed: u64,
}

/// A block that can be believed.
struct Block {
    end: u64,
    /// Offset of a record's key, and the lengths of key and value.
    record: Option<(u64, usize, usize)>,
}

impl<B: Bytes> Scan<B> {
    /// Begins with the first record.
    pub(crate) fn new(source: B) -> Result<Self, Error> {
        let mut window = Window::new(source)?;
        let size = window.size();
        let mut header = Header::parse(window.at(0, HEADER_LEN)?, size)?;
        if header.file_size > size {
            header.problems.push(Problem::Truncated { bytes: header.file_size - size });
        }
        let at = if (HEADER_LEN as u64..size).contains(&header.first_record) {
            header.first_record
        } else {
            HEADER_LEN as u64
        };
        let mut scan = Self { window, header, at, records: 0, damage: Damage::default(), in_stretch: false, hashed: 0 };
        scan.settle_layout()?;
        Ok(scan)
    }

    /// The header.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Damage found so far.
    pub(crate) fn damage(&self) -> Damage {
        self.damage
    }

    /// The next record's key and value.
    pub(crate) fn next_record(&mut self) -> io::Result<Option<(&[u8], &[u8])>> {
        let Some((key, value)) = self.advance()? else { return Ok(None) };
        let len = key.end - key.start + value.end - value.start;
        let bytes = self.window.at(key.start, usize::try_from(len).unwrap_or(usize::MAX))?;
        let key_len = usize::try_from(key.end - key.start).unwrap_or(usize::MAX);
        Ok(bytes.split_at_checked(key_len))
    }

    /// Steps behind the next record; where its key and value are.
    fn advance(&mut self) -> io::Result<Option<(Range<u64>, Range<u64>)>> {
        while self.at < self.window.size() {
            match self.block(self.at, self.header.layout)? {
                Some(block) if block.record.is_some() || !self.in_stretch => {
                    self.at = block.end;
                    self.in_stretch = false;
                    let Some((key, key_len, value_len)) = block.record else { continue };
                    self.records += 1;
                    let value = key + key_len as u64;
                    return Ok(Some((key..value, value..value + value_len as u64)));
                }
                // What the file says is behind its end is only looked at while records are missing.
                _ if self.at >= self.header.file_size && self.records >= self.header.records => break,
                _ => self.skip_byte(),
            }
        }
        self.at = self.window.size();
        Ok(None)
    }

    fn skip_byte(&mut self) {
        self.at += 1;
        self.damage.bytes += 1;
        self.damage.stretches += u64::from(!self.in_stretch);
        self.in_stretch = true;
    }

    /// The block at `at`, if there is one that can be believed.
    fn block(&mut self, at: u64, layout: Layout) -> io::Result<Option<Block>> {
        match self.window.byte(at)? {
            Some(RECORD) => self.record(at, layout, !self.in_stretch),
            Some(FREE) => self.free_block(at, layout),
            _ => Ok(None),
        }
    }

    /// The record at `at`, whatever its first byte. `in_step`: what is behind it may have lost its first byte.
    fn record(&mut self, at: u64, layout: Layout, in_step: bool) -> io::Result<Option<Block>> {
        let Some(record) = head(self.window.at(at, RECORD_HEAD)?, layout) else { return Ok(None) };
        let key = at.saturating_add(record.len);
        let value = key.saturating_add(record.key);
        let end = value.saturating_add(record.value).saturating_add(record.padding);
        if record.key > KEY_LIMIT || record.value > VALUE_LIMIT || (record.key > SHORT_KEY && self.is_spent()) {
            return Ok(None);
        }
        if !self.is_end(end)? && (!in_step || !self.is_unmarked(end, layout)?) {
            return Ok(None);
        }
        let (Ok(key_len), Ok(value_len)) = (usize::try_from(record.key), usize::try_from(record.value)) else {
            return Ok(None);
        };
        self.hashed = self.hashed.saturating_add(record.key);
        let matches = hash_byte(self.window.at(key, key_len)?) == record.hash;
        Ok(matches.then_some(Block { end, record: Some((key, key_len, value_len)) }))
    }

    fn free_block(&mut self, at: u64, layout: Layout) -> io::Result<Option<Block>> {
        let len = self.window.at(at, FREE_HEAD)?.get(1..).map_or(0, |bytes| layout.number(bytes));
        let end = at.saturating_add(len);
        Ok((len >= FREE_HEAD as u64 && self.is_end(end)?).then_some(Block { end, record: None }))
    }

    /// Whether a block may end at `at`.
    fn is_end(&self, at: u64) -> io::Result<bool> {
        if at == self.window.size() || at == self.header.file_size {
            return Ok(at <= self.window.size());
        }
        Ok(at < self.window.size() && matches!(self.window.byte(at)?, Some(RECORD | FREE)))
    }

    /// Whether the rest of a block is at `at`, behind a first byte that is none of a block's.
    fn is_unmarked(&mut self, at: u64, layout: Layout) -> io::Result<bool> {
        if at >= self.window.size() || self.is_spent() {
            return Ok(false);
        }
        Ok(self.record(at, layout, false)?.is_some() || self.free_block(at, layout)?.is_some())
    }

    /// Bytes read and hashed so far.
    pub(super) fn work(&self) -> u64 {
        self.window.read().saturating_add(self.hashed)
    }

    /// Whether false heads have cost so much that the dear ones are not looked into any more: a file made of them must
    /// not take for ever.
    fn is_spent(&self) -> bool {
        self.work() > self.at.saturating_mul(WORK_FACTOR).saturating_add(WORK_ALLOWED)
    }

    /// If the first block is none by what the header says, perhaps it is one otherwise.
    fn settle_layout(&mut self) -> io::Result<()> {
        let Layout { big_endian, large } = self.header.layout;
        for layout in [
            Layout { big_endian, large },
            Layout { big_endian, large: !large },
            Layout { big_endian: !big_endian, large },
            Layout { big_endian: !big_endian, large: !large },
        ] {
            if self.block(self.at, layout)?.is_some_and(|block| block.record.is_some()) {
                self.header.layout = layout;
                break;
            }
        }
        Ok(())
    }
}

/// The fields in front of a record's key; lengths in bytes.
struct Head {
    len: u64,
    hash: u8,
    padding: u64,
    key: u64,
    value: u64,
}

fn head(bytes: &[u8], layout: Layout) -> Option<Head> {
    let (&hash, rest) = bytes.get(1..)?.split_first()?;
    let children = if layout.large { 16 } else { 8 };
    let (padding, mut rest) = rest.get(children..)?.split_at_checked(2)?;
    let key = length(&mut rest)?;
    let value = length(&mut rest)?;
    Some(Head { len: (bytes.len() - rest.len()) as u64, hash, padding: layout.number(padding), key, value })
}

/// Takes a length of variable size off the front.
fn length(bytes: &mut &[u8]) -> Option<u64> {
    let (mut value, mut base) = (0_u64, 1_u64);
    for _ in 0..5 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if byte < 128 {
            return Some(value + u64::from(byte) * base);
        }
        value += u64::from(255 - byte) * base;
        base *= 128;
    }
    None
}

/// The byte that a record keeps of its key's second hash.
pub(super) fn hash_byte(key: &[u8]) -> u8 {
    key.iter().rev().fold(239, |hash: u8, byte| hash.wrapping_mul(31) ^ byte)
}
