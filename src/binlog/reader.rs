//! Reading a binary log, also one that a crash or a full disk has damaged, or that still grows.

use std::io::{self, Read};

use super::record::{Entry, Value, text_of};
use crate::wire::Error;
use crate::wire::unpack;

/// Longest record: the largest message that a server can be configured to accept, and small fields.
const RECORD_LIMIT: usize = (1 << 30) + (1 << 16);

/// Most fields that a record's map may have; ours have eight.
const FIELDS_LIMIT: usize = 64;

/// Bytes of the length in front of a record.
const HEAD: usize = 4;

/// First byte of every record: an array of three.
const ARRAY_OF_THREE: u8 = 0x93;

/// Bytes read from a file at a time.
const CHUNK: u64 = 64 << 10;

/// Finds records in bytes as they come. What is none is stepped over, and counted.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// Bytes at the front of `bytes` that are done with.
    used: usize,
    skipped: u64,
    stretches: u64,
    in_stretch: bool,
}

/// The bytes at the decoder's place.
enum Found {
    Record(Entry, usize),
    NotYet,
    Damage,
}

impl Decoder {
    /// Adds bytes that follow those it has.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.used);
        self.used = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next record; `None` until more bytes are there.
    pub(crate) fn next_entry(&mut self) -> Option<Entry> {
        self.advance(false)
    }

    /// The next record when no more bytes will come: what is incomplete is damaged.
    pub(crate) fn next_at_end(&mut self) -> Option<Entry> {
        self.advance(true)
    }

    /// Bytes that belong to no record.
    pub fn skipped_bytes(&self) -> u64 {
        self.skipped
    }

    /// Stretches that those bytes form.
    pub(crate) fn damaged_stretches(&self) -> u64 {
        self.stretches
    }

    fn advance(&mut self, at_end: bool) -> Option<Entry> {
        loop {
            let rest = self.bytes.get(self.used..).unwrap_or_default();
            match look(rest) {
                Found::Record(entry, len) => {
                    self.used += len;
                    self.in_stretch = false;
                    return Some(entry);
                }
                Found::NotYet if !at_end || rest.is_empty() => return None,
                Found::NotYet | Found::Damage => {
                    self.used += 1;
                    self.skipped += 1;
                    self.stretches += u64::from(!self.in_stretch);
                    self.in_stretch = true;
                }
            }
        }
    }
}

fn look(bytes: &[u8]) -> Found {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Found::NotYet };
    let len = usize::try_from(u32::from_be_bytes(*head)).ok().filter(|len| (1..=RECORD_LIMIT).contains(len));
    let Some(len) = len else { return Found::Damage };
    match (rest.first(), rest.get(..len)) {
        (Some(&ARRAY_OF_THREE), Some(body)) => {
            parse(body).map_or(Found::Damage, |entry| Found::Record(entry, HEAD + len))
        }
        (Some(&ARRAY_OF_THREE) | None, None) => Found::NotYet,
        _ => Found::Damage,
    }
}

fn parse(body: &[u8]) -> Result<Entry, Error> {
    let mut reader = unpack::Reader::new(body);
    if reader.array()? != 3 {
        return Err(Error::Malformed);
    }
    let name = text_of(reader.u32()?);
    let version = reader.u32()?;
    let len = reader.map()?;
    if len > FIELDS_LIMIT {
        return Err(Error::Malformed);
    }
    let mut fields = Vec::with_capacity(len);
    for _ in 0..len {
        fields.push((text_of(reader.u32()?), value(&mut reader)?));
    }
    if reader.is_empty() { Ok(Entry { name, version, fields }) } else { Err(Error::Malformed) }
}

fn value(reader: &mut unpack::Reader<'_>) -> Result<Value, Error> {
    let mut ahead = *reader;
    if let Ok(number) = ahead.u64() {
        *reader = ahead;
        return Ok(Value::Uint(number));
    }
    let mut ahead = *reader;
    if let Ok(bytes) = ahead.raw() {
        *reader = ahead;
        return Ok(Value::Raw(bytes.to_vec()));
    }
    reader.skip().map(|bytes| Value::Other(bytes.to_vec()))
}

/// The records of a whole file.
#[derive(Debug)]
pub struct Entries<R> {
    file: R,
    decoder: Decoder,
    at_end: bool,
}

impl<R: Read> Entries<R> {
    /// Reads `file` from where it is.
    pub fn new(file: R) -> Self {
        Self { file, decoder: Decoder::default(), at_end: false }
    }

    /// The counts so far.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }
}

impl<R: Read> Iterator for Entries<R> {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.at_end {
                return self.decoder.next_at_end().map(Ok);
            }
            if let Some(entry) = self.decoder.next_entry() {
                return Some(Ok(entry));
            }
            let mut chunk = Vec::new();
            match self.file.by_ref().take(CHUNK).read_to_end(&mut chunk) {
                Ok(0) => self.at_end = true,
                Ok(_) => self.decoder.push(&chunk),
                Err(error) => {
                    self.at_end = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
