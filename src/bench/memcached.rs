//! The same requests to a memcached server or a gateway: text commands out, and their answers as a kumofs server would
//! give them, so that they are judged alike.
//!
//! A Get is `gets`, a Set is `ms` with the CAS unique in its answer, which plain `set` does not return, a Delete is
//! `delete`. Answers come in the order of the requests; several Gets may be one command.

use crate::clock::ClockTime;
use crate::wire::method::ErrorCode;
use crate::wire::{self, pack};

/// memcached counts its CAS uniques from 1, and the lowest clocktimes would be taken for later than high ones.
const COUNTER_BASE: u64 = 1 << 12;

/// Requests on their way out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer {
    /// Gets that follow one another are one command.
    pub(super) multiget: bool,
    /// A `gets` has been begun and not ended.
    open: bool,
}

impl Writer {
    pub(super) fn new(multiget: bool) -> Self {
        Self { multiget, open: false }
    }

    pub(super) fn get(&mut self, out: &mut Vec<u8>, key: &[u8]) {
        if !std::mem::replace(&mut self.open, true) {
            out.extend_from_slice(b"gets");
        }
        out.push(b' ');
        out.extend_from_slice(key);
        if !self.multiget {
            self.end(out);
        }
    }

    /// The first line of a write; `swap` is the clocktime it must find, 0 for none. The value follows, and a line end.
    pub(super) fn set(&mut self, out: &mut Vec<u8>, key: &[u8], len: usize, swap: Option<ClockTime>) {
        self.end(out);
        out.extend_from_slice(b"ms ");
        out.extend_from_slice(key);
        let condition = match swap {
            None => String::new(),
            Some(ClockTime(0)) => " ME".to_owned(),
            Some(clocktime) => format!(" C{}", unique(clocktime)),
        };
        out.extend_from_slice(format!(" {len} c{condition}\r\n").as_bytes());
    }

    pub(super) fn delete(&mut self, out: &mut Vec<u8>, key: &[u8]) {
        self.end(out);
        out.extend_from_slice(b"delete ");
        out.extend_from_slice(key);
        out.extend_from_slice(b"\r\n");
    }

