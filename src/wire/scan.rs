//! Finding where a message ends while its bytes are still arriving.
//!
//! A scanner keeps its place between calls, so that a message that comes in a thousand pieces is looked at once, and
//! knows three answers: complete, not yet, broken. It reads no meaning; [`super::frame`] does.

use super::unpack::Head;
use super::{DEPTH_LIMIT, Error};

/// The place reached in one message that may be incomplete.
#[derive(Debug, Clone)]
pub struct Scanner {
    limit: usize,
    /// Bytes of the message that have been accounted for; may lie beyond what has arrived.
    at: usize,
    /// Elements still to come at each level of nesting, outermost first.
    open: [u64; DEPTH_LIMIT],
    depth: usize,
    started: bool,
}

impl Scanner {
    /// A scanner for messages of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, at: 0, open: [0; DEPTH_LIMIT], depth: 0, started: false }
    }

    /// From the next message on, takes messages of at most `limit` bytes.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Bytes that the message is known to need, at least.
    pub fn needed(&self) -> usize {
        self.at
    }

    /// Looks at `bytes`, which begin where the message begins and hold all that has arrived of it.
    ///
    /// Returns the length of the message when all of it is there (the scanner is then ready for the next one), and
    /// `None` when more bytes are needed.
    #[inline]
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        if !self.started
            && let Some(len) = whole(bytes).filter(|len| *len <= self.limit)
        {
            return Ok(Some(len));
        }
        self.step(bytes)
    }

    fn step(&mut self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        loop {
            if self.started && self.depth == 0 {
                if self.at > bytes.len() {
                    return Ok(None);
                }
                let len = self.at;
                *self = Self::new(self.limit);
                return Ok(Some(len));
            }
            let left = self.limit.saturating_sub(self.at);
            let too_long = |error| if let Error::TooLong(_) = error { Error::TooLong(self.limit) } else { error };
            let read = bytes.get(self.at..).map_or(Ok(None), |rest| Head::read(rest, left));
            let Some(head) = read.map_err(too_long)? else {
                // A marker must still fit when it comes.
                return if left == 0 { Err(Error::TooLong(self.limit)) } else { Ok(None) };
            };
            // Each child takes a byte at least: a count beyond the limit can be refused before anything arrives.
            if head.len > left || head.children > (left - head.len) as u64 {
                return Err(Error::TooLong(self.limit));
            }
            self.at += head.len;
            self.started = true;
            self.close_one();
            if head.children > 0 {
                *self.open.get_mut(self.depth).ok_or(Error::TooDeep)? = head.children;
                self.depth += 1;
            }
            self.unwind();
        }
    }

    /// Counts the object just read as an element of the innermost open array.
    #[inline]
    fn close_one(&mut self) {
        if let Some(innermost) = self.depth.checked_sub(1).and_then(|depth| self.open.get_mut(depth)) {
            *innermost = innermost.saturating_sub(1);
        }
    }

    /// Leaves the arrays that have got all their elements.
    #[inline]
    fn unwind(&mut self) {
        while let Some(depth) = self.depth.checked_sub(1) {
            if self.open.get(depth).is_some_and(|open| *open > 0) {
                break;
            }
            self.depth = depth;
        }
    }
}

