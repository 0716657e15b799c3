//! Inflating a stream and cutting it into records, in steps of bounded work and memory. No sockets, no runtime.

use flate2::{Decompress, FlushDecompress, Status};

use super::format::{Error, NIL};
use crate::wire::unpack::Reader;
use crate::wire::{self, RecordKey, RecordValue, Scanner};

/// Bytes inflated in one step: what a step costs is bounded however well its input was compressed.
const STEP: usize = 64 << 10;

/// The place reached in one stream.
#[derive(Debug)]
pub struct Decoder {
    inflate: Decompress,
    /// Inflated bytes that are not part of a whole record yet.
    plain: Vec<u8>,
    scanner: Scanner,
    records: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Records,
    /// The final nil has been read; the zlib stream must end now.
    Nil,
    /// The zlib stream has ended with a right checksum.
    Ended,
}

/// The effect of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that were used.
    pub consumed: usize,
    /// Bytes that were inflated. Zero, with nothing consumed: more input is needed.
    pub inflated: usize,
}

impl Decoder {
    /// A decoder for records of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            inflate: Decompress::new(true),
            plain: Vec::new(),
            scanner: Scanner::new(limit),
            records: 0,
            stage: Stage::Records,
        }
    }

    /// Records read so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Whether everything has been read and the checksum was right.
    pub(crate) fn is_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Inflates a bounded part of `input` and hands the records that became whole to `each`.
    pub fn step(&mut self, input: &[u8], mut each: impl FnMut(RecordKey<'_>, RecordValue<'_>)) -> Result<Step, Error> {
        if self.is_ended() {
            return Ok(Step { consumed: 0, inflated: 0 });
        }
        let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
        let held = self.plain.len();
        self.plain.resize(held + STEP, 0);
        let free = self.plain.get_mut(held..).unwrap_or_default();
        let status = self.inflate.decompress(input, free, FlushDecompress::None).map_err(|_| Error::Corrupt)?;
        let inflated = usize::try_from(self.inflate.total_out() - before_out).unwrap_or(0);
        let consumed = usize::try_from(self.inflate.total_in() - before_in).unwrap_or(0);
        self.plain.truncate(held + inflated);
        self.cut(&mut each)?;
        if status == Status::StreamEnd {
            if self.stage != Stage::Nil {
                return Err(Error::Truncated);
            }
            self.stage = Stage::Ended;
        }
        Ok(Step { consumed, inflated })
    }

    /// Takes the whole records off the front of `plain`.
    fn cut(&mut self, each: &mut impl FnMut(RecordKey<'_>, RecordValue<'_>)) -> Result<(), Error> {
        let mut rest = &self.plain[..];
        while !rest.is_empty() {
            if self.stage == Stage::Nil {
                return Err(Error::BehindEnd);
            }
            let Some(len) = self.scanner.advance(rest)? else { break };
            let (message, behind) = rest.split_at_checked(len).ok_or(wire::Error::Malformed)?;
            rest = behind;
            if message == [NIL] {
                self.stage = Stage::Nil;
            } else {
                let (key, value) = record(message)?;
                each(key, value);
                self.records += 1;
            }
        }
        let used = self.plain.len() - rest.len();
        self.plain.drain(..used);
        if used > STEP {
            self.plain.shrink_to(2 * STEP);
        }
        Ok(())
    }
}

/// `[raw key, raw value]`; a tombstone is taken too, although the original sends none.
fn record(message: &[u8]) -> Result<(RecordKey<'_>, RecordValue<'_>), wire::Error> {
    let mut reader = Reader::new(message);
    if reader.array()? < 2 {
        return Err(wire::Error::Malformed);
    }
    Ok((RecordKey::new(reader.raw()?)?, RecordValue::new(reader.raw()?)?))
}

#[cfg(test)]
mod tests;