    /// Ends a command that more keys might have been added to.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.open) {
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// A clocktime for a CAS unique: the same number, but for the small ones of a counter.
fn clocktime(unique: u64) -> ClockTime {
    ClockTime(if is_counter(unique) { unique.saturating_add(COUNTER_BASE) } else { unique })
}

fn unique(clocktime: ClockTime) -> u64 {
    if is_counter(clocktime.0) { clocktime.0.saturating_sub(COUNTER_BASE) } else { clocktime.0 }
}

/// Whether no clocktime of this age is as small.
fn is_counter(unique: u64) -> bool {
    u32::try_from(unique).is_ok()
}

/// A part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// The value of this key, as the result of a Get.
    Value(&'a [u8], &'a [u8]),
    /// The Gets of this command that have no value yet have none.
    End,
    /// The result of a write or of a command that failed.
    Result(Result<&'a [u8], ErrorCode>),
}

/// Hands the answers in `bytes` to `take`; the result is how many bytes they took. `scratch` is overwritten.
pub(super) fn answers(
    bytes: &[u8],
    scratch: &mut Vec<u8>,
    mut take: impl FnMut(Reply<'_>),
) -> Result<usize, wire::Error> {
    let mut used = 0;
    while let Some(rest) = bytes.get(used..) {
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { break };
        let (line, rest) = (rest.get(..end).unwrap_or_default(), rest.get(end + 2..).unwrap_or_default());
        let mut words = line.split(|byte| *byte == b' ');
        let mut taken = end + 2;
        scratch.clear();
        match words.next().unwrap_or_default() {
            b"VALUE" => {
                let key = words.next().unwrap_or_default();
                let mut numbers = words.map(number);
                let (Some(_), Some(len), Some(unique)) = (numbers.next(), numbers.next(), numbers.next()) else {
                    return Err(wire::Error::Malformed);
                };
                let (len, unique) = (usize::try_from(len?).map_err(|_| wire::Error::Malformed)?, unique?);
                let Some(data) = rest.get(..len).filter(|_| rest.len() >= len.saturating_add(2)) else { break };
                pack::raw_header(scratch, wire::record::VALUE_HEADER + len);
                scratch.extend_from_slice(&clocktime(unique).0.to_be_bytes());
                scratch.extend_from_slice(&[0, 0]);
                scratch.extend_from_slice(data);
                taken += len + 2;
                take(Reply::Value(key, scratch));
            }
            b"END" => take(Reply::End),
            b"HD" => {
                let unique = words.find_map(|word| word.strip_prefix(b"c")).ok_or(wire::Error::Malformed)?;
                pack::uint(scratch, clocktime(number(unique)?).0);
                take(Reply::Result(Ok(scratch)));
            }
            // Not as the swap demanded.
            b"EX" | b"NF" | b"NS" | b"NOT_FOUND" => {
                pack::bool(scratch, false);
                take(Reply::Result(Ok(scratch)));
            }
            b"DELETED" => {
                pack::bool(scratch, true);
                take(Reply::Result(Ok(scratch)));
            }
            b"SERVER_ERROR" | b"CLIENT_ERROR" | b"ERROR" => take(Reply::Result(Err(ErrorCode::Server))),
            _ => return Err(wire::Error::Malformed),
        }
        used += taken;
    }
    Ok(used)
}

fn number(word: &[u8]) -> Result<u64, wire::Error> {
    std::str::from_utf8(word).ok().and_then(|word| word.parse().ok()).ok_or(wire::Error::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(bytes: &[u8]) -> (Result<usize, wire::Error>, Vec<String>) {
        let (mut scratch, mut replies) = (Vec::new(), Vec::new());
        let used = answers(bytes, &mut scratch, |part| replies.push(format!("{part:?}")));
        (used, replies)
    }

    #[test]
    fn gets_that_follow_one_another_are_one_command() {
        for (multiget, expected) in [
            (true, "gets a b\r\nms c 1 c\r\nx\r\ngets d\r\ndelete e\r\n"),
            (false, "gets a\r\ngets b\r\nms c 1 c\r\nx\r\ngets d\r\ndelete e\r\n"),
        ] {
            let (mut writer, mut out) = (Writer::new(multiget), Vec::new());
            writer.get(&mut out, b"a");
            writer.get(&mut out, b"b");
            writer.set(&mut out, b"c", 1, None);
            out.extend_from_slice(b"x\r\n");
            writer.get(&mut out, b"d");
            writer.delete(&mut out, b"e");
            writer.end(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        let (mut writer, mut out) = (Writer::new(false), Vec::new());
        writer.set(&mut out, b"c", 1, Some(clocktime(7)));
        writer.set(&mut out, b"c", 1, Some(ClockTime(0)));
        assert_eq!(out, b"ms c 1 c C7\r\nms c 1 c ME\r\n");
    }

    #[test]
    fn answers_in_pieces_are_taken_when_they_are_whole() {
        let bytes = b"VALUE a 0 4 9\r\nab\r\n\r\nEND\r\nHD c9\r\nEX\r\nDELETED\r\nSERVER_ERROR x y\r\n";
        let (used, all) = replies(bytes);
        assert_eq!((used, all.len()), (Ok(bytes.len()), 6));
        assert!(all[0].starts_with("Value([97], ["), "{}", all[0]);
        for cut in 0..bytes.len() {
            let (used, first) = replies(&bytes[..cut]);
            let (rest, second) = replies(&bytes[used.unwrap()..]);
            assert_eq!((used.unwrap() + rest.unwrap(), [first, second].concat()), (bytes.len(), all.clone()), "{cut}");
        }
        assert_eq!(replies(b"HELLO\r\n").0, Err(wire::Error::Malformed));
        assert_eq!(replies(b"VALUE a 0 x 9\r\n").0, Err(wire::Error::Malformed));
    }
}