/// The length of the message that `bytes` begin with, if all of it is there and it is made of what requests and answers
/// usually are: integers, byte strings, small arrays.
///
/// Nearly every message is of that kind, and this takes a third of the instructions of a scan that can be taken up again.
/// About everything else it says `None`: the scan decides.
#[inline]
fn whole(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut left, mut arrays) = (0usize, 1u32, 0);
    while left > 0 {
        left -= 1;
        let rest = bytes.get(at..)?;
        let len = match *rest.first()? {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 => 1,
            marker @ 0xa0..=0xbf => 1 + usize::from(marker & 0x1f),
            marker @ 0x90..=0x9f => {
                left += u32::from(marker & 0x0f);
                // No more than this many can be within each other.
                arrays += 1;
                if arrays > DEPTH_LIMIT {
                    return None;
                }
                1
            }
            0xcc => 2,
            0xcd => 3,
            0xce => 5,
            0xcf => 9,
            0xda => 3 + usize::from(u16::from_be_bytes(*rest.get(1..)?.first_chunk()?)),
            0xdb => usize::try_from(u32::from_be_bytes(*rest.get(1..)?.first_chunk()?)).ok()?.checked_add(5)?,
            _ => return None,
        };
        at = at.checked_add(len)?;
    }
    (at <= bytes.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_finds_the_same_end() {
        let message = [0x94, 0x00, 0x01, 0x22, 0x91, 0xa3, b'a', b'b', b'c', 0xc0];
        for cut in 0..9 {
            let mut scanner = Scanner::new(64);
            assert_eq!(scanner.advance(&message[..cut]), Ok(None), "{cut}");
            assert_eq!(scanner.advance(&message), Ok(Some(9)), "{cut}");
        }
    }

    #[test]
    fn a_message_that_is_all_there_ends_where_one_in_pieces_does() {
        let long = [&[0x92, 0xda, 0x01, 0x00][..], &[b'x'; 256], &[0xdb, 0, 0, 0, 2, 1, 2]].concat();
        for message in [
            &[0x94, 0x00, 0xce, 0, 0, 0, 7, 0x22, 0x93, 0x01, 0xa2, 0xff, 0xff, 0xcf, 1, 2, 3, 4, 5, 6, 7, 8][..],
            &[0x94, 0x01, 0xcd, 1, 2, 0xc0, 0xc3],
            &[0x93, 0xcc, 0xff, 0xa0, 0xc2],
            &[0x93, 0xe0, 0xd0, 0x80, 0xc4, 1, 0],
            &[0x91; 8],
            &[0x98, 0x90, 0x91, 0x90, 0x91, 0x91, 0x91, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90],
            &long,
        ] {
            let message = if message == [0x91; 8] { [message, &[0x05]].concat() } else { message.to_vec() };
            let mut in_pieces = Scanner::new(300);
            for cut in 1..message.len() {
                assert_eq!(in_pieces.advance(&message[..cut]), Ok(None), "{message:x?} {cut}");
                assert_eq!(Scanner::new(300).advance(&message[..cut]), Ok(None), "{message:x?} {cut}");
            }
            assert_eq!(in_pieces.advance(&message), Ok(Some(message.len())), "{message:x?}");
            let more = [&message[..], &[0xc1]].concat();
            assert_eq!(Scanner::new(300).advance(&more), Ok(Some(message.len())), "{message:x?}");
            let limit = message.len() - 1;
            assert_eq!(Scanner::new(limit).advance(&more), Err(Error::TooLong(limit)), "{message:x?}");
        }
    }

    #[test]
    fn an_empty_array_is_a_whole_message() {
        assert_eq!(Scanner::new(64).advance(&[0x90]), Ok(Some(1)));
        assert_eq!(Scanner::new(64).advance(&[0x92, 0x90, 0x00]), Ok(Some(3)));
    }

    #[test]
    fn a_declared_length_beyond_the_limit_is_refused_at_once() {
        assert_eq!(Scanner::new(64).advance(&[0xdb, 0xff, 0xff, 0xff, 0xff]), Err(Error::TooLong(64)));
        assert_eq!(Scanner::new(64).advance(&[0xdd, 0xff, 0xff, 0xff, 0xff]), Err(Error::TooLong(64)));
    }

    #[test]
    fn nesting_is_bounded() {
        assert_eq!(Scanner::new(9000).advance(&[0x91; 1000]), Err(Error::TooDeep));
    }

    #[test]
    fn markers_outside_the_dialect_are_refused() {
        for marker in [0xc1, 0xc7, 0xd4, 0xd8] {
            assert_eq!(Scanner::new(64).advance(&[0x91, marker]), Err(Error::Malformed), "{marker:x}");
        }
    }
}
